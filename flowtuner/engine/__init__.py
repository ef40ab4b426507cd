"""The work: data, caches, models, the training loop and the process they live in."""
