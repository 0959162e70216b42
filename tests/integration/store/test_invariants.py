"""`check.invariants` names what is wrong in a database, and `check.repair` mends the feed."""

import pytest
from sqlalchemy import insert, select

from jobledger_server.check.invariants import violations
from jobledger_server.check.repair import repair_feed
from jobledger_server.domain.commands import (
    AppendOutput,
    ChangeStatus,
    Create,
    Delete,
    LinkAsset,
    NewGroup,
    Release,
    Report,
    Seal,
)
from jobledger_server.domain.job import AssetLink, Job, JobStatus, Payload
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.tables import metadata
from tests.support.databases import execute
from tests.support.ledger_calls import apply, claim, claim_jobs

LINK = AssetLink("image/png", "https://e.example/a.png", "", 1, "a.png")


async def lived(ledger: Ledger) -> list[Job]:
    """Let jobs live in every way: one waits, one runs, one was released, one ended, one is gone."""
    fields = {"concurrency_key": "k", "parameters": Payload(b"p"), "request_id": "r"}
    jobs = [
        (await apply(ledger, Create(user_id=user, job_type="render", **fields))).job
        for user in ("ada", "bob", "eve", "kim")
    ]
    ended, held, released, deleted = await claim_jobs(ledger, claim(max_jobs=4))
    for job in (ended, held):
        await apply(ledger, Report(job_id=job.id, progress=5, checkpoint=Payload(b"c"), attempt=1))
        await apply(ledger, LinkAsset(job_id=job.id, link=LINK))
    for number in (1, 2):
        for job, stream in ((ended, ""), (held, "a"), (held, "log"), (deleted, "a")):
            text = AppendOutput(
                job_id=job.id, attempt=1, data=b"12345", stream=stream, number=number
            )
            await apply(ledger, text)
    await apply(ledger, Release(job_id=released.id, attempt=1))
    for job in (ended, deleted):
        await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))
    await apply(ledger, Delete(job_id=deleted.id, user_id=deleted.user_id))
    assert {job.id for job in jobs} == {job.id for job in (ended, held, released, deleted)}
    return [ended, held, released, deleted]


COUNTERS = ("queues", "limit_keys", "ended")


async def rows(database: Database, name: str) -> list[dict[str, object]]:
    async with database.reader.connect() as connection:
        found = await connection.execute(select(metadata.tables[name]))
        return [dict(row) for row in found.mappings()]


async def restore(database: Database, name: str, rows: list[dict[str, object]]) -> None:
    async with database.writer.begin() as connection:
        await connection.execute(insert(metadata.tables[name]), rows)


DAMAGES = {
    "UPDATE jobs SET change_seq = change_seq + 100 WHERE id = '{held}'": "change_seq of a job",
    "UPDATE jobs SET start_seq = start_seq - 1 WHERE id = '{held}'": "start_seq of a job",
    "UPDATE jobs SET delete_seq = delete_seq + 9 WHERE id = '{deleted}'": "delete_seq of a job",
    "UPDATE jobs SET start_seq = change_seq, change_seq = start_seq WHERE id = '{held}'": (
        "a job's start comes before"
    ),
    "UPDATE changes SET user_id = 'eve' WHERE job_id = '{ended}'": "start_seq of a job",
    "UPDATE changes SET user_id = NULL WHERE job_id = '{ended}'": "change_seq of a job",
    "INSERT INTO changes (seq, job_id, user_id) VALUES (99, '{held}', 'ada')": (
        "a row of the feed is a change"
    ),
    "UPDATE jobs SET deadline = deadline + 1000000000 WHERE id = '{held}'": "a deadline is not",
    "INSERT INTO payloads VALUES ('{deleted}', 2, '1')": "a payload has its job",
    "DELETE FROM payloads WHERE kind = 1 AND job_id = '{ended}'": "bytes of its parameters",
    "DELETE FROM payloads WHERE kind = 2 AND job_id = '{held}'": "bytes of its checkpoint",
    "UPDATE attempts SET number = 7": "an attempt has its job",
    "DELETE FROM assets WHERE job_id = '{held}'": "a job counts its assets",
    "UPDATE jobs SET attempt = 3 WHERE id = '{held}'": "every attempt but the last",
    "UPDATE jobs SET group_id = '{deleted}' WHERE id = '{held}'": "a job is in a group",
    "UPDATE jobs SET group_id = '{group}' WHERE id = '{held}'": "a job is in a group",
    "UPDATE jobs SET group_id = '{over}' WHERE id = '{held}'": "a job of a group that has ended",
    "UPDATE jobs SET children = '[0,0,1,0,0,1,false,false,false]' WHERE id = '{group}'": (
        "a group that has not ended counts"
    ),
    "UPDATE jobs SET children = '[0,1,0,0,0,1,false,true,false]' WHERE id = '{over}'": (
        "a group has ended if"
    ),
    "UPDATE jobs SET children = '[0,0,0,0,0,1,false,true,false]' WHERE id = '{group}'": (
        "a group has ended if"
    ),
    "DELETE FROM outputs WHERE start = 5 AND stream = 'log';"
    " INSERT INTO outputs VALUES ('{held}', 'log', 6, 1, 2, '1')": "output has no gap",
    "UPDATE outputs SET number = 3 WHERE start = 0": "output has no gap",
    "UPDATE jobs SET attempt = 2 WHERE id = '{held}'; UPDATE outputs SET attempt = 2"
    " WHERE start = 0 AND stream = 'a'": "later attempts and numbers after",
    "UPDATE outputs SET attempt = 2 WHERE stream = 'log'": "output is of an attempt of its job",
    "UPDATE outputs SET stream = 'lo' WHERE stream = 'log'": "output has its job",
    "UPDATE outputs SET job_id = '{deleted}' WHERE stream = ''": "output has its job",
    "UPDATE outputs SET job_id = '{released}' WHERE stream = ''": "output has its job",
    "INSERT INTO outputs VALUES "
    + ", ".join(f"('{{held}}', 's{number}', 0, 1, 1, '1')" for number in range(7)): (
        "a job has 8 streams of output at most"
    ),
    "UPDATE queues SET held = held + 1 WHERE fairness_key = ''": "level (",
    "UPDATE queues SET ready = ready + 1 WHERE fairness_key <> ''": "queue (",
    "UPDATE jobs SET queue_id = queue_id + 1 WHERE id = '{held}'": "a job has the id of its queue",
    "UPDATE queues SET id = id + 1000": "a job has the id of its queue",
    "UPDATE limit_keys SET running = running - 1": "key (",
    "DELETE FROM ended WHERE status = 'COMPLETED'; INSERT INTO ended VALUES ('x', 0, '', '', 0)": (
        "ended ("
    ),
}
"""What somebody might do by hand, or a bug, with what is said of it."""


