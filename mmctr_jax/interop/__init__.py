"""The released PyTorch checkpoint: its names for our parameters, and the way there and back."""
