"""A test in the worlds of many seeds, and what a failure says."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from jobledger.testing.world.world import World

MOST_FAULTS: Final = 50
"""How many of the last faults a failure shows."""


def run_seeds(
    test: Callable[[World], Awaitable[object]],
    seeds: Iterable[int],
    *,
    command: str,
    **options: Any,
) -> None:
    """Run a test once for each seed, each in a new world, until one fails.

    Args:
        test: The test.
        seeds: The seeds.
        command: Repeats the test, with the seed added.
        **options: See `World`.
    """
    __tracebackhide__ = True  # pytest leaves this frame out
    for seed in seeds:
        world = World(seed, **options)
        try:
            world.run(test)
        except BaseException as error:
            error.add_note(report(world, f"{command}{seed}"))
            raise


def report(world: World, command: str) -> str:
    """Say what happened in the world of a test that has failed."""
    loop = world.loop
    left_out = len(world.faults) - MOST_FAULTS
    lines = [
        f"seed {world.seed}, hash {loop.hash}, {loop.steps} steps, after {loop.time():.3f} s",
        f"repeat: {command}",
        "what happened to the processes:",
        *([f"... {left_out} lines"] if left_out > 0 else []),
        *world.faults[-MOST_FAULTS:],
    ]
    return "\n".join(lines)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the logs of many runs out of the report of one."""
    log = logging.getLogger("jobledger")
    propagates = log.propagate
    log.propagate = False
    try:
        yield
    finally:
        log.propagate = propagates
