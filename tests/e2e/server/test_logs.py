"""What the log says, and what it leaves out: read from the other end of a pipe."""

import asyncio
import fcntl
import json
import logging
import os
import select
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobledger_server.rpc.access.audit import audit_denial
from jobledger_server.rpc.access.permissions import AccessDenied, IdentityFault, Unauthenticated
from jobledger_server.rpc.serving.handlers import Handlers
from jobledger_server.telemetry import log_writer, rate_limiter
from jobledger_server.telemetry.log_writer import LogQueue, LogWriter
from jobledger_server.telemetry.logs import JsonFormatter
from tests.support import forked


class Log:
    """A log that nobody reads until it ends."""

    def __init__(self) -> None:
        self._end, self._file = os.pipe()
        self.queue = LogQueue(JsonFormatter())
        self._writer = LogWriter(self.queue, self._file)
        self._writer.start()

    def stop(self) -> None:
        self._writer.stop()

    def close(self) -> None:
        """Have nobody to read."""
        os.close(self._end)

    def lines(self) -> list[dict[str, Any]]:
        """End the log and return its lines."""
        with os.fdopen(self._end) as reader, ThreadPoolExecutor(1) as pool:
            reading = pool.submit(list, reader)
            self.stop()
            os.close(self._file)
            return [json.loads(line) for line in reading.result()]


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    root = logging.getLogger()
    root.addHandler(log.queue)
    yield log
    root.removeHandler(log.queue)


def of(logger: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["logger"] == logger]


def test_only_the_constant_part_of_a_librarys_message_is_logged(log: Log) -> None:
    library = logging.getLogger("grpc.library")
    try:
        b"Bearer secret\xff".decode()
    except UnicodeDecodeError:
        library.exception("Invalid encoding on %s", b"Bearer secret\xff")
    (line,) = of(library.name, log.lines())
    assert line.pop("time")
    assert line == {
        "level": "warning",
        "logger": "grpc.library",
        "event": "library_message",
        "text": "Invalid encoding on",
        "count": 1,
        "error": "UnicodeDecodeError",
    }


async def test_a_programming_error_is_logged_with_its_traceback_by_any_logger(log: Log) -> None:
    async def broken() -> None:
        # Any code of ours that fails: a handler of something that is no server.
        Handlers(None, None, None, None).add_registered_method_handlers("Service", {"Call": None})

    task = asyncio.create_task(broken())
    await asyncio.wait([task])
    del task  # asyncio logs what nobody retrieved
    (line,) = of("asyncio", log.lines())
    assert (line["level"], line["text"]) == ("error", "Task exception was never retrieved")
    assert line["error"] == "AttributeError"
    assert "add_registered_method_handlers" in line["exception"]


def test_repeated_records_are_one_line_a_second_with_a_count(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter, "LIMIT_SECONDS", 3600.0)
    library = logging.getLogger("some.library")
    for number in range(1000):
        library.warning("too many of %d", number)
        library.warning("and of %d", number)
    lines = of(library.name, log.lines())
    assert [(line["text"], line["count"]) for line in lines] == [
        ("too many of", 1),
        ("and of", 1),
        ("too many of", 999),
        ("and of", 999),
    ]


