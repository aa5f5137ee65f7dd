"""Learning merges: texts in batches, words counted, ids in a flat stream, the compiled trainer."""
