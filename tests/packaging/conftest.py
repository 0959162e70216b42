"""The wheel is built once; every environment is installed from it and from the lock."""

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
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.iterdir()
    return wheel


@pytest.fixture(scope="session")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Return what makes the environments, each once."""

    @cache
    def install(extras: str) -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        venv = [str(UV), "venv", "--quiet", "--python", sys.executable, str(folder)]
        subprocess.run(venv, check=True)
        pip = [str(UV), "pip", "install", "--quiet", "--python", str(folder / "bin/python")]
        locked = ["-c", str(ROOT / "requirements.lock")]
        subprocess.run([*pip, *locked, f"jobledger{extras} @ {wheel.as_uri()}"], check=True)
        return Environment(folder)

    return install
