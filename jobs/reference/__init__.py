"""`train-reference`."""
