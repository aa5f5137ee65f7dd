"""HTML pages before extraction: bounded in cost, mended where parsers disagree, and what extraction would lose rescued."""
