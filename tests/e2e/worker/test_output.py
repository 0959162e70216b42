"""What handlers write, as readers see it at a real service."""

import asyncio
import csv
import logging
import sys

import pytest

from jobledger import JobStatus, LimitExceeded
from jobledger.errors import MessageTooLarge
from jobledger.worker import JobLogHandler, Worker
from tests.e2e.worker import process_handlers


async def text_of(client, job, stream=""):
    """Return a stream of a job once it is closed: it is then whole."""
    async with asyncio.timeout(30):
        found = [piece async for piece in client.output(job, stream=stream)]
    assert found[-1].closed
    return "".join(piece.text for piece in found)


async def test_what_a_handler_writes_is_whole_when_its_job_has_ended(client, running, job_type):
    worker = Worker(client)
    words = [f"wörd{number} " for number in range(2000)]

    @worker.handler(job_type)
    async def write(job):
        for word in words:
            await job.write(word)
        await job.log("a line")
        with job.output("data", content_type="application/octet-stream") as stream:
            await stream.write(b"\0" * 200_000)
        await job.write("the end", wait=True)

    running(worker)
    job = await client.create_job(job_type)
    assert await text_of(client, job) == "".join(words) + "the end"
    assert await text_of(client, job, "log") == "a line\n"
    read = await client.get_job(job.id)
    assert read.status == JobStatus.COMPLETED
    assert dict(read.output_streams) == {
        "": "text/plain; charset=utf-8",
        "log": "text/plain; charset=utf-8",
        "data": "application/octet-stream",
    }
    assert (await client.read_output(job, stream="data")).next_offset == 200_000


async def test_a_report_comes_after_what_was_written_before_it(client, running, job_type):
    worker = Worker(client)
    seen = asyncio.Event()

    @worker.handler(job_type)
    async def write(job):
        await job.write("half")
        await job.progress(50)
        await seen.wait()

    running(worker)
    job = await client.create_job(job_type)
    async with client.watch(job) as changes:
        async for change in changes:
            if change.job.progress == 50:
                break
    assert (await client.read_output(job)).text == "half"
    seen.set()
    await client.wait(job)


async def test_plain_functions_print_log_and_run_programs(client, running, job_type):
    worker = Worker(client, concurrency=2)
    logger = logging.getLogger("rendering")
    handler = JobLogHandler(level=logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    @worker.handler(job_type)
    def write(job):
        name = job.parameters["name"]
        with job.capture_prints():
            print("printed by", name)  # noqa: T201
        print("not captured")  # noqa: T201
        logger.info("logged by %s", name)
        logger.debug("too little")
        with job.output("rows.csv") as stream:
            csv.writer(stream).writerow([name, 1])
        program = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
        assert job.run_program([sys.executable, "-c", program], stream="program") == 0

    try:
        running(worker)
        jobs = [await client.create_job(job_type, {"name": name}) for name in ("one", "two")]
        for job, name in zip(jobs, ("one", "two"), strict=True):
            assert await text_of(client, job) == f"printed by {name}\n"
            assert await text_of(client, job, "log") == f"logged by {name}\n"
            assert await text_of(client, job, "rows.csv") == f"{name},1\r\n"
            assert sorted((await text_of(client, job, "program")).split()) == ["err", "out"]
    finally:
        logger.removeHandler(handler)


async def test_a_handler_in_a_process_writes_too(client, running, job_type):
    worker = Worker(client)
    worker.handler(job_type, executor="process")(process_handlers.writes)
    running(worker)
    job = await client.create_job(job_type)
    assert await text_of(client, job) == "from a process to its end"
    assert await text_of(client, job, "data.csv") == "a,b\n"


async def test_output_that_is_refused_fails_no_job_unless_it_is_waited_for(
    client, running, job_type, caplog
):
    worker = Worker(client)
    refusals = []

    @worker.handler(job_type)
    async def write(job):
        for _ in range(20):
            await job.write("x" * 64 * 1024)
        try:
            await job.write("more", wait=True)
        except (LimitExceeded, MessageTooLarge) as refusal:
            refusals.append(refusal)

    running(worker)
    job = await client.create_job(job_type, refuse_output=True)
    assert (await client.wait(job, timeout=30)).status == JobStatus.COMPLETED
    assert len(refusals) == 1
    assert len(await text_of(client, job)) == 1024 * 1024
    assert "output" in caplog.text


@pytest.mark.parametrize("given", ["a b", "-log", "x" * 65])
async def test_a_stream_that_cannot_be_named_so_is_an_error_of_the_handler(
    client, running, job_type, given
):
    worker = Worker(client)

    @worker.handler(job_type)
    async def write(job):
        await job.write("x", stream=given)

    running(worker)
    job = await client.create_job(job_type)
    done = await client.wait(job, timeout=30)
    assert done.status == JobStatus.FAILED
    assert "stream" in done.error.message
