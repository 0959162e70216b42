"""What the project's files say of each other is true."""

import re
import subprocess
import tomllib
from typing import Any

import pytest
from yaml import safe_load

from tests.support.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CLAIMED = re.findall(r":: (3\.\d+)$", "\n".join(PROJECT["project"]["classifiers"]), re.MULTILINE)


def locked(lock: str, name: str) -> tuple[int, ...]:
    (version,) = re.findall(rf"^{name}==([\d.]+)", (ROOT / lock).read_text("utf-8"), re.MULTILINE)
    return tuple(map(int, version.split(".")))


def test_every_python_version_in_the_classifiers_is_tested() -> None:
    """`make test-pythons` tests all but the one of .venv, which all other tests run on."""
    run = subprocess.run(
        ["make", "--no-print-directory", "--eval=claimed:; @echo $(CLAIMED_PYTHONS)", "claimed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == CLAIMED
    assert "\nmake test-pythons\n" in (ROOT / ".ci/run").read_text("utf-8")
    assert PROJECT["project"]["requires-python"] == f">={CLAIMED[0]}"


def test_the_image_has_a_python_version_of_the_classifiers() -> None:
    (python,) = re.findall(
        r"^ARG PYTHON=docker\.io/library/python:(3\.\d+)\.\d+-slim-\w+@sha256:[0-9a-f]{64}$",
        (ROOT / "Dockerfile").read_text("utf-8"),
        re.MULTILINE,
    )
    assert python in CLAIMED


def test_the_protobuf_range_is_from_the_compilers_to_the_tested_version() -> None:
    (protobuf,) = (it for it in PROJECT["project"]["dependencies"] if it.startswith("protobuf"))
    low, high = re.fullmatch(r"protobuf>=([\d.]+),<(\d+)", protobuf).groups()
    generated = re.findall(
        r"^# Protobuf Python Version: (\d+)\.(\d+)",
        (ROOT / "generated/jobledger/v1/job_pb2.py").read_text("utf-8"),
        re.MULTILINE,
    )
    assert tuple(map(int, generated[0])) <= tuple(map(int, low.split(".")))
    assert locked("requirements.lock", "protobuf")[0] == int(high) - 1


def grpc_ranges(requirements: list[str]) -> dict[str, str]:
    """Return the range of each of gRPC's own packages."""
    found = (re.match(r"(grpcio[\w-]*)(.*)", it) for it in requirements)
    return {match[1]: match[2] for match in found if match}


def test_only_the_server_holds_grpcio_back() -> None:
    """Decision 0036: what is wrong with a newer grpcio concerns only servers."""
    extras = PROJECT["project"]["optional-dependencies"]
    client = grpc_ranges([*PROJECT["project"]["dependencies"], *extras["cli"]])
    assert client.keys() == {"grpcio", "grpcio-status", "grpcio-health-checking"}
    assert set(client.values()) == {">=1.80"}
    server = grpc_ranges([*extras["server"], *extras["admin"]])
    assert "grpcio" in server
    assert all(it.endswith(",<1.84") for it in server.values())
    assert "\nmake test-newest\n" in (ROOT / ".ci/run").read_text("utf-8")


@pytest.mark.parametrize("name", ["grpcio", "protobuf", "sqlalchemy", "asyncpg", "uvloop"])
def test_the_image_runs_what_the_tests_run(name: str) -> None:
    assert locked("requirements-image.lock", name) == locked("requirements.lock", name)


def test_locks_have_hashes_and_no_package_index() -> None:
    locks = list(ROOT.glob("requirements*.lock"))
    assert len(locks) == len(list(ROOT.glob("*.lock"))) == 6
    for lock in locks:
        text = lock.read_text("utf-8")
        assert "://" not in text
        assert "--hash=sha256:" in text


def yaml(path: str) -> Any:
    return safe_load((ROOT / path).read_text("utf-8"))


def test_the_workflow_runs_the_tests_on_every_python_of_the_classifiers() -> None:
    workflow = yaml(".github/workflows/ci.yaml")
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == CLAIMED


def test_dependabot_watches_every_folder_that_names_versions() -> None:
    named = {
        f"/{folder}".rstrip("/")
        for update in yaml(".github/dependabot.yml")["updates"]
        for folder in (it.strip("/") for it in update.get("directories", [update.get("directory")]))
    }
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    names = (
        *("go.mod", "pom.xml", "package.json", "Cargo.toml"),
        *("requirements.txt", "Dockerfile", "action.yaml"),
    )
    assert named == {
        f"/{file.rpartition('/')[0]}".rstrip("/")
        for file in files
        if file.rpartition("/")[2] in names
    }


def test_every_form_for_issues_and_every_hook_is_complete() -> None:
    forms = list((ROOT / ".github/ISSUE_TEMPLATE").iterdir())
    assert forms
    for form in forms:
        assert {"name", "description", "body"} <= yaml(f".github/ISSUE_TEMPLATE/{form.name}").keys()
    (repo,) = yaml(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local", "hooks work without a network"
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
