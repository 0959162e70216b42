"""What each call can be given, how long a client lives, and what its errors say."""

import asyncio
import contextlib
import math
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from jobledger import (
    CHANNEL_OPTIONS,
    AccessDenied,
    AsyncClient,
    Client,
    ClientClosed,
    DeadlineExceeded,
    InvalidField,
    JobledgerError,
    JobNotFound,
    MessageTooLarge,
    Page,
    Unavailable,
)
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.job_service_pb2 import CreateJobRequest


class SilentServer:
    """Accepts connections and never says anything."""

    def __init__(self):
        self.accepted = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                self._connections.append(self._listener.accept())
                self.accepted.set()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        self._thread.join()
        self._listener.close()
        for connection, _ in self._connections:
            connection.close()


@pytest.fixture
def silent():
    server = SilentServer()
    yield server
    server.close()


# --- metadata, tokens, interceptors --------------------------------------------------------------


async def test_metadata_of_the_client_and_of_one_call_are_sent(flaky):
    with Client(flaky.target, user_id="ada", metadata={"tenant": "a"}) as client:
        client.get_job("j", metadata={"trace": "1"})
        client.get_job("j")
    async with AsyncClient(flaky.target, user_id="ada", metadata={"tenant": "a"}) as client:
        await client.get_job("j", metadata=[("trace", "2")])
    seen = [(m.get("tenant"), m.get("trace")) for m in flaky.metadata]
    assert seen == [("a", "1"), ("a", None), ("a", "2")]


async def test_metadata_given_as_a_generator_is_sent_with_each_page(flaky):
    def once():
        yield "trace", "1"

    async with AsyncClient(flaky.target, user_id="ada") as client:
        assets = client.list_assets("j", metadata=once())
        for _ in range(2):
            assert [page async for page in assets.pages()] == [Page((), "")]
    assert [metadata.get("trace") for metadata in flaky.metadata] == ["1"] * 2


async def test_a_token_function_is_called_for_each_call(flaky):
    tokens = iter("abcd")
    with Client(flaky.target, user_id="ada", token=lambda: next(tokens)) as client:
        client.get_job("j")
        client.get_job("j")

    async def token():
        await asyncio.sleep(0)
        return next(tokens)

    async with AsyncClient(flaky.target, user_id="ada", token=token) as client:
        await client.get_job("j")
    async with AsyncClient(flaky.target, user_id="ada", token=lambda: next(tokens)) as client:
        await client.get_job("j")
    shown = [metadata["authorization"] for metadata in flaky.metadata]
    assert shown == ["Bearer a", "Bearer b", "Bearer c", "Bearer d"]


async def test_interceptors_see_each_call(flaky):
    seen = []

    class Sync(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation, client_call_details, request):
            seen.append(client_call_details.method)
            return continuation(client_call_details, request)

    class Async(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, client_call_details, request):
            seen.append(client_call_details.method.decode())
            return await continuation(client_call_details, request)

    with Client(flaky.target, user_id="ada", interceptors=[Sync()]) as client:
        client.get_job("j")
    async with AsyncClient(flaky.target, user_id="ada", interceptors=[Async()]) as client:
        await client.get_job("j")
    assert seen == ["/jobledger.v1.JobService/GetJob"] * 2


# --- timeouts ------------------------------------------------------------------------------------


async def test_the_message_of_a_deadline_names_the_address_the_time_and_the_cause(silent):
    expected = rf"no answer from {silent.target} within 0\.3 s: "
    unknown = r"it is slow, or there is no connection \(check the address"
    with (
        Client(silent.target, user_id="ada") as client,
        pytest.raises(DeadlineExceeded, match=expected + unknown),
    ):
        client.get_job("j", timeout=0.3)
    expected += r"no connection \(check the address"
    async with AsyncClient(silent.target, user_id="ada", timeout=0.3) as client:
        with pytest.raises(TimeoutError, match=expected):
            await client.get_job("j")


async def test_a_server_that_is_connected_but_slow_is_named_so(flaky):
    flaky.delay = 5
    expected = rf"no answer from {flaky.target} within 0\.5 s: "
    with (
        Client(flaky.target, user_id="ada") as client,
        pytest.raises(DeadlineExceeded, match=expected + "it is slow"),
    ):
        client.get_job("j", timeout=0.5)
    expected += "it is connected"
    async with AsyncClient(flaky.target, user_id="ada", timeout=0.5) as client:
        with pytest.raises(DeadlineExceeded, match=expected):
            await client.get_job("j")
    flaky.stopped.set()


async def test_the_error_of_a_creation_has_the_request_id_to_repeat_it_with(flaky):
    flaky.delay = 5
    async with AsyncClient(flaky.target, user_id="ada") as client:
        with pytest.raises(DeadlineExceeded) as late:
            await client.create_job("render", timeout=0.5)
    flaky.stopped.set()
    sent = CreateJobRequest.FromString(flaky.requests[0]).request_id
    assert late.value.request_id == pickle.loads(pickle.dumps(late.value)).request_id == sent


