"""Each field that a job may be created with is kept, shown and run again."""

from typing import Any

from google.protobuf.message import Message
from msgspec.structs import asdict

from jobledger_server.app import App
from tests.support.creations import FIELDS, OF_GROUPS, filled, sample
from tests.support.databases import both_databases
from tests.support.rpc_caller import FULL, Caller

NOT_SHOWN = {"queue_timeout", "run_timeout", "delay", "unique_policy"}
"""The fields of a creation that its job has not, or as a time."""

SHOWN = FIELDS.keys() - NOT_SHOWN - OF_GROUPS - {"schedule_time"}
"""The fields of a creation that a job has too. One with a time of its own waits for it."""

OF_ITS_OWN = {"id", "request_id", "origin_job_id", "create_time", "update_time"} | {
    "queue_expire_time"
}
"""What the rerun of a job that was never started has of its own."""


async def shown(call: Caller, job: Message) -> dict[str, Any]:
    found = (await call.GetJob(job_id=job.id, user_id=job.user_id, view=FULL)).job
    return {name: getattr(found, name) for name in SHOWN}


async def stored(app: App, job: Message) -> dict[str, Any]:
    (found,) = (await app.store.read_jobs([job.id], full=True)).values()
    fields = {name: value for name, value in asdict(found.job).items() if name not in OF_ITS_OWN}
    return fields | {"parameters": found.payloads.parameters}


async def test_a_job_shows_each_field_that_it_was_created_with(call: Caller) -> None:
    said = filled("delay")
    alone = await call.job(**said)
    await call.CancelJob(job_id=alone.id, user_id="ada")
    said["request_id"] = "of a batch"
    batch = await call.BatchCreateJobs(user_id="ada", requests=[said])
    for job, request_id in (alone, sample("request_id")), (batch.jobs[0], "of a batch"):
        found = await shown(call, job)
        for name in SHOWN - {"retry_policy", "parameters"}:
            expected = request_id if name == "request_id" else said[name]
            assert (name, found[name]) == (name, expected)
        assert found["retry_policy"].max_attempts == said["retry_policy"].max_attempts
        assert dict(found["parameters"]) == said["parameters"]


@both_databases
async def test_a_rerun_has_all_that_its_job_was_created_with(app: App, call: Caller) -> None:
    for name, rerun in ("alone", rerun_alone), ("in bulk", rerun_in_bulk):
        job = await call.job(**filled("delay") | {"request_id": name, "unique_key": name})
        before = await stored(app, job)
        await call.CancelJob(job_id=job.id, user_id="ada")
        again = await rerun(call, job)
        assert again.origin_job_id == job.id
        assert await stored(app, again) == before


async def rerun_alone(call: Caller, job: Message) -> Message:
    return (await call.RerunJob(job_id=job.id, user_id="ada")).job


async def rerun_in_bulk(call: Caller, job: Message) -> Message:
    filter_ = {"unique_key": job.unique_key, "cancelled": True}
    (made,) = (await call.RerunJobs(user_id="ada", filter=filter_)).sample
    return made
