"""fastText classifiers: their files, and an engine of our own that predicts on Arrow's buffers."""
