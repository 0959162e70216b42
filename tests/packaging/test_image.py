"""The Dockerfile, built and run by buildah.

Where no registry of images can be reached, another image of the same Python takes the
base's part: Debian's packages, unpacked by mmdebstrap.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from tests.packaging.environments import health_of
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
BASE = "localhost/jobledger-test-python"
IMAGE = "localhost/jobledger-test"
PACKAGES = "ca-certificates,python-is-python3,python3,python3-venv"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
ISOLATED = ("--isolation", "chroot")  # needs neither cgroups nor a network of its own

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]


def buildah(*arguments: str, **options) -> str:
    """Run a command that must succeed, and return what it writes."""
    run = subprocess.run(
        ["buildah", *arguments], capture_output=True, text=True, check=False, **options
    )
    assert run.returncode == 0, f"buildah {' '.join(arguments)}\n{run.stdout}{run.stderr}"
    return run.stdout


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of an image with Debian's Python, made once on each machine."""
    if not buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        root = tmp_path_factory.mktemp("base") / "root.tar"
        debian = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
        subprocess.run([*debian, "trixie", root], check=True)
        container = buildah("from", "scratch").strip()
        buildah("add", container, str(root), "/")
        buildah("config", "--env", f"PIP_CERT={CERTIFICATES}", container)
        buildah("commit", "--rm", container, BASE)
        root.unlink()
    return BASE


@pytest.fixture(scope="session")
def image(base: str) -> str:
    """Return the name of the image that the Dockerfile makes."""
    arguments = {"PYTHON": base, "VERSION": "0.1.0", "REVISION": "f00d"}
    if "PIP_INDEX_URL" in os.environ:
        arguments["PIP_INDEX_URL"] = os.environ["PIP_INDEX_URL"]
    given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    certificates = f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"
    # Docker's format has health checks, OCI's has none.
    buildah(
        *("build", "--quiet", "--format=docker", *ISOLATED, certificates, *given),
        *("--tag", IMAGE, str(ROOT)),
    )
    return IMAGE


@pytest.fixture
def container(image: str) -> Iterator[str]:
    name = buildah("from", image).strip()
    yield name
    buildah("rm", name)


def output_of(container: str, folder: Path, *command: str) -> str:
    """Run a command in a container; return its output, of which buildah's own pipe loses some."""
    folder.chmod(0o777)
    shell = ["sh", "-c", '"$@" > /output/text', "sh"]
    buildah("run", *ISOLATED, f"--volume={folder}:/output", container, "--", *shell, *command)
    return (folder / "text").read_text(encoding="utf-8")


def configuration(image: str) -> dict[str, Any]:
    return json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]


def test_the_image_has_the_python_that_the_dockerfile_names(container: str, tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (named,) = re.findall(
        r"^ARG PYTHON=.*/python:(3\.\d+)\.\d+-.*@sha256:[0-9a-f]{64}$", text, re.MULTILINE
    )
    version = "import sys; print('%d.%d' % sys.version_info[:2])"
    assert output_of(container, tmp_path, "python", "-c", version).strip() == named


def test_the_image_has_its_labels(image: str) -> None:
    labels = configuration(image)["Labels"]
    labels = {name.removeprefix("org.opencontainers.image."): labels[name] for name in labels}
    assert labels.items() >= {
        ("title", "Jobledger"),
        ("licenses", "Apache-2.0"),
        ("version", "0.1.0"),
        ("revision", "f00d"),
        ("base.name", BASE),
    }


def test_the_image_has_the_locked_packages_and_no_build_tools(
    container: str, tmp_path: Path
) -> None:
    program = (
        "import importlib.metadata as m\n"
        "names = ((d.name.lower().replace('_', '-'), d.version) for d in m.distributions())\n"
        "print(*('=='.join(name) for name in names))"
    )
    installed = output_of(container, tmp_path, "python", "-c", program).split()
    lock = (ROOT / "requirements-image.lock").read_text(encoding="utf-8")
    locked = re.findall(r"^([\w-]+==\S+)", lock, re.MULTILINE)
    assert {"grpcio", "asyncpg", "prometheus-client"} <= {it.split("==")[0] for it in installed}
    assert {it for it in installed if not it.startswith("jobledger")} <= set(locked)
    assert "hatchling" not in " ".join(installed)
    assert not [it for it in installed if it.startswith("jobledger-world")]


def test_the_image_has_every_command_of_the_project(container: str, tmp_path: Path) -> None:
    for command in ("jobledger", "jobledger-server", "jobledger-gateway"):
        usage = output_of(container, tmp_path, command, "--help")
        assert usage.startswith(f"Usage: {command}")


def test_the_image_serves_as_an_unprivileged_user_is_healthy_and_stops_on_sigterm(
    image: str, container: str, tmp_path: Path
) -> None:
    config = configuration(image)
    assert (config["User"], config["StopSignal"]) == ("10001:10001", "SIGTERM")
    address = f"127.0.0.1:{free_port()}"
    buildah("config", "--env", f"JOBLEDGER_LISTEN={address}", container)
    run = ["buildah", "run", *ISOLATED, container, "--"]
    kind, *check = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    with subprocess.Popen([*run, *config["Entrypoint"], *config["Cmd"]]) as process:
        try:
            assert health_of(address) == HealthCheckResponse.SERVING
            assert subprocess.run([*run, *check], check=False).returncode == 0
            server = psutil.Process(process.pid).children(recursive=True)[-1]
            assert server.uids().real == 10001
            server.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
    assert subprocess.run([*run, *check], check=False).returncode != 0
    assert output_of(container, tmp_path, "ls", "/data").split()[0] == "jobledger.db"
