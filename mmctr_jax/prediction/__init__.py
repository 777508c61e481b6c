"""Scoring rows with a trained model, from its run directory alone."""
