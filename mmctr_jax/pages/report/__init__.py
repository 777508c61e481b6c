"""What trainings achieved: one page on one run, or on several side by side."""
