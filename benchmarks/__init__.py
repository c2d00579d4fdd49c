"""Figures of the platform, measured and printed: `python -m benchmarks`."""
