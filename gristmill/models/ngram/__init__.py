"""N-gram models over token ids: estimated, stored, looked up."""
