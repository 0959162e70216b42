"""Simulated processes: servers and workers, which start, stop, crash and freeze."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from jobledger import AsyncClient, Worker
from jobledger_server.embedded import App, open_app
from jobledger_server.settings import Settings
from jobledger_server.store import StoreError
from jobledger_server.tuning import Tuning
from jobledger_world.environment import Environment
from jobledger_world.nodes import Node

RESTART_SECONDS = 1.0
"""How soon a server that could not start is started again, as a supervisor of processes does."""


class Process:
    """A process of the world, of which at most one runs at a time.

    Attributes:
        name: For the trace.
        node: The process that runs, or ran last.
    """

    def __init__(self, world: "Cluster", name: str) -> None:
        self.world = world
        self.name = name
        self.node: Node = Node(world.loop, name)
        self.node.kill()
        self._starts = 0
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def runs(self) -> bool:
        """Whether it has been started and has not ended; it may be frozen."""
        return not self._ended.is_set()

    def boot(self) -> None:
        """Start it, unless it runs."""
        if self.runs:
            return
        self._ended.clear()
        self._starts += 1
        self.node = Node(self.world.loop, f"{self.name}.{self._starts}")
        self.world.fault("boot", self.node.name)
        task = self.node.start(self._run(), name=self.name)
        task.add_done_callback(self._end)

    async def stop(self) -> None:
        """Send it SIGTERM, and wait until it has ended."""
        if self.runs:
            self.world.fault("stop", self.node.name)
            self.world.loop.call_soon(self._terminate, context=self.node.context)
            await self._ended.wait()

    def kill(self) -> None:
        """Kill it, wherever its code awaits something. Its connections are reset."""
        if self.runs:
            self.world.fault("kill", self.node.name)
            self.node.kill()
            self.world.network.crash(self.node)
            self.world.disk.crash(self.node)
            self._ended.set()

    def freeze(self) -> None:
        """Have it do nothing until `thaw`, as a machine that swaps or a suspended container."""
        if self.runs:
            self.world.fault("freeze", self.node.name)
            self.node.freeze()

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        if self.node.state == "frozen":
            self.world.fault("thaw", self.node.name)
            self.node.thaw()

    def cut(self) -> None:
        """Reset its connections."""
        self.world.fault("cut", self.node.name)
        for connection in self.world.network.connections(node=self.node):
            connection.reset()

    async def _run(self) -> None:
        raise NotImplementedError

    def _terminate(self) -> None:
        raise NotImplementedError

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._ended.set()
        if task.cancelled():
            self.world.problem(f"{self.node.name} was cancelled")
        elif (error := task.exception()) is not None:
            self.world.problem(f"{self.node.name} has failed", error)
        self.node.kill()


class Server(Process):
    """A server of the world.

    Attributes:
        target: Its address.
        app: The server itself, while it serves.
        serving: Set while it does, and as long as it is frozen or has been killed then.
    """

    def __init__(self, world: "Cluster", name: str, target: str) -> None:
        super().__init__(world, name)
        self.target = target
        self.app: App | None = None
        self.serving = asyncio.Event()
        self._stopping = asyncio.Event()

    async def _run(self) -> None:
        self._stopping.clear()
        while not self._stopping.is_set():
            try:
                await self._serve()
            except StoreError as error:
                self.world.fault("not started", self.node.name, error)
                await asyncio.sleep(RESTART_SECONDS)

    async def _serve(self) -> None:
        world = self.world
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(world.disk.open(self.node, world.tuning))
            if opened.lock is None:
                opened = replace(opened, notices=world.notices.exchange)
            ids = world.chance.of(f"ids {self.node.name}")
            self.app = await stack.enter_async_context(
                open_app(
                    replace(world.settings, listen=self.target),
                    store=opened,
                    grpc_server=world.network.new_server,
                    randbits=ids.getrandbits,
                    tuning=world.tuning,
                )
            )
            self.serving.set()
            stack.callback(self.serving.clear)
            stopping = asyncio.ensure_future(self._stopping.wait())
            failed = asyncio.ensure_future(self.app.failed.wait())
            await asyncio.wait({stopping, failed}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            failed.cancel()

    def _terminate(self) -> None:
        self._stopping.set()

    def _end(self, task: asyncio.Task[Any]) -> None:
        left = [each.get_name() for each in self.world.loop.tasks(self.node)]
        if left:
            self.world.problem(f"{self.node.name} has left tasks: {', '.join(left)}")
        super()._end(task)


class WorkerProcess(Process):
    """A process in which a worker runs.

    Attributes:
        worker: The worker, since the process last started.
    """

    def __init__(self, world: "Cluster", name: str, make: Callable[[AsyncClient], Worker]) -> None:
        super().__init__(world, name)
        self._make = make
        self.worker: Worker | None = None

    async def _run(self) -> None:
        target = self.world.some_server().target
        channel = self.world.network.channel(target)
        async with AsyncClient(target, channel=channel) as client:
            self.worker = self._make(client)
            await self.worker.run(signals=False)
        await channel.close()

    def _terminate(self) -> None:
        if self.worker is not None:
            self.worker.stop()


class Cluster(Environment):
    """The servers and workers of a world, by name, in their environment."""

    def __init__(
        self,
        seed: int | str,
        settings: Settings | None,
        tuning: Tuning | None,
        shuffle: float,
        trace: list[str] | None,
    ) -> None:
        super().__init__(seed, settings, tuning, shuffle, trace)
        self.servers: dict[str, Server] = {}
        self.workers: dict[str, WorkerProcess] = {}
        self._targets = self.chance.of("targets")

    def repair(self) -> None:
        """End what is broken and goes on: frozen processes, blocked or refused connections."""
        for process in (*self.servers.values(), *self.workers.values()):
            process.thaw()
        for connection in self.network.connections():
            connection.heal()
        self.network.closed.clear()

    def some_server(self) -> Server:
        """Return one that the seed decides."""
        return self._targets.choice(list(self.servers.values()))
