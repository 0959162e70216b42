import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import jobledger_client
from jobledger_client import AsyncClient, AsyncReports, Client, Reports, _async, _sync

# What turns _async.py into _sync.py, and nothing else does.
TRANSLATIONS = (
    ("AsyncClient", "Client"),
    ("AsyncIterator", "Iterator"),
    ("AsyncReports", "Reports"),
    ("_reports_sync", "_reports"),
    ("async def", "def"),
    ("async with", "with"),
    ("for item in items(page):\n                yield item", "yield from items(page)"),
    ("async for", "for"),
    ("await ", ""),
    ("__aenter__", "__enter__"),
    ("__aexit__", "__exit__"),
    ("aclosing", "closing"),
    ("follow_async", "follow"),
    ("open_async_channel", "open_channel"),
    ("grpc.aio.", "grpc."),
    ("asyncio.Event", "threading.Event"),
    ("May be a coroutine function; what it", "What it"),
    (
        "Make it inside the running event loop that will use it, close it when done:\n",
        "Safe to share between threads. Close it when done:\n",
    ),
)


def translate(text):
    for theirs, ours in TRANSLATIONS:
        text = text.replace(theirs, ours)
    return re.sub(r"AsyncGenerator\[([\w.]+), None\]", r"Generator[\1, None, None]", text)


def class_tree(module, name):
    text = translate(Path(inspect.getsourcefile(module)).read_text(encoding="utf-8"))
    tree = ast.parse(text)
    return ast.dump(next(node for node in tree.body if getattr(node, "name", "") == name))


def test_the_public_names_are_sorted_and_exist():
    names = jobledger_client.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(jobledger_client, name) for name in names)


def test_both_clients_have_the_same_public_signatures():
    def signatures(client):
        return {
            name: translate(str(inspect.signature(getattr(client, name))))
            for name in dir(client)
            if not name.startswith("_") and callable(getattr(client, name))
        }

    assert signatures(AsyncClient) == signatures(Client)
    assert signatures(AsyncReports) == signatures(Reports)


def test_both_clients_are_the_same_text_but_for_await():
    assert class_tree(_async, "Client") == class_tree(_sync, "Client")


def test_every_public_method_says_what_it_does():
    for client in (AsyncClient, Client, AsyncReports, Reports):
        methods = [name for name in dir(client) if not name.startswith("_")]
        assert [name for name in methods if not inspect.getdoc(getattr(client, name))] == []


def test_importing_the_client_loads_nothing_that_only_others_need():
    """In an environment that has all of it."""
    program = "import jobledger_client, sys; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "jobledger_client" in loaded
    server = {"jobledger_server", "sqlalchemy", "alembic", "aiosqlite", "asyncpg", "uvloop"}
    assert not loaded & (server | {"click", "rich"})
