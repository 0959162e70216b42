"""What ships is built once; every environment is installed from that and from the lock."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.packaging.dockerfile import build
from tests.packaging.environments import Environment, Install


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
