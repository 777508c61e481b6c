"""Search for the settings that serve the data best, and see which of them matter."""
