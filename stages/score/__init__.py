"""Scores for every token from reference models."""
