"""Reference models and classifiers: what stages need of a model, and the models themselves."""
