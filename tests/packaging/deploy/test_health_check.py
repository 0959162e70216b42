"""The health check of the image asks what the container runs."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.pages import ROOT

UNSHARE = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"]
"""Runs a command as the process 1 of its own, as in a container."""


def is_unshare_permitted() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not is_unshare_permitted(), reason="needs namespaces of its own")
@pytest.mark.parametrize(
    ("entrypoint", "asked"),
    [
        (["jobledger-server", "serve"], "jobledger-server health"),
        (["jobledger-server", "migrate"], "jobledger-server health"),
        (["jobledger-gateway", "--insecure"], "jobledger-gateway health"),
    ],
)
def test_the_health_check_asks_what_the_container_runs(
    entrypoint: list[str], asked: str, tmp_path: Path
) -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    (found,) = re.findall(r"^HEALTHCHECK .*? CMD (\[.*\])$", text, re.MULTILINE)
    check = [f"'{word}'" for word in json.loads(found)]
    for name in ("jobledger-server", "jobledger-gateway"):
        program = tmp_path / name
        # Asked for its health it says its name; else it serves until the check has ended.
        serves = f"{' '.join(check)}; exit $?"
        program.write_text(f'#!/bin/sh\n[ "$1" != health ] || exec echo {name} health\n{serves}\n')
        program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*UNSHARE, *entrypoint], capture_output=True, text=True, check=False, env=path
    )
    assert (done.returncode, done.stdout.strip()) == (0, asked), done.stderr
