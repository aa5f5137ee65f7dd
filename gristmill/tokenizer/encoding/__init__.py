"""Pieces of text to ids, compiled: tables from a vocabulary, the loops over them, a check against the Hugging Face library."""
