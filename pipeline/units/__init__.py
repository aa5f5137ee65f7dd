"""One unit of work in one process: documents through fused stages, what becomes of each, and what is committed."""
