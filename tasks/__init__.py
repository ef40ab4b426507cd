"""One step of a run each: a call into the engine or a destination, its retry policy, and what the run page shows."""
