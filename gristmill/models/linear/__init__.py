"""Linear classifiers of texts over hashed n-grams of words."""
