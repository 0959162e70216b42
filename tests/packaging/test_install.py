"""Each install brings what it promises and no more."""

from pathlib import Path

import pytest

from tests.packaging.environments import Environment, Install, serve_and_stop

pytestmark = pytest.mark.timeout(600)

IMPORT_ALL_GENERATED = """
import importlib, pkgutil, jobledger.v1
names = [module.name for module in pkgutil.iter_modules(jobledger.v1.__path__)]
for name in names:
    importlib.import_module(f"jobledger.v1.{name}")
print(*names)
"""
LIST_DISTRIBUTIONS = """
import importlib.metadata
print(*(found.name.lower() for found in importlib.metadata.distributions()))
"""
ONLY_FOR_OTHERS = {"sqlalchemy", "alembic", "aiosqlite", "asyncpg", "uvloop", "click", "rich"}


def distributions(environment: Environment) -> set[str]:
    return set(environment.python(LIST_DISTRIBUTIONS).split())


def test_the_bare_install_is_the_client(install: Install) -> None:
    bare = install("")
    assert not distributions(bare) & (ONLY_FOR_OTHERS | {"pip"})
    bare.python("import jobledger; jobledger.Client; jobledger.AsyncClient")
    assert "job_service_pb2_grpc" in bare.python(IMPORT_ALL_GENERATED)


def test_the_bare_install_says_what_its_programs_need(install: Install) -> None:
    bare = install("")
    for program, extra in (("jobledger", "cli"), ("jobledger-server", "server")):
        run = bare.run(program, "--help")
        assert run.returncode != 0
        assert f"jobledger[{extra}]" in run.stderr
        assert "Traceback" not in run.stderr


def test_the_command_line_installs_without_the_server(install: Install) -> None:
    cli = install("[cli]")
    assert distributions(cli) & ONLY_FOR_OTHERS == {"click", "rich"}
    run = cli.run("jobledger", "--help")
    assert run.returncode == 0, run.stderr
    assert "watch" in run.stdout
    server = cli.run("jobledger-server", "--help")
    assert server.returncode != 0
    assert "jobledger[server]" in server.stderr
    assert "Traceback" not in server.stderr


def test_the_server_serves_on_sqlite_and_answers_for_its_health(
    install: Install, tmp_path: Path
) -> None:
    server = install("[server]")
    assert "asyncpg" not in distributions(server)
    assert server.run("jobledger-server", "--help").returncode == 0
    serve_and_stop(server, tmp_path)


def test_the_postgres_install_is_the_server_and_the_driver(install: Install) -> None:
    postgres = install("[postgres]")
    assert {"asyncpg", "sqlalchemy", "aiosqlite", "click"} <= distributions(postgres)
    postgres.python("import asyncpg, sqlalchemy.dialects.postgresql.asyncpg")
    assert postgres.run("jobledger-server", "--help").returncode == 0
