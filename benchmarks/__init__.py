"""Measures Jobledger: see docs/performance.md."""
