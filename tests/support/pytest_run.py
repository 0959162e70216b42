"""Runs the tests of another project, as its users would."""

import os
from pathlib import Path
from subprocess import CompletedProcess

from tests.support import forked

PYTEST = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"

# The process is forked with anyio imported, which has a plugin, too.
WARNINGS = ("-W", "error", "-W", "ignore:Module already:pytest.PytestAssertRewriteWarning")


def run_pytest(folder: Path, *arguments: str) -> CompletedProcess[str]:
    """Run pytest in a folder. pytest-asyncio takes part if the arguments say so."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "JOBLEDGER"))}
    asyncio = () if "asyncio" in arguments else ("-p", "no:asyncio")
    options = ("-q", *WARNINGS, *asyncio, *arguments)
    # The time of the test that waits for this ends first.
    return forked.run("python", PYTEST, *options, env=environment, cwd=folder, timeout=600)
