"""Finds words in the docs that the field does not use, and names the ones that it does.

Only prose is read: no code, no addresses of links, no names of tests.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A regular expression of what not to write, and what to write instead.
WORDS = {
    r"told|tells?|untold": "sent, delivered, reported; says",
    r"(?<!in )(?<!into )(?<!one )(?<!take )(?<!takes )places?": "sequence number; cursor; where",
    r"forgotten": "compacted",
    r"looks?|looked|looking": "poll; read; see",
    r"hints?": "notification",
    r"home|recogni[sz]es?d?": "database identity, verify identity",
    r"followers?|(?<!flow-control )windows?": "feed watcher, subscription; change buffer",
    r"bells?|rings?|silence": "wake-up event, set, close",
    r"openings|seekers?": "claim waiters, waiter",
    r"heeds?": "honors",
    r"retires?d?": "purge",
    r"away|faults?|confused|farewell": "unavailable; programming error; protocol error",
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


def blanked(match: re.Match[str]) -> str:
    """Return as much space, so that the numbers of lines stay."""
    return re.sub(r"[^\n]", " ", match[0])


def pages() -> list[Path]:
    """Return every Markdown file of the repository but those made elsewhere."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).exists()]


def found_in(text: str) -> list[tuple[int, str, str]]:
    """Return what is found: the number of the line, the word, and what to write."""
    prose = _NOT_PROSE.sub(blanked, text)
    return sorted(
        (prose.count("\n", 0, match.start()) + 1, match[0], use)
        for pattern, use in PATTERNS.items()
        for match in pattern.finditer(prose)
    )


def main() -> int:
    """Print what was found; 1 if there was anything."""
    count = 0
    for page in pages():
        for line, word, instead in found_in(page.read_text(encoding="utf-8")):
            count += 1
            print(f"{page.relative_to(ROOT)}:{line}: {word!r}; write: {instead}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
