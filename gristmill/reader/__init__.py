"""Builds opened for training: datasets, loaders, mixtures, packing, shuffling, selection at read time."""
