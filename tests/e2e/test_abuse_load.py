"""The abuser of the benchmark `security`: it does all five kinds of abuse, and quotas hold it."""

import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.load.abuse import KINDS, LARGE_STRUCT_BYTES
from benchmarks.processes import Generator, free_port
from benchmarks.targets import Server, new_database
from tests.support.access_file import rule, write_access_file


def figures_of(address: str) -> dict[str, float]:
    """Return what a server has counted."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def refused_by(limit: str) -> str:
    return f'jobledger_limit_refused_total{{limit="{limit}",scope="caller"}}'


LIMITS = {
    "calls_per_second": "calls_per_second = 100",
    "jobs_per_second": "jobs_per_second = 200",
    "watches": "watches = 2",
    "work_streams": "work_streams = 1",
    "waiting_bytes": "waiting_bytes = 2_000_000",
}
"""Quotas by the limits that refusals name."""

ATTACKS = 30
"""Of a second each: on a busy machine one may be too short to reach a limit."""


@pytest.mark.slow
def test_an_abuser_does_all_that_it_is_said_to_do(tmp_path: Path) -> None:
    access, metrics = tmp_path / "access.toml", f"127.0.0.1:{free_port()}"
    write_access_file(
        access,
        "".join(
            rule(
                name,
                'roles = ["owner", "worker"]\nusers = ["*"]\njob_types = ["*"]\n'
                "[caller.quotas]\n" + "\n".join(quotas),
            )
            for name, quotas in (("eve", LIMITS.values()), ("slow", ["waiting_bytes = 500_000"]))
        ),
    )
    more = ("--access", str(access), "--metrics", metrics)
    with (
        new_database("SQLite", tmp_path) as database,
        Server(database, *more) as server,
        Generator() as abuser,
    ):
        accepted, refused = Counter[str](), Counter[str]()

        def attack_until(enough: Callable[[], bool], token: str, *kinds: str) -> None:
            how = {"token": token, "kinds": kinds, "in_flight": 4, "seconds": 1}
            for _ in range(ATTACKS):
                attack = abuser.do("abuse.attack", target=server.target, **how)
                accepted.update(attack["accepted"])
                refused.update(attack["refused"])
                if enough():
                    return
            raise AssertionError(f"{kinds}: accepted {accepted}, refused {refused}")

        def is_refused_by(limit: str) -> bool:
            return figures_of(metrics)[refused_by(limit)] > 0

        # Few requests, but answers that are not read: without those no limit of bytes is reached.
        attack_until(lambda: is_refused_by("waiting_bytes"), "slow", "create_batch", "unread")
        for kind in KINDS:  # one at a time: a kind that is refused at once leaves others no call
            attack_until(lambda kind=kind: accepted[kind] and refused[kind], "eve", kind)
        assert all(map(is_refused_by, LIMITS))
        (largest,) = database.fetch("SELECT max(parameters_bytes) FROM jobs")
    assert largest[0] > LARGE_STRUCT_BYTES
