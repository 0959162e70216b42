"""The wheel holds the four packages and nothing else."""

import re
import subprocess
import sys
import tomllib
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.pages import ROOT

PROTOS = ROOT / "protos"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
METADATA = f"jobledger-{VERSION}.dist-info"
LINKS = ("v1", "internal", "rpc/keda")
PACKAGES = [
    "client/jobledger",
    "server/jobledger_server",
    "gateway/jobledger_gateway",
    "world/jobledger_world",
]

pytestmark = pytest.mark.timeout(600)


def names_in(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_top_level_names_of_the_wheel_are_the_projects_own(wheel: Path) -> None:
    assert {name.split("/")[0] for name in names_in(wheel)} == {
        "jobledger",
        "jobledger_server",
        "jobledger_gateway",
        "jobledger_world",
        METADATA,
    }


@pytest.mark.parametrize(
    "package", ["jobledger", "jobledger_server", "jobledger_gateway", "jobledger_world"]
)
def test_every_package_is_typed(wheel: Path, package: str) -> None:
    assert f"{package}/py.typed" in names_in(wheel)


def test_the_wheel_has_every_file_of_the_packages_and_no_tests(wheel: Path) -> None:
    shipped = {name for name in names_in(wheel) if ".dist-info/" not in name}
    expected = {
        str(path.relative_to((ROOT / package).parent))
        for package in PACKAGES
        # These three are links, which rglob follows on some Pythons only.
        for folder in (ROOT / package, *(ROOT / package / link for link in LINKS))
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    protos = {f"jobledger/protos/{path.relative_to(PROTOS)}" for path in PROTOS.rglob("*.proto")}
    assert "jobledger/protos/jobledger/v1/job.proto" in protos
    assert shipped == expected | protos
    ours = {name for name in shipped if not name.startswith("jobledger/testing/")}
    assert not [name for name in ours if "test" in name]


def test_a_wheel_that_is_built_from_the_sdist_holds_the_same(
    wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    subprocess.run(["tar", "-xf", sdist, "-C", tmp_path], check=True)
    source = tmp_path / sdist.name.removesuffix(".tar.gz")
    hatch = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(hatch, cwd=source, check=True)
    (again,) = tmp_path.glob("*.whl")
    assert names_in(again) == names_in(wheel)


def test_the_wheel_has_the_migrations(wheel: Path) -> None:
    migrations = [
        name.removeprefix("jobledger_server/sql/migrations/")
        for name in names_in(wheel)
        if name.startswith("jobledger_server/sql/migrations/")
    ]
    assert "env.py" in migrations
    assert [name for name in migrations if name.startswith("versions/0")]


def test_the_metadata_of_the_wheel_names_the_license_and_the_extras(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"{METADATA}/METADATA").decode())
        text = archive.read(f"{METADATA}/licenses/LICENSE").decode()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in text
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "cli",
        "server",
        "postgres",
        "jwt",
        "otel",
        "admin",
        "web",
        "testing",
    }
    bare = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split("[<>]", line)[0] for line in bare} == {
        "grpcio",
        "protobuf",
        "googleapis-common-protos",
        "grpcio-status",
        "msgspec",
    }
