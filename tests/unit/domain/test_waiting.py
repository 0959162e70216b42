"""Why a job waits: each cause is named, and nothing else."""

import pytest
from msgspec.structs import replace

from jobledger_server.domain.job import Instant, Job, JobId, Phase
from jobledger_server.domain.queues import KeyState
from jobledger_server.domain.waiting import (
    KeyPaused,
    LimitReached,
    NotDue,
    NoWorker,
    Pause,
    Queued,
    TypePaused,
    WaitFacts,
    wait_reasons,
)

NOW, LATER = Instant(1_000), Instant(2_000)
JOB = Job(
    id=JobId("j"),
    user_id="ada",
    job_type="render",
    create_time=NOW,
    queue_timeout=LATER,
    update_time=NOW,
    queue_expire_time=LATER,
    concurrency_key="k:1",
)
PAUSE = Pause(NOW, "ops", "why")
PLACE = Queued(3, capped=False, higher_priority=2, tenants=4)
FULL = KeyState(running=2, max_running=2)


def facts(phase: Phase | None = Phase.READY, **given: object) -> WaitFacts:
    job = replace(JOB, phase=phase, schedule_time=LATER if phase is Phase.SCHEDULED else None)
    return WaitFacts(**{"job": job, "polled": True, "place": PLACE, **given})


@pytest.mark.parametrize(
    ("known", "reasons"),
    [
        (facts(), [PLACE]),
        (facts(polled=False), [NoWorker("render"), PLACE]),
        (facts(type_pause=PAUSE), [TypePaused("render", PAUSE), PLACE]),
        (facts(Phase.SCHEDULED), [NotDue(LATER)]),
        # Not looked at since the limit was reached; blocked; about to be ready.
        (facts(key=FULL, holders=[JobId("h")]), [LimitReached("k:1", 2, 2, [JobId("h")]), PLACE]),
        (facts(Phase.BLOCKED, key=FULL), [LimitReached("k:1", 2, 2, ())]),
        (facts(Phase.BLOCKED, key=KeyState(1, 2)), [PLACE]),
        (facts(Phase.BLOCKED, key=KeyState(3, 2)), [LimitReached("k:1", 3, 2, ())]),
        (
            facts(Phase.BLOCKED, key=KeyState(paused=True), key_pauses=[("k:1", PAUSE)]),
            [KeyPaused("k:1", PAUSE)],
        ),
        (
            facts(Phase.SCHEDULED, polled=False, type_pause=PAUSE, key=FULL),
            [
                NoWorker("render"),
                TypePaused("render", PAUSE),
                LimitReached("k:1", 2, 2, ()),
                NotDue(LATER),
            ],
        ),
        # It does not wait, whatever else is true.
        (facts(Phase.HELD, polled=False, type_pause=PAUSE, key=FULL), []),
        (facts(None, polled=False, type_pause=PAUSE, key=FULL), []),
    ],
)
def test_everything_that_keeps_a_job_is_named(known: WaitFacts, reasons: list[object]) -> None:
    assert list(wait_reasons(known)) == reasons
