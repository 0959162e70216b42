"""What commits behind a gap take up, and when there is room again."""

from jobledger_server.store import Change
from jobledger_server.tuning import Tuning
from jobledger_server.watch.early_changes import EarlyChanges
from tests.support.store_writer import creation


def test_what_was_read_from_the_table_makes_room() -> None:
    job = creation().job
    early = EarlyChanges(Tuning(early_bytes=2 * Change(job, 3).memory_bytes))
    early.add([Change(job, 3), Change(job, 4)])
    early.add([Change(job, 5)])
    assert (early.first, early.last) == (3, 4)
    early.drop(3)
    early.add([Change(job, 5)])
    assert [change.seq for change in early.take(3)] == [4, 5]
