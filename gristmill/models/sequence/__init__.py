"""Sequence classifiers and regressors of transformers: BERT and its kin with a head that gives numbers for a whole text."""
