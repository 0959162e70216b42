"""The glossary check finds words in what people read, and nowhere else."""

import runpy
from pathlib import Path

import pytest

from tests.support.pages import ROOT

CHECK = runpy.run_path(str(ROOT / "scripts/check_words.py"))

PYTHON = '''"""It is told."""
x = {
    "told": 1,  # It is told.
}
"""It is told."""


def test_it_is_told() -> None:
    told = "told"
'''


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("page.md", "told `told` [link](told)\n\n```\ntold\n```\n", [1]),
        ("code.py", PYTHON, [1, 3, 5, 8]),
        ("code.go", 'told("told")\nx() // It is told.\n/* It is told. */\n', [2, 3]),
        ("Makefile", "told:\n\techo told # It is told.\n", [2]),
    ],
)
def test_the_glossary_check_reads_only_prose(
    tmp_path: Path, name: str, text: str, lines: list[int]
) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    assert [line for line, *_ in CHECK["found_in"](CHECK["prose_of"](file))] == lines
