"""Commands that measure speed and memory; none of them is a test."""
