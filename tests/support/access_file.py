"""Writes access files."""

from pathlib import Path


def write_access_file(path: Path, rules: str) -> None:
    """Write an access file with these rules, and with its last line."""
    path.write_text(f"{rules}\n[end]\n")
