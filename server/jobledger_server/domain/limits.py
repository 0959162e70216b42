"""Limits that more than one package keeps to: each number stands once."""

MAX_ANSWER_BYTES = 3 * 1024 * 1024
"""What is gathered into one answer, a page or a claim, ends here; one item at least.

gRPC clients take 4 MiB by default.
"""

MAX_SCANNED_JOBS = 5_000
"""Jobs of the owner that one call of a list passes over at most, whether they pass its filters."""

LIST_SECONDS = 2
"""How long a list may take, once it is its turn."""
