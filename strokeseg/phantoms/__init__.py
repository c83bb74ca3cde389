"""Simulated cases with stroke lesions, in the layout of SISS."""
