"""The feed reader: watches of several owners share what they read, but not what is theirs."""

from typing import cast

from jobledger_server.admission.caller import SERVICE
from jobledger_server.store import Change, Store
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.feed_reader import FeedReader
from tests.support.store_writer import creation

NO_STORE = cast("Store", None)
"""What the change buffer has is not read from the database."""


async def test_watches_of_two_owners_at_one_place_are_sent_their_own_jobs() -> None:
    buffer = ChangeBuffer(0)
    changes = {name: Change(creation(name).job, seq) for seq, name in enumerate(("ada", "bob"), 1)}
    for change in changes.values():
        buffer.add(change)
    reader = FeedReader(NO_STORE, buffer)
    for user_id, expected in (
        ("ada", [changes["ada"]]),
        ("bob", [changes["bob"]]),
        (None, [*changes.values()]),
        ("ada", [changes["ada"]]),
        ("eve", []),
    ):
        part = await reader.after(0, user_id, caller=SERVICE)
        assert (part.changes, part.through) == (expected, 2), user_id
