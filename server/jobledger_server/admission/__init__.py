"""Admission: how much each caller, and all callers together, may have under way."""