EXIT = """
import sys

from jobledger import Client, DeadlineExceeded

client = Client(sys.argv[1], user_id="ada")
try:
    client.get_job("j", timeout=0.3)
except DeadlineExceeded:
    print("late")
"""


@pytest.mark.parametrize("frozen", [False, True])
def test_a_program_ends_though_its_client_is_open_and_a_call_had_no_answer(silent, flaky, frozen):
    flaky.delay = 5
    target = flaky.target if frozen else silent.target
    ran = subprocess.run(
        [sys.executable, "-c", EXIT, target], capture_output=True, timeout=20, check=True
    )
    assert ran.stdout == b"late\n"
    flaky.stopped.set()


@pytest.mark.parametrize("timeout", [None, 1e12])
def test_a_call_without_a_timeout_is_made(flaky, timeout):
    with Client(flaky.target, user_id="ada", timeout=timeout) as client:
        client.get_job("j")


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.wait("j"),
        lambda client: [*client.watch_jobs()],
        lambda client: [*client.as_completed(["j"])],
    ],
)
def test_a_wrong_address_is_an_error_after_the_time_to_connect(call):
    with (
        Client("127.0.0.1:1", user_id="ada", connect_timeout=0.3) as client,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"),
    ):
        call(client)


def test_an_address_that_never_answers_is_an_error_that_names_it(silent, monkeypatch):
    monkeypatch.setattr("jobledger.core.reconnecting.ATTEMPT", 0.3)
    with (
        Client(silent.target, user_id="ada") as client,
        pytest.raises(Unavailable, match=silent.target),
    ):
        client.wait("j", connect_timeout=0.2)


# --- watches that say what happens to them -------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_watch_calls_on_disconnect_and_on_reconnect(fault_server, kind):
    aborts = fault_server.aborts(grpc.StatusCode.UNAVAILABLE, "cable cut")
    fault_server.says(fault_server.message(1), then=aborts)
    fault_server.says(then=aborts)
    fault_server.says(fault_server.message(2, "COMPLETED"))
    said = []

    def on_disconnect(error):
        said.append(str(error))

    def on_reconnect():
        said.append("back")

    async def on_disconnect_async(error):
        await asyncio.sleep(0)
        on_disconnect(error)

    async def on_reconnect_async():
        await asyncio.sleep(0)
        on_reconnect()

    def follow():
        with Client(fault_server.target, user_id="ada") as client:
            callbacks = {"on_disconnect": on_disconnect, "on_reconnect": on_reconnect}
            for change in client.watch("j", **callbacks):
                said.append(change.job.version)  # noqa: PERF401

    if kind == "sync":
        await asyncio.to_thread(follow)
    else:
        callbacks = {"on_disconnect": on_disconnect_async, "on_reconnect": on_reconnect_async}
        async with AsyncClient(fault_server.target, user_id="ada") as client:
            async for change in client.watch("j", **callbacks):
                said.append(change.job.version)  # noqa: PERF401
    assert said == [1, f"{fault_server.target}: cable cut", "back", 2]


async def test_a_watch_is_a_context_manager_that_ends_its_stream(fault_server):
    for _ in range(2):
        fault_server.says(fault_server.message(1), then=fault_server.falls_silent)
    async with AsyncClient(fault_server.target, user_id="ada") as client:
        async with client.watch("j") as changes:
            assert (await anext(changes)).job.version == 1
        assert await asyncio.to_thread(fault_server.ended.wait, 10)
    fault_server.ended.clear()
    with Client(fault_server.target, user_id="ada") as client:
        with client.watch("j") as changes:
            assert next(changes).job.version == 1
        assert await asyncio.to_thread(fault_server.ended.wait, 10)


# --- lists ---------------------------------------------------------------------------------------


def test_a_list_can_be_read_by_pages_and_resumed_from_a_token(server):
    owner = f"user-{uuid.uuid4()}"
    with Client(server.target, user_id=owner) as client:
        ids = [client.create_job("render").id for _ in range(5)][::-1]
        pages = [*client.list_jobs(page_size=2).pages()]
        assert [[job.id for job in page.items] for page in pages] == [ids[:2], ids[2:4], ids[4:]]
        rest = client.list_jobs(page_size=2, page_token=pages[0].next_page_token)
        assert [job.id for job in rest] == ids[2:]
        assert pages[-1].next_page_token == ""


# --- lifetimes -----------------------------------------------------------------------------------


