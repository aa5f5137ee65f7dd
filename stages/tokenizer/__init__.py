"""Tokenizer schemes: training, encoding, measuring."""
