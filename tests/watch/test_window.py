"""The window: what it keeps, and from where on it has everything."""

from dataclasses import replace

import pytest

from jobledger_server.domain.model import Payload
from jobledger_server.store import Change
from jobledger_server.watch import window as module
from jobledger_server.watch.window import Window
from store_writer import creation


def change(seq: int, user_id: str = "ada", size: int = 0) -> Change:
    job = creation(user_id).job
    return Change(replace(job, parameters=Payload(b"x" * size)), seq)


@pytest.mark.parametrize("user_id", [None, "ada", "bob"])
def test_from_its_floor_on_it_has_everything(user_id: str | None) -> None:
    window = Window(10, max_changes=4)
    changes = [change(seq, "bob" if seq % 3 else "ada") for seq in range(11, 31)]
    for count, added in enumerate(changes, start=1):
        window.add(added)
        assert window.seq == added.seq
        assert window.floor == max(10, added.seq - 4)
        for place in range(window.floor, window.seq + 2):
            expected = [
                c for c in changes[:count] if c.seq > place and user_id in (None, c.job.user_id)
            ]
            assert window.after(place, user_id) == expected


def test_it_is_bounded_by_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    window = Window(0)
    for seq in range(1, 10):
        window.add(change(seq, size=400))
    assert [c.seq for c in window.after(window.floor)] == [8, 9]
    window.add(change(10, size=5000))
    assert window.floor == 10
    window.add(change(11))
    assert [c.seq for c in window.after(10)] == [11]


def test_an_owner_who_has_left_it_costs_nothing() -> None:
    window = Window(0, max_changes=2)
    for seq in range(1, 100):
        window.add(change(seq, f"user-{seq}"))
    assert len(window._owned) == 2


def test_in_another_feed_it_begins_empty() -> None:
    window = Window(0)
    window.add(change(1))
    window.restart(50)
    assert (window.floor, window.seq, window.after(50)) == (50, 50, [])
    window.add(change(51))
    assert [c.seq for c in window.after(50)] == [51]
