"""The wheel and the sdist are built once; environments are installed from them and the lock."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.packaging.environments import UV, Environment, Install

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from this tree."""
    return build("wheel", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sdist, built from this tree."""
    return build("sdist", tmp_path_factory.mktemp("dist"))


def build(target: str, folder: Path) -> Path:
    hatch = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(hatch, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Return what makes the environments, each once."""

    @cache
    def install(extras: str, dist: Path = wheel) -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        venv = [str(UV), "venv", "--quiet", "--python", sys.executable, str(folder)]
        subprocess.run(venv, check=True)
        pip = [str(UV), "pip", "install", "--quiet", "--python", str(folder / "bin/python")]
        locked = ["-c", str(ROOT / "requirements.lock")]
        subprocess.run([*pip, *locked, f"jobledger{extras} @ {dist.as_uri()}"], check=True)
        return Environment(folder)

    return install
