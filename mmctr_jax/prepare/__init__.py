"""Raw logs → the files that training takes."""
