"""Several configs, several seeds, one table."""
