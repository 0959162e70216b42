"""A worker: claims jobs, runs a handler for each, and always sends the outcome.

    worker = Worker("127.0.0.1:50051", concurrency=8)

    @worker.handler
    async def thumbnail(job: ClaimedJob) -> Completed:
        await job.progress(25, "decoded")
        await job.add_asset("image/png", url=..., file_size=...)
        return Completed({"count": 1})

    if __name__ == "__main__":
        worker.run_sync()  # until SIGTERM

Handlers need to know nothing of leases, retries and shutdowns; docs/guides/workers.md says what
is done for them.
"""

import asyncio
import contextlib
import logging
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from types import ModuleType
from typing import Any, Final, TypeAlias, overload

from jobledger.core.aio.client import AsyncClient
from jobledger.core.conversion import Seconds, to_seconds
from jobledger.core.metrics import MetricsCollector
from jobledger.core.requests import count, text
from jobledger.core.status_server import parse_address, serving_pages
from jobledger.core.tasks import ParamsT, ResultT, Task
from jobledger.worker.handlers.declared import (
    HandlerReturningOutcomeMappingTypedOrNone,
    TaskDecorator,
    handlers_of,
)
from jobledger.worker.handlers.handler import (
    Executor,
    Function,
    Handler,
    Middleware,
    OnCancel,
    make_handler,
)
from jobledger.worker.handlers.job_run import JobRun
from jobledger.worker.handlers.processes import refuse_in_handler_process
from jobledger.worker.handlers.signatures import is_async, name_of
from jobledger.worker.metrics import METRICS, JobEnd, WorkerFigures, WorkerHealth
from jobledger.worker.session.job_output import OutputRoom
from jobledger.worker.session.session import Session
from jobledger.worker.session.slots import MAX_SLOTS, Slots

Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Any] | AbstractContextManager[Any]]

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"
"""Of the log that `run_sync` sets up."""

_logger = logging.getLogger("jobledger.worker")