@pytest.mark.usefixtures("damaged")
async def test_every_damage_is_named(
    ledger: Ledger, database: Database, subtests: pytest.Subtests
) -> None:
    ended, held, released, deleted = await lived(ledger)
    group, over = [
        (await apply(ledger, Create(user_id="ada", job_type="g", group=NewGroup()))).job
        for _ in range(2)
    ]
    await apply(ledger, Create(user_id="ada", job_type="render", group_id=group.id))
    await apply(ledger, Seal(job_id=over.id, user_id="ada"))
    ids = {
        "group": group.id,
        "over": over.id,
        "ended": ended.id,
        "held": held.id,
        "released": released.id,
        "deleted": deleted.id,
    }
    assert await violations(database) == []
    tables = ("jobs", "changes", "feed", "payloads", "attempts", "assets", "outputs", *COUNTERS)
    sound = {name: await rows(database, name) for name in tables}
    for damage, said in DAMAGES.items():
        with subtests.test(damage):
            await execute(database, *damage.format_map(ids).split(";"))
            found = await violations(database)
            assert any(said in line for line in found), found
            for name in reversed(tables):
                await execute(database, f"DELETE FROM {name}")
            for name in tables:
                await restore(database, name, sound[name])
            assert await violations(database) == []


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE jobs SET change_seq = change_seq + 100 WHERE delete_seq IS NULL",
        "DELETE FROM changes",
        "UPDATE changes SET seq = seq + 100",
        "UPDATE jobs SET delete_seq = 1, change_seq = 2 WHERE delete_seq IS NOT NULL",
    ],
)
async def test_a_repaired_feed_has_every_job_again_under_another_epoch(
    ledger: Ledger, database: Database, damage: str
) -> None:
    jobs = await lived(ledger)
    store = SqlStore(database)
    before = await store.changes_after(0, limit=99)
    await execute(database, damage)
    assert await violations(database)
    assert await repair_feed(database) >= 1
    assert await violations(database) == []
    after = await store.changes_after(0, limit=99)
    assert after.head.epoch != before.head.epoch

    def told(job: Job) -> list[object]:
        own = [each for each in after.changes if each.job.id == job.id]
        return [(each.job.version, each.deleted, each.transitions) for each in own]

    for job in jobs:
        was = [each for each in before.changes if each.job.id == job.id]
        assert told(job) == [(each.job.version, each.deleted, each.transitions) for each in was]
    assert await repair_feed(database) == 0
    assert (await store.feed_head()).epoch == after.head.epoch
    # And the jobs live on.
    held = jobs[1]
    await apply(ledger, ChangeStatus(job_id=held.id, target=JobStatus.COMPLETED))
    assert await violations(database) == []
