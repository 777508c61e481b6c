"""Know your data before spending hours on it: one page, and the same as JSON."""
