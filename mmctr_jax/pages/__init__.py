"""Self-contained HTML pages: what is in the data (inspect), what trainings led to (report)."""
