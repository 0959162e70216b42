"""Builds the site in `.site/html` from the pages of `docs/`, strict about links.

The pages link to files of the repository. Those files are copied into the site, so that each link
works there too: pages as pages, other files as text. A link to a folder becomes its text.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
STAGED = ROOT / ".site/docs"
ALWAYS = ("CONTRIBUTING.md", "CHANGELOG.md")  # parts of the site's menu

_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\!)\[([^\[\]]*)\]\(([^()\s]+)\)")


def place(file: Path) -> Path | None:
    """Return where a file of the repository is in the site, or None for a folder."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS)
    if file.is_dir():
        return None
    path = Path("repository") / file.relative_to(ROOT)
    return path if file.suffix in {".md", ".svg"} else path.with_name(path.name + ".txt")


class Site:
    """The files that are copied; each page brings along what it links to."""

    def __init__(self) -> None:
        self._copied: set[Path] = set()

    def copy(self, file: Path) -> None:
        target = place(file)
        if target is None or target in self._copied or not file.exists():
            return
        self._copied.add(target)
        staged = STAGED / target
        staged.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != ".md":
            shutil.copyfile(file, staged)
            return
        pieces = _FENCE.split(file.read_text(encoding="utf-8"))
        # Every second piece is a fenced block.
        pieces[::2] = [
            _LINK.sub(lambda link: self._link(file, link), piece) for piece in pieces[::2]
        ]
        staged.write_text("".join(pieces), encoding="utf-8")

    def _link(self, page: Path, link: re.Match[str]) -> str:
        text, url = link.groups()
        path, _, anchor = url.partition("#")
        if not path or re.match(r"[a-z]+:", url):
            return link[0]
        file = (page.parent / path).resolve()
        if file.is_dir() and (file / "README.md").exists():
            file /= "README.md"
        target, here = place(file), place(page)
        if target is None or here is None:
            return text
        self.copy(file)
        return f"[{text}]({os.path.relpath(target, here.parent)}{'#' * bool(anchor)}{anchor})"


def main() -> int:
    """Copy the pages and build the site; the output is shown if something is wrong."""
    shutil.rmtree(STAGED, ignore_errors=True)
    site = Site()
    for file in sorted(DOCS.rglob("*")):
        if file.is_file():
            site.copy(file)
    for name in ALWAYS:
        site.copy(ROOT / name)
    zensical = Path(sys.executable).with_name("zensical")
    built = subprocess.run(
        [zensical, "build", "--clean", "--strict"],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        print(re.sub("\x1b\\[[0-9;]*m", "", built.stdout + built.stderr))
    else:
        print("the site is in .site/html")
    return built.returncode


if __name__ == "__main__":
    sys.exit(main())
