"""The buffer: what it keeps, and from where on it has everything."""

import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from jobledger_server.domain.job import JobError, JobStatus, Transition
from jobledger_server.rpc.messages import changes_message
from jobledger_server.sql.job_cache import JobCache
from jobledger_server.store import Change
from jobledger_server.tuning import Tuning
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.feed_reader import CHANGE_BYTES
from tests.support.store_writer import creation


def change(seq: int, user_id: str = "ada", size: int = 0) -> Change:
    job = creation(user_id).job
    return Change(replace(job, error=JobError("X", "x" * size) if size else None), seq)


@pytest.mark.parametrize("user_id", [None, "ada", "bob"])
def test_the_buffer_returns_every_change_after_its_floor(user_id: str | None) -> None:
    buffer = ChangeBuffer(10, Tuning(buffered_changes=4))
    changes = [change(seq, "bob" if seq % 3 else "ada") for seq in range(11, 31)]
    for count, added in enumerate(changes, start=1):
        buffer.add(added)
        assert buffer.seq == added.seq
        assert buffer.floor == max(10, added.seq - 4)
        for cursor in range(buffer.floor, buffer.seq + 2):
            expected = [
                c for c in changes[:count] if c.seq > cursor and user_id in (None, c.job.user_id)
            ]
            assert buffer.after(cursor, user_id) == expected


def test_progress_is_not_conflated_within_8192_changes_and_32_mib() -> None:
    one, large = change(1), change(1, size=1_000_000)
    many, heavy = ChangeBuffer(0), ChangeBuffer(0)
    for seq in range(1, 9001):
        many.add(replace(one, seq=seq))
    for seq in range(1, 51):
        heavy.add(replace(large, seq=seq))
    assert many.floor == 9000 - 8192
    assert 32_000_000 < (50 - heavy.floor) * 1_000_000 <= 32 * 1024 * 1024


def test_the_buffer_is_bounded_by_bytes_too() -> None:
    buffer = ChangeBuffer(0, Tuning(buffered_bytes=100_000))
    for seq in range(1, 10):
        buffer.add(change(seq, size=40_000))
    assert [c.seq for c in buffer.after(buffer.floor)] == [8, 9]
    buffer.add(change(10, size=500_000))
    assert buffer.floor == 10
    buffer.add(change(11))
    assert [c.seq for c in buffer.after(10)] == [11]


def test_a_restarted_buffer_is_empty() -> None:
    buffer = ChangeBuffer(0)
    buffer.add(change(1))
    buffer.restart(50)
    assert (buffer.floor, buffer.seq, buffer.after(50)) == (50, 50, [])
    buffer.add(change(51))
    assert [c.seq for c in buffer.after(50)] == [51]


def wide(text: str, length: int) -> str:
    """Return a new string in which every character takes 4 bytes."""
    return text + "\U0001f600" * (length - len(text))


def large(seq: int) -> Change:
    """Return a change of a job of its own, with as much in every field as the contract permits."""
    name = f"{seq}"
    job = replace(
        creation(wide(name, 128), request_id=wide(name, 128)).job,
        worker_id=wide(name, 128),
        progress_message=wide(name, 512),
        cancel_reason=wide(name, 512),
        traceparent=wide(name, 64),
        labels={f"{n}-{name}".rjust(63, "k"): wide(f"{n}-{name}", 255) for n in range(32)},
        error=JobError("X" * 63, wide(name, 4096)),
        complete_time=seq,
    )
    step = Transition(
        job_id=job.id,
        from_status=JobStatus.PROCESSING,
        to_status=JobStatus.FAILED,
        version=2,
        attempt=1,
        actor=wide(name, 128),
        reason="X" * 63,
        time=job.create_time,
    )
    return Change(job, seq, (step,))


def small(seq: int) -> Change:
    """Return a change of the smallest job of an owner of its own."""
    return Change(creation(f"u-{seq}").job, seq)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_an_owner_without_buffered_changes_uses_no_memory() -> None:
    changes = [change(seq, f"user-{seq}") for seq in range(1, 2001)]
    buffer = ChangeBuffer(0, Tuning(buffered_changes=2))
    before, _ = tracemalloc.get_traced_memory()
    for each in changes:
        buffer.add(each)
    assert tracemalloc.get_traced_memory()[0] - before < 20_000  # 10 bytes an owner


@pytest.mark.parametrize(("kind", "changes"), [(large, 75), (small, 500)])
@pytest.mark.usefixtures("traced")
def test_buffer_and_job_cache_use_no_more_memory_than_they_count(
    kind: Callable[[int], Change], changes: int
) -> None:
    bound = 1024 * 1024
    buffer, cache = ChangeBuffer(0, Tuning(buffered_bytes=bound)), JobCache(bound)
    before, _ = tracemalloc.get_traced_memory()
    for seq in range(changes):
        buffer.add(kind(seq))
    window_bytes = tracemalloc.get_traced_memory()[0] - before
    buffer.restart(0)
    before, _ = tracemalloc.get_traced_memory()
    for seq in range(changes):
        cache.put(kind(seq), "mark")
    memory_bytes = tracemalloc.get_traced_memory()[0] - before
    for taken in (window_bytes, memory_bytes):
        # A fifth at least: it is no use to count what is not there.
        assert bound / 5 < taken <= bound


@pytest.mark.parametrize("change", [large(1), small(1)])
def test_an_encoded_change_is_no_larger_than_its_counted_size(change: Change) -> None:
    counted = CHANGE_BYTES + change.job.content_bytes
    assert len(changes_message([change], "", to_owner=True)) <= counted
    # Python keeps an encoded text beside the text. What was counted once is subtracted later.
    assert counted == CHANGE_BYTES + change.job.content_bytes
