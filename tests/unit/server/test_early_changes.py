"""What commits behind a gap take up, and when there is room again."""

import pytest

from jobledger_server.store import Change
from jobledger_server.watch import early_changes
from jobledger_server.watch.early_changes import EarlyChanges
from tests.support.store_writer import creation


def test_what_was_read_from_the_table_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    job = creation().job
    monkeypatch.setattr(early_changes, "MAX_BYTES", 2 * Change(job, 3).memory_bytes)
    early = EarlyChanges()
    early.add([Change(job, 3), Change(job, 4)])
    early.add([Change(job, 5)])
    assert (early.first, early.last) == (3, 4)
    early.drop(3)
    early.add([Change(job, 5)])
    assert [change.seq for change in early.take(3)] == [4, 5]
