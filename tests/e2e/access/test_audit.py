"""The audit log: changes of jobs with their callers and outcomes, and denials; nothing else."""

import asyncio
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, get_args

import grpc
import pytest
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub

from jobledger.v1 import job_service_pb2
from jobledger_server.domain.commands import Command
from jobledger_server.domain.settings import Setting
from jobledger_server.ledger.allocation import Allocation
from jobledger_server.rpc.access.audit import CHANGES, SETTINGS
from jobledger_server.sql import queue_settings
from tests.support.access_file import rule, write_access_file
from tests.support.rpc_caller import COMPLETED, Caller, refusal
from tests.support.server_process import ServerProcess
from tests.support.work_stream import completed, progressed, released, working

SECRET = "s3cret-parameter"


POLICY = (
    rule("web", 'roles = ["owner"]\nusers = ["ada"]')
    + rule("farm", 'roles = ["worker"]\njob_types = ["render"]')
    + rule("ops", 'roles = ["operator"]')
)


@pytest.fixture
async def channel(start_with: Any) -> Any:
    app = await start_with(POLICY)
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield channel


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> Any:
    """Return the lines of the audit log since the last call."""
    caplog.set_level(logging.INFO, "jobledger.audit")

    def lines() -> list[tuple[str, ...]]:
        records = [record for record in caplog.records if record.name == "jobledger.audit"]
        caplog.clear()
        return [
            (each.caller, each.change, named(each), each.outcome)
            if each.message == "change"
            else (
                vars(each).get("caller") or each.address,
                each.message,
                each.method,
                each.outcome,
            )
            for each in records
        ]

    return lines


def named(record: Any) -> tuple[object, ...]:
    """Return the jobs that a line names, or the pause or the limit."""
    facts = vars(record)
    settings = ("job_type", "concurrency_key", "max_running", "defaults")
    return (*facts.get("jobs", ()), *(facts[name] for name in settings if name in facts))


