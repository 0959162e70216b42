"""Limits that more than one package keeps to: each number stands once."""

MAX_ANSWER_BYTES = 3 * 1024 * 1024
"""What is gathered into one answer, a page or a claim, ends here; one item at least.

gRPC clients take 4 MiB by default.
"""
