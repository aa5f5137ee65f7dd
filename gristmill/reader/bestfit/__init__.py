"""Rows of whole documents: which go together (fit), and keeping what was found (plan)."""
