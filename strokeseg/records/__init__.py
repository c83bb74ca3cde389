"""What one stage writes and the next reads, and where it lies."""
