"""The pytest plugin in an install of the wheel: with the extra `testing`, and without."""

import subprocess
from pathlib import Path

import pytest

from tests.packaging.environments import UV, Environment, Install

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TESTS = """
from jobledger import Client


def test_without_a_server():
    pass


def test_with_a_server(jobledger_server):
    with Client(jobledger_server.target, user_id="ada") as client:
        assert client.create_job("render").attempt == 0
"""


def run_pytest(
    environment: Environment, tmp_path: Path, **environ: str
) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "test_render.py").write_text(TESTS)
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path))
    return environment.run("python", *arguments, str(tmp_path), **environ)


def test_the_extra_brings_pytest_and_a_server(install: Install, tmp_path: Path) -> None:
    run = run_pytest(install("[testing]"), tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


def test_without_the_extra_the_plugin_breaks_no_other_test_and_says_what_to_install(
    install: Install, tmp_path: Path
) -> None:
    bare = install("")
    pip = [str(UV), "pip", "install", "--quiet", "--python", str(bare.folder / "bin/python")]
    # Outside the environment, which other tests share.
    subprocess.run([*pip, "--target", str(tmp_path / "pytest"), "pytest"], check=True)
    run = run_pytest(bare, tmp_path, PYTHONPATH=str(tmp_path / "pytest"))
    assert "1 passed, 1 error" in run.stdout, run.stdout + run.stderr
    assert "pip install 'jobledger[testing]'" in run.stdout
