"""Purge: removes a job that ended long enough ago, and no other."""

import pytest
from msgspec.structs import replace

from jobledger_server.domain.commands import Purge
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import Instant, Micros
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import ENDED, JOB_ID, STATES, State, ids, job_in

AGE = Micros(1000)
PURGE = Purge(job_id=JOB_ID, age=AGE)


@pytest.mark.parametrize("state", ENDED)
@pytest.mark.parametrize("later", [0, 999, 1000, 5000])
def test_the_age_of_a_terminal_job_counts_from_its_complete_time(state: State, later: int) -> None:
    job = job_in(state)
    assert job.complete_time is not None
    now = Instant(job.complete_time + later)
    decision = decide(job, PURGE, now=now, new_id=ids())
    if later < AGE:
        assert decision == Decision(job=job, changed=False)
    else:
        gone = replace(job, version=job.version + 1, update_time=now)
        assert decision == Decision(job=gone, deleted=True)


@pytest.mark.parametrize("state", [state for state in STATES if state not in ENDED])
def test_a_job_that_is_not_terminal_is_never_purged(state: State) -> None:
    job = job_in(state)
    decision = decide(job, PURGE, now=Instant(10**17), new_id=ids())
    assert decision == Decision(job=job, changed=False)
