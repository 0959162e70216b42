"""What the load of simulated runs does."""

from collections import Counter

from tests.checker.clients.update_kinds import KINDS, unused
from tests.simulation.campaign import SEEDS_FOR_ALL_KINDS, Summary
from tests.simulation.plan import Plan
from tests.simulation.simulate import Result, simulate

ONLY_THE_LIBRARYS = {"rate": 90.0, "workers": 0, "stream_workers": 0, "library_workers": 3}


def test_workers_of_the_library_send_every_kind_of_update() -> None:
    result = simulate(Plan(seed=1, seconds=3.0, load=ONLY_THE_LIBRARYS))
    assert not result.broken, result.broken
    assert not unused(Counter(result.updates))


def test_seeds_whose_loads_did_not_send_a_kind_fail() -> None:
    summary = Summary()
    updates = dict.fromkeys(KINDS - {"release.delay"}, 1)
    for seed in range(SEEDS_FOR_ALL_KINDS):
        assert not summary.unused
        result = Result(
            plan=Plan(seed=seed),
            broken={},
            hash="",
            seconds=0,
            cpu=0,
            steps=0,
            faults={},
            counts={},
            updates=updates,
        )
        summary.add(result)
    assert summary.unused == ["release.delay"]
    assert "no worker has sent: release.delay" in str(summary)


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
