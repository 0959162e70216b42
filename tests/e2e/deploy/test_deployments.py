"""What the manifests start, started here: the same commands and variables, on files of this test.

Only paths, addresses and the database differ. Probes are run as Kubernetes and Docker do.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from jobledger import Client, JobStatus
from tests.support.access_file import rule
from tests.support.authority import Authority
from tests.support.forked import Forked
from tests.support.manifests import (
    DEPLOY,
    KUBERNETES,
    documents,
    env_file,
    environment,
    of_kind,
    pods,
)
from tests.support.pages import DEPLOY as DEPLOY_PAGE
from tests.support.pages import Block, blocks
from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer

Probe = Sequence[str] | int
"""A command, or the port of a health check of gRPC."""

PATIENCE = 60
TOKEN = "a-token-of-this-test"
ACCESS = rule("test", 'roles = ["owner"]\nusers = ["*"]', TOKEN) + "[end]\n"


class Machine:
    """Folders of this test instead of those that the manifests name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports: dict[str, int] = {}
        authority = Authority()
        self.ca = authority.certificate
        pair = authority.issue(dns=("jobledger",))
        self.write("/tls/tls.crt", pair.certificate)
        self.write("/tls/tls.key", pair.key)
        self.write("/access/access.toml", ACCESS.encode())
        for data in ("/data", "/var/lib/jobledger"):
            self.path(data).mkdir(parents=True)

    def path(self, named: str) -> Path:
        return self.folder / named.lstrip("/")

    def write(self, named: str, content: bytes) -> None:
        self.path(named).parent.mkdir(parents=True, exist_ok=True)
        self.path(named).write_bytes(content)
        self.path(named).chmod(0o600)

    def port(self, shown: str) -> int:
        """Return a free port, always the same for one that a manifest names."""
        return self._ports.setdefault(shown, free_port())

    def adapted(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the variables with the paths and ports of this test."""
        adapted = {}
        for name, shown in variables.items():
            host, _, port = shown.rpartition(":")
            if shown.startswith("sqlite:////"):
                value = f"sqlite:///{self.path(shown.removeprefix('sqlite:///'))}"
            elif shown.startswith("/"):
                value = str(self.path(shown))
            elif port.isdigit():
                value = f"{host}:{self.port(port)}"
            else:
                value = shown
            adapted[name] = value
        return adapted

    def run(
        self,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        program: str = "jobledger-server",
    ) -> Forked:
        """Start a program with these arguments."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("JOBLEDGER_")}
        with Path(os.devnull).open("rb") as nothing, (self.folder / "log").open("ab") as log:
            return Forked(
                program,
                arguments,
                files=(nothing, log, log),
                env={**clean, **self.adapted(variables)},
                cwd=self.path("/data"),
            )

    def probe(self, health: Probe, variables: Mapping[str, str]) -> int:
        """Ask as an orchestrator does; return 0 if the server serves."""
        if isinstance(health, int):
            with grpc.insecure_channel(f"127.0.0.1:{self.port(str(health))}") as channel:
                try:
                    answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE)
                except grpc.RpcError:
                    return 1
                return int(answer.status != HealthCheckResponse.SERVING)
        process = self.run(health[1:], variables)
        assert health[0] == "jobledger-server"
        return process.wait(PATIENCE)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@contextmanager
def serving(
    machine: Machine,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    health: Probe,
) -> Iterator[None]:
    """Serve during the block, from the first time that the probe succeeds; drain on SIGTERM."""
    process = machine.run(arguments, variables)
    try:
        while machine.probe(health, variables) != 0:
            assert process.poll() is None, (machine.folder / "log").read_text("utf-8")
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def works(client: Client) -> None:
    job = client.create_job("render")
    assert client.get_job(job.id).status is JobStatus.QUEUED


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def probes(container: Any) -> list[int]:
    names = ("startupProbe", "readinessProbe", "livenessProbe")
    return [container[name]["grpc"]["port"] for name in names]


