"""Pauses, limits and defaults in the database: versions, marks, rows, and how they are found."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import asdict
from sqlalchemy import event

from jobledger_server.check.invariants import violations
from jobledger_server.domain.commands import Claim, Create
from jobledger_server.domain.job import Micros
from jobledger_server.domain.type_defaults import NO_DEFAULTS, TypeDefaults
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.unblocking import unblock
from jobledger_server.queue_store import Limit
from jobledger_server.sql import queue_settings
from jobledger_server.sql.database import Database
from jobledger_server.sql.driver import Prepared
from jobledger_server.sql.queue_reports import (
    NAMES,
    NAMES_OF_TENANT,
    ReportStatements,
    ahead_of,
    holders_of,
)
from jobledger_server.sql.queue_settings import KEYS, LIMITS, SqlQueueSettings
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.tuning import Tuning
from tests.support.databases import both_databases, several_servers
from tests.support.ledger_calls import apply, claim, claim_jobs, created
from tests.support.query_plans import plan

LEASE = HOUR = Micros(3600_000_000)


async def limits(store: SqlStore) -> list[Limit]:
    return await store.queue_settings.limits(after="", limit=99)


async def blocked(store: SqlStore, ledger: Ledger, *keys: str) -> None:
    """Block a job of each of these keys, whose limits are 0, and look at the keys."""
    for key in keys:
        await apply(ledger, Create(user_id="ada", job_type="render", concurrency_key=key))
    command = Claim(
        worker_id="w", job_types=frozenset({"render"}), max_jobs=9, lease_duration=LEASE
    )
    assert await claim_jobs(ledger, command) == []
    for key in keys:
        await unblock(store, ledger.known_limits, key)
    assert await store.find_rechecks(after="", limit=9) == []


async def test_the_version_grows_with_each_change_and_not_with_its_repetition(
    store: SqlStore,
) -> None:
    settings = store.queue_settings
    changes = (
        lambda: settings.pause_type("t", actor="a", reason="r"),
        lambda: settings.set_limit("k", 1),
        lambda: settings.pause_key("k", actor="a", reason="r"),
        lambda: settings.resume_key("k"),
        lambda: settings.set_limit("k", None),
        lambda: settings.resume_type("t"),
        lambda: settings.set_type_defaults("t", TypeDefaults(priority=8)),
        lambda: settings.set_type_defaults("t", TypeDefaults(run_timeout=HOUR, priority=8)),
        lambda: settings.set_type_defaults("t", NO_DEFAULTS),
    )
    version = (await store.config()).version
    for change in changes:
        version += 1
        for _ in range(2):
            await change()
            assert (await store.config()).version == version


WHOLE = TypeDefaults(
    max_attempts=5,
    initial_backoff=Micros(250_000),
    max_backoff=HOUR,
    backoff_multiplier=1.5,
    queue_timeout=Micros(2 * HOUR),
    run_timeout=HOUR,
    stall_timeout=Micros(60_000_000),
    priority=0,
    retention=Micros(24 * HOUR),
)


async def test_defaults_of_a_type_are_replaced_as_a_whole(store: SqlStore) -> None:
    settings = store.queue_settings
    assert None not in asdict(WHOLE).values()
    for defaults in (WHOLE, TypeDefaults(priority=9), TypeDefaults(run_timeout=HOUR)):
        await settings.set_type_defaults("t", defaults)
        assert await settings.type_defaults(after="", limit=9) == [("t", defaults)]
        assert (await store.config()).defaults == {"t": defaults}
    await settings.set_type_defaults("t", NO_DEFAULTS)
    assert await settings.type_defaults(after="", limit=9) == []
    assert (await store.config()).defaults == {}


async def test_a_pause_keeps_its_first_time_actor_and_reason(store: SqlStore) -> None:
    settings = store.queue_settings
    first = await settings.pause_type("t", actor="a", reason="r")
    assert (first.actor, first.reason) == ("a", "r")
    assert await settings.pause_type("t", actor="b", reason="s") == first
    assert (await store.config()).paused_types == {"t"}
    assert await settings.resume_type("t")
    assert not await settings.resume_type("t")
    assert (await store.config()).paused_types == frozenset()
    key = await settings.pause_key("k", actor="a", reason="r")
    assert await settings.pause_key("k", actor="b", reason="s") == key


async def test_a_name_has_a_row_while_it_has_a_limit_or_a_pause(store: SqlStore) -> None:
    settings = store.queue_settings
    limited = await settings.set_limit("k", 3)
    paused = await settings.pause_key("k", actor="a", reason="r")
    assert paused == Limit("k", 3, paused.pause)
    assert await limits(store) == [paused]
    await settings.set_limit("k", None)
    assert await limits(store) == [Limit("k", None, paused.pause)]
    await settings.resume_key("k")
    assert await limits(store) == []
    await settings.set_limit("k", 3)
    await settings.pause_key("k", actor="a", reason="r")
    await settings.resume_key("k")
    assert await limits(store) == [limited]


@pytest.mark.parametrize(
    "tuning", [Tuning(scanned_keys=2, marked_keys=1)]
)  # so that they take several steps
@pytest.mark.usefixtures("damaged")
async def test_a_change_marks_the_blocked_keys_that_it_concerns_and_no_others(
    store: SqlStore, ledger: Ledger
) -> None:
    settings = store.queue_settings
    await settings.set_limit("k", 0)
    await settings.set_limit("kk", 0)
    await blocked(store, ledger, "k", "k:1", "k:2", "kk")
    assert [(each.name, each.blocked) for each in await limits(store)] == [("k", 3), ("kk", 1)]

    async def marked() -> list[str]:
        keys = await store.find_rechecks(after="", limit=9)
        for key in keys:
            async with store.transaction() as transaction:
                await transaction.clear_recheck(key, unblocked=False)
        return keys

    await settings.pause_key("k", actor="", reason="")
    assert await marked() == []
    for _ in range(2):  # a call that failed in the middle is repeated
        await settings.resume_key("k")
        assert await marked() == ["k", "k:1", "k:2"]
    assert (await settings.set_limit("k:1", 5)).blocked == 1
    assert await marked() == ["k:1"]
    await settings.set_limit("k", None)
    assert await marked() == ["k", "k:1", "k:2"]


@contextmanager
def statements_on_keys(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Record what is run on concurrency keys or locks the feed, with its parameters."""
    found: list[tuple[str, Any]] = []

    def ran(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "limit_keys" in statement or "FOR UPDATE" in statement:
            found.append((statement, parameters))

    engines = [each.sync_engine for each in (database.writer, database.reader, database.lists)]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", ran)
    try:
        yield found
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", ran)


async def keys_read(database: Database, statement: str, parameters: Any) -> int:
    """Return how many concurrency keys PostgreSQL reads for a statement, also those left out."""
    async with database.reader.connect() as connection:
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
        found = await connection.exec_driver_sql(explained, parameters)
        nodes = [found.scalar_one()[0]["Plan"]]
    count = 0
    for node in nodes:
        nodes += node.get("Plans", [])
        if node.get("Relation Name") == "limit_keys":
            rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            count += round(rows * node["Actual Loops"])
    return count


@several_servers
@pytest.mark.parametrize("tuning", [Tuning(scanned_keys=3, marked_keys=1)])
async def test_the_feed_is_locked_for_few_keys_however_many_a_name_has(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    """Most have no blocked jobs, so they have nothing to mark."""
    settings = store.queue_settings
    await settings.set_limit("k", 1)
    names = [f"k:{number:02}" for number in range(20)]
    for name in (*names, *names[:2], *names[-2:]):
        await created(ledger, concurrency_key=name)
    assert len(await claim_jobs(ledger, claim(max_jobs=100))) == len(names)
    with statements_on_keys(database) as ran:
        assert (await settings.set_limit("k", 5)).blocked == 4
    marked = await store.find_rechecks(after="", limit=9)
    assert marked == [*names[:2], *names[-2:]]
    reads = [each for each in ran if each[0].startswith("WITH page")]
    for statement, parameters in reads:
        assert await keys_read(database, statement, parameters) <= 3
    first, others = 1, (len(names) - 1) // 3 + 1
    assert len(reads) == first + others
    locks = [statement for statement, _ in ran if "FOR UPDATE" in statement]
    assert len(locks) == len(marked)  # the first mark is part of the change


@both_databases
@pytest.mark.parametrize("name", ["k", "k:1"])
async def test_a_server_that_dies_after_a_change_has_marked_the_keys_that_it_concerns(
    store: SqlStore,
    ledger: Ledger,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    await store.queue_settings.set_limit(name, 0)
    await blocked(store, ledger, "k:1")

    async def dies(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(SqlQueueSettings, "_mark_rest", dies)
    with pytest.raises(asyncio.CancelledError):
        await store.queue_settings.set_limit(name, 5)
    assert await violations(database) == []
    assert await store.find_rechecks(after="", limit=9) == ["k:1"]


@several_servers
async def test_an_answer_with_limits_counts_the_jobs_of_so_many_keys(
    store: SqlStore, ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_settings, "MAX_COUNTED_KEYS", 12)
    for name, keys in (("few", 2), ("many", 9), ("more", 20)):
        await store.queue_settings.set_limit(name, 1)
        for number in range(keys):
            await created(ledger, concurrency_key=f"{name}:{number}")
    assert len(await claim_jobs(ledger, claim(max_jobs=100))) == 31
    with statements_on_keys(database) as ran:
        counts = [each.running for each in await store.queue_settings.limits(after="", limit=9)]
    assert counts == [2, 4, 4]
    (counting,) = ran
    assert await keys_read(database, *counting) <= 2 * 12  # those held, and those blocked


async def test_what_operators_read_is_found_by_indexes(
    database: Database, store: SqlStore, ledger: Ledger
) -> None:
    new = Create(user_id="ada", job_type="render", concurrency_key="k")
    job = (await apply(ledger, new)).job
    statements = ReportStatements(database.dialect)
    types = database.dialect.bind_list("types", ["render"])
    names = {"after": "", "count": 9}
    for statement, values, indexes in (
        (NAMES, {**names, "since": 1}, ["uq_queues_fairness_key_job_type_priority", "ended"]),
        (
            NAMES_OF_TENANT,
            {**names, "fairness_key": "ada"},
            ["uq_queues_fairness_key_job_type_priority"],
        ),
        (
            statements.counts,
            {**types, "fairness_key": ""},
            ["uq_queues_fairness_key_job_type_priority"],
        ),
        (statements.oldest, {**types, "heads": 9}, ["ix_queues_claimable", "ix_jobs_ready"]),
        (statements.ended, {**types, "since": 1, "minute": 2}, ["ended"]),
        (
            LIMITS,
            {"first": "a", "last": "b", "keys": 9},
            ["ix_limit_keys_name_key", "limit_keys"],
        ),
        (KEYS, {**names, "name": "a"}, ["ix_limit_keys_name_key"]),
        (holders_of("k"), {}, ["ix_jobs_keyed"]),
        (ahead_of(job), {}, ["ix_jobs_ready"]),
    ):
        prepared = Prepared(statement, database.dialect.sqlalchemy)
        found = await plan(database, prepared.text, prepared.values(values), "enable_seqscan")
        for index in indexes:
            # SQLite keeps these tables in the indexes of their primary keys.
            assert f"{index} " in found or f"SEARCH {index} USING PRIMARY KEY" in found, found
        for table in ("jobs", "queues", "ended", "limit_keys"):
            assert f"SCAN {table}" not in found, found
        assert "Seq Scan" not in found, found
