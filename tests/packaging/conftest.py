"""The wheels and the sdists are built once; environments are installed from them and the lock."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.packaging.environments import (
    DISTRIBUTIONS,
    ROOT,
    UV,
    Environment,
    Install,
    constraints,
)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheels, built from this tree."""
    return build("wheel", tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def sdists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdists, built from this tree."""
    return build("sdist", tmp_path_factory.mktemp("sdists"))


def build(target: str, folder: Path) -> Path:
    hatch = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    for each in DISTRIBUTIONS:
        subprocess.run(hatch, cwd=ROOT / each, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def install(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Return what makes the environments, each once."""

    @cache
    def install(extras: str, dist: Path = wheels) -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        venv = [str(UV), "venv", "--quiet", "--python", sys.executable, str(folder)]
        subprocess.run(venv, check=True)
        pip = [str(UV), "pip", "install", "--quiet", "--python", str(folder / "bin/python")]
        subprocess.run([*pip, *constraints(dist), f"jobledger{extras}"], check=True)
        return Environment(folder)

    return install
