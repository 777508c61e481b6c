"""The run directory: files, checkpoints and records of one training."""
