"""Each install brings what it promises and no more."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from tests.packaging.environments import (
    UV,
    Environment,
    Install,
    constraints,
    health_of,
    serve_and_stop,
)
from tests.support.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

IMPORT_ALL_GENERATED = """
import importlib, pkgutil, jobledger.v1
names = [module.name for module in pkgutil.iter_modules(jobledger.v1.__path__)]
for name in names:
    importlib.import_module(f"jobledger.v1.{name}")
print(*names)
"""
CALL_THE_SERVER = """
import jobledger
job = jobledger.Job(id="a", job_type="b", parameters={"n": 42})
client = jobledger.Client("127.0.0.1:1", user_id="ada")
try:
    client.create_job("b", timeout=0.2)
except jobledger.JobledgerError as error:
    print("no server", int(jobledger.Job.from_proto(job.to_proto()).parameters["n"]))
"""
LIST_DISTRIBUTIONS = """
import importlib.metadata
print(*(found.name.lower() for found in importlib.metadata.distributions()))
"""
ONLY_FOR_OTHERS = {"sqlalchemy", "alembic", "aiosqlite", "asyncpg", "uvloop", "click", "rich"}


def own_packages(environment: Environment) -> set[str]:
    (packages,) = environment.folder.glob("lib/python*/site-packages")
    return {each.name for each in packages.glob("jobledger*") if ".dist-info" not in each.name}


def distributions(environment: Environment) -> set[str]:
    return set(environment.python(LIST_DISTRIBUTIONS).split())


@pytest.fixture(params=["wheels", "sdists"])
def dist(request: pytest.FixtureRequest) -> Path:
    """Return a folder with each kind of file that a release publishes."""
    return request.getfixturevalue(request.param)


def test_the_bare_install_is_the_client(install: Install, dist: Path) -> None:
    bare = install("", dist)
    assert not distributions(bare) & (ONLY_FOR_OTHERS | {"pip"})
    assert own_packages(bare) == {"jobledger"}
    assert {file.name for file in (bare.folder / "bin").glob("jobledger*")} == {"jobledger"}
    bare.python("import jobledger; jobledger.Client; jobledger.AsyncClient; jobledger.Worker")
    assert "job_service_pb2_grpc" in bare.python(IMPORT_ALL_GENERATED)


@pytest.mark.parametrize(
    "versions",
    [
        ["protobuf==5.26.1", "grpcio==1.63.2", "grpcio-status==1.63.2"],
        ["protobuf==5.29.*", "grpcio-status==1.71.*"],
        ["protobuf==6.*"],
        ["protobuf==7.*"],
    ],
)
def test_an_application_with_its_own_protobuf_can_install_the_client(
    wheels: Path, tmp_path: Path, versions: list[str]
) -> None:
    """Whatever else is newest; the first has the lowest versions that the client allows."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, tmp_path], check=True)
    pip = [str(UV), "pip", "install", "--quiet", "--python", str(tmp_path / "bin/python")]
    (client,) = wheels.glob("jobledger-*.whl")
    subprocess.run([*pip, f"jobledger @ {client.as_uri()}", *versions], check=True)
    application = Environment(tmp_path)
    assert "job_service_pb2_grpc" in application.python(IMPORT_ALL_GENERATED)
    assert application.python(CALL_THE_SERVER) == "no server 42\n"


def test_the_bare_install_says_what_its_program_needs(install: Install) -> None:
    run = install("").run("jobledger", "--help")
    assert run.returncode != 0
    assert "jobledger[cli]" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_command_line_installs_without_the_server(install: Install) -> None:
    cli = install("[cli]")
    assert distributions(cli) & ONLY_FOR_OTHERS == {"click", "rich"}
    assert own_packages(cli) == {"jobledger"}
    run = cli.run("jobledger", "--help")
    assert run.returncode == 0, run.stderr
    assert "watch" in run.stdout


def test_the_server_serves_on_sqlite_and_answers_for_its_health(
    install: Install, dist: Path, tmp_path: Path
) -> None:
    server = install("[server]", dist)
    assert "asyncpg" not in distributions(server)
    assert own_packages(server) == {"jobledger", "jobledger_server"}
    program = server.folder / "bin/jobledger-server"
    serve_and_stop([str(program)], tmp_path, {"PATH": str(program.parent)})


def test_the_server_serves_without_an_install(wheels: Path, tmp_path: Path) -> None:
    """`uvx jobledger-server serve`, as the README has it."""
    command = [str(UV), "tool", "run", *constraints(wheels), "jobledger-server"]
    serve_and_stop(command, tmp_path, os.environ)


def test_the_server_alone_serves_a_developer(install: Install, tmp_path: Path) -> None:
    """What stands in the place of the page is the command that brings it."""
    program = install("[server]").folder / "bin/jobledger-server"
    address = f"127.0.0.1:{free_port()}"
    command = [str(program), "dev", "--port", address.partition(":")[2]]
    with subprocess.Popen(
        command, cwd=tmp_path, env={"PATH": str(program.parent)}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert health_of(address) == HealthCheckResponse.SERVING
            process.send_signal(signal.SIGTERM)
            assert "none: pip install 'jobledger[web]' brings it" in process.communicate()[0]
        finally:
            process.kill()


def test_the_extra_web_is_the_gateway_and_the_command_line(install: Install) -> None:
    web = install("[web]")
    assert own_packages(web) == {"jobledger", "jobledger_gateway"}
    assert not distributions(web) & {"sqlalchemy", "alembic"}
    for program in ("jobledger", "jobledger-gateway"):
        assert web.run(program, "--help").returncode == 0


def test_the_postgres_install_is_the_server_and_the_driver(install: Install) -> None:
    postgres = install("[postgres]")
    assert {"asyncpg", "sqlalchemy", "aiosqlite", "click"} <= distributions(postgres)
    postgres.python("import asyncpg, sqlalchemy.dialects.postgresql.asyncpg")
    assert postgres.run("jobledger-server", "--help").returncode == 0
