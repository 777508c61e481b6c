"""Training: data, steps, the loop, validation."""
