"""Deadlines, retries and keepalive are set as docs/guides/clients.md recommends."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from google.rpc import code_pb2

from jobledger.v1.worker_service_pb2 import WorkRequest
from tests.polyglot.gateway import Fail, Gateway
from tests.polyglot.ledger import Ledger, job_in, largest, struct
from tests.polyglot.programs import Jobs, Program
from tests.support.server_process import ServerProcess

AWAY = Fail(code_pb2.UNAVAILABLE)


@pytest.fixture
def gateway(server: ServerProcess) -> Iterator[Gateway]:
    with Gateway(server.target) as gateway:
        yield gateway


@pytest.fixture
def jobs(program: Program, gateway: Gateway) -> Jobs:
    return Jobs(program, gateway.target)


def test_every_call_but_a_stream_has_a_deadline(
    program: Program, jobs: Jobs, gateway: Gateway, ledger: Ledger, kind: str
) -> None:
    job = job_in(jobs.run("create", user=kind, type=kind)[0])
    jobs.run("get", user=kind, job=job.id)
    jobs.run("list", user=kind)
    jobs.run("work", worker="w", type=kind)
    jobs.run("complete", job=job.id)
    jobs.run("watch", user=kind, job=job.id)
    seconds = {name: attempts[0].seconds for name, attempts in gateway.attempts.items()}
    # grpc rounds up what is left, to one part in a hundred.
    assert seconds.pop("WatchJob") is None
    if program.claims:
        assert 15 < (seconds.pop("ClaimJobs") or 0) <= 20.2
        assert seconds.keys() >= {"UpdateProgress", "CreateAsset"}
    else:
        assert seconds.pop("Work") is None
    assert seconds.keys() >= {"CreateJob", "GetJob", "ListJobs", "MarkCompleted"}
    assert all(5 < (each or 0) <= 10.2 for each in seconds.values()), seconds


def test_a_call_is_retried_if_the_service_is_unavailable_even_with_the_largest_parameters(
    jobs: Jobs, gateway: Gateway, ledger: Ledger, kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "largest.json"
    file.write_text(json.dumps(largest()), "utf-8")
    gateway.plan["CreateJob"] = [AWAY, AWAY]
    (created,) = jobs.run("create", user=kind, type=kind, parameters=file)
    first, second, third = gateway.attempts["CreateJob"]
    assert first.request == second.request == third.request
    assert ledger.get(job_in(created)).parameters == struct(largest())


def test_the_fifth_attempt_is_the_last(jobs: Jobs, gateway: Gateway) -> None:
    gateway.plan["GetJob"] = [Fail(code_pb2.UNAVAILABLE, retry_seconds=0.5)] * 99
    error = jobs.refused("get", user="ada", job="no-matter")
    assert (error["code"], error["retry_delay_ms"]) == ("UNAVAILABLE", 500)
    # Go puts "max retries exhausted" before it.
    assert error["message"].endswith("failed on purpose")
    assert len(gateway.attempts["GetJob"]) == 5


def test_a_refusal_is_not_repeated(jobs: Jobs, gateway: Gateway, kind: str) -> None:
    gateway.plan["CreateJob"] = [Fail(code_pb2.RESOURCE_EXHAUSTED, retry_seconds=1.25)]
    error = jobs.refused("create", user=kind, type=kind)
    assert (error["code"], error["reason"]) == ("RESOURCE_EXHAUSTED", "")
    assert (error["message"], error["retry_delay_ms"]) == ("failed on purpose", 1250)
    assert len(gateway.attempts["CreateJob"]) == 1


def test_neither_a_claim_nor_a_workers_stream_is_repeated(
    program: Program, jobs: Jobs, gateway: Gateway, kind: str
) -> None:
    call = "ClaimJobs" if program.claims else "Work"
    gateway.plan[call] = [AWAY]
    error = jobs.refused("work", worker="w", type=kind)
    assert error["code"] == "UNAVAILABLE"
    assert len(gateway.attempts[call]) == 1


@pytest.mark.timeout(90)
def test_a_worker_without_a_job_sends_heartbeats(programs: list[Program], gateway: Gateway) -> None:
    """All languages at once: it takes a third of the lease, which is a minute."""
    workers = [program for program in programs if not program.claims]
    with ExitStack() as stack:
        for program in workers:
            worker = Jobs(program, gateway.target)
            stack.enter_context(worker.start("work", worker=program.name, type="none"))
        gateway.wait_until(lambda: len(gateway.sent) == 2 * len(workers))
    first, second = gateway.sent[: len(workers)], gateway.sent[len(workers) :]
    hellos = [WorkRequest.FromString(each).hello for each in first]
    assert {hello.worker_id for hello in hellos} == {program.name for program in workers}
    assert second == [b""] * len(workers)