def test_kubernetes_on_postgresql(machine: Machine, postgres: PostgresServer) -> None:
    folder = KUBERNETES / "postgresql"
    machine.write("/database/url", postgres.create_database().encode())
    (job,) = of_kind(folder, "Job")
    migrate = job["spec"]["template"]["spec"]["containers"][0]
    (deployment,) = of_kind(folder, "Deployment")
    server = deployment["spec"]["template"]["spec"]["containers"][0]
    variables = environment(folder, server)
    # Started too early, it exits and says what is missing, and Kubernetes starts it again.
    assert machine.run(server["args"], variables).wait(PATIENCE) == 1
    assert machine.run(migrate["args"], environment(folder, migrate)).wait(PATIENCE) == 0
    startup, *others = probes(server)
    with serving(machine, server["args"], variables, startup):
        assert [machine.probe(each, variables) for each in others] == [0, 0]
        with named_client(machine) as client:
            works(client)
        assert "jobledger_jobs_created_total" in metrics(machine.port("9464"))


def test_kubernetes_on_sqlite(machine: Machine) -> None:
    folder = KUBERNETES / "sqlite"
    server = next(pods(folder))["spec"]["containers"][0]
    variables = environment(folder, server)
    for _ in range(2):  # what was written is there after a restart
        with (
            serving(machine, server["args"], variables, probes(server)[0]),
            named_client(machine) as client,
        ):
            works(client)
            jobs = list(client.list_jobs())
    assert len(jobs) == 2
    assert machine.path("/data/jobledger.db").exists()


@contextmanager
def named_client(machine: Machine) -> Iterator[Client]:
    """Yield a client that finds the server by the name in its certificate."""
    target = f"127.0.0.1:{machine.port('50051')}"
    name = [("grpc.ssl_target_name_override", "jobledger")]
    credentials = grpc.ssl_channel_credentials(machine.ca)
    with (
        grpc.secure_channel(target, credentials, name) as channel,
        Client(target, user_id="ada", token=TOKEN, channel=channel) as client,
    ):
        yield client


def test_kubernetes_in_a_service_mesh(machine: Machine) -> None:
    """Without TLS and access, as the component sets it: empty variables are not set."""
    (component,) = documents(KUBERNETES / "service-mesh/kustomization.yaml")
    (changed,) = component["configMapGenerator"]
    folder = KUBERNETES / "sqlite"
    server = next(pods(folder))["spec"]["containers"][0]
    merged = dict(each.split("=", 1) for each in changed["literals"])
    variables = environment(folder, server) | merged
    with (
        serving(machine, server["args"], variables, ["jobledger-server", "health"]),
        Client(f"127.0.0.1:{machine.port('50051')}", user_id="ada") as client,
    ):
        works(client)


def test_compose(machine: Machine, postgres: PostgresServer) -> None:
    (made,) = documents(DEPLOY / "compose.yaml")
    services = made["services"]
    machine.write("/run/secrets/database-url", postgres.create_database().encode())
    migrate, server = services["migrate"], services["jobledger"]
    assert machine.run(migrate["command"], migrate["environment"]).wait(PATIENCE) == 0
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text("utf-8")
    assert "exec jobledger-server health" in dockerfile
    with (
        serving(machine, server["command"], server["environment"], ["jobledger-server", "health"]),
        Client(f"127.0.0.1:{machine.port('50051')}", user_id="ada") as client,
    ):
        works(client)
        _gateway_works(machine, services["gateway"])


def _gateway_works(machine: Machine, service: Any) -> None:
    """Start the gateway, and ask its health as the image does."""
    command = [
        f"127.0.0.1:{machine.port(text.rpartition(':')[2])}" if ":" in text else text
        for text in service["command"]
    ]
    url = f"http://127.0.0.1:{machine.port('8080')}"
    variables = service["environment"]
    gateway = machine.run(command, variables, *service["entrypoint"])
    try:
        # As the image's check does.
        while machine.run(["health"], variables, "jobledger-gateway").wait(PATIENCE) != 0:
            assert gateway.poll() is None, (machine.folder / "log").read_text("utf-8")
        with urllib.request.urlopen(f"{url}/v1/jobs?user_id=ada", timeout=10) as answer:
            assert len(json.load(answer)["jobs"]) == 1
    finally:
        gateway.kill()
        gateway.wait()