async def test_a_call_after_close_says_that_the_client_is_closed(server):
    client = Client(server.target, user_id="ada")
    client.close()
    client.close()
    for call in (lambda: client.get_job("j"), lambda: [*client.watch("j")], client.list_jobs):
        with pytest.raises(ClientClosed, match="closed"):
            [*call()]
    asynchronous = AsyncClient(server.target, user_id="ada")
    await asynchronous.close()
    with pytest.raises(ClientClosed, match="closed") as refused:
        await asynchronous.create_job("render", request_id="r")
    assert refused.value.request_id == "r"
    with pytest.raises(ClientClosed, match="closed"):
        await anext(asynchronous.watch("j"))


class Outage:
    """A token function that cannot get the token a few times, or ever."""

    def __init__(self, times: float = math.inf) -> None:
        self.left = times

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise ConnectionResetError("the issuer is away")
        return "t"


async def test_a_call_without_a_token_at_present_is_unavailable(server):
    async with AsyncClient(server.target, user_id="ada", token=Outage()) as client:
        with pytest.raises(Unavailable, match="no token at present: the issuer is away"):
            await client.create_job("render")


async def test_a_watch_waits_for_a_token(server, ada):
    job = ada.create_job("render")
    errors: list[Exception] = []
    with Client(server.target, user_id="ada", token=Outage(2)) as client:
        assert next(client.watch(job.id, on_disconnect=errors.append)).job == job
    async with AsyncClient(server.target, user_id="ada", token=Outage(2)) as asynchronous:
        changes = asynchronous.watch(job.id, on_disconnect=errors.append)
        assert (await anext(changes)).job == job
        with pytest.raises(Unavailable, match="no token"):
            await anext(
                AsyncClient(server.target, user_id="ada", token=Outage()).watch(
                    job.id, connect_timeout=0.1
                )
            )
    assert [type(error) for error in errors] == [Unavailable] * 2


async def test_a_timeout_is_also_for_the_token_function(server, ada):
    job = ada.create_job("render")
    over = threading.Event()

    def slow() -> str:
        over.wait(100)  # longer than the test may take
        return "t"

    async def slow_async() -> str:
        await asyncio.to_thread(slow)
        return "t"

    with (
        Client(server.target, user_id="ada", token=slow) as client,
        pytest.raises(DeadlineExceeded, match=r"token function .* within 0.1 s"),
    ):
        client.get_job(job.id, timeout=0.1)
    async with AsyncClient(server.target, user_id="ada", token=slow_async, timeout=0.1) as client:
        with pytest.raises(DeadlineExceeded, match=r"token function .* within 0.1 s"):
            await client.get_job(job.id)
        with pytest.raises(DeadlineExceeded, match=r"within 0.1 s: the token function"):
            await client.wait(job.id, timeout=0.1)
        with pytest.raises(DeadlineExceeded, match=r"token function .* within 0.1 s"):
            await client.open_work()
    over.set()


async def test_the_time_of_a_token_function_that_blocks_the_loop_counts(server):
    started = time.monotonic()

    def slow() -> str:
        while time.monotonic() - started < 0.2:
            pass
        return "t"

    async with AsyncClient(server.target, user_id="ada", token=slow) as client:
        with pytest.raises(DeadlineExceeded, match=r"token function .* within 0.1 s"):
            await client.get_job("j", timeout=0.1)


def test_what_a_token_function_raises_is_raised_by_the_call(server):
    def broken() -> str:
        raise LookupError("no such secret")

    with (
        Client(server.target, user_id="ada", token=broken) as client,
        pytest.raises(LookupError, match="no such secret"),
    ):
        client.get_job("j")


async def test_closing_during_an_async_token_function_raises_client_closed(server):
    clients: list[AsyncClient] = []

    async def token():
        await clients[0].close()
        return "t"

    clients.append(AsyncClient(server.target, user_id="ada", token=token))
    with pytest.raises(ClientClosed):
        await anext(clients[0].watch("j"))


async def test_closing_the_channel_below_a_client_raises_client_closed_in_its_calls(server):
    async with grpc.aio.insecure_channel(server.target, CHANNEL_OPTIONS) as channel:
        client = AsyncClient(channel=channel, user_id="ada")
        job = await client.create_job("render")
        claim = asyncio.create_task(client.claim_jobs([f"none-{uuid.uuid4()}"], wait=30))
        async with client.watch(job.id) as changes:
            await anext(changes)
            rest = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)  # Both tasks have made their calls.
            await channel.close()
            for call in (claim, rest, client.get_job(job.id)):
                with pytest.raises(ClientClosed, match="channel"):
                    await call


