"""Hyperparameter search over one axis: Ray Tune runs the trials, Optuna proposes them."""
