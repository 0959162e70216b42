"""What a start, a report, a link and a finish write, field by field."""

import pytest
from msgspec.structs import replace

from jobledger_server.domain.commands import ChangeStatus, LinkAsset, Release, Report
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import (
    Asset,
    AssetId,
    Instant,
    JobStatus,
    Micros,
    Payload,
    Payloads,
    Phase,
)
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import (
    ENDED_BY,
    HELD,
    JOB_ID,
    LEFT,
    LINK,
    NOW,
    OTHER_LINK,
    QUEUED,
    RELEASED,
    REQUEUED,
    RUN_TIMEOUT,
    SECOND,
    WORKER,
    State,
    end_step,
    ids,
    job_in,
    name_of,
    outcome_of,
    payloads_of,
)

START = ChangeStatus(job_id=JOB_ID, target=JobStatus.PROCESSING)


@pytest.mark.parametrize("state", [RELEASED, LEFT])
def test_a_start_of_a_waiting_job_is_its_next_attempt_and_no_transition(state: State) -> None:
    job = replace(job_in(state), run_timeout=RUN_TIMEOUT, run_expire_time=Instant(3602_000_000))
    start = replace(START, worker_id="worker-2", progress=5)
    assert decide(job, start, now=NOW, new_id=ids()) == Decision(
        job=replace(
            job,
            phase=Phase.HELD,
            progress=5,
            progress_message="",
            attempt=2,
            started_by_id=True,
            worker_id="worker-2",
            lease_duration=Micros(3600_000_000),
            lease_expire_time=Instant(3605_000_000),
            queue_expire_time=None,
            retry_time=None,
            attempt_time=NOW,
            progress_time=NOW,
            update_time=NOW,
            version=5,
        )
    )


@pytest.mark.parametrize("state", [HELD, *REQUEUED])
@pytest.mark.parametrize(
    ("target", "reported", "progress"),
    [
        (JobStatus.COMPLETED, None, 100),
        (JobStatus.COMPLETED, 70, 100),
        (JobStatus.COMPLETED, 10, 100),
        (JobStatus.PARTIAL, None, 100),
        (JobStatus.PARTIAL, 70, 100),
        (JobStatus.FAILED, None, 40),
        (JobStatus.FAILED, 70, 70),
        (JobStatus.FAILED, 10, 40),
    ],
)
def test_finishing_sets_progress_outcome_and_time_and_clears_every_deadline(
    state: State, target: JobStatus, reported: int | None, progress: int
) -> None:
    job = job_in(state)
    end = replace(
        ENDED_BY[target], progress=reported, progress_message="so", assets=(LINK, OTHER_LINK)
    )
    decision = decide(job, end, now=NOW, new_id=ids())
    assert decision.job == replace(
        job,
        status=target,
        phase=None,
        progress=progress,
        progress_message="so",
        outcome_bytes=payloads_of(end).outcome_bytes,
        error=end.error,
        lease_duration=None,
        lease_expire_time=None,
        queue_expire_time=None,
        retry_time=None,
        complete_time=NOW,
        update_time=NOW,
        version=job.version + 1,
        outcome_digest=decision.job.outcome_digest,
        asset_count=2,
        asset_bytes=LINK.text_bytes + OTHER_LINK.text_bytes,
    )
    assert decision.job.outcome_digest
    assert decision.payloads == payloads_of(end)
    actor = WORKER if state is HELD else "worker"
    reason = "" if target is JobStatus.COMPLETED else "OUT_OF_MEMORY"
    assert decision.transition == end_step(target, job.version + 1, actor, reason)
    assert decision.assets == tuple(
        Asset(id=AssetId(number), job_id=JOB_ID, link=link, create_time=NOW, attempt=1)
        for number, link in (("id-000001", LINK), ("id-000002", OTHER_LINK))
    )
    assert name_of(decision.job, outcome_of(decision.job, end)) == "repeats"


def test_a_transition_records_its_actor_as_far_as_it_is_known() -> None:
    def ender(started_by: str, ended_by: str) -> str:
        job = replace(job_in(HELD), worker_id=started_by)
        end = replace(ENDED_BY[JobStatus.COMPLETED], worker_id=ended_by)
        transition = decide(job, end, now=NOW, new_id=ids()).transition
        assert transition is not None
        return transition.actor

    assert ender("worker-1", "worker-2") == "worker-2"
    assert ender("worker-1", "") == "worker-1"
    assert ender("", "") == "worker"
    nameless = decide(job_in(QUEUED), START, now=NOW, new_id=ids()).transition
    assert nameless is not None
    assert nameless.actor == "worker"


