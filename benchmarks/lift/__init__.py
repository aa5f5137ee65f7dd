"""Does selecting tokens help? A model trained on a corpus with planted noise, by each way of selecting, beside plain training.

Files in flow order: `documents.py` (clean documents, from the crawl that ships or from any build), `corpus.py` (parts, and noise
with known labels), `store.py` (as builds that the reader opens), `models.py`, `signals.py` (what base and reference say of each
token), `arms.py` (the ways of selecting), `training.py`, `judging.py` (losses on text that was held out), `table.py`.
"""