class Worker:
    """Claims jobs of the types that it has handlers for, and runs a handler for each.

    A worker runs once.

    Args:
        client: makes the calls; its owner, if any, does not matter. Or the address of the
            server, for a client of the worker's own, which it closes. Default: the address
            127.0.0.1:50051, or the connection of `jobledger worker run`.
        concurrency: how many jobs at once, at most 1000, of all types whose handler has no limit of
            its own.
        lease: seconds, or a timedelta, 5 s to 24 h. If the worker dies, its jobs pass to another
            one, or fail, after so long; if the service is unavailable, handlers go on for nearly
            so long.
        grace: seconds, or a timedelta, that running jobs have when the worker stops. Then their
            handlers are cancelled, and the jobs released to be claimed by another worker, without
            using up an attempt.
        worker_id: at most 128 characters. Default: the client's `worker_id`.
        middleware: async functions `middleware(job, call_next)` around each handler, the first
            one outermost. `await call_next(job)` is the handler's outcome, or None.
        lifespan: returns a context manager, async or plain, that is entered before the first
            claim and left after the last job. What it yields is `job.state`.
        health: HOST:PORT to serve `/healthz` at while the worker runs, without authentication;
            and `/metrics` if prometheus_client is installed.
        on_end: called with each job that the worker is done with, for metrics of your own. It
            must return soon; what it raises is logged.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        client: AsyncClient | str | None = None,
        *,
        concurrency: int = 1,
        lease: Seconds = 60.0,
        grace: Seconds = 10.0,
        worker_id: str | None = None,
        middleware: Iterable[Middleware] = (),
        lifespan: Lifespan | None = None,
        health: str | None = None,
        on_end: Callable[[JobEnd], object] | None = None,
    ) -> None:
        if not isinstance(client, AsyncClient | str | None):
            raise TypeError(
                f"client: {type(client).__name__} is neither an AsyncClient nor an address"
            )
        self._owns_client = isinstance(client, str)
        self._client = AsyncClient(client) if isinstance(client, str) else client
        self._worker_id = None if worker_id is None else text(worker_id, "worker_id")
        self._lease = to_seconds(lease, "lease")
        self._grace = to_seconds(grace, "grace")
        self._middleware = tuple(middleware)
        for each in self._middleware:
            if not callable(each) or not is_async(each):
                raise TypeError(f"middleware: {each!r} is not an async function")
        if lifespan is not None and not callable(lifespan):
            raise TypeError("lifespan: give the function that returns the context manager")
        self._lifespan = lifespan
        if health is not None:
            parse_address(text(health, "health"))
        self._health = health
        self._figures = WorkerFigures(on_end)
        self._output_room = OutputRoom()
        self._handlers: dict[str, Handler] = {}
        self._run_ended = asyncio.Event()
        self._shared = self._new_slots(_slot_count(concurrency))
        self._slots = [self._shared]
        self._started = False
        self._loop: asyncio.AbstractEventLoop | None = None
        # None once the lifespan is entered: until then nothing else could stop the worker.
        self._entering: asyncio.Task[Any] | None = None
        self._stopping = asyncio.Event()
        self._grace_ended = asyncio.Event()

    @overload
    def handler(
        self, job_type: HandlerReturningOutcomeMappingTypedOrNone
    ) -> HandlerReturningOutcomeMappingTypedOrNone: ...

    @overload
    def handler(
        self,
        job_type: Task[ParamsT, ResultT],
        *,
        concurrency: int | None = None,
        timeout: Seconds | None = None,
        retry_on: type[Exception] | Iterable[type[Exception]] = (),
        on_cancel: OnCancel = "raise",
        executor: Executor = "thread",
    ) -> TaskDecorator[ParamsT, ResultT]: ...

    @overload
    def handler(
        self,
        job_type: str | None = None,
        *,
        concurrency: int | None = None,
        timeout: Seconds | None = None,
        retry_on: type[Exception] | Iterable[type[Exception]] = (),
        on_cancel: OnCancel = "raise",
        executor: Executor = "thread",
    ) -> Callable[
        [HandlerReturningOutcomeMappingTypedOrNone], HandlerReturningOutcomeMappingTypedOrNone
    ]: ...

    def handler(
        self,
        job_type: Any = None,
        *,
        concurrency: int | None = None,
        timeout: Seconds | None = None,
        retry_on: type[Exception] | Iterable[type[Exception]] = (),
        on_cancel: OnCancel = "raise",
        executor: Executor = "thread",
    ) -> Any:
        """Make a function the handler of a task, or of a type of job; a decorator.

        An async function runs in the event loop, with a ClaimedJob. A plain one runs in a thread
        of its own, with a BlockingJob. A second parameter, annotated with a dataclass, a
        msgspec.Struct or a pydantic model, is the job's parameters as this type; if they do not
        fit, the job is FAILED / INVALID_PARAMETERS. It may be keyword-only, and have a default, or
        `| None`, for jobs without parameters.

        It returns Completed, Partial, Failed or Release; a mapping, an object of such a type or
        None means COMPLETED. If it returns another result than its task has, the job is FAILED /
        INVALID_RESULT. What it raises makes the job FAILED, with the exception's class as the
        reason. After RetryLater and what `retry_on` names, the job has another attempt if one is
        left.

        Args:
            job_type: a Task, or 1 to 50 characters. Default: the function's name.
            concurrency: how many jobs of this type at once, at most 1000, in slots of its own
                besides those of the worker. Default: it shares the worker's slots.
            timeout: seconds, or a timedelta, that a run may take. Then the handler is cancelled
                and the job FAILED / TIMED_OUT. A thread cannot be stopped: one that goes on keeps
                its slot until it returns.
            retry_on: an exception's class, or several: after these another attempt may succeed.
                It goes by what leaves the handler and its middleware. TimeoutError stands for
                `timeout` too.
            on_cancel: what happens when cancellation of the job is requested: "raise" raises
                asyncio.CancelledError in the handler, "flag" only sets `job.cancel_requested`. If
                it then returns no outcome, the job is FAILED / CANCELLED. It has 30 s.
            executor: "thread", or "process" for a plain function that computes in Python: it runs
                in a process of its own, which can be killed if it does not stop. It has to be
                defined at the top of a module that can be imported.

        Raises:
            TypeError: an argument has the wrong type, or the function cannot be a handler, or its
                annotations do not fit the task.
            ValueError: the type has a handler, or an argument is out of range.
            RuntimeError: the worker runs already.
        """

        def register(function: Function) -> Function:
            task = job_type if isinstance(job_type, Task) else None
            name = name_of(function) if job_type is None else job_type
            if task is not None:
                name = task.job_type
            if name in self._handlers:
                raise ValueError(f"job_type: {name!r} has a handler")
            self._handlers[name] = make_handler(
                function,
                on_cancel=on_cancel,
                timeout=timeout,
                retry_on=retry_on,
                executor=executor,
                middleware=self._middleware,
                task=task,
            )
            self._slots_of(concurrency).job_types.append(name)
            return function

        if self._started:
            raise RuntimeError("handler: the worker runs already, or has run")
        if callable(job_type):
            function, job_type = job_type, None
            return register(function)
        if not isinstance(job_type, Task | None) and not text(job_type, "job_type"):
            raise ValueError("job_type: is empty")
        if concurrency is not None:
            _slot_count(concurrency)
        return register

    def include(self, module: ModuleType) -> None:
        """Register the handlers of a module: its functions with the decorator `handler`.

        Args:
            module: the module. What it imports from others is left out.

        Raises:
            TypeError: it is no module; or as for `handler`.
            ValueError: it has no handlers; or as for `handler`.
            RuntimeError: the worker runs already.
        """
        found = list(handlers_of(module))
        if not found:
            raise ValueError(f"module: {module.__name__} has no function with @handler")
        for each in found:
            register: Any = self.handler(each.job_type, **each.options)
            register(each.function)

    @property
    def health(self) -> WorkerHealth:
        """How the worker is now, as `/healthz` says it."""
        return self._figures.health()

    @property
    def metrics(self) -> MetricsCollector[WorkerFigures]:
        """What shows its metrics to prometheus_client: `REGISTRY.register(worker.metrics)`."""
        return MetricsCollector(METRICS, self._figures)

    @property
    def has_client(self) -> bool:
        """Whether it was made with a client or an address, or runs already."""
        return self._client is not None

    def stop(self, *, now: bool = False) -> None:
        """Claim no more jobs; `run` returns when the running ones are done or the grace is over.

        May be repeated, and called in any thread.

        Args:
            now: without the grace.
        """
        if self._loop is None:
            self._stop(now=now)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has stopped
            self._loop.call_soon_threadsafe(lambda: self._stop(now=now))

    async def run(self, *, client: AsyncClient | None = None, signals: bool = False) -> None:
        """Work until `stop` is called.

        Being cancelled is as `stop(now=True)`.

        Args:
            client: for a worker that was made without one.
            signals: whether SIGTERM and SIGINT call `stop`, and a second one `stop(now=True)`, of
                each worker that runs so. Only in the main thread. Leave it to a program that has
                other things to end, such as a web server, to call `stop` itself.

        Raises:
            JobledgerError: the service refuses the worker and always will, as InvalidField or
                AccessDenied say, or no Work stream gets through to it. An unavailable service is
                waited for.
            OSError: nothing can be served at `health`.
            RuntimeError: the worker has run, or the processes of a handler cannot start.
            ValueError: it has no handlers, or was made with a client and is given another one.
        """
        refuse_in_handler_process()
        if self._started:
            raise RuntimeError("run: this worker has run; make another one")
        if not self._handlers:
            raise ValueError("handler: the worker has none, so it has nothing to do")
        processes = [each.processes for each in self._handlers.values() if each.processes]
        for each in processes:
            each.check()
        if self._client is None:
            self._owns_client = client is None
            self._client = AsyncClient() if client is None else client
        elif client is not None:
            raise ValueError("client: this worker was made with one")
        self._started = True
        self._loop = asyncio.get_running_loop()
        cancelled = False
        with self._signals() if signals else contextlib.nullcontext():
            working = asyncio.create_task(self._work(self._client))
            while not working.done():
                try:
                    await asyncio.wait({working})
                except asyncio.CancelledError:
                    cancelled = True
                    self._stop(now=True)
        if not working.cancelled():
            working.result()
        if cancelled:
            raise asyncio.CancelledError

    def run_sync(self, *, signals: bool = True) -> None:
        """Work until `stop` is called, or by a signal, in a program without asyncio; see `run`.

        The worker's client is closed at the end: it belongs to the event loop of this call. If the
        root logger has no handlers, it gets one that writes to stderr, and the level INFO.

        Raises:
            RuntimeError: an event loop runs in this thread: await `run` there.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass  # none does; what is raised below has nothing to do with that
        else:
            raise RuntimeError("run_sync: an event loop runs in this thread; await run() instead")
        # Without handlers Python shows warnings only: a first worker would seem to do nothing.
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
        asyncio.run(self._run_and_close(signals=signals))

    async def _run_and_close(self, *, signals: bool) -> None:
        try:
            await self.run(signals=signals)
        finally:
            if self._client is not None:
                await self._client.close()

    async def _work(self, client: AsyncClient) -> None:
        self._entering = asyncio.current_task()
        try:
            async with AsyncExitStack() as stack:
                if self._owns_client:
                    stack.push_async_callback(client.close)
                if self._stopping.is_set():
                    return
                state = None
                if self._lifespan is not None:
                    state = await _enter(stack, self._lifespan())
                self._entering = None
                for handler in self._handlers.values():
                    if handler.processes is not None:
                        stack.push_async_callback(asyncio.to_thread, handler.processes.close)
                        await asyncio.to_thread(handler.processes.start)
                worker_id = self._worker_id or client.worker_id
                job_types = ", ".join(self._handlers)
                _logger.info("worker %s started; job types: %s", worker_id, job_types)
                served = [slots for slots in self._slots if slots.job_types]
                if self._health is not None:
                    await stack.enter_async_context(
                        serving_pages(self._health, self._figures.pages())
                    )
                async with asyncio.TaskGroup() as group:
                    sessions = [
                        Session(
                            client,
                            slots,
                            self._handlers,
                            group,
                            lease=self._lease,
                            worker_id=worker_id,
                            state=state,
                            figures=self._figures,
                            room=self._output_room,
                            running=lambda: self._runs,
                        )
                        for slots in served
                    ]
                    self._figures.run(served)
                    await self._stopping.wait()
                    for session in sessions:
                        session.stop()
                    await self._wait_for_runs()
                    for session in sessions:
                        await session.close()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    # --- stopping -----------------------------------------------------------------------------

    def _stop(self, *, now: bool) -> None:
        self._stopping.set()
        if self._entering is not None:
            self._entering.cancel()
        if now:
            self._grace_ended.set()
        self._run_ended.set()

    async def _wait_for_runs(self) -> None:
        if running := len(self._runs):
            _logger.info("stopping; jobs running: %d, grace: %g s", running, self._grace)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(self._grace) else self._grace):
                while self._runs and not self._grace_ended.is_set():
                    self._run_ended.clear()
                    await self._run_ended.wait()
        for run in self._runs:
            run.shut_down()
        while self._runs:
            self._run_ended.clear()
            await self._run_ended.wait()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        if not _signalled:
            for number in (signal.SIGTERM, signal.SIGINT):
                _previous[number] = signal.getsignal(number)
                _handle_signal(loop, number)
        _signalled.append(self)
        try:
            yield
        finally:
            _signalled.remove(self)
            if not _signalled:
                for number, handler in _previous.items():
                    with contextlib.suppress(NotImplementedError):
                        loop.remove_signal_handler(number)
                    if handler is not None:  # not one of Python's, which Python cannot set
                        signal.signal(number, handler)

    @property
    def _runs(self) -> list[JobRun]:
        return [run for slots in self._slots for run in slots.runs.values()]

    def _slots_of(self, concurrency: int | None) -> Slots:
        if concurrency is None:
            return self._shared
        self._slots.append(self._new_slots(concurrency))
        return self._slots[-1]

    def _new_slots(self, size: int) -> Slots:
        return Slots(size, self._run_ended.set)


# A loop has one handler for a signal, and a program may run several workers.
_signalled: Final[list[Worker]] = []
_previous: Final[dict[signal.Signals, Any]] = {}


def _stop_all() -> None:
    for worker in _signalled:
        worker._stop(now=worker._stopping.is_set())  # noqa: SLF001


def _handle_signal(loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    try:
        loop.add_signal_handler(number, _stop_all)
    except NotImplementedError:  # so it is on Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(_stop_all))


async def _enter(
    stack: AsyncExitStack,
    manager: AbstractAsyncContextManager[Any] | AbstractContextManager[Any],
) -> Any:
    if isinstance(manager, AbstractAsyncContextManager):
        return await stack.enter_async_context(manager)
    return stack.enter_context(manager)


def _slot_count(value: int) -> int:
    if count(value, "concurrency") > MAX_SLOTS:
        raise ValueError(f"concurrency: {value} is more than {MAX_SLOTS}")
    return value
