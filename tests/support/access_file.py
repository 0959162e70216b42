"""Writes access files."""

import hashlib
from pathlib import Path


def rule(name: str, rules: str, token: str | None = None) -> str:
    """Return the rule of a caller, whose token is its name unless it is given."""
    digest = hashlib.sha256((token or name).encode()).hexdigest()
    return f'[[caller]]\nname = "{name}"\ntoken_sha256 = "{digest}"\n{rules}\n'


def write_access_file(path: Path, rules: str) -> None:
    """Write an access file with these rules, and with its last line."""
    path.write_text(f"{rules}\n[end]\n")
