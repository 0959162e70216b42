"""The pages for people, taken apart: their links, their code, the commands that they show."""

import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
BACKUP = ROOT / "docs/operate/backup.md"
CLI = ROOT / "docs/guides/command-line.md"
DATABASES = ROOT / "docs/operate/databases.md"
DEPLOY = ROOT / "docs/operate/deploy.md"
OBSERVABILITY = ROOT / "docs/operate/observability.md"
QUICKSTART = ROOT / "docs/start/quickstart.md"
SECURITY = ROOT / "docs/operate/security.md"
SETTINGS = ROOT / "docs/reference/settings.md"
TUTORIAL = ROOT / "docs/start/tutorial.md"

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: the language that it names, and what stands in it."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines that the reader is shown behind a prompt."""
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[Block]:
    """Return the fenced blocks of a language, in order."""
    found = [Block(m[2], textwrap.dedent(m[3])) for m in _FENCE.finditer(text_of(page))]
    return [block for block in found if block.language == language]


def commands(page: Path) -> list[str]:
    return [command for block in blocks(page, "console") for command in block.commands]


def spans(page: Path) -> list[str]:
    """Return what stands between single backticks."""
    return _SPAN.findall(_FENCE.sub("", text_of(page)))


def links(page: Path) -> list[str]:
    return _LINK.findall(_SPAN.sub("", _FENCE.sub("", text_of(page))))


def anchors(page: Path) -> set[str]:
    """Return the names by which a link finds the page's headings, as GitHub makes them."""
    headings = _HEADING.findall(_FENCE.sub("", text_of(page)))
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {each.strip().replace(" ", "-") for each in words}