def test_only_the_worker_that_started_a_job_may_start_it_again() -> None:
    job = job_in(HELD)
    again = replace(START, worker_id=WORKER)
    for repeated in (
        again,
        replace(again, progress=70, progress_message="shading"),
        replace(again, lease_duration=Micros(9_000_000)),
    ):
        assert name_of(job, outcome_of(job, repeated)) == "repeats"
    assert outcome_of(job, replace(START, worker_id="worker-2")) == "illegal"
    assert outcome_of(job, START) == "illegal"
    nameless = replace(job, worker_id="")
    assert outcome_of(nameless, START) == "illegal"


@pytest.mark.parametrize(
    ("progress", "message", "after"),
    [
        (None, None, (40, "drawing")),
        (40, "drawing", (40, "drawing")),
        (41, None, (41, "drawing")),
        (40, "shading", (40, "shading")),
        (None, "", (40, "")),
        (39, None, (40, "drawing")),
        (39, "drawing", (40, "drawing")),
        (39, "shading", (40, "shading")),
        (0, "once more", (40, "once more")),
    ],
)
def test_a_lower_progress_stays_as_it_was_and_the_rest_of_the_report_is_taken(
    progress: int | None, message: str | None, after: tuple[int, str]
) -> None:
    job = job_in(HELD)
    renewed = replace(job, lease_expire_time=Instant(65_000_000))
    expected = Decision(job=renewed, changed=False, renewed=True)
    if after != (40, "drawing"):
        news = {"progress": after[0], "progress_message": after[1]}
        expected = Decision(
            job=replace(renewed, **news, progress_time=NOW, update_time=NOW, version=4)
        )
    for attempt in (None, 1):
        report = Report(job_id=JOB_ID, progress=progress, progress_message=message, attempt=attempt)
        assert outcome_of(job, report) == expected


def test_a_late_retry_of_a_numbered_report_renews_the_lease_and_changes_nothing_else() -> None:
    job = replace(job_in(HELD), report_number=2)
    old = Report(job_id=JOB_ID, attempt=1, progress=90, progress_message="old", number=2)
    for late in (old, replace(old, number=1), replace(old, checkpoint=Payload(b"old"))):
        assert name_of(job, outcome_of(job, late)) == "renews"
    after = decide(job, replace(old, number=3), now=NOW, new_id=ids()).job
    assert (after.progress_message, after.report_number) == ("old", 3)
    unnumbered = decide(after, replace(old, number=0, progress=95), now=NOW, new_id=ids()).job
    assert (unnumbered.progress, unnumbered.report_number) == (95, 3)
    again = decide(after, Release(job_id=JOB_ID, attempt=1), now=NOW, new_id=ids()).job
    started = decide(again, START, now=NOW, new_id=ids()).job
    assert started.report_number == 0, "each attempt counts anew"


@pytest.mark.parametrize("state", REQUEUED)
def test_a_report_on_an_unleased_job_starts_no_lease(state: State) -> None:
    job = job_in(state)
    report = Report(job_id=JOB_ID, progress=50)
    assert outcome_of(job, report) == Decision(
        job=replace(job, progress=50, progress_time=NOW, update_time=NOW, version=5)
    )


@pytest.mark.parametrize("state", [HELD, RELEASED])
def test_a_checkpoint_is_news_and_is_stored_beside_the_job(state: State) -> None:
    job = job_in(state)
    report = Report(job_id=JOB_ID, checkpoint=Payload(b"page 3"))
    for before in (job, replace(job, checkpoint_bytes=6)):  # the same again is news, too
        decision = decide(before, report, now=NOW, new_id=ids())
        assert decision == Decision(
            job=replace(
                job,
                checkpoint_bytes=6,
                lease_expire_time=Instant(NOW + 60 * SECOND) if state is HELD else None,
                progress_time=NOW,
                update_time=NOW,
                version=job.version + 1,
            ),
            payloads=Payloads(checkpoint=Payload(b"page 3")),
        )


@pytest.mark.parametrize("state", [HELD, RELEASED])
def test_a_linked_asset_belongs_to_the_job_and_its_owner(state: State) -> None:
    job = job_in(state)
    link = LinkAsset(job_id=JOB_ID, link=LINK, request_id="link-1")
    asset = Asset(
        id=AssetId("id-000001"),
        job_id=JOB_ID,
        link=LINK,
        create_time=NOW,
        attempt=1,
        request_id="link-1",
    )
    assert decide(job, link, now=NOW, new_id=ids()) == Decision(
        job=replace(
            job,
            asset_count=1,
            asset_bytes=LINK.text_bytes,
            progress_time=NOW,
            update_time=NOW,
            version=job.version + 1,
        ),
        asset=asset,
        assets=(asset,),
    )
