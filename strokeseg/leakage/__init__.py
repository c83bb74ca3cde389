"""What a split by slice would have printed."""
