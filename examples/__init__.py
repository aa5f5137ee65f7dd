"""Examples that run: each is a command of the README."""
