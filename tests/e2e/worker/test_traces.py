"""A job's trace: from its creator's OpenTelemetry context to the handler of each attempt."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from opentelemetry import trace

from jobledger import Client, NewJob
from jobledger.worker import Worker
from tests.e2e.worker import process_handlers
from tests.support.forked import Piped

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def traced():
    """Make the test a part of a trace, as a program's own instrumentation does."""
    context = trace.SpanContext(
        int(TRACE, 16), int(SPAN, 16), is_remote=False, trace_flags=trace.TraceFlags.SAMPLED
    )
    return trace.use_span(trace.NonRecordingSpan(context))


def current_trace():
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


async def test_a_creation_sends_the_current_context(client, server, traced, job_type):
    before = await client.create_job(job_type)
    with traced:
        jobs = [await client.create_job(job_type), *await client.create_jobs([NewJob(job_type)])]
        with Client(server.target, user_id=job_type) as blocking:
            jobs.append(blocking.create_job(job_type))
        given = await client.create_job(job_type, metadata={"traceparent": HEADER[:-1] + "0"})
    assert [job.traceparent for job in jobs] == [HEADER] * 3
    assert given.traceparent == HEADER[:-1] + "0"
    assert before.traceparent == ""


async def test_a_handler_continues_the_trace(client, running, traced, job_type):
    worker = Worker(client)
    seen = {}

    @worker.handler(f"{job_type}-async")
    async def render(job):
        seen["async"] = current_trace()

    @worker.handler(f"{job_type}-thread")
    def render_in_thread(job):
        seen["thread"] = current_trace()

    worker.handler(f"{job_type}-process", executor="process")(process_handlers.trace_id)
    ways = ("async", "thread", "process")
    with traced:
        jobs = [await client.create_job(f"{job_type}-{way}") for way in ways]
    running(worker)
    ended = [await client.wait(job.id, timeout=30) for job in jobs]
    assert [job.error for job in ended] == [None] * 3
    assert {**seen, "process": ended[2].result["trace"]} == dict.fromkeys(ways, TRACE)


async def test_a_handler_of_an_untraced_job_is_in_no_other_trace(client, running, traced, job_type):
    worker = Worker(client)
    seen = []

    @worker.handler(job_type)
    async def render(job):
        seen.append(current_trace())

    job = await client.create_job(job_type)
    with traced:  # the worker's own
        running(worker)
        await client.wait(job.id, timeout=20)
    assert seen == ["0" * 32]


PROGRAM = """
import sys
from jobledger import Client, NewJob
from jobledger.worker import Worker
with Client(sys.argv[1], user_id="ada") as client:
    print(repr(client.create_job("t").traceparent))
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_a_program_without_opentelemetry_imports_none_of_it(server):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.target], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "''\n[]\n"


async def test_a_program_of_another_language_gets_the_trace(client, server, traced, job_type):
    with traced:
        job = await client.create_job(job_type)
    code = "import json, os; print(json.dumps({'trace': os.environ['TRACEPARENT']}))"
    program = ["--", sys.executable, "-c", code]
    command = ["--server", server.target, "worker", "exec", job_type, *program]
    process = Piped("jobledger", command, env=os.environ)
    try:
        ended = await client.wait(job.id, timeout=30)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.communicate)
    assert ended.result == {"trace": HEADER}
