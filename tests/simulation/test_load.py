"""What the load of simulated runs does."""

from collections import Counter
from dataclasses import replace

from tests.checker.clients.calls import CALLS, not_made
from tests.checker.clients.update_kinds import KINDS, unused
from tests.simulation.campaign import SEEDS_FOR_ALL_KINDS, Summary
from tests.simulation.plan import Plan
from tests.simulation.simulate import Result, simulate

ONLY_THE_LIBRARYS = {"rate": 90.0, "workers": 0, "stream_workers": 0, "library_workers": 3}


def nothing(seed: int) -> Result:
    """Return the result of a run in which nothing has happened."""
    return Result(
        plan=Plan(seed=seed),
        broken={},
        hash="",
        seconds=0,
        cpu=0,
        steps=0,
        faults={},
        counts={},
        updates={},
    )


def test_workers_of_the_library_send_every_kind_of_update() -> None:
    result = simulate(Plan(seed=1, seconds=3.0, load=ONLY_THE_LIBRARYS))
    assert not result.broken, result.broken
    assert not unused(Counter(result.updates))


def test_seeds_whose_loads_did_not_send_a_kind_fail() -> None:
    summary = Summary()
    updates = dict.fromkeys(KINDS - {"release.delay"}, 1)
    for seed in range(SEEDS_FOR_ALL_KINDS):
        assert not summary.unused
        summary.add(replace(nothing(seed), updates=updates))
    assert summary.unused == ["release.delay"]
    assert "no worker has sent: release.delay" in str(summary)


def test_a_load_makes_every_call_of_the_contract() -> None:
    rare = {"released": 0.2, "retried": 0.2, "cancelled": 0.2}
    result = simulate(Plan(seed=1, seconds=8.0, load={"rate": 90.0, **rare}))
    assert not result.broken, result.broken
    assert not not_made(Counter(result.answered))


def test_seeds_whose_loads_did_not_make_a_call_fail() -> None:
    summary = Summary()
    answered = dict.fromkeys(CALLS - {"ExplainJob"}, 1)
    for seed in range(SEEDS_FOR_ALL_KINDS):
        assert not summary.not_made
        summary.add(replace(nothing(seed), answered=answered))
    assert summary.not_made == ["ExplainJob"]
    assert "no client has made: ExplainJob" in str(summary)


def test_jobs_are_asked_for_that_their_creator_may_not_create() -> None:
    load = {"rate": 200.0, "writers": 1}
    result = simulate(Plan(seed=1, seconds=6.0, load=load, access=True))
    assert not result.broken, result.broken
    assert result.beyond.keys() == {
        "create_types",
        "fairness",
        "max_priority",
        "concurrency_keys",
    }


def test_webhooks_are_claimed_saved_and_changed() -> None:
    result = simulate(Plan(seed=1, seconds=4.0, load={"rate": 30.0}))
    assert not result.broken, result.broken
    assert result.webhooks.keys() >= {
        "ClaimWebhooks",
        "SaveWebhook",
        "CreateWebhook",
        "UpdateWebhook",
        "GetWebhook",
        "RotateSecret",
    }
