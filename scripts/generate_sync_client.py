"""Generates the blocking client, `client/jobledger/core/sync`, from the asyncio one, `core/aio`.

Replaces whole words; what really differs, threads and streams, is written by hand for both.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "client/jobledger/core/aio"
TARGET = ROOT / "client/jobledger/core/sync"

HEADER = "# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.\n"
REPLACEMENTS = (
    (r"async (def|for|with)\b", r"\1"),
    (r"await ", ""),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"__aiter__", "__iter__"),
    (r"__anext__", "__next__"),
    (r"\banext\b", "next"),
    (r"grpc\.aio\.ClientInterceptor", "Interceptor"),
    (r"grpc\.aio\.UnaryStreamCall\[Any, ResponseT\]", "Call[ResponseT]"),
    (r"grpc\.aio\.", "grpc."),
    (r"core\.aio\b", "core.sync"),
    (r"Awaitable\[((?:\w+)(?:\[[\w, ]+\])?)\]", r"\1"),
    (r"Awaitable, ", ""),
    (r",\s+WorkOpener\b", ""),  # only for asyncio
    (r"\bAsync(?=[A-Z])", ""),
    (r"(\w+)_async\b", r"\1"),
    (r"open_async_", "open_"),
    (r"asyncio\.Event", "threading.Event"),
    (r"^import asyncio$", "import threading"),
    (r"AsyncClient: the service, for asyncio\.", "Client: the service, for blocking code."),
    (
        r"It connects with its first call, and belongs to the event loop that makes it\.",
        "It connects with its first call, and may be shared between threads.",
    ),
    (r"\s+May be a coroutine\s+function\.", ""),
)
# For these sentences a word of the replacements above is wrong.
LAST = ((r"the service, for asyncio", "the service, for blocking code"),)


def translate(source: str) -> str:
    """Return the blocking form of a module's text."""
    for pattern, replacement in (*REPLACEMENTS, *LAST):
        source = re.sub(pattern, replacement, source, flags=re.MULTILINE)
    return HEADER + source


def generate(target: Path) -> None:
    """Write the blocking modules into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(SOURCE.glob("*.py")):
        (target / file.name).write_text(translate(file.read_text("utf-8")), "utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    config = f"--config={ROOT / 'pyproject.toml'}"
    subprocess.run(
        [*ruff, "check", config, "--quiet", "--fix", "--select=I,F401", target], check=True
    )
    subprocess.run([*ruff, "format", config, "--quiet", target], check=True)


if __name__ == "__main__":
    generate(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else TARGET)
