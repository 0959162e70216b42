"""A run on the disk of a world: the stores of several servers, in simulated time."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobledger_server.app import OpenedStore
from jobledger_server.domain.commands import Create
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import Store
from jobledger_world.blocking import sleep
from jobledger_world.chance import Chance
from jobledger_world.disk import Disk
from jobledger_world.loop import WorldLoop
from jobledger_world.machine import Machine, answering
from jobledger_world.nodes import Node
from tests.support.databases import NoOutages
from tests.support.ledger_calls import apply


@dataclass
class Server:
    """A server's database, and its node."""

    node: Node
    opened: OpenedStore
    ledger: Ledger

    @property
    def store(self) -> Store:
        return self.opened.store

    async def create(self, request_id: str = "") -> Decision:
        command = Create(user_id="ada", job_type="render", request_id=request_id)
        return await apply(self.ledger, command)


class DiskRun:
    """A run, from a seed."""

    def __init__(self, folder: Path, seed: int = 1, *, exclusive: bool = False) -> None:
        self.chance = Chance(seed)
        self.loop = WorldLoop(self.chance)
        self.machine = Machine(self.loop)
        self.disk = Disk(self.loop, self.chance, folder, exclusive=exclusive)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        # What a killed node left must not be collected while a greenlet of SQLAlchemy runs: its
        # own greenlets would go on in there.
        gc.disable()
        try:
            with answering(self.machine, self.chance, sleep):
                return self.loop.run_until_complete(main)
        finally:
            self.disk.close()
            self.loop.close()
            gc.enable()

    def serve(
        self, use: Callable[[Server], Awaitable[Any]], name: str = "server"
    ) -> tuple[Node, asyncio.Task[Any]]:
        """Start a node that opens the database, and uses it."""

        async def serve() -> Any:
            async with (
                self.disk.open(node) as opened,
                Ledger(opened.store, lambda _: None, max_waiting=1000) as ledger,
            ):
                ledger.outages = NoOutages()
                return await use(Server(node, opened, ledger))

        node = Node(self.loop, name)
        return node, node.start(serve())

    def kill(self, node: Node) -> None:
        node.kill()
        self.disk.crash(node)