def test_other_handlers_get_each_record_unchanged(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        logging.getLogger("jobledger.test").error("event", extra={"count": 1})
    assert [vars(record)["count"] for record in caplog.records] == [1, 1, 1]
    assert [line["count"] for line in log.lines()] == [1, 2]


def test_a_repeated_programming_error_has_its_traceback_once_a_second(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter, "LIMIT_SECONDS", 3600.0)
    own = logging.getLogger("jobledger.rpc")

    for number in range(1000):
        try:
            int("none")
        except ValueError:
            own.exception("internal_error", extra={"correlation_id": number})
    lines = of(own.name, log.lines())
    assert [line["correlation_id"] for line in lines] == list(range(1000))
    assert [number for number, line in enumerate(lines) if "exception" in line] == [0]
    assert {line.get("error") for line in lines} == {None, "ValueError"}


def test_the_number_of_remembered_log_kinds_is_bounded(log: Log) -> None:
    for number in range(1000):
        logging.getLogger("some.library").warning(f"kind{number}")  # noqa: G004
    lines = of("some.library", log.lines())
    assert sum(line["count"] for line in lines) == 1000
    assert len(lines) <= 2 * (rate_limiter.MAX_KINDS + 1)


def test_denials_of_many_addresses_are_not_those_of_an_identity(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor those of one address: a line names nobody, or the one whose denials it counts."""
    monkeypatch.setattr(rate_limiter, "LIMIT_SECONDS", 3600.0)
    for number in range(400):
        audit_denial(
            "Service/Method", f"ipv4:10.0.0.{number}", Unauthenticated(IdentityFault.EXPIRED)
        )
    for _ in range(15):
        audit_denial("Service/Method", "token:web", AccessDenied("users", "eve"))
    for number in range(400):
        for _ in range(3):
            audit_denial(
                "Service/Method", f"ipv4:10.0.0.{number}", Unauthenticated(IdentityFault.EXPIRED)
            )
    counts: Counter[str | None] = Counter()
    for line in of("jobledger.audit", log.lines()):
        counts[line.get("caller", line.get("address"))] += line["count"]
    assert counts.pop("token:web") == 15
    assert counts.pop(None) == (400 - rate_limiter.MAX_KINDS) * 4
    assert set(counts.values()) == {4}


def test_long_lines_of_several_processes_are_not_torn() -> None:
    """They share standard error, and a pipe takes PIPE_BUF bytes whole."""
    end, file = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    queues = [LogQueue(JsonFormatter(child=child)) for child in range(3)]
    writers = [LogWriter(queue, file) for queue in queues]
    audit = logging.getLogger("jobledger.audit")
    jobs = [f"01a219bf-8e5b-748b-8f01-{number:012}" for number in range(1000)]
    facts = {"jobs": jobs, "outcome": "OK", "worker": "\N{GRINNING FACE}" * 1000}
    failed = (ValueError, ValueError("because " * 1000), None)
    change = audit.makeRecord(audit.name, logging.INFO, "", 0, "change", (), None, extra=facts)
    failure = audit.makeRecord(audit.name, logging.ERROR, "", 0, "failure", (), failed)
    with os.fdopen(end) as reader, ThreadPoolExecutor(1) as pool:
        for writer in writers:
            writer.start()
        for record in [change] * 30 + [failure]:
            for queue in queues:
                queue.handle(record)
        reading = pool.submit(list, reader)
        for writer in writers:
            writer.stop()
        os.close(file)
        text = reading.result()
    assert max(map(len, text)) <= select.PIPE_BUF
    lines = [json.loads(line) for line in text]
    assert Counter(line["child"] for line in lines) == {0: 31, 1: 31, 2: 31}
    changes = [line for line in lines if line["event"] == "change"]
    assert {line["job_count"] for line in changes} == {1000}
    assert all(line["jobs"] == jobs[: len(line["jobs"])] != [] for line in changes)
    (exception,) = {line["exception"] for line in lines if line["event"] == "failure"}
    assert exception.endswith("because because ")


def test_lines_dropped_by_a_full_queue_are_counted(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "MAX_LINES", 500)
    own = logging.getLogger("jobledger.test")
    for number in range(3000):  # more than the pipe and the queue hold
        own.error("line", extra={"number": number})
    lines = log.lines()
    written = [line["number"] for line in lines if line["event"] == "line"]
    reports = [line["lost"] for line in lines if line["event"] == "log_lines_lost"]
    assert written == sorted(written)
    assert sum(reports) == log.queue.lost == 3000 - len(written) > 0


def test_a_line_that_cannot_be_written_is_counted_once(log: Log) -> None:
    log.close()  # as `head` closes its end after some lines
    logging.getLogger("jobledger.test").error("line")
    log.stop()
    assert log.queue.lost == 1


PRINTING = """
import sys, traceback
from jobledger_server.telemetry.logs import logging_to_stderr
with logging_to_stderr(sys.argv[1]):
    try:
        raise ValueError("Bearer secret")
    except ValueError:
        traceback.print_exc()
print("at the end", file=sys.stderr)
"""


def printed_at(level: str) -> list[dict[str, Any]]:
    """Have a library print an error with private data; return the lines of the log."""
    done = forked.run("python", PRINTING, level, env=dict(os.environ))
    *lines, last = done.stderr.splitlines()
    assert last == "at the end"
    return [json.loads(line) for line in lines]


def test_who_printed_is_logged_and_what_was_printed_is_not() -> None:
    lines = printed_at("info")
    assert "secret" not in str(lines)
    kinds = {(line["logger"], line["text"], line["error"]) for line in lines}
    assert kinds == {("__main__", "printed to standard error", "ValueError")}
    assert sum(line["count"] for line in lines) >= 3


def test_what_libraries_print_is_logged_at_level_debug() -> None:
    printed = [line["text"] for line in printed_at("debug") if line["event"] == "library_output"]
    assert "".join(printed).splitlines()[0] == "Traceback (most recent call last):"
    assert "ValueError: Bearer secret" in "".join(printed)
