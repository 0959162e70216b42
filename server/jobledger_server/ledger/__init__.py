"""Applies commands with group commit, serves claims, and batches reads."""
