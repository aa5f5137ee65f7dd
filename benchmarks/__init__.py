"""Measurements, each beside its peer: `python -m benchmarks.NAME [--quick]`; one JSON line of ratios ends each."""
