"""Published data sets → the files that training takes."""
