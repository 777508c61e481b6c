"""What a training came to: one page on one run, or on several side by side."""
