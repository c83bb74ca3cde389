"""This process: signals, background timers, temporary folders, child processes."""
