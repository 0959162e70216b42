"""Ids are UUIDv7 and order as they were made."""

import uuid

from jobledger_server.domain.job import ID_AHEAD, Instant, first_id
from jobledger_server.ledger.ids import IdSource
from tests.support.busy_thread import busy_thread

NOW = 1_795_531_789_039_164


def test_an_id_is_a_uuid_of_version_7_with_its_time() -> None:
    made = uuid.UUID(IdSource().new_id(NOW))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == NOW // 1000


def test_ids_go_up_within_a_millisecond_and_when_the_clock_goes_back() -> None:
    ids = IdSource()
    made = [ids.new_id(NOW + step) for step in (*[0] * 1000, -5_000_000, 1, 1_000_000, 0)]
    assert made == sorted(set(made))


def test_an_id_is_ahead_of_its_time_by_less_than_the_limit_if_the_clock_goes_back() -> None:
    ids = IdSource()
    for now in (NOW, NOW - ID_AHEAD + 1000, NOW - ID_AHEAD, NOW - 10 * ID_AHEAD, NOW + 1):
        made = ids.new_id(now)
        assert first_id(Instant(now)) <= made < first_id(Instant(now + ID_AHEAD))


def test_the_last_bits_of_each_id_are_random() -> None:
    ids = IdSource()
    ends = {ids.new_id(NOW)[-8:] for _ in range(1000)}
    assert len(ends) > 990  # of four billion


def test_an_id_is_valid_at_time_zero() -> None:
    assert uuid.UUID(IdSource().new_id(0)).int >> 80 == 0


def test_two_sources_do_not_make_the_same_id() -> None:
    one, other = IdSource(), IdSource()
    ids = {source.new_id(NOW) for source in (one, other) for _ in range(1000)}
    assert len(ids) == 2000


def test_many_ids_seldom_wait_for_another_thread() -> None:
    ids = IdSource()
    with busy_thread() as switches:
        for _ in range(10_000):
            ids.new_id(NOW)
    # It would be hundreds if each id asked the system for its random bits.
    assert switches.count < 100
