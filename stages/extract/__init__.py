"""From markup to plain text."""
