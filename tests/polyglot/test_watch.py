"""A watch survives every failure of its stream: each change once, and always the terminal state."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.rpc import code_pb2

from jobledger.v1.job_pb2 import Job, JobStatus
from jobledger.v1.job_service_pb2 import WatchJobRequest
from tests.polyglot.gateway import Fail, Gateway
from tests.polyglot.ledger import Ledger, job_in, transitions_in
from tests.polyglot.programs import Event, Jobs, Program
from tests.support.server_process import ServerProcess

PROCESSING = JobStatus.JOB_STATUS_PROCESSING
COMPLETED = JobStatus.JOB_STATUS_COMPLETED


@pytest.fixture
def gateway(server: ServerProcess) -> Iterator[Gateway]:
    with Gateway(server.target) as gateway:
        yield gateway


def check_the_whole_story(ledger: Ledger, job: Job, events: list[Event]) -> None:
    """Versions strictly increase, each transition is delivered once, the last state is terminal."""
    assert {event["event"] for event in events} == {"changed"}
    versions = [job_in(event).version for event in events]
    assert versions == sorted(set(versions))
    told = [step for event in events for step in transitions_in(event)]
    assert told == ledger.transitions(job)
    assert job_in(events[-1]) == ledger.get(job)
    assert job_in(events[-1]).status == COMPLETED


def test_each_change_is_delivered_as_it_happens(jobs: Jobs, ledger: Ledger, kind: str) -> None:
    job = ledger.create(kind)
    with jobs.start("watch", user=kind, job=job.id) as watcher:
        events = [watcher.event()]
        for change in (ledger.start, lambda job: ledger.progress(job, 30), ledger.complete):
            changed = change(job)
            events.append(watcher.event())
            assert job_in(events[-1]) == changed
        assert watcher.finish() == []
    check_the_whole_story(ledger, job, events)


def test_a_watch_loses_nothing_when_the_server_is_killed_and_restarted(
    program: Program, own_server: ServerProcess, kind: str
) -> None:
    jobs = Jobs(program, own_server.target)
    with Ledger(own_server.target) as ledger:
        job = ledger.create(kind)
        with jobs.start("watch", user=kind, job=job.id) as watcher:
            events = [watcher.event()]
            ledger.start(job)
            events.append(watcher.event())
            ledger.progress(job, 40)
            events.append(watcher.event())
            own_server.kill()
            own_server.start()
            ledger.progress(job, 70)
            events.append(watcher.event())
            assert job_in(events[-1]).progress == 70
            own_server.kill()
            own_server.start()
            ledger.complete(job)
            events += watcher.finish()
        assert len(events) == 5
        check_the_whole_story(ledger, job, events)


def test_a_watch_resumes_when_its_stream_reaches_its_maximum_age(
    program: Program, gateway: Gateway, ledger: Ledger, kind: str
) -> None:
    jobs = Jobs(program, gateway.target)
    job = ledger.create(kind)
    gateway.plan["WatchJob"] = [Fail(code_pb2.UNAVAILABLE, retry_seconds=0, after=1)]
    with jobs.start("watch", user=kind, job=job.id) as watcher:
        events = [watcher.event()]
        # The new stream begins with what is known already.
        gateway.wait_until(lambda: gateway.messages == 2)
        ledger.start(job)
        events.append(watcher.event())
        ledger.complete(job)
        events += watcher.finish()
    check_the_whole_story(ledger, job, events)
    asked = [WatchJobRequest.FromString(a.request) for a in gateway.attempts["WatchJob"]]
    assert [each.after_version for each in asked] == [0, 1]


def test_heartbeats_are_no_updates(program: Program, tmp_path: Path, kind: str) -> None:
    with (
        ServerProcess(tmp_path, arguments=["--heartbeat", "0.1"]) as server,
        Gateway(server.target) as gateway,
        Ledger(server.target) as ledger,
    ):
        job = ledger.create(kind)
        with Jobs(program, gateway.target).start("watch", user=kind, job=job.id) as watcher:
            gateway.wait_until(lambda: gateway.messages == 4)
            ledger.complete(ledger.start(job))
            events = watcher.finish()
        check_the_whole_story(ledger, job, events)


def test_a_watch_waits_for_as_long_as_the_server_asks(
    program: Program, gateway: Gateway, ledger: Ledger, kind: str
) -> None:
    job = ledger.complete(ledger.start(ledger.create(kind)))
    gateway.plan["WatchJob"] = [Fail(code_pb2.RESOURCE_EXHAUSTED, retry_seconds=1.5)]
    (event,) = Jobs(program, gateway.target).run("watch", user=kind, job=job.id)
    assert job_in(event) == job
    first, second = gateway.attempts["WatchJob"]
    assert second.at - first.at >= 1.5


@pytest.mark.parametrize(
    "code", [code_pb2.OK, code_pb2.INTERNAL, code_pb2.UNKNOWN, code_pb2.DEADLINE_EXCEEDED]
)
def test_a_stream_broken_by_a_proxy_is_resumed(
    program: Program, gateway: Gateway, ledger: Ledger, kind: str, code: int
) -> None:
    job = ledger.start(ledger.create(kind))
    gateway.plan["WatchJob"] = [Fail(code, after=1)]
    with Jobs(program, gateway.target).start("watch", user=kind, job=job.id) as watcher:
        events = [watcher.event()]
        ledger.complete(job)
        events += watcher.finish()
    check_the_whole_story(ledger, job, events)


def test_a_watch_starts_after_the_given_version(jobs: Jobs, ledger: Ledger, kind: str) -> None:
    job = ledger.start(ledger.create(kind))
    ended = ledger.complete(job)
    (event,) = jobs.run("watch", user=kind, job=job.id, after_version=job.version)
    assert job_in(event) == ended
    assert transitions_in(event) == ledger.transitions(job)[1:]


def test_a_watch_of_a_terminal_job_delivers_it_even_after_its_last_version(
    jobs: Jobs, ledger: Ledger, kind: str
) -> None:
    job = ledger.complete(ledger.start(ledger.create(kind)))
    (event,) = jobs.run("watch", user=kind, job=job.id, after_version=job.version)
    assert job_in(event) == job
    assert transitions_in(event) == []
