"""What ships is built once; every environment is installed from that and from the lock."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from distribution.dockerfile import build


@dataclass(frozen=True)
class Environment:
    """A virtual environment with nothing in it but what an install of Jobledger brings."""

    folder: Path

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, with only this environment on the path."""
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            env={"PATH": str(self.folder / "bin"), "HOME": str(self.folder), **environ},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def python(self, program: str) -> str:
        """Run a program that must succeed and return what it writes."""
        run = self.run("python", "-W", "error", "-c", program)
        assert run.returncode == 0, run.stderr
        return run.stdout


Install = Callable[[str], Environment]
"""Installs `jobledger` with the extras given, for instance `[server]`, or with none."""


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file system of the Dockerfile's first stage."""
    root = tmp_path_factory.mktemp("image")
    build(root)
    return root


@pytest.fixture(scope="session")
def wheel(image: Path) -> Path:
    """Return the wheel that the first stage has built."""
    (wheel,) = (image / "dist").iterdir()
    return wheel


@pytest.fixture(scope="session")
def install(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Return what makes the environments, each once."""

    @cache
    def install(extras: str) -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        run = [sys.executable, "-m"]
        subprocess.run([*run, "venv", "--without-pip", str(folder)], check=True)
        pip = [*run, "pip", "--python", str(folder / "bin/python"), "install", "--quiet"]
        found = ["--no-index", "--find-links", str(image / "wheels")]
        found += ["--find-links", str(image / "dist")]
        subprocess.run([*pip, *found, f"jobledger{extras}"], check=True)
        return Environment(folder)

    return install
