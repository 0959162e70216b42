"""A test in the worlds of many seeds, and what a failure says."""

import logging
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import pytest

from jobledger_world.world import World

MOST_LINES: Final = 100
"""How much of the history a failure shows: the last lines."""


def run_seeds(
    test: Callable[[World], Awaitable[object]],
    seeds: Iterable[int],
    *,
    command: str,
    loud: bool = False,
    **options: Any,
) -> None:
    """Run a test once for each seed, each in a new world, until one fails.

    The run that fails is repeated, for its history; but not one that a timer has ended, as that of
    pytest-timeout: it would not end the second run.

    Args:
        test: The test.
        seeds: The seeds.
        command: Repeats the test, with the seed added.
        loud: Show the logs of the repeated run.
        **options: See `World`.
    """
    __tracebackhide__ = True  # pytest leaves this frame out
    for seed in seeds:
        world = World(seed, **options)
        was_timed = _is_timed()
        error = _error(world, test)
        if error is not None:
            if was_timed and not _is_timed():
                error.add_note(_report(world, world, f"{command}{seed}"))
                raise error
            again = World(seed, **options, narrate=True)
            _error(again, test, loud=loud)
            error.add_note(_report(world, again, f"{command}{seed}"))
            raise error


def _error(
    world: World, test: Callable[[World], Awaitable[object]], *, loud: bool = False
) -> BaseException | None:
    """Run a test in a world; return how it failed."""
    try:
        with nullcontext() if loud else _quiet():
            world.run(test)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001
        return error
    return None


def _is_timed() -> bool:
    """Whether a timer of this process will send it SIGALRM."""
    return hasattr(signal, "getitimer") and signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _report(world: World, again: World, command: str) -> str:
    """Say what happened in the world of a test that has failed."""
    loop, history = world.loop, again.history
    lines = [
        f"seed {world.seed}, hash {loop.hash}, {loop.steps} steps, {loop.time():.3f} s",
        f"repeat: {command}",
    ]
    if again.loop.hash != loop.hash:
        lines.append(
            f"repeated, this seed went another way, with the hash {again.loop.hash}: something in "
            "the test comes from outside of the world, or is left from a run before"
        )
    if len(history) > MOST_LINES:
        lines.append(f"... {len(history) - MOST_LINES} lines")
    return "\n".join([*lines, *history[-MOST_LINES:]])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the logs of many runs out of the report of one."""
    log = logging.getLogger("jobledger")
    propagates = log.propagate
    log.propagate = False
    try:
        yield
    finally:
        log.propagate = propagates
