"""Settings: what they are, how files and overrides become them, and how errors are explained."""
