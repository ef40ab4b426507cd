"""What the engine costs over doing the same by hand: every figure a ratio or a count, measured in one run."""
