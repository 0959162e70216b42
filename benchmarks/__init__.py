"""Measures Jobledger: see docs/project/performance.md."""
