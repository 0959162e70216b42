"""What the project's files say of each other is true."""

import re
import tomllib

import pytest
import yaml

from tests.support.pages import ROOT

PROJECTS = {
    folder: tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))
    for folder in ("client", "server", "gateway", "world")
}
CLIENT = PROJECTS["client"]["project"]


def locked(lock: str, name: str) -> tuple[int, ...]:
    (version,) = re.findall(rf"^{name}==([\d.]+)", (ROOT / lock).read_text("utf-8"), re.MULTILINE)
    return tuple(map(int, version.split(".")))


def test_the_distributions_are_built_and_run_by_the_same_versions() -> None:
    for project in PROJECTS.values():
        assert project["build-system"] == PROJECTS["client"]["build-system"]
        assert project["project"]["requires-python"] == CLIENT["requires-python"]
        assert project["tool"]["hatch"]["version"]["path"] == "release/VERSION"


def test_each_distribution_has_the_license() -> None:
    """hatchling packs a copy: a link to a file would lead out of an sdist."""
    assert (ROOT / "release/LICENSE").read_text("utf-8") == (ROOT / "LICENSE").read_text("utf-8")


def test_the_protobuf_range_is_from_the_compilers_to_the_tested_version() -> None:
    (protobuf,) = (it for it in CLIENT["dependencies"] if it.startswith("protobuf"))
    low, high = re.fullmatch(r"protobuf>=([\d.]+),<(\d+)", protobuf).groups()
    generated = re.findall(
        r"^# Protobuf Python Version: (\d+)\.(\d+)",
        (ROOT / "generated/jobledger/v1/job_pb2.py").read_text("utf-8"),
        re.MULTILINE,
    )
    assert tuple(map(int, generated[0])) <= tuple(map(int, low.split(".")))
    assert locked("requirements.lock", "protobuf")[0] == int(high) - 1


@pytest.mark.parametrize("name", ["grpcio", "protobuf", "sqlalchemy", "asyncpg", "uvloop"])
def test_the_image_runs_what_the_tests_run(name: str) -> None:
    assert locked("requirements-image.lock", name) == locked("requirements.lock", name)


def test_locks_have_hashes_and_no_package_index() -> None:
    locks = list(ROOT.glob("requirements*.lock"))
    assert len(locks) == 3
    for lock in locks:
        text = lock.read_text("utf-8")
        assert "://" not in text
        assert "--hash=sha256:" in text


def test_ci_tests_the_client_and_workers_on_each_system_that_is_claimed() -> None:
    runners = {"POSIX :: Linux": "ubuntu", "MacOS": "macos"}
    claimed = [
        it.removeprefix("Operating System :: ")
        for it in CLIENT["classifiers"]
        if it.startswith("Operating System :: ")
    ]
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text("utf-8"))["jobs"]
    tested = {
        job["runs-on"].partition("-")[0]
        for job in jobs.values()
        if any(
            step.get("run") in ("make ${{ matrix.suite }}", "make test-client")
            for step in job["steps"]
        )
    }
    assert {runners[it] for it in claimed} == tested
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (recipe,) = re.findall(r"^test-client:.*\n\t(.*)", makefile, re.MULTILINE)
    assert {"tests/unit/client", "tests/e2e/client", "tests/e2e/worker"} <= set(recipe.split())
