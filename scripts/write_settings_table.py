"""Writes the table of settings in `docs/operations.md` from the code, or compares it."""

import argparse
import sys
from pathlib import Path

from jobledger_server.cli.durations import duration_text
from jobledger_server.cli.options import DATABASE_SETTINGS
from jobledger_server.settings import Setting, all_settings

PAGE = Path(__file__).parents[1] / "docs/operations.md"

HEAD = "| flag | variable | default | meaning |\n| --- | --- | --- | --- |\n"


def table() -> str:
    """Return the table's rows."""
    rows = [_row(setting) for setting in (*DATABASE_SETTINGS, *all_settings())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(setting: Setting) -> tuple[str, str, str, str]:
    flag = f"`{setting.flag}`"
    if setting.kind == "switch":
        flag += f", `--no-{setting.flag.removeprefix('--')}`"
    return flag, f"`{setting.variable}`", _default(setting), setting.help


def _default(setting: Setting) -> str:
    match setting.kind:
        case _ if setting.default is None:
            return setting.none
        case "seconds":
            return f"{setting.default:g} seconds"
        case "duration":
            return f"`{duration_text(setting.default)}`"
        case "words":
            return ", ".join(f"`{word}`" for word in sorted(setting.default))
        case "count" | "part":
            return str(setting.default)
        case _:
            return f"`{setting.default}`"


def main() -> int:
    """Write the table into the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    before, head, rest = page.partition(HEAD)
    _, blank, after = rest.partition("\n\n")
    new = before + head + table().rstrip("\n") + blank + after
    if not arguments.check:
        PAGE.write_text(new, encoding="utf-8")
        return 0
    if page == new:
        return 0
    sys.stderr.write(
        f"The table of settings in {PAGE.name} is not what settings.py declares.\n"
        "Write it again with `make docs`.\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
