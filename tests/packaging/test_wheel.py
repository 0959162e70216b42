"""Each wheel holds one package and nothing else."""

import re
import subprocess
import sys
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.packaging.environments import DISTRIBUTIONS, VERSION, built
from tests.support.pages import ROOT

LINKS = ("v1", "internal", "protos", "rpc/keda")
KILOBYTE = 1000

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=DISTRIBUTIONS)
def folder(request: pytest.FixtureRequest) -> str:
    """Return each folder that is published."""
    return request.param


def wheel_of(wheels: Path, folder: str) -> Path:
    return wheels / f"{DISTRIBUTIONS[folder]}-{VERSION}-py3-none-any.whl"


def names_in(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata_of(wheel: Path) -> Message:
    (name,) = (name for name in names_in(wheel) if name.endswith(".dist-info/METADATA"))
    with ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(name).decode())


def required(metadata: Message) -> dict[str, str]:
    """Return what a bare install requires, and the versions of it."""
    lines = (line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line)
    return dict(re.fullmatch(r"([\w-]+)(.*)", line).groups() for line in lines)


def test_a_wheel_has_every_file_of_its_package_and_no_other(wheels: Path, folder: str) -> None:
    package = DISTRIBUTIONS[folder]
    wheel = wheel_of(wheels, folder)
    shipped = {name for name in names_in(wheel) if ".dist-info/" not in name}
    root = ROOT / folder / package
    assert shipped == {
        str(path.relative_to(ROOT / folder))
        # These are links, which rglob follows on some Pythons only.
        for each in (root, *(root / link for link in LINKS))
        for path in each.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    assert f"{package}/py.typed" in shipped
    ours = {name for name in shipped if not name.startswith("jobledger/testing/")}
    assert not [name for name in ours if "test" in name]


def test_a_wheel_that_is_built_from_an_sdist_is_the_same(
    wheels: Path, sdists: Path, folder: str, tmp_path: Path
) -> None:
    wheel = wheel_of(wheels, folder)
    source = tmp_path / f"{DISTRIBUTIONS[folder]}-{VERSION}"
    subprocess.run(["tar", "-xf", sdists / f"{source.name}.tar.gz", "-C", tmp_path], check=True)
    assert not [path for path in source.rglob("*") if path.is_symlink()]
    hatch = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(hatch, cwd=source, check=True)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_client_is_a_fraction_of_what_the_four_hold(wheels: Path) -> None:
    sizes = [wheel.stat().st_size for wheel in built(wheels)]
    client = wheel_of(wheels, "client").stat().st_size
    assert client < 450 * KILOBYTE
    assert client < 0.4 * sum(sizes)


def test_the_client_has_the_protos(wheels: Path) -> None:
    """For those who generate a client in another language."""
    assert "jobledger/protos/jobledger/v1/job.proto" in names_in(wheel_of(wheels, "client"))


def test_the_server_has_the_migrations(wheels: Path) -> None:
    migrations = [
        name.removeprefix("jobledger_server/sql/migrations/")
        for name in names_in(wheel_of(wheels, "server"))
        if name.startswith("jobledger_server/sql/migrations/")
    ]
    assert "env.py" in migrations
    assert [name for name in migrations if name.startswith("versions/0")]


def test_the_metadata_name_the_license_the_python_and_the_version(
    wheels: Path, folder: str
) -> None:
    wheel = wheel_of(wheels, folder)
    metadata = metadata_of(wheel)
    assert metadata["License-Expression"] == "Apache-2.0"
    with ZipFile(wheel) as archive:
        (name,) = (name for name in names_in(wheel) if name.endswith("/LICENSE"))
        assert "Apache License" in archive.read(name).decode()
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Version"] == VERSION


def test_the_others_require_the_client_of_their_own_version(wheels: Path) -> None:
    for folder in ("server", "gateway", "world"):
        assert required(metadata_of(wheel_of(wheels, folder)))["jobledger"] == f"=={VERSION}"


def test_the_client_requires_grpc_and_protobuf_and_has_the_extras(wheels: Path) -> None:
    metadata = metadata_of(wheel_of(wheels, "client"))
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
    assert required(metadata).keys() == {
        "grpcio",
        "protobuf",
        "googleapis-common-protos",
        "grpcio-status",
        "msgspec",
    }
