"""`build`, `plan` and `prune`."""
