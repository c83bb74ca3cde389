"""Scoring an ensemble and its baselines on whole cases, and what the scores say together."""
