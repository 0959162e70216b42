"""What the processes of a world run in."""

from jobledger_server.settings import Settings
from jobledger_server.tuning import Tuning
from jobledger_world.chance import Chance
from jobledger_world.disk import Disk
from jobledger_world.loop import WorldLoop
from jobledger_world.machine import Machine
from jobledger_world.memory import MemoryDisk
from jobledger_world.network import Network
from jobledger_world.notices import Exchange
from jobledger_world.problems import Problems


class Environment:
    """The loop, the clock, the network and the database of a run, and what happens in it.

    The arguments and the attributes are those of `World`.
    """

    disk: Disk | MemoryDisk

    def __init__(
        self,
        seed: int | str,
        settings: Settings | None,
        tuning: Tuning | None,
        shuffle: float,
        trace: list[str] | None,
    ) -> None:
        self.seed = seed
        self.settings = Settings() if settings is None else settings
        self.tuning = Tuning() if tuning is None else tuning
        self.chance = Chance(seed)
        # typeshed calls methods abstract that asyncio's own class merely does not have.
        self.loop = WorldLoop(self.chance, shuffle=shuffle, trace=trace)  # type: ignore[abstract]
        self.machine = Machine(self.loop)
        self.network = Network(self.loop, self.chance)
        self.notices = Exchange(self.loop, self.chance)
        self.problems = Problems(self.loop)
        self.history: list[str] = []

    def fault(self, *facts: object) -> None:
        """Record what the world does to the processes in it."""
        self.loop.record(*facts)
        self.note(" ".join(map(str, facts)))

    def note(self, text: str) -> None:
        """Add a line to the history."""
        self.history.append(f"{self.loop.time():.3f} s: {text}")

    def problem(self, text: str, error: BaseException | None = None) -> None:
        """Have the run fail at its end."""
        self.problems.add(text, error)
