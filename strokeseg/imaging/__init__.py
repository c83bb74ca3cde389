"""Scans as arrays: reading, preparing, slicing, storing, splitting and scoring them."""
