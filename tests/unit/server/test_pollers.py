"""Which job types workers ask for at a server."""

import asyncio

import pytest

from jobledger_server.ledger.pollers import MAX_TYPES, POLLED_SECONDS, Pollers


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The event loop's time, which passes only here."""
    now = [1000.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    return now


async def test_a_type_counts_while_a_worker_asks_for_it_and_for_a_while_after(
    clock: list[float],
) -> None:
    pollers = Pollers()
    with pollers.asking(["render", "export"]), pollers.asking(["render"]):
        clock[0] += 2 * POLLED_SECONDS
        assert set(pollers.types()) == {"render", "export"}
        assert pollers.is_polled("export")
    clock[0] += POLLED_SECONDS - 1
    with pollers.asking(["render"]):
        pass
    assert set(pollers.types()) == {"render", "export"}
    clock[0] += 2
    assert set(pollers.types()) == {"render"}
    assert pollers.is_polled("render")
    assert not pollers.is_polled("export")
    clock[0] += POLLED_SECONDS
    assert not pollers.types()


async def test_the_types_that_were_asked_for_last_are_remembered(clock: list[float]) -> None:
    pollers = Pollers()
    for number in range(MAX_TYPES + 1):
        with pollers.asking([f"t{number}"]):
            pass
    assert set(pollers.types()) == {f"t{number}" for number in range(1, MAX_TYPES + 1)}
    with pollers.asking(["now"]):
        assert "now" in pollers.types()
        assert len(pollers.types()) == MAX_TYPES