def test_the_pages_commands_install_the_unit(machine: Machine) -> None:
    (block,) = [each for each in blocks(DEPLOY_PAGE, "console") if "systemctl" in each.text]
    copies = [line for line in block.commands if line.startswith("install ")]
    assert len(copies) == 2
    for line in copies:
        command = shlex.split(line.replace(" /etc/", f" {machine.path('/etc')}/"))
        subprocess.run(command, check=True, cwd=DEPLOY.parent)
    unit = machine.path("/etc/systemd/system/jobledger.service").read_text("utf-8")
    (line,) = (each for each in unit.splitlines() if each.startswith("EnvironmentFile="))
    assert machine.path(line.removeprefix("EnvironmentFile=-")).exists()


def secrets_made(block: Block, machine: Machine) -> dict[str, set[str]]:
    """Return the keys of the Secrets that a page's commands create, by their names.

    kubectl itself says so where it is installed; it needs no cluster for that.
    """
    kubectl = shutil.which("kubectl")
    made: dict[str, set[str]] = {}
    for line in block.commands:
        if " create secret " in line:
            _, *arguments = shlex.split(line)
            name, files = arguments[3], [each for each in arguments if "--from-file=" in each]
            made[name] = {file.removeprefix("--from-file=").partition("=")[0] for file in files}
            if kubectl is not None:
                dry = ["--dry-run=client", "-o", "json"]
                run = subprocess.run(
                    [kubectl, *arguments, *dry],
                    cwd=machine.path("/secrets"),
                    capture_output=True,
                    text=True,
                    check=True,
                )
                secret = json.loads(run.stdout)
                assert (secret["metadata"]["name"], set(secret["data"])) == (name, made[name])
    return made


def test_the_secrets_of_the_page_are_the_ones_that_the_manifests_mount(machine: Machine) -> None:
    (block,) = [each for each in blocks(DEPLOY_PAGE, "console") if "create secret" in each.text]
    for file in ("/tls/tls.crt", "/tls/tls.key", "/access/access.toml"):
        machine.write(f"/secrets/{Path(file).name}", machine.path(file).read_bytes())
    machine.write("/secrets/ca.crt", machine.path("/tls/tls.crt").read_bytes())
    machine.write("/secrets/database-url.txt", b"postgresql://u:p@db.example/jobledger")
    made = secrets_made(block, machine)
    folder = KUBERNETES / "postgresql"
    used: dict[str, set[str]] = {}
    for template in (*pods(folder), *pods(KUBERNETES / "gateway")):
        volumes = template["spec"]["volumes"]
        secrets = {v["name"]: v["secret"]["secretName"] for v in volumes if "secret" in v}
        for volume in volumes:
            for item in volume.get("secret", {}).get("items", ()):
                used.setdefault(secrets[volume["name"]], set()).add(item["key"])
        for container in template["spec"]["containers"]:
            variables = environment(folder, container).values()
            for mount in container["volumeMounts"]:
                if mount["name"] in secrets:
                    path = f"{mount['mountPath']}/"
                    files = {v.removeprefix(path) for v in variables if v.startswith(path)}
                    used.setdefault(secrets[mount["name"]], set()).update(files)
    assert made == used
    assert str(folder.relative_to(DEPLOY.parent)) in block.text


def test_systemd(machine: Machine) -> None:
    unit = (DEPLOY / "systemd/jobledger.service").read_text("utf-8")
    (line,) = (each for each in unit.splitlines() if each.startswith("ExecStart="))
    program, *arguments = shlex.split(line.removeprefix("ExecStart="))
    assert Path(program).name == "jobledger-server"
    variables = env_file(DEPLOY / "systemd/jobledger.env")
    with (
        serving(machine, arguments, variables, ["jobledger-server", "health"]),
        Client(f"127.0.0.1:{machine.port('50051')}", user_id="ada") as client,
    ):
        works(client)
        assert "jobledger_jobs_created_total" in metrics(machine.port("9464"))
    assert machine.path("/var/lib/jobledger/jobledger.db").exists()
