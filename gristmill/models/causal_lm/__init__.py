"""A Hugging Face decoder as a reference model: what it predicts of tokens of its own vocabulary."""
