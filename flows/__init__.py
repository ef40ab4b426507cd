"""The order of steps, to be read as prose; each step is a task."""