async def test_closing_a_client_ends_its_watches_on_the_callers_own_channel(server):
    async with grpc.aio.insecure_channel(server.target, CHANNEL_OPTIONS) as channel:
        client = AsyncClient(channel=channel, user_id="ada")
        job = await client.create_job("render")
        changes = client.watch(job.id)
        await anext(changes)
        rest = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ClientClosed, match="closed"):
            await rest
        other = AsyncClient(channel=channel, user_id="ada")
        assert (await other.get_job(job.id)).id == job.id
    with grpc.insecure_channel(server.target, CHANNEL_OPTIONS) as blocking_channel:
        blocking = Client(channel=blocking_channel, user_id="ada")
        news = blocking.watch(job.id)
        next(news)
        following = asyncio.ensure_future(asyncio.to_thread(next, news))
        await asyncio.sleep(0.05)  # The thread reads; sooner or later makes no difference.
        blocking.close()
        with pytest.raises(ClientClosed, match="closed"):
            await following


def test_a_blocking_client_says_that_the_channel_below_it_is_closed(server):
    channel = grpc.insecure_channel(server.target)
    used, unused = (Client(channel=channel, user_id="ada") for _ in range(2))
    job = used.create_job("render")
    watch = used.watch(job.id)
    next(watch)
    channel.close()
    for client in (used, unused):
        for call in (
            lambda client: client.get_job(job.id),
            lambda client: next(client.watch(job.id)),
            lambda client: [*client.list_jobs()],
        ):
            with pytest.raises(ClientClosed, match="channel"):
                call(client)


async def test_a_stream_of_work_of_a_closed_client_says_that_it_is_closed(server):
    client = AsyncClient(server.target)
    await client.close()
    with pytest.raises(ClientClosed):
        await client.open_work()
    async with grpc.aio.insecure_channel(server.target) as channel:
        client = AsyncClient(channel=channel)
    with pytest.raises(ClientClosed, match="channel"):
        await client.open_work()


async def test_open_work_opens_a_stream_without_the_worker_library(server):
    async with AsyncClient(server.target, metadata={"x-origin": "a"}) as client:
        stream = await client.open_work()
        hello = pb.WorkHello(worker_id=client.worker_id, job_types=["of-no-job"])
        await stream.write(pb.WorkRequest(hello=hello, slots=1))
        assert await stream.read() == pb.WorkResponse(heartbeat=True)
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_closing_ends_the_calls_under_way(silent):
    client = AsyncClient(silent.target, user_id="ada")
    call = asyncio.create_task(client.get_job("j", timeout=None))
    assert await asyncio.to_thread(silent.accepted.wait, 10)
    await client.close()
    with pytest.raises(ClientClosed):
        await call
    silent.accepted.clear()
    blocking = Client(silent.target, user_id="ada")
    in_thread = asyncio.create_task(asyncio.to_thread(blocking.get_job, "j", timeout=None))
    assert await asyncio.to_thread(silent.accepted.wait, 10)
    blocking.close()
    with pytest.raises(ClientClosed):
        await in_thread


def test_an_async_client_may_be_made_outside_of_a_running_loop(server):
    client = AsyncClient(server.target, user_id="ada")

    async def main():
        async with client:
            return await client.create_job("render")

    assert asyncio.run(main()).job_type == "render"


def test_an_async_client_used_in_another_loop_raises_an_error(server):
    client = AsyncClient(server.target, user_id="ada")
    asyncio.run(client.create_job("render"))
    with pytest.raises(JobledgerError, match="another event loop"):
        asyncio.run(client.create_job("render"))


def test_a_client_may_be_shared_between_threads(server):
    with Client(server.target, user_id="ada") as client, ThreadPoolExecutor(20) as threads:
        jobs = [*threads.map(lambda _: client.create_job("render"), range(60))]
    assert len({job.id for job in jobs}) == 60


def test_a_signal_handler_may_close_the_client_also_while_it_connects(server):
    class Interceptors:
        def __iter__(self):
            signal.raise_signal(signal.SIGUSR1)
            return iter(())

    client = Client(server.target, user_id="ada", interceptors=Interceptors())
    before = signal.signal(signal.SIGUSR1, lambda *_: client.close())
    try:
        with pytest.raises(ClientClosed):
            client.get_job(str(uuid.uuid4()))
    finally:
        signal.signal(signal.SIGUSR1, before)


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (DeadlineExceeded, TimeoutError),
        (Unavailable, ConnectionError),
        (JobNotFound, LookupError),
        (AccessDenied, PermissionError),
        (InvalidField, ValueError),
        (MessageTooLarge, ValueError),
    ],
)
def test_errors_are_also_pythons_builtin_exceptions(kind, base):
    error = kind("words", code=grpc.StatusCode.ABORTED, reason="R", metadata={"a": "b"})
    assert isinstance(error, base)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.code, again.metadata) == (
        kind,
        "words",
        grpc.StatusCode.ABORTED,
        {"a": "b"},
    )


async def test_a_request_that_is_too_large_is_not_an_overload(server):
    with Client(server.target, user_id="ada") as client, pytest.raises(MessageTooLarge):
        client.create_job("render", {"blob": "x" * (2 << 20)})
