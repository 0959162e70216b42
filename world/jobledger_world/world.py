"""See `World`."""

import asyncio
import gc
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from jobledger import AsyncClient, Job, Unavailable, Worker
from jobledger.worker.handlers.threads import THREADS
from jobledger_server.settings import Settings
from jobledger_server.tuning import Tuning
from jobledger_world.backup import Backup
from jobledger_world.blocking import Greenlets, sleep
from jobledger_world.chaos import chaos
from jobledger_world.disk import Disk
from jobledger_world.machine import answering
from jobledger_world.memory.disk import MemoryDisk
from jobledger_world.problems import Broken
from jobledger_world.processes import Cluster, Server, WorkerProcess
from jobledger_world.transitions import noted_transitions

if TYPE_CHECKING:
    import grpc

    from jobledger_world.faults import Kind

Result = TypeVar("Result")
Store = Literal["memory", "sqlite"]

FIRST_PORT = 50051
START_SECONDS = 60.0
STOP_SECONDS = 3600.0
"""Simulated seconds after which something that hangs has failed the run."""

FINISH = timedelta(days=30)
"""How long a job may take."""


class World(Cluster):
    """Real servers, workers and clients in simulated time: one run, from a seed.

    The network, the disk, the clock and the threads are simulated; all else is the code that runs
    in production. What happens when, and what breaks, the seed decides. What a test keeps in plain
    Python objects survives each crash: it stands for all that is outside, such as a bank.

    Args:
        seed: Repeats a run.
        servers: How many serve the same database.
        store: Where the jobs are: in memory, which is faster, or in SQLite.
        settings: The servers'; the address is the world's.
        tuning: Sizes and paces of the servers.
        shuffle: How often what is ready at the same time runs in another order, from 0 to 1.
        trace: A list that gets every step.
        narrate: Note each transition of a job in the history, too.

    Attributes:
        loop: Has the simulated time, the number of steps and the hash of what has happened.
        machine: The clock that all share: `machine.jump += 60` sets it forward.
        servers: By name.
        workers: By name.
        history: What has been done to the processes, for people.
        problems: What has gone wrong so far that no test asked for.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        servers: int = 1,
        store: Store = "memory",
        settings: Settings | None = None,
        tuning: Tuning | None = None,
        shuffle: float = 0.1,
        trace: list[str] | None = None,
        narrate: bool = False,
    ) -> None:
        super().__init__(seed, settings, tuning, shuffle, trace)
        self._narrates = narrate
        self._chaos = 0
        self._store = store
        self._server_count = servers
        self._clients: list[AsyncClient] = []
        self._channels: list[grpc.aio.Channel] = []

    def run(self, main: Callable[["World"], Awaitable[Result]]) -> Result:
        """Start the servers, run `await main(world)` in simulated time, and stop everything.

        Raises:
            Broken: Something has gone wrong that `main` did not see.
            Stuck: Nothing can happen any more, and it has not ended.
            Endless: It takes too many steps.
        """
        __tracebackhide__ = True  # of pytest, as are those below
        with ExitStack() as stack:
            self.disk = self._open_disk(stack)
            stack.enter_context(_collecting_nothing())
            stack.enter_context(answering(self.machine, self.chance, sleep))
            stack.enter_context(self.problems.logged())
            if self._narrates:
                stack.enter_context(noted_transitions(self.note))
            stack.callback(self.loop.close)
            try:
                result: Result = self.loop.run_until_complete(self._run(main))
            except BaseException as error:
                if text := self.problems.text():
                    error.add_note(f"besides:\n{text}")
                raise
            gc.collect()  # an exception that nobody retrieved is found by its end
            if text := self.problems.text():
                raise Broken(text)
            return result

    def _open_disk(self, stack: ExitStack) -> Disk | MemoryDisk:
        if self._store == "memory":
            return MemoryDisk(self.loop, self.chance, self.machine)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="jobledger-"))
        alone = self._server_count == 1
        disk = Disk(self.loop, self.chance, Path(folder), exclusive=alone)
        stack.callback(disk.close)
        return disk

    async def _run(self, main: Callable[["World"], Awaitable[Result]]) -> Result:
        __tracebackhide__ = True
        THREADS.set(Greenlets())
        for number in range(self._server_count):
            name = f"server-{number + 1}"
            server = Server(self, name, f"127.0.0.1:{FIRST_PORT + number}")
            self.servers[name] = server
            server.boot()
        async with asyncio.timeout(START_SECONDS):
            for server in self.servers.values():
                await server.serving.wait()
        result = await main(self)
        await self._end()
        return result

    async def _end(self) -> None:
        """Stop everything in an orderly way, so that what is left then is a leak."""
        self.repair()
        for client in self._clients:
            await client.close()
        for channel in self._channels:
            await channel.close()
        async with asyncio.timeout(STOP_SECONDS):
            for process in (*self.workers.values(), *self.servers.values()):
                await process.stop()
        for held in self.disk.held():
            self.problem(f"the database still has {held}")

    # What tests use.

    def client(self, user_id: str | None = None, *, server: str | None = None) -> AsyncClient:
        """Return a client of the test itself, which is never crashed.

        Args:
            user_id: The owner for calls that name none.
            server: The name of the server that it calls. Default: the seed decides.
        """
        target = (self.servers[server] if server else self.some_server()).target
        channel = self.network.channel(target)
        self._channels.append(channel)
        client = AsyncClient(target, user_id=user_id, channel=channel)
        self._clients.append(client)
        return client

    def worker(
        self,
        make: Callable[[AsyncClient], Worker],
        *,
        processes: int = 1,
    ) -> list[WorkerProcess]:
        """Start processes that run a worker; each crashes and freezes on its own.

        Args:
            make: Makes a new worker with the client that it is given, at each start of a process.
            processes: How many.
        """
        made = []
        for _ in range(processes):
            process = WorkerProcess(self, f"worker-{len(self.workers) + 1}", make)
            self.workers[process.name] = process
            process.boot()
            made.append(process)
        return made

    def chaos(
        self,
        *,
        minutes: float = 10.0,
        workers: bool = True,
        servers: bool = True,
        network: bool = True,
        database: bool = True,
        clock: bool = True,
    ) -> AbstractAsyncContextManager[None]:
        """Break things during an `async with` block; at its end everything works again.

        The seed decides what breaks when, and for how long.

        Args:
            minutes: How long it lasts at most, if the block does.
            workers: Their processes crash, freeze and are restarted.
            servers: The same of the servers' processes.
            network: Connections of workers are reset, or let nothing through in one direction or
                both; new ones to a server are refused, or not answered; messages are slow, calls
                are duplicated, and answers lost.
            database: It stalls, cannot be reached, fails, rejects commits, and makes commits whose
                answer is lost.
            clock: The clock of all is set forward.
        """
        self._chaos += 1
        wanted: dict[Kind, bool] = {
            "workers": workers,
            "servers": servers,
            "network": network,
            "database": database,
            "clock": clock,
        }
        kinds = [kind for kind, is_wanted in wanted.items() if is_wanted]
        return chaos(self, self._chaos, kinds, minutes * 60)

    def backup(self) -> Backup:
        """Return a backup of the database as it is now; servers may run."""
        self.fault("backup")
        return self.disk.backup()

    async def restore(self, backup: Backup) -> None:
        """Stop all servers, put a backup in the place of the database, and start them.

        Jobs that were created since the backup are gone, and what else has changed since has not
        happened. Workers go on as they are.
        """
        while running := [server for server in self.servers.values() if server.runs]:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(*(server.stop() for server in running))
        self.fault("restore")
        backup.put_in_place()
        for server in self.servers.values():
            server.boot()

    async def finished(self, job: Job, *, within: timedelta = FINISH) -> Job:
        """Wait until a job is terminal, whatever breaks meanwhile; return it.

        Args:
            job: As it was created.
            within: The simulated time that it may take.

        Raises:
            TimeoutError: It is not terminal by then.
        """
        client = self.client(job.user_id)
        try:
            async with asyncio.timeout(within.total_seconds()):
                while True:
                    try:
                        return await client.wait(job.id)
                    except Unavailable:
                        await asyncio.sleep(1)
        except TimeoutError:
            raise TimeoutError(f"job {job.id} is not terminal after {within}") from None


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """Have no garbage collected: when that happens would depend on what ran before."""
    collects, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.freeze()  # what is there already is not looked at by a collection at the end
    gc.disable()
    try:
        yield
    finally:
        if not frozen:  # else it would also unfreeze what the program has frozen
            gc.unfreeze()
        if collects:
            gc.enable()
