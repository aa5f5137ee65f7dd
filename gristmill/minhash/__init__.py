"""Near duplicates: words, folded shingles, signatures of MinHash and the clusters of verified pairs."""
