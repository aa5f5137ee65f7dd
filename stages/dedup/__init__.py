"""Global deduplication on the machine's exchange."""
