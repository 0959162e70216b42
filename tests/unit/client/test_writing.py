# ruff: noqa: T201  # print is what is tested
"""What handlers write their output with: calls, files, captured prints, and a handler of logs."""

import asyncio
import contextlib
import csv
import io
import logging
import shutil
import sys
import threading
from collections.abc import Iterator

import pytest

from jobledger.testing import run_handler, run_handler_async
from jobledger.worker import BlockingJob, BlockingJobOutput, ClaimedJob, JobLogHandler, JobOutput
from jobledger.worker.job import run_state


def test_an_async_handler_writes_text_and_bytes_to_streams():
    async def write(job: ClaimedJob) -> None:
        await job.write("wörds\ud800 ")
        await job.write(b"\xff")
        await job.write("")
        await job.log("a line")
        await job.log("another\n", wait=True)
        with job.output("data.csv", content_type="text/csv") as stream:
            assert isinstance(stream, JobOutput)
            assert stream.name == "data.csv"
            await stream.write("a,b\n", wait=True)

    run = run_handler(write)
    assert run.raised is None
    assert run.output == {
        "": "wörds? ".encode() + b"\xff",
        "log": b"a line\nanother\n",
        "data.csv": b"a,b\n",
    }


def test_a_plain_handler_has_a_file():
    def write(job: BlockingJob) -> None:
        job.write("words")
        job.log("a line")
        with job.output("rows") as stream:
            assert isinstance(stream, BlockingJobOutput)
            assert stream.writable()
            csv.writer(stream).writerow(["a", 1])
            print("printed", file=stream, flush=True)
            shutil.copyfileobj(io.BytesIO(b"bytes"), stream)
            assert stream.write("ä", wait=True) == 1
        with pytest.raises(ValueError, match="closed"):
            stream.write("too late")

    run = run_handler(write)
    assert run.raised is None
    assert run.output["rows"] == "a,1\r\nprinted\nbytesä".encode()
    assert (run.output[""], run.output["log"]) == (b"words", b"a line\n")


@pytest.mark.parametrize("stream", ["a b", "-a", "a\n", "x" * 65, None])
def test_a_name_that_no_stream_can_have_is_an_error_where_it_is_used(stream):
    async def write(job: ClaimedJob) -> None:
        for call in (job.output, job.capture_prints, JobLogHandler):
            with pytest.raises(ValueError, match="stream"):
                call(stream)
        await job.write("x", stream=stream)

    assert isinstance(run_handler(write).raised, ValueError)


@pytest.mark.parametrize("content_type", ["text", "text/plain;\n", "a/" + "x" * 127])
def test_a_content_type_that_is_none_is_an_error(content_type):
    async def write(job: ClaimedJob) -> None:
        job.output(content_type=content_type)

    assert isinstance(run_handler(write).raised, ValueError)


def test_what_is_neither_text_nor_bytes_is_an_error():
    async def write(job: ClaimedJob) -> None:
        await job.write(7)

    assert isinstance(run_handler(write).raised, TypeError)


@pytest.mark.parametrize("call", ["write", "log"])
def test_a_handler_that_has_to_stop_learns_it_from_what_it_writes(call):
    async def lost(job: ClaimedJob) -> None:
        run_state(job).returned = True  # as what it has left running sees it
        with pytest.raises(asyncio.CancelledError):
            await getattr(job, call)("x")
        run_state(job).returned = False

    assert run_handler(lost).raised is None


# --- prints ----------------------------------------------------------------------------------


async def test_the_prints_of_jobs_that_run_at_once_are_told_apart(capsys):
    both = asyncio.Barrier(2)

    async def write(job: ClaimedJob) -> None:
        name = job.parameters["name"]
        with job.capture_prints():
            await both.wait()
            print("in the loop", name)
            await asyncio.to_thread(print, "in a thread", name)
            await both.wait()
        print("after", name)

    one, other = await asyncio.gather(
        *(run_handler_async(write, {"name": name}) for name in ("one", "other"))
    )
    assert one.output == {"": b"in the loop one\nin a thread one\n"}
    assert other.output == {"": b"in the loop other\nin a thread other\n"}
    assert sorted(capsys.readouterr().out.splitlines()) == ["after one", "after other"]


def test_stdout_is_as_before_when_no_job_captures_prints(capsys):
    before = sys.stdout

    def write(job: BlockingJob) -> None:
        with job.capture_prints("a"), job.capture_prints("b"):
            print("inner")
            sys.stdout.write("words")
            sys.stdout.flush()

    assert run_handler(write).output == {"b": b"inner\nwords"}
    assert sys.stdout is before
    print("more")
    assert capsys.readouterr().out == "more\n"


def test_prints_of_a_thread_that_outlives_the_block_go_to_stdout(capsys):
    go, done = threading.Event(), threading.Event()

    def late() -> None:
        go.wait(10)
        print("late")
        done.set()

    async def write(job: ClaimedJob) -> None:
        with job.capture_prints():
            left = asyncio.create_task(asyncio.to_thread(late))
            await asyncio.sleep(0)
            print("in time")
        go.set()
        await left

    assert run_handler(write).output == {"": b"in time\n"}
    assert done.is_set()
    assert capsys.readouterr().out == "late\n"


# --- logs ------------------------------------------------------------------------------------


@contextlib.contextmanager
def logging_to_jobs(**options: int | str) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.writing")
    handler = JobLogHandler(**options)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)


async def test_a_record_goes_to_the_job_in_whose_handler_it_was_made():
    both = asyncio.Barrier(2)
    with logging_to_jobs(level="WARNING") as logger:

        async def write(job: ClaimedJob) -> None:
            name = job.parameters["name"]
            await both.wait()
            logger.warning("in the loop of %s", name)
            await asyncio.to_thread(logger.error, "in a thread of %s", name)
            logger.info("too little")

        one, other = await asyncio.gather(
            *(run_handler_async(write, {"name": name}) for name in ("one", "other"))
        )
        logger.warning("of no job")
    assert one.output == {"log": b"WARNING in the loop of one\nERROR in a thread of one\n"}
    assert other.output == {"log": b"WARNING in the loop of other\nERROR in a thread of other\n"}


def test_a_handler_of_logs_writes_to_the_stream_that_it_is_given():
    with logging_to_jobs(stream="audit") as logger:

        def write(job: BlockingJob) -> None:
            logger.warning("x")

        assert run_handler(write).output == {"audit": b"WARNING x\n"}


# --- programs --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_what_a_program_writes_is_output_in_its_order(kind):
    program = ["sh", "-c", "echo out; echo $A >&2; cat; exit 3"]

    async def run_async(job: ClaimedJob) -> dict[str, object]:
        return {"code": await job.run_program(program, stream="p", env={"A": "error"})}

    def run_plain(job: BlockingJob) -> dict[str, object]:
        return {"code": job.run_program(program, stream="p", env={"A": "error"})}

    run = run_handler(run_async if kind == "async" else run_plain)
    assert run.output == {"p": b"out\nerror\n"}
    assert run.outcome.result == {"code": 3}


def test_a_program_that_does_not_exist_is_an_error():
    async def run(job: ClaimedJob) -> None:
        await job.run_program(["there-is-no-such-program"])

    assert isinstance(run_handler(run).raised, FileNotFoundError)
