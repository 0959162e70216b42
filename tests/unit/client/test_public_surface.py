"""The names of `jobledger`: one page, each imported when it is first used."""

import inspect
import subprocess
import sys

from jobledger import Admin, AsyncAdmin, AsyncClient, Client


def loaded_by(program):
    """Return the modules that a program loads, in an environment that has all of them."""
    run = subprocess.run(
        [sys.executable, "-c", f"{program}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


def test_errors_are_found_where_the_docs_say():
    found = subprocess.run(
        [sys.executable, "-c", "import jobledger; print(jobledger.errors.JobNotFound.__name__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "JobNotFound\n"


def parameters(client):
    return {
        name: str(inspect.signature(getattr(client, name))).partition(" -> ")[0]
        for name in dir(client)
        if not name.startswith("_") and callable(getattr(client, name))
    }


def test_both_clients_have_the_same_public_calls():
    only_async = {"open_work": "(self)"}  # a stream in both directions, as grpc.aio has it
    assert parameters(AsyncClient) == parameters(Client) | only_async
    assert parameters(AsyncAdmin) == parameters(Admin)


def test_the_calls_of_operators_are_in_admin_alone():
    operators = parameters(Admin).keys()
    assert {"pause_job_type", "set_concurrency_limit", "list_job_type_stats"} <= operators
    assert not operators & parameters(Client).keys()


def test_importing_the_package_loads_nothing_but_itself():
    loaded = loaded_by("import jobledger")
    assert "jobledger" in loaded
    assert not {name for name in loaded if name.startswith("jobledger.")}
    assert not loaded & {"grpc", "google.protobuf"}


def test_the_client_loads_neither_the_worker_library_nor_the_command_line():
    loaded = loaded_by("from jobledger import Client, AsyncClient, Job")
    ours = {name for name in loaded if name.startswith("jobledger.")}
    assert "jobledger.core.sync.client" in ours
    assert not {name for name in ours if name.startswith(("jobledger.worker", "jobledger.cli"))}
    roots = {name.partition(".")[0] for name in loaded}
    server = {"jobledger_server", "sqlalchemy", "alembic", "aiosqlite", "asyncpg", "uvloop"}
    assert not roots & (server | {"click", "rich"})


def test_messages_can_be_imported_without_the_client():
    loaded = loaded_by("import jobledger.v1.job_pb2")
    assert not {name for name in loaded if name.startswith(("jobledger.core", "grpc"))}
