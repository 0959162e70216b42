"""What `compare` says of rounds: a difference where there is one, and none where there is none."""

import random

import pytest

from benchmarks.stats import Figure, Kind, left_out


def of(kind: Kind, *pairs: tuple[float, float]) -> Figure:
    """Return a result of pairs: of the first revision and of the second."""
    return Figure(kind, "CreateJob", "µs/call", rounds=[(second, first) for first, second in pairs])


def noisy(ratio: float, seed: int, noise: float = 0.02, rounds: int = 10) -> Figure:
    drawn = random.Random(seed)
    return of(
        Kind.SERVER_CPU,
        *((200.0, 200 * ratio * drawn.gauss(1, noise)) for _ in range(rounds)),
    )


@pytest.mark.parametrize(
    ("rounds", "outside"), [(3, 0), (7, 0), (9, 0), (10, 1), (14, 2), (20, 4), (30, 8)]
)
def test_the_interval_of_the_median_is_that_of_the_sign_test(rounds: int, outside: int) -> None:
    assert left_out(rounds) == outside


def test_ten_percent_more_is_named_despite_two_percent_of_noise() -> None:
    assert {noisy(1.1, seed).verdict for seed in range(100)} == {"SLOWER"}
    assert {noisy(1 / 1.1, seed).verdict for seed in range(100)} == {"FASTER"}


def test_equal_code_shows_no_difference() -> None:
    assert {noisy(1.0, seed).verdict for seed in range(500)} == {"no difference seen"}


def test_one_disturbed_round_of_ten_changes_nothing() -> None:
    pairs = [(100.0, 110.0 + n / 10) for n in range(9)] + [(300.0, 110.0)]
    assert of(Kind.SERVER_CPU, *pairs).verdict == "SLOWER"


def test_a_lower_rate_is_slower() -> None:
    assert of(Kind.RATE, *[(100.0, 80.0)] * 7).verdict == "SLOWER"


@pytest.mark.parametrize(("second", "word"), [(5, "MORE"), (3, "FEWER"), (4, "no difference seen")])
def test_five_rounds_are_enough_for_counts(second: float, word: str) -> None:
    assert of(Kind.STATEMENTS, *[(4.0, second)] * 5).verdict == word


def test_too_few_rounds_give_no_verdict() -> None:
    assert of(Kind.SERVER_CPU, *[(100.0, 200.0)] * 6).verdict == "too few rounds"