async def test_operators_settings_are_logged_with_what_they_set(
    channel: grpc.aio.Channel, audit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = Caller(channel, token="ops")
    await ops.PauseJobType(job_type="render", reason=SECRET)
    await ops.ResumeJobType(job_type="render")
    await ops.SetConcurrencyLimit(name="stripe", max_running=10)
    await ops.PauseConcurrencyKey(name="stripe", reason=SECRET)
    await ops.ResumeConcurrencyKey(name="stripe")
    await ops.SetConcurrencyLimit(name="stripe")
    await ops.SetJobTypeDefaults(
        job_type="render", defaults={"priority": 8, "run_timeout": {"seconds": 2}}
    )
    await ops.SetJobTypeDefaults(job_type="render")
    await ops.ListJobTypes()
    await ops.ListJobTypeStats()
    monkeypatch.setattr(queue_settings, "MAX_PAUSED_JOB_TYPES", 0)
    await refusal(ops.PauseJobType(job_type="encode"))
    assert audit() == [
        ("token:ops", "pause_job_type", ("render",), "OK"),
        ("token:ops", "resume_job_type", ("render",), "OK"),
        ("token:ops", "set_concurrency_limit", ("stripe", 10), "OK"),
        ("token:ops", "pause_concurrency_key", ("stripe",), "OK"),
        ("token:ops", "resume_concurrency_key", ("stripe",), "OK"),
        ("token:ops", "set_concurrency_limit", ("stripe", None), "OK"),
        (
            *("token:ops", "set_job_type_defaults"),
            ("render", {"priority": 8, "run_timeout": 2_000_000}),
            "OK",
        ),
        ("token:ops", "set_job_type_defaults", ("render", {}), "OK"),
        ("token:ops", "pause_job_type", ("encode",), "LIMIT_EXCEEDED"),
    ]


def test_every_command_has_an_entry_in_the_audit_table() -> None:
    assert set(CHANGES) == {*get_args(Command), Allocation}
    assert set(SETTINGS) == {*get_args(Setting)}


async def test_owners_changes_are_logged_with_their_outcomes(
    channel: grpc.aio.Channel, audit: Any
) -> None:
    web = Caller(channel, token="web")
    many = [job_service_pb2.CreateJobRequest(job_type="render")] * 2
    batch = await web.BatchCreateJobs(user_id="ada", requests=many)
    ids = [job.id for job in batch.jobs]
    one = await web.job()
    operations = OperationsStub(channel)
    metadata = [("authorization", "Bearer web"), ("x-jobledger-user", "ada")]
    request = operations_pb2.CancelOperationRequest(name=f"jobs/{ids[0]}")
    await operations.CancelOperation(request, metadata=metadata)
    await web.UpdateJob(user_id="ada", job_id=one.id, priority=1)
    await web.CancelJob(user_id="ada", job_id=one.id)
    await refusal(web.UpdateJob(user_id="ada", job_id=one.id, priority=2))
    await web.DeleteJob(user_id="ada", job_id=one.id)
    await refusal(web.DeleteJob(user_id="ada", job_id=one.id))
    await refusal(web.DeleteJob(user_id="ada", job_id="anything at all"))
    await refusal(web.DeleteJob(user_id="ada", job_id=ids[1]))
    await web.GetJob(user_id="ada", job_id=ids[1])
    assert audit() == [
        ("token:web", "create", tuple(ids), "OK"),
        ("token:web", "create", (one.id,), "OK"),
        ("token:web", "cancel", (ids[0],), "OK"),
        ("token:web", "update", (one.id,), "OK"),
        ("token:web", "cancel", (one.id,), "OK"),
        ("token:web", "update", (one.id,), "JOB_TERMINAL"),
        ("token:web", "delete", (one.id,), "OK"),
        ("token:web", "delete", (one.id,), "JOB_NOT_FOUND"),
        ("token:web", "delete", (), "JOB_NOT_FOUND"),
        ("token:web", "delete", (ids[1],), "ILLEGAL_TRANSITION"),
    ]


async def test_changes_of_many_jobs_are_logged_one_by_one(
    channel: grpc.aio.Channel, audit: Any
) -> None:
    web, farm = Caller(channel, token="web"), Caller(channel, token="farm")
    ids = [(await web.job()).id for _ in range(3)]
    audit()
    await web.CancelJobs(user_id="ada", filter={"held": False}, max_jobs=2, reason=SECRET)
    cancelled = [("token:web", "cancel", (job_id,), "OK") for job_id in (ids[2], ids[1])]
    assert audit() == cancelled
    selected = {"cancelled": True}
    await web.RerunJobs(user_id="ada", filter=selected, validate_only=True)
    assert audit() == []
    made = (await web.RerunJobs(user_id="ada", filter=selected)).sample
    assert audit() == [("token:web", "rerun", (job.id,), "OK") for job in made]
    await web.RerunJob(user_id="ada", job_id=ids[2])  # the same one again
    assert audit() == [("token:web", "rerun", (made[0].id,), "OK")]
    await web.DeleteJobs(user_id="ada", all=True)
    assert audit() == [("token:web", "delete", (job_id,), "OK") for job_id in (ids[2], ids[1])]
    # What a worker may retry is a change of status.
    claim = {"worker_id": "w", "job_types": ["render"]}
    (job,) = (await farm.ClaimJobs(**claim)).jobs
    failure = {"error": {"message": SECRET}, "retryable": True}
    await farm.MarkFailed(job_id=job.id, attempt=1, finish=failure)
    assert audit()[-1] == ("token:farm", "change_status", (job.id,), "OK")
    denied = await refusal(farm.RerunJobs(user_id="ada"))
    assert denied.reason == "ACCESS_DENIED"
    assert audit() == [
        ("token:farm", "denied", "jobledger.v1.JobService/RerunJobs", "ACCESS_DENIED")
    ]


async def test_workers_changes_are_logged_by_call_and_by_stream(
    channel: grpc.aio.Channel, audit: Any
) -> None:
    web, farm = Caller(channel, token="web"), Caller(channel, token="farm")
    jobs = [await web.job() for _ in range(3)]
    foreign = await web.job(job_type="encode")
    audit()
    claimed = await farm.ClaimJobs(worker_id="w", job_types=["render"], max_jobs=1)
    assert [job.id for job in claimed.jobs] == [jobs[0].id]
    await farm.UpdateProgress(job_id=jobs[0].id, attempt=1, progress={"progress": 5})
    await farm.CreateAsset(
        job_id=jobs[0].id, attempt=1, asset={"asset": {"asset_type": "t", "storage_path": "p"}}
    )
    await farm.MarkCompleted(job_id=jobs[0].id, attempt=1)
    await refusal(
        farm.TransitionJob(job_id=foreign.id, target_status=COMPLETED, attempt=1, worker_id="w")
    )
    assert audit() == [
        ("token:farm", "claim", (jobs[0].id,), "OK"),
        ("token:farm", "link_asset", (jobs[0].id,), "OK"),
        ("token:farm", "change_status", (jobs[0].id,), "OK"),
        ("token:farm", "change_status", (foreign.id,), "JOB_NOT_FOUND"),
    ]
    async with working(channel, slots=2, job_types=["render"], token="farm") as work:
        second, third = await work.jobs(2)
        await work.send(
            updates=[progressed(second, 5), completed(second), released(third), completed(second)]
        )
        await work.results(4)
        await work.send(slots=0)
    found = audit()
    assert {line for line in found if line[1] == "claim"} <= {
        ("token:farm", "claim", ids, "OK")
        for ids in ((second.id,), (third.id,), (second.id, third.id))
    }
    assert [line for line in found if line[1] != "claim"][:3] == [
        ("token:farm", "change_status", (second.id,), "OK"),
        ("token:farm", "release", (third.id,), "OK"),
        ("token:farm", "change_status", (second.id,), "OK"),
    ]


async def test_denials_are_logged_with_what_is_known_of_the_caller(
    channel: grpc.aio.Channel, audit: Any
) -> None:
    web, farm = Caller(channel, token="web"), Caller(channel, token="farm")
    await refusal(Caller(channel, token="wrong").ListJobs(user_id="ada"))
    await refusal(web.ListJobs(user_id="bob"))
    await refusal(web.CreateJob(user_id="bob", job_type="t"))
    await refusal(farm.GetJob(user_id="ada", job_id="j"))
    async with working(channel, job_types=["encode"], token="farm") as work:
        await refusal(work.read())
    (nobody, *known) = audit()
    assert nobody[0] == "ipv4:127.0.0.1"
    service = "jobledger.v1.JobService"
    assert nobody[1:] == ("denied", f"{service}/ListJobs", "UNAUTHENTICATED")
    assert known == [
        ("token:web", "denied", f"{service}/ListJobs", "ACCESS_DENIED"),
        ("token:web", "denied", f"{service}/CreateJob", "ACCESS_DENIED"),
        ("token:farm", "denied", f"{service}/GetJob", "ACCESS_DENIED"),
        ("token:farm", "denied", "jobledger.v1.WorkerService/Work", "ACCESS_DENIED"),
    ]


async def test_a_server_without_an_access_file_has_no_audit_log(call: Caller, audit: Any) -> None:
    await call.job()
    assert audit() == []


async def test_the_audit_log_has_no_request_content_and_merges_repeated_denials(
    tmp_path: Path,
) -> None:
    access = tmp_path / "access.toml"
    write_access_file(access, POLICY)
    access.chmod(0o600)
    async with ServerProcess(tmp_path, arguments=["--access", str(access)]) as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            web, farm = Caller(channel, token="web"), Caller(channel, token="farm")
            job = await web.job(parameters={"a": SECRET}, labels={"l": SECRET}, request_id=SECRET)
            await farm.ClaimJobs(worker_id="w", job_types=["render"], max_jobs=1)
            await farm.MarkFailed(job_id=job.id, attempt=1, finish={"error": {"message": SECRET}})
            await refusal(web.DeleteJob(user_id="ada", job_id=SECRET))
            for _ in range(40):
                await refusal(web.ListJobs(user_id="eve"))
                await refusal(Caller(channel, token=SECRET).ListJobs(user_id="ada"))
        await asyncio.to_thread(server.terminate)
    text = server.log.read_text()
    assert SECRET not in text
    assert hashlib.sha256(b"web").hexdigest() not in text
    lines = [json.loads(line) for line in text.splitlines()]
    audit = [line for line in lines if line["logger"] == "jobledger.audit"]
    # In the order that docs/operate/security.md shows.
    assert " ".join(audit[0]) == "time level logger event caller change jobs outcome"
    standard = {"time", "level", "logger", "event", "outcome"}
    for line in audit:
        more = {"change", "jobs"} if line["event"] == "change" else {"method"}
        more |= {"address", "kind"} if line["outcome"] == "UNAUTHENTICATED" else {"caller"}
        if line["outcome"] == "ACCESS_DENIED":
            more |= {"missing", "value"}
        more |= set() if line["outcome"] == "OK" else {"count"}
        assert set(line) == standard | more
    assert [line["change"] for line in audit if line["event"] == "change"] == [
        *("create", "claim", "change_status", "delete"),
    ]
    denied = [line for line in audit if line["event"] == "denied"]
    assert sum(line["count"] for line in denied) == 80
    assert {line.get("kind") for line in denied} == {None, "unknown_token"}
    assert len(denied) < 20
