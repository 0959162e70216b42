"""Purge: removes a job that ended long enough ago, and no other."""

import pytest

from jobledger_server.domain.commands import ChangeStatus, Purge
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import Instant, Job, JobStatus, Micros
from tests.support.store_writer import creation, step

AGE = Micros(1000)


def ended() -> Job:
    job = creation().job
    for target in (JobStatus.PROCESSING, JobStatus.COMPLETED):
        job = step(job, ChangeStatus(job_id=job.id, target=target)).job
    return job


@pytest.mark.parametrize("later", [0, 999, 1000, 5000])
def test_the_age_of_a_terminal_job_counts_from_its_complete_time(later: int) -> None:
    job = ended()
    assert job.complete_time is not None
    now = Instant(job.complete_time + later)
    gone = later >= AGE
    decision = decide(job, Purge(job_id=job.id, age=AGE), now=now, new_id=str)
    assert decision.deleted is gone
    assert decision.changed is gone
    assert decision.job.version == job.version + gone


@pytest.mark.parametrize("target", [None, JobStatus.PROCESSING])
def test_a_job_that_is_not_terminal_is_never_purged(target: JobStatus | None) -> None:
    job = creation().job
    if target is not None:
        job = step(job, ChangeStatus(job_id=job.id, target=target)).job
    decision = decide(job, Purge(job_id=job.id, age=AGE), now=Instant(10**17), new_id=str)
    assert (decision.deleted, decision.changed, decision.job) == (False, False, job)
