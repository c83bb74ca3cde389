"""Scoring an ensemble and its rivals on whole cases, and what the scores say together."""
