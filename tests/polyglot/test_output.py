"""What a job writes is read once, byte by byte, whatever happens to the streams, until its end."""

from pathlib import Path

import pytest
from google.rpc import code_pb2

from jobledger.v1.job_service_pb2 import WatchOutputRequest
from jobledger.v1.worker_service_pb2 import AppendOutputRequest, WorkRequest
from tests.polyglot.gateway import Fail, Gateway
from tests.polyglot.ledger import Ledger, output_in, result_in
from tests.polyglot.programs import Event, Jobs, Program
from tests.support.server_process import ServerProcess

PIECES = ["eins ", "\N{ARTIST PALETTE} ", "drei\n"]


def written(events: list[Event], begin: int = 0) -> bytes:
    """Return what a watch to the end printed; each piece begins where the one before it ends."""
    assert {event["event"] for event in events} == {"output"}
    messages = [output_in(event) for event in events]
    for message in messages:
        assert (message.offset, message.next_offset) == (begin, begin + len(message.data))
        begin = message.next_offset
    assert [message.closed for message in messages] == [False] * (len(messages) - 1) + [True]
    return b"".join(message.data for message in messages)


def test_what_a_worker_appends_is_watched_until_the_job_ends(
    jobs: Jobs, ledger: Ledger, kind: str
) -> None:
    job = ledger.create(kind, job_type=kind)
    with jobs.start("output", user=kind, job=job.id) as watcher:
        worked = jobs.run("work", worker="w", type=kind, output=PIECES)
        events = watcher.finish()
    names = [event["event"] for event in worked]
    assert names == ["claimed", "progressed", *["appended"] * 3, "linked", "ended"]
    ends = [result_in(event).next_offset for event in worked if event["event"] == "appended"]
    assert ends == [len("".join(PIECES[:count]).encode()) for count in (1, 2, 3)]
    assert written(events) == "".join(PIECES).encode()
    # Who has seen the first piece is sent the rest of it.
    rest = jobs.run("output", user=kind, job=job.id, after_offset=ends[0])
    assert written(rest, begin=ends[0]) == "".join(PIECES[1:]).encode()


def test_a_reader_is_told_which_attempt_wrote_what(jobs: Jobs, ledger: Ledger, kind: str) -> None:
    job = ledger.create(kind, job_type=kind, retry_policy={"max_attempts": 2})
    for text in ("first ", "second"):
        jobs.run("work", worker="w", type=kind, outcome="retried", output=text)
    events = jobs.run("output", user=kind, job=job.id)
    assert written(events) == b"first second"
    messages = [output_in(event) for event in events]
    parts = [(message.attempt, message.data) for message in messages if message.data]
    assert parts == [(1, b"first "), (2, b"second")]


@pytest.mark.parametrize("code", [code_pb2.UNAVAILABLE, code_pb2.OK])
def test_a_broken_watch_goes_on_where_it_was_and_repeats_no_byte(
    program: Program, server: ServerProcess, ledger: Ledger, kind: str, code: int
) -> None:
    job = ledger.start(ledger.create(kind))
    ledger.append(job, "one ")
    with Gateway(server.target) as gateway:
        gateway.plan["WatchOutput"] = [Fail(code, after=1), Fail(code), Fail(code, after=1)]
        with Jobs(program, gateway.target).start("output", user=kind, job=job.id) as watcher:
            events = [watcher.event()]
            # Its stream broke after it, and the next one but one begins with what is known already.
            gateway.wait_until(lambda: len(gateway.attempts["WatchOutput"]) == 4)
            ledger.append(job, "two ")
            events.append(watcher.event())
            ledger.append(job, "three")
            events.append(watcher.event())
            ledger.complete(job)
            events += watcher.finish()
        assert written(events) == b"one two three"
        asked = [WatchOutputRequest.FromString(a.request) for a in gateway.attempts["WatchOutput"]]
        assert [each.after_offset for each in asked] == [0, 4, 4, 4]


def test_a_watch_of_output_survives_the_server_and_prints_no_heartbeats(
    program: Program, tmp_path: Path, kind: str
) -> None:
    with (
        ServerProcess(tmp_path, arguments=["--heartbeat", "0.1"]) as server,
        Gateway(server.target) as gateway,
        Ledger(server.target) as ledger,
    ):
        job = ledger.start(ledger.create(kind))
        ledger.append(job, "one ")
        with Jobs(program, gateway.target).start("output", user=kind, job=job.id) as watcher:
            gateway.wait_until(lambda: gateway.messages == 4)
            server.kill()
            server.start()
            ledger.append(job, "two")
            ledger.complete(job)
            events = watcher.finish()
    assert written(events) == b"one two"


def test_each_piece_has_a_number_with_which_a_repetition_appends_nothing(
    program: Program, server: ServerProcess, ledger: Ledger, kind: str
) -> None:
    job = ledger.create(kind, job_type=kind)
    with Gateway(server.target) as gateway:
        gateway.plan["AppendOutput"] = [Fail(code_pb2.UNAVAILABLE, after=1)]
        worker = Jobs(program, gateway.target)
        worker.run("work", worker="w", type=kind, output=PIECES)
        attempts = gateway.attempts["AppendOutput"]
        calls = [AppendOutputRequest.FromString(attempt.request) for attempt in attempts]
        messages = [WorkRequest.FromString(message) for message in gateway.sent]
    updates = [update.output for message in messages for update in message.updates]
    numbers = [each.number for each in (*calls, *updates) if each.data]
    assert numbers == ([1, 1, 2, 3] if program.claims else [1, 2, 3])
    events = Jobs(program, server.target).run("output", user=kind, job=job.id)
    assert written(events) == "".join(PIECES).encode()
