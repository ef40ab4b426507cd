"""What a run takes of memory, disk and time, found with a model that has no weights, in a process of its own."""
