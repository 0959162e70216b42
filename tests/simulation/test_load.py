"""What the load of simulated runs does."""

from collections import Counter
from collections.abc import Collection

import pytest

from tests.checker.clients.calls import CALLS, not_made
from tests.checker.clients.update_kinds import KINDS, unused
from tests.simulation.campaign import SEEDS_FOR_ALL_KINDS, Summary
from tests.simulation.plan import Plan
from tests.simulation.simulate import Result, simulate

LOAD = {
    "rate": 200.0,
    "released": 0.2,
    "retried": 0.2,
    "cancelled": 0.2,
    "writers": 2,
    "workers": 2,
    "stream_workers": 1,
    "library_workers": 2,
    "job_watchers": 1,
}
"""Few clients that do everything, also what is rare."""


def test_a_load_makes_every_call_and_sends_every_kind_of_update() -> None:
    result = simulate(Plan(seed=1, load=LOAD, access=True))
    assert not result.broken, result.broken
    assert not not_made(Counter(result.answered))
    assert not unused(Counter(result.updates)), "by workers of the library"
    # Jobs are asked for that their creator may not create.
    rules = {"create_types", "fairness", "max_priority", "concurrency_keys"}
    assert result.beyond.keys() == rules
    webhooks = {"CreateWebhook", "UpdateWebhook", "GetWebhook", "RotateSecret"}
    assert result.webhooks.keys() >= {"ClaimWebhooks", "SaveWebhook", *webhooks}


@pytest.mark.parametrize(
    ("field", "every", "least", "said"),
    [
        ("updates", KINDS, "release.delay", "no worker has sent"),
        ("answered", CALLS, "ExplainJob", "no client has made"),
    ],
)
def test_seeds_whose_loads_left_something_out_fail(
    field: str, every: Collection[str], least: str, said: str
) -> None:
    summary = Summary()
    done = dict.fromkeys({*every} - {least}, 1)
    for seed in range(SEEDS_FOR_ALL_KINDS):
        assert said not in str(summary)
        summary.add(Result(plan=Plan(seed=seed), **{field: done}))
    assert f"{said}: {least}" in str(summary)
