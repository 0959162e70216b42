"""Writes the pages of `docs/reference/`, or compares them: `python -m scripts.reference --check`.

Some pages are made as a whole, of others a table. Each comes from one source: the protos, the
docstrings, `--help`, the settings, the limits, the error reasons, the metrics. The site's menu in
`zensical.toml` lists the pages of the classes.
"""

import argparse
import sys
from pathlib import Path

from scripts.reference import command_line, grpc_api, python_api, tables

PAGES = Path(__file__).parents[2] / "docs/reference"
MENU = "../../zensical.toml"  # the menu of the site names each page of a class


def made() -> dict[str, str]:
    """Return the text that each page should have, by its name."""
    classes = python_api.pages()
    pages = {
        "grpc-api.md": grpc_api.page(),
        "cli.md": command_line.page(),
    } | classes
    names = [name for name in classes if name.startswith("python/")]
    pages[MENU] = python_api.in_menu((PAGES / MENU).read_text(encoding="utf-8"), names)
    for name, parts in tables.TABLES.items():
        pages[name] = (PAGES / name).read_text(encoding="utf-8")
        for head, rows in parts:
            pages[name] = tables.with_table(pages[name], head, rows())
    return pages


def main() -> int:
    """Write the pages, or name those that differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    pages = made()
    # The page of a class that is no more.
    stale = [file.relative_to(PAGES).as_posix() for file in PAGES.glob("python/*.md")]
    stale = [name for name in stale if name not in pages]
    if not arguments.check:
        for name in stale:
            (PAGES / name).unlink()
        stale = []
        (PAGES / "python").mkdir(exist_ok=True)
    for name, text in pages.items():
        file = PAGES / name
        if not arguments.check:
            file.write_text(text, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        sys.stderr.write(
            f"docs/reference/ differs from the code: {', '.join(stale)}. Run `make docs`.\n"
        )
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
