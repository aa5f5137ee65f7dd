"""`train-classifier`: a classifier of texts from labelled documents."""
