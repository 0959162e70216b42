"""Which queues go next, and what each change of a job counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from jobledger_server.domain.job import Job, Phase
from jobledger_server.domain.queues import (
    EndedReasons,
    KeyState,
    Queue,
    QueueName,
    Tally,
    next_queues,
    queue_name,
)
from tests.unit.domain.jobs import QUEUED, job_in

READY, BLOCKED, SCHEDULED, HELD, _ = Phase
PHASES = (READY, BLOCKED, SCHEDULED, HELD, None)
"""Those of a job that workers run: only such a one has a key."""


def turns(limits: dict[str, int], limit: int, *queues: Queue) -> list[int]:
    return [queue.number for queue in next_queues(queues, limits, limit=limit)]


def queue(number: int, vtime: int = 0, ready: int = 9, *, job_type: str = "a", priority: int = 5):
    return Queue(QueueName(job_type, priority, f"tenant {number}"), number, vtime, ready)


def test_tenants_take_turns_from_the_lowest_virtual_time_on() -> None:
    assert turns({"a": 9}, 6, queue(1), queue(2), queue(3)) == [1, 2, 3, 1, 2, 3]
    assert turns({"a": 9}, 6, queue(1, 2), queue(2, 0)) == [2, 2, 1, 2, 1, 2]
    assert turns({"a": 9}, 6, queue(1, ready=1), queue(2)) == [1, 2, 2, 2, 2, 2]


def test_a_higher_priority_goes_first_whatever_its_virtual_time() -> None:
    low, high = queue(1), queue(2, 99, ready=2, priority=6)
    assert turns({"a": 9}, 4, low, high) == [2, 2, 1, 1]


def test_types_of_one_priority_take_turns_and_keep_their_limits() -> None:
    a, b = queue(1, 50), queue(2, job_type="b")
    assert turns({"a": 9, "b": 9}, 5, a, b) == [1, 2, 1, 2, 1]
    assert turns({"b": 9, "a": 9}, 5, a, b) == [2, 1, 2, 1, 2]
    assert turns({"a": 1, "b": 2}, 5, a, b) == [1, 2, 2]
    urgent = queue(3, job_type="b", priority=6, ready=2)
    assert turns({"a": 9, "b": 9}, 5, a, b, urgent) == [3, 3, 1, 1, 1]


@given(st.data())
def test_queues_after_the_first_ones_of_all_types_give_no_job(data: st.DataObject) -> None:
    """So a database need not return them, in the order of `sql.dialect.FIRST_OF_ALL`."""
    limits = data.draw(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 6), min_size=1))
    one = st.tuples(
        st.sampled_from("abcd"), st.integers(0, 2), st.integers(0, 3), st.integers(1, 4)
    )
    queues = [
        queue(number, vtime, ready, job_type=job_type, priority=priority)
        for number, (job_type, priority, vtime, ready) in enumerate(data.draw(st.lists(one)))
    ]
    first: list[tuple[tuple[int, int, int], Queue]] = []
    for turn, (job_type, most) in enumerate(limits.items()):
        own = [each for each in queues if each.name.job_type == job_type]
        own.sort(key=lambda each: (-each.name.priority, each.vtime, each.number))
        placed = enumerate(own[:most])
        first += [((-each.name.priority, place, turn), each) for place, each in placed]
    ordered = [each for _, each in sorted(first, key=lambda pair: pair[0])]
    limit = data.draw(st.integers(1, 12))
    assert turns(limits, limit, *ordered[:limit]) == turns(limits, limit, *ordered)


@pytest.mark.parametrize(
    ("state", "free"),
    [
        (KeyState(), 1_000_000),
        (KeyState(3, 5), 2),
        (KeyState(5, 5), 0),
        (KeyState(7, 5), 0),
        (KeyState(0, 0), 0),
        (KeyState(3, 5, paused=True), 0),
        (KeyState(3, None, paused=True), 0),
    ],
)
def test_a_key_has_as_many_free_slots_as_its_limit_leaves(state: KeyState, free: int) -> None:
    assert state.free == free


# Whether somebody has to look for blocked jobs, by the phase before and after: a slot may be free
# that nobody else is going to use.
RECHECKS = {
    (None, BLOCKED),
    (SCHEDULED, BLOCKED),
    (READY, SCHEDULED),
    (READY, None),
    (HELD, READY),
    (HELD, BLOCKED),
    (HELD, SCHEDULED),
    (HELD, None),
}


@pytest.mark.parametrize("new", PHASES)
@pytest.mark.parametrize("old", PHASES)
def test_each_change_of_phase_is_counted_once_in_its_queue_its_level_and_its_key(
    old: Phase | None, new: Phase | None
) -> None:
    before, after = (
        replace(job_in(QUEUED), phase=phase, concurrency_key="s3") for phase in (old, new)
    )
    tally = Tally({}, EndedReasons())
    tally.add(None if old is None else before, after)
    if old is new:
        assert (tally.queues, tally.levels, tally.keys) == ({}, {}, {})
        return
    change = [(phase is new) - (phase is old) for phase in Phase]
    assert tally.queues[queue_name(after)].phases == change
    assert tally.levels["render", 5] == [0, *change]
    key = tally.keys["s3"]
    assert (key.running, key.blocked) == (change[HELD], change[BLOCKED])
    assert (key.recheck or key.freed) is ((old, new) in RECHECKS)
    assert key.freed is (old is Phase.HELD)


def test_a_claim_is_a_turn_of_its_queue_and_a_start_by_the_id_is_none() -> None:
    def start(vtimes: dict[QueueName, int], *jobs: Job) -> Tally:
        tally = Tally(vtimes, EndedReasons())
        for job in jobs:
            tally.add(job, replace(job, phase=HELD))
        return tally

    job = job_in(QUEUED)
    claimed = start({queue_name(job): 7}, job, job)
    assert claimed.queues[queue_name(job)].claimed == 2
    assert claimed.levels["render", 5][0] == 8, "the level is where the second one began"
    started = start({}, job)
    assert started.queues[queue_name(job)].claimed == 0
    assert started.levels["render", 5][0] == 0


def test_a_job_counts_for_its_owner_unless_it_names_a_tenant() -> None:
    job = job_in(QUEUED)
    assert queue_name(job) == queue_name(replace(job, fairness_key=job.user_id))
    others = [
        replace(job, fairness_key="acme"),
        replace(job, priority=6),
        replace(job, job_type="encode"),
    ]
    assert len({queue_name(each) for each in (job, *others)}) == 4
    keyed = replace(job, concurrency_key="s3")
    assert queue_name(keyed) == queue_name(job), "a tenant has one queue, whatever its jobs use"
