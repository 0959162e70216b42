"""The Dockerfile's own lines, run without Docker, make a service that starts."""

from pathlib import Path

import pytest

from tests.packaging.dockerfile import instructions
from tests.packaging.environments import Environment, serve_until_healthy
from tests.support.pages import ROOT

pytestmark = pytest.mark.timeout(600)

FIRST = [it for it in instructions() if it.stage == 1]
LAST = [it for it in instructions() if it.stage == 2]


def only(name: str) -> str:
    (rest,) = [it.rest for it in LAST if it.name == name]
    return rest


def test_the_first_stage_builds_an_environment_that_serves(image: Path, tmp_path: Path) -> None:
    built = Environment(image / "opt/jobledger")
    assert built.run("jobledger-server", "--help").returncode == 0
    serve_until_healthy(built, tmp_path)


def test_both_stages_have_the_same_python() -> None:
    images = [it.rest.split()[0] for it in instructions() if it.name == "FROM"]
    assert len(images) == 2
    assert len(set(images)) == 1, "the environment links to the Python that made it"


def test_it_runs_as_nobody_in_particular_and_stops_when_asked() -> None:
    assert only("USER") == "10001:10001"
    assert only("STOPSIGNAL") == "SIGTERM"
    assert only("VOLUME") == "/data"


def test_its_commands_are_commands_of_the_server(image: Path) -> None:
    built = Environment(image / "opt/jobledger")
    (entrypoint, cmd) = ([it for it in LAST if it.name == name] for name in ("ENTRYPOINT", "CMD"))
    assert entrypoint[0].words() == ["jobledger-server"]
    health = only("HEALTHCHECK").split("CMD ")[1]
    for command in (cmd[0].words(), ["health"]):
        run = built.run("jobledger-server", *command, "--help")
        assert run.returncode == 0, run.stderr
    assert health == '["jobledger-server", "health", "--target", "127.0.0.1:50051"]'


def test_everything_copied_passes_the_dockerignore() -> None:
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [source for it in FIRST if it.name == "COPY" for source in it.rest.split()[:-1]]
    assert copied
    assert {f"!{source}" for source in copied} <= set(allowed)
