"""Delivers changes to watches: in order, to many at once, from memory or from the table."""
