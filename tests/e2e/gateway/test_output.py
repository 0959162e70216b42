"""The output of jobs over HTTP. The protocol's own tests are in tests/polyglot."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobledger_gateway.limits import FILE_PART_BYTES, MIB
from jobledger_server.app import App
from tests.support.access_file import rule
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Event, Http, Stream
from tests.support.rpc_caller import PROCESSING, Caller, calling
from tests.support.server_process import ServerProcess

KIB = 1024


async def append(rpc: Caller, job_id: str, *pieces: bytes, attempt: int = 1, **fields: Any) -> None:
    for piece in pieces:
        await rpc.AppendOutput(job_id=job_id, attempt=attempt, data=piece, **fields)


def path_of(job_id: str, query: str = "", *, stream: str = "") -> str:
    return f"/v1/jobs/{job_id}/output{stream and '/'}{stream}?user_id=ada{query and '&'}{query}"


async def output(events: Stream, until: str = "upToDate") -> tuple[list[Any], dict[str, Any]]:
    """Return what the events have up to a control event with a key; and this control event."""
    found = []
    while True:
        event = await events.event()
        assert event is not None
        if event.name == "data":
            found.append(event.data)
        elif event.name == "control" and until in event.data:
            return found, event.data


async def test_a_read_is_of_one_attempt_and_says_where_the_next_one_begins(
    http: Http, rpc: Caller
) -> None:
    job_id = (await rpc.running(retry_policy={"max_attempts": 3})).id
    await append(rpc, job_id, b"one", b" two", stream="log")
    await rpc.ReleaseJob(job_id=job_id, attempt=1)
    await rpc.TransitionJob(job_id=job_id, target_status=PROCESSING, worker_id="w2")
    await append(rpc, job_id, b"three", attempt=2, stream="log")

    read, at = [], "-1"
    while True:
        answer = await http.get(path_of(job_id, f"offset={at}", stream="log"))
        at = answer.headers["stream-next-offset"]
        if not answer.body:
            break
        read.append((answer.body, answer.headers["jobledger-attempt"]))
    assert read == [(b"one two", "1"), (b"three", "2")]
    assert answer.headers["stream-up-to-date"] == "true"
    # A file has them all. The stream without a name is another one.
    file = await http.get(path_of(job_id, stream="log"))
    assert (file.body, file.headers["stream-next-offset"]) == (b"one twothree", at)
    assert (await http.get(path_of(job_id))).body == b""
    async with http.events(path_of(job_id, "offset=-1&live=sse", stream="log")) as events:
        first, second = await output(events, "attempt"), await output(events, "attempt")
        assert [(said, control["attempt"]) for said, control in (first, second)] == [
            (["one two"], 1),
            (["three"], 2),
        ]


async def test_what_was_dropped_is_gone_and_the_answer_says_where_to_go_on(
    start: Callable[..., Awaitable[App]], start_gateway
) -> None:
    app = await start(job_output=64 * KIB)
    http = await start_gateway(app.address)
    async with calling(app.address) as call:
        job_id = (await call.running()).id
        await append(call, job_id, *(str(number % 10).encode() * 9000 for number in range(12)))
        for live in ("", "&live=sse", "&live=long-poll"):
            gone = await http.get(path_of(job_id, f"offset=5{live}"))
            before = gone.headers["jobledger-truncated-before"]
            assert (gone.problem["status"], int(before) % 9000) == (410, 0)
            assert gone.problem["metadata"] == {"truncated_before": before}
        read = await http.get(path_of(job_id, f"offset={before}"))
        # Who asks for the beginning is given the oldest that there is.
        first = await http.get(path_of(job_id, "offset=-1"))
        file = await http.get(path_of(job_id))
        assert read.body == first.body == file.body
        assert len(read.body) == 12 * 9000 - int(before)
        assert "jobledger-truncated-before" not in read.headers
        for answer in (first, file):
            assert answer.headers["jobledger-truncated-before"] == before


async def test_a_reader_of_events_that_is_too_slow_is_told_what_was_dropped(
    start: Callable[..., Awaitable[App]],
) -> None:
    fast = 1024 * MIB
    app = await start(job_output=64 * KIB, owner_output_rate=fast, output_rate=fast)
    # As it is run: the gateway of the other tests drops such a client after half a second.
    with GatewayProcess(app.address) as gateway:
        http = Http(int(gateway.target.rpartition(":")[2]))
        async with calling(app.address) as call:
            job_id = (await call.running()).id
            await append(call, job_id, b"begin")
            async with http.events(path_of(job_id, "offset=-1&live=sse")) as events:
                await output(events)
                events.pause()
                # More than the connection holds.
                await append(call, job_id, *(b"x" * 64 * KIB,) * 400)
                await call.MarkCompleted(job_id=job_id, attempt=1)
                events.resume()
                while (event := await events.event()).name != "error":
                    pass
                assert event.data["status"] == 410
                assert await events.event() is None
            truncated = event.data["metadata"]["truncated_before"]
            assert (await http.get(path_of(job_id, f"offset={truncated}"))).status == 200


async def test_the_output_of_a_job_that_has_ended_has_ranges(http: Http, rpc: Caller) -> None:
    job_id = (await rpc.running()).id
    whole = bytes(number % 251 for number in range(2 * FILE_PART_BYTES + 1000))
    pieces = [whole[at : at + 64 * KIB] for at in range(0, len(whole), 64 * KIB)]
    await append(rpc, job_id, *pieces, content_type="video/mp4")
    running = await http.get(path_of(job_id), Range="bytes=0-1")
    assert (running.status, running.body) == (200, whole)
    assert "accept-ranges" not in running.headers
    await rpc.MarkCompleted(job_id=job_id, attempt=1)

    size = len(whole)
    ended = await http.get(path_of(job_id))
    assert (ended.body, ended.headers["accept-ranges"]) == (whole, "bytes")
    assert ended.headers["content-length"] == str(size)
    etag = ended.headers["etag"]
    assert etag != running.headers["etag"]
    for asked, first, last in (
        ("0-0", 0, 0),
        ("10-", 10, size - 1),
        (f"{FILE_PART_BYTES - 1}-{FILE_PART_BYTES}", FILE_PART_BYTES - 1, FILE_PART_BYTES),
        ("-5", size - 5, size - 1),
        (f"-{2 * size}", 0, size - 1),
        (f"5-{2 * size}", 5, size - 1),
    ):
        answer = await http.get(path_of(job_id), Range=f"bytes={asked}", If_Range=etag)
        assert (answer.status, answer.body) == (206, whole[first : last + 1])
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
    for asked in (f"{size}-", "-0"):
        answer = await http.get(path_of(job_id), Range=f"bytes={asked}")
        assert (answer.problem["status"], answer.headers["content-range"]) == (
            416,
            f"bytes */{size}",
        )
    for ignored in ("bytes=5-1", "bytes=0-1,3-4", "lines=0-1", "bytes=-", "bytes=a-b"):
        assert (await http.get(path_of(job_id), Range=ignored)).status == 200
    other = await http.get(path_of(job_id), Range="bytes=0-0", If_Range='"other"')
    assert (other.status, len(other.body)) == (200, size)
    assert (await http.get(path_of(job_id), If_None_Match=etag)).status == 304
    head = await http.send("HEAD", path_of(job_id))
    assert (head.status, head.headers["content-length"]) == (200, str(size))
    assert (head.headers["content-type"], head.headers["stream-closed"]) == ("video/mp4", "true")


@pytest.mark.parametrize(
    ("content_type", "served", "is_shown"),
    [
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8", True),
        ("text/html", "text/html", False),
        ("image/svg+xml", "image/svg+xml", False),
        ("application/json", "application/json", False),
        ("text/javascript", "text/plain; charset=utf-8", True),
        ("Application/X-JavaScript", "text/plain; charset=utf-8", True),
        ("text/css", "text/plain; charset=utf-8", True),
        ("multipart/x-mixed-replace; boundary=x", "application/octet-stream", False),
    ],
)
async def test_no_browser_runs_output_in_the_gateways_origin(
    http: Http,
    rpc: Caller,
    content_type: str,
    served: str,
    is_shown: bool,  # noqa: FBT001
) -> None:
    job_id = (await rpc.running()).id
    await append(rpc, job_id, b"<script>alert(1)</script>", content_type=content_type)
    for query in ("", "offset=-1", "offset=-1&live=long-poll"):
        answer = await http.get(path_of(job_id, query))
        assert answer.headers["content-type"] == served
        policy = answer.headers["content-security-policy"]
        assert policy == "sandbox; default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        stored = answer.headers.get("content-disposition", "")
        assert stored.startswith("attachment; ") is not is_shown


async def test_a_long_poll_waits_for_output_and_for_the_end(
    server: ServerProcess, rpc: Caller, start_gateway
) -> None:
    http = await start_gateway(server.target, heartbeat=0.1)
    patient = await start_gateway(server.target, heartbeat=60)
    job_id = (await rpc.running()).id
    nothing = await http.get(path_of(job_id, "offset=-1&live=long-poll"))
    assert (nothing.status, nothing.headers["stream-up-to-date"]) == (204, "true")
    at = nothing.headers["stream-next-offset"]
    for change, expected in (
        (lambda: append(rpc, job_id, b"news"), (200, b"news")),
        (lambda: rpc.MarkCompleted(job_id=job_id, attempt=1), (204, b"")),
    ):
        polled = asyncio.create_task(patient.get(path_of(job_id, f"offset={at}&live=long-poll")))
        await asyncio.wait({polled}, timeout=0.2)
        assert not polled.done()
        await change()
        answer = await polled
        assert (answer.status, answer.body) == expected
        at = answer.headers["stream-next-offset"]
    assert answer.headers["stream-closed"] == "true"


async def test_events_of_a_text_have_whole_characters_and_line_ends(
    http: Http, rpc: Caller
) -> None:
    job_id = (await rpc.running()).id
    pieces = [b"\xe2", b"\x82", b"\xac a\r", b"\n  b\xf0\x9f\x98", b"\x80\xff", b"c\xc3"]
    async with http.events(path_of(job_id, "offset=-1&live=sse&encoding=base64")) as raw:
        await output(raw)
        seen, control = [], {"streamNextOffset": "0"}
        for piece in pieces:
            await append(rpc, job_id, piece)
            at = control["streamNextOffset"]
            # Each time another stream: the offset before it is of what was whole.
            async with http.events(path_of(job_id, f"offset={at}&live=sse")) as events:
                said, control = await output(events)
            seen += said
        assert "".join(seen) == "€ a\n  b😀\ufffdc"
        assert base64.b64decode("".join((await output(raw))[0])) == b"".join(pieces)[:1]
        found = b""
        while found != b"".join(pieces)[1:]:
            found += base64.b64decode("".join((await output(raw))[0]))
    await rpc.MarkCompleted(job_id=job_id, attempt=1)
    at = control["streamNextOffset"]
    async with http.events(path_of(job_id, f"offset={at}&live=sse")) as events:
        assert (await output(events, "streamClosed"))[0] == ["\ufffd"]
        assert await events.event() is None


async def test_an_event_source_resumes_by_its_ids_and_stops_at_the_end(
    http: Http, rpc: Caller
) -> None:
    job_id = (await rpc.running()).id
    await append(rpc, job_id, b"one\n")
    path = path_of(job_id, "offset=-1&live=sse")
    async with http.events(path) as events:
        first = await events.event()
        assert first == Event("data", "one\n", "0000000000000004")
    await append(rpc, job_id, b"two\n")
    await rpc.MarkCompleted(job_id=job_id, attempt=1)
    async with http.events(path, Last_Event_ID=first.event_id) as events:
        assert (await events.event()).data == "two\n"
        said, control = await output(events, "streamClosed")
        assert (said, control["streamNextOffset"]) == ([], "0000000000000008")
        assert await events.event() is None
    over = await http.get(path, Last_Event_ID="0000000000000008")
    assert (over.status, over.body) == (204, b"")


async def test_a_stream_that_nobody_has_begun_is_empty_and_may_become_bytes(
    http: Http, rpc: Caller
) -> None:
    job_id = (await rpc.running()).id
    path = path_of(job_id, "offset=-1&live=sse", stream="later")
    async with http.events(path) as events:
        assert (await output(events))[0] == []
        await append(rpc, job_id, b"\x89PNG", stream="later", content_type="image/png")
        said, _ = await output(events)
        assert base64.b64decode(said[0]) == b"\x89PNG"


async def test_a_job_that_is_deleted_ends_the_events_of_its_output(http: Http, rpc: Caller) -> None:
    job_id = (await rpc.running()).id
    await append(rpc, job_id, b"x")
    async with http.events(path_of(job_id, "offset=-1&live=sse")) as events:
        await output(events)
        await rpc.MarkCompleted(job_id=job_id, attempt=1)
        await output(events, "streamClosed")
    await rpc.DeleteJob(job_id=job_id, user_id="ada")
    for query in ("", "offset=0", "offset=0&live=sse", "offset=0&live=long-poll"):
        assert (await http.get(path_of(job_id, query))).problem["reason"] == "JOB_NOT_FOUND"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("live=websocket&offset=-1", "live"),
        ("live=sse", "offset"),
        ("live=long-poll", "offset"),
        ("offset=", "offset"),
        ("offset=-2", "offset"),
        ("offset=%C2%B2", "offset"),
        ("offset=1&offset=2", "offset"),
        ("offset=1&last_bytes=2", "last_bytes"),
        ("last_bytes=-1", "last_bytes"),
        ("offset=-1&live=sse&encoding=gzip", "encoding"),
        ("userId=ada", "user_id"),
    ],
)
async def test_a_request_that_says_nothing_sensible_is_refused(
    http: Http, query: str, field: str
) -> None:
    refused = await http.get(path_of("some", query))
    assert refused.problem["status"] == 400
    assert refused.problem["violations"][0]["field"] == field


async def test_a_watch_token_reads_output_only_if_it_was_made_for_that(
    start_with: Callable[..., Awaitable[App]], start_gateway
) -> None:
    app = await start_with(rule("ada", 'roles = ["owner"]\nusers = ["ada"]', "ada-token"))
    http = await start_gateway(app.address)
    ada = {"Authorization": "Bearer ada-token"}
    made = await http.post("/v1/jobs", {"userId": "ada", "jobType": "render"}, **ada)
    job_id = made.json()["job"]["id"]
    path = f"/v1/jobs/{job_id}/output"
    for may, status in ((False, 403), (True, 200)):
        wanted = {"userId": "ada", "jobId": job_id, "output": may}
        token = (await http.post("/v1/watchTokens", wanted, **ada)).json()["token"]
        for query in ("", "&offset=0"):
            assert (await http.get(f"{path}?token={token}{query}")).status == status
    async with http.events(f"{path}?token={token}&offset=0&live=sse") as events:
        await output(events)
    assert (await http.get(f"{path}?user_id=ada")).problem["status"] == 401
    assert (await http.get(f"{path}?user_id=bob", **ada)).problem["status"] == 403


async def test_live_output_counts_as_event_streams(
    server: ServerProcess, rpc: Caller, start_gateway
) -> None:
    http = await start_gateway(server.target, max_client_streams=1)
    job_id = (await rpc.running()).id
    async with http.events(path_of(job_id, "offset=-1&live=sse")) as events:
        await output(events)
        for live in ("sse", "long-poll"):
            refused = await http.get(path_of(job_id, f"offset=-1&live={live}"))
            assert (refused.problem["status"], refused.headers["retry-after"]) == (429, "5")
        assert (await http.get(path_of(job_id, "offset=-1"))).status == 200
        http.stop()
        while await events.event() is not None:
            pass


async def test_a_server_that_is_killed_and_comes_back_costs_no_byte(
    own_server: ServerProcess, start_gateway
) -> None:
    http = await start_gateway(own_server.target)
    async with calling(own_server.target) as call:
        job_id = (await call.running()).id
        await append(call, job_id, b"before ")
    async with http.events(path_of(job_id, "offset=-1&live=sse")) as events:
        assert (await output(events))[0] == ["before "]
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        async with calling(own_server.target) as call:
            await append(call, job_id, b"after")
            await call.MarkCompleted(job_id=job_id, attempt=1)
        said, _ = await output(events, "streamClosed")
        assert "".join(said) == "after"


async def test_a_file_that_is_not_read_holds_little_and_counts_for_its_address(
    server: ServerProcess, rpc: Caller, start_gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobledger_gateway.app.ADDRESS_ANSWER_BYTES", FILE_PART_BYTES)
    http = await start_gateway(server.target, send_buffer=64 * KIB)
    job_id = (await rpc.running()).id
    # More than the connection holds.
    await append(rpc, job_id, *(b"x" * 64 * KIB,) * 15)
    reader, writer = await http.open("GET", path_of(job_id))
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.transport.pause_reading()
    for query in ("", "offset=0"):
        assert (await http.get(path_of(job_id, query))).problem["status"] == 429
    writer.close()
    async with asyncio.timeout(30):
        while (await http.get(path_of(job_id))).status != 200:
            pass  # until the gateway has noticed that the connection is closed
