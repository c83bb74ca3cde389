"""Choosing the ensemble: which candidates vote, and how, by the validation patients alone."""
