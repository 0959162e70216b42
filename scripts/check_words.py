"""Finds words that the field does not use, and names the ones that it does.

Only prose is read: Markdown without its code and addresses; comments; in Python also docstrings
and the names of tests.
"""

import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A regular expression of what not to write, and what to write instead.
WORDS = {
    r"told|tells?|untold": "sent, delivered, reported; says",
    r"(?<!in )(?<!into )(?<!one )(?<!take )(?<!takes )places?": "sequence number; cursor; where",
    r"forgotten": "compacted",
    r"(?:looks?|looked|looking)(?! up)": "poll; read; see",
    r"hints?": "notification",
    r"home(?! director)|recogni[sz]es?d?": "database identity, verify identity",
    r"followers?|(?<!flow-control )windows?": "feed watcher, subscription; change buffer",
    r"bells?|rings?|silence": "wake-up event, set, close",
    r"openings|seekers?": "claim waiters, waiter",
    r"heeds?": "honors",
    r"retires?d?": "purge",
    r"away|faults?(?!-)|confused|farewell": "unavailable; programming error; protocol error",
    r"errands?|sightings?|hand-?overs?": "round trip, delivery, dispatch",
    r"an end|ends? (?:the|a|its|this) job|ended (?:the|a|its) job": "finishes the job",
    r"gives? (?:it |a job |jobs |them )?back|given back|falls? silent": "releases; lease expires",
    r"signs? of life": "heartbeat",
    r"figures?|room|houses?|paper": "metrics or numbers, package, architecture, doc",
    r"resting|(?<!encryption )at rest|spending|of course": "idle, CPU cost",
    r"for ever|forever|whoever|so many|seldomer|oftener": "indefinitely, any client, N",
    r"beside|other than loopback": "besides; off loopback",
    r"as ever": "as before",
    r"out of hand|in vain|by and by|meanwhile": "say it plainly",
}
PATTERNS = {re.compile(rf"\b(?:{word})\b", re.IGNORECASE): use for word, use in WORDS.items()}

_NOT_PROSE = re.compile(
    r"^ *```.*?^ *```$|<!--.*?-->|`[^`\n]+`|\]\([^()\s]+\)|https?://\S+", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"(?:^|\s)(?:#|//+|/?\*+)\s.*")
_STATEMENT_FOLLOWS = (tokenize.ENCODING, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)

CHECKED = (
    "*.md", "*.py", "*.proto", "*.sh", "Makefile", "Dockerfile",
    "*.cc", "*.h", "*.go", "*.java", "*.rs", "*.ts", "*.mjs", "*.toml", "*.yaml", "*.yml",
)  # fmt: skip
NOT_OURS = ("generated/", "client/jobledger/core/sync/", "examples/clients/googleapis/")


def blanked(match: re.Match[str]) -> str:
    """Return as much space, so that the numbers of lines stay."""
    return re.sub(r"[^\n]", " ", match[0])


def files() -> list[Path]:
    """Return every file of the repository to check, but those generated or made elsewhere."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *CHECKED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    ours = (name for name in listed.stdout.split() if not name.startswith(NOT_OURS))
    return [ROOT / name for name in ours if (ROOT / name).exists()]


def python_prose(text: str) -> str:
    """Return comments, docstrings (of attributes too) and names of tests, each on its line."""
    lines = [""] * (text.count("\n") + 2)
    last, last_name = tokenize.ENCODING, ""
    for kind, token, (row, _), _, _ in tokenize.generate_tokens(io.StringIO(text).readline):
        if kind == tokenize.COMMENT or (kind == tokenize.STRING and last in _STATEMENT_FOLLOWS):
            for number, line in enumerate(token.split("\n"), start=row - 1):
                lines[number] += line
        elif last_name == "def" and token.startswith("test_"):
            lines[row - 1] += token.replace("_", " ")
        if kind not in (tokenize.COMMENT, tokenize.NL):
            last, last_name = kind, token
    return "\n".join(lines)


def prose_of(path: Path) -> str:
    """Return the prose of a file, with everything else blanked or left out of its lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = python_prose(text)
    elif path.suffix != ".md":
        text = "\n".join("".join(_COMMENT.findall(line)) for line in text.split("\n"))
    return _NOT_PROSE.sub(blanked, text)


def found_in(prose: str) -> list[tuple[int, str, str]]:
    """Return what is found: the number of the line, the word, and what to write."""
    return sorted(
        (prose.count("\n", 0, match.start()) + 1, match[0], use)
        for pattern, use in PATTERNS.items()
        for match in pattern.finditer(prose)
    )


def main() -> int:
    """Print what was found; 1 if there was anything."""
    count = 0
    for path in files():
        for line, word, instead in found_in(prose_of(path)):
            count += 1
            print(f"{path.relative_to(ROOT)}:{line}: {word!r}; write: {instead}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
