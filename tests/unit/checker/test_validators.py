"""The judges over histories made by hand: what they let pass and what they do not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.checker.clients.board import BRIEF
from tests.checker.history import (
    Attempt,
    Fault,
    History,
    Hold,
    Message,
    Operation,
    Outcome,
    Place,
    Record,
    Snapshot,
    Step,
    Stream,
    Watcher,
)
from tests.checker.judge.validate import judge
from tests.checker.summary import summarize
from tests.unit.checker.histories import (
    A1,
    A2,
    A3,
    A4,
    A5,
    B3,
    B4,
    END,
    FULL,
    MADE,
    START,
    done,
    given,
    job,
    story,
)

Spoil = Callable[[History], object]


def messages(history: History, watcher: int, stream: int) -> list[Message]:
    return history.watchers[watcher].streams[stream].messages


def forget(watcher: int, stream: int, number: int) -> Spoil:
    return lambda history: messages(history, watcher, stream).pop(number)


def change(watcher: int, stream: int, number: int, **fields: object) -> Spoil:
    def spoil(history: History) -> None:
        found = messages(history, watcher, stream)
        found[number] = replace(found[number], **fields)

    return spoil


def insert(watcher: int, stream: int, number: int, message: Message) -> Spoil:
    return lambda history: messages(history, watcher, stream).insert(number, message)


def swap(watcher: int, stream: int, one: int, other: int) -> Spoil:
    def spoil(history: History) -> None:
        found = messages(history, watcher, stream)
        found[one], found[other] = found[other], found[one]

    return spoil


def end(watcher: int, stream: int, how: str) -> Spoil:
    return lambda history: setattr(history.watchers[watcher].streams[stream], "end", how)


def record(job_id: str, **fields: object) -> Spoil:
    def spoil(history: History) -> None:
        history.records[job_id] = replace(history.records[job_id], **fields)

    return spoil


def operation(number: int, **fields: object) -> Spoil:
    def spoil(history: History) -> None:
        history.operations[number] = replace(history.operations[number], **fields)

    return spoil


def also(done: Operation) -> Spoil:
    return lambda history: history.operations.append(done)


def again(history: History) -> None:
    twin = replace(job("c", 1), status="FAILED")
    steps = (Step(1, "QUEUED", "PROCESSING"), Step(1, "PROCESSING", "FAILED"))
    attempts = (Attempt(1, "w", "FAILED", 0.0),)
    history.records["c"] = Record(twin, steps, attempts=attempts, created_by="create a")


def again_after_its_deletion(history: History) -> None:
    """`b` is deleted at 10, and its creation is repeated by a call that was late."""
    steps = (START["b"], END["b"])
    late = job("c", 4, "FAILED")
    full = replace(late, parameters="create b", result="late")
    history.records["c"] = Record(
        full, steps, attempts=MADE["b"], created_by="create b", ended_by="late"
    )
    messages = [Message(12.0, job("c", 1, "QUEUED")), Message(12.1, late, steps)]
    for watcher, stream in ((ALL, 1), (OTHER, 0)):
        history.watchers[watcher].streams[stream].messages += messages


def cancelled(job: Snapshot) -> Snapshot:
    return replace(job, reason="CANCELLED", cancelled=True)


def unstarted(history: History) -> None:
    """`c` is cancelled before it starts."""
    steps = (
        replace(START["b"], attempt=0),
        Step(3, "PROCESSING", "FAILED", attempt=0, reason="CANCELLED"),
    )
    created = replace(job("c", 1, "QUEUED"), content=b"")
    end = cancelled(replace(created, version=3, status="FAILED"))
    history.operations.append(done("CancelJob", 11.5, end))
    record = Record(replace(end, parameters="create c"), steps, created_by="create c")
    history.records["c"] = record
    for watcher, stream in ((ALL, 1), (OTHER, 0)):
        told = [Message(12.0, created), Message(12.1, end, steps)]
        history.watchers[watcher].streams[stream].messages += told


def both(*spoils: Spoil) -> Spoil:
    def spoil(history: History) -> None:
        for one in spoils:
            one(history)

    return spoil


MADE_A = MADE["a"][0]


def attempts_of_a(*attempts: Attempt) -> Spoil:
    return record("a", attempts=attempts)


def second_attempt(history: History) -> None:
    """`a` loses its lease, and the end is made by its second attempt."""
    a = history.records["a"]
    history.records["a"] = replace(
        a,
        job=replace(a.job, attempt=2),
        attempts=(Attempt(1, "w", "LEASE_EXPIRED", 5.0), replace(MADE_A, number=2)),
    )


def brief_without_policy(history: History) -> None:
    a = history.records["a"]
    history.records["a"] = replace(a, job=replace(a.job, job_type=BRIEF, own_policy=False))


def earlier_attempt(**fields: object) -> Spoil:
    def spoil(history: History) -> None:
        a = history.records["a"]
        first, second = a.attempts
        history.records["a"] = replace(a, attempts=(replace(first, **fields), second))

    return spoil


def released(outcome: Outcome = Outcome.ACKNOWLEDGED) -> Spoil:
    """Add a release of the first attempt of `a`."""
    waits = replace(job("a", 3), held=False, worker="")
    release = done("ReleaseJob", 4.6, waits, changed=False, outcome=outcome, attempt=1)
    return both(also(release), earlier_attempt(outcome="RELEASED", seconds=1.0))


def failed_retryably(**fields: object) -> Spoil:
    """The first attempt of `a` fails retryably at version 3."""
    waits = replace(job("a", 3), held=False, worker="", due=9_000_000)
    failure = done("FailRetryably", 4.6, waits, changed=False, attempt=1, mark="busy")
    return both(also(replace(failure, **fields)), earlier_attempt(outcome="RETRIED", seconds=1.0))


def starts_at(start: int) -> Spoil:
    """The second attempt of `a` starts then."""

    def spoil(history: History) -> None:
        a = history.records["a"]
        first, second = a.attempts
        history.records["a"] = replace(a, attempts=(first, replace(second, start=start)))

    return spoil


def goes_on(*marks: str, unknown: str = "", gets: str) -> Spoil:
    """The first attempt of `a` reports these checkpoints, and perhaps one; the second gets one."""
    reports = [
        done("UpdateProgress", 4, A3, checkpoint=mark, attempt=1, told=None, changed=False)
        for mark in marks
    ]
    if unknown:
        lost = {"outcome": Outcome.UNKNOWN, "told": None, "changed": False}
        reports.append(done("UpdateProgress", 4, A3, checkpoint=unknown, attempt=1, **lost))
    claim = replace(given(A4, "create a"), attempt=2, checkpoint=gets)
    return lambda history: history.operations.extend(
        [*reports, done("ClaimJobs", 6, claim, changed=False)]
    )


def repeated(*repeats: str, content: str = "create a") -> Spoil:
    """These jobs repeat `a`."""

    def spoil(history: History) -> None:
        steps = (START["b"], replace(END["b"], reason="CANCELLED"))
        for job_id in repeats:
            new = job(job_id, 1, "QUEUED")
            end = cancelled(replace(job(job_id, 4, "FAILED"), origin="a"))
            history.operations.append(done("CancelJob", 11.5, end))
            history.records[job_id] = Record(
                replace(end, parameters=content), steps, attempts=MADE["b"], created_by=content
            )
            messages = [Message(12.0, new), Message(12.1, end, steps)]
            for watcher, stream in ((ALL, 1), (OTHER, 0)):
                history.watchers[watcher].streams[stream].messages += messages

    return spoil


def listed(holds: int, *attempts: Attempt) -> Operation:
    """List the attempts of `a` by a worker that holds it."""
    told = {"told": None, "changed": False}
    return done("ListAttempts", 5, A3, attempt=holds, attempts=attempts, **told)


def outage(began: int, ended: int) -> Spoil:
    return lambda history: history.outages.append((began, ended))


def held(job_id: str, **fields: bool) -> Spoil:
    """A worker held the job in its only attempt, to its end."""
    hold = Hold("w", job_id, 1, began=2.0, ended=9.0, **fields)
    return lambda history: history.holds.append(hold)


def released_when_lost(history: History) -> None:
    """The worker of `a` releases its first attempt, and is told that it lost it."""
    release = done("ReleaseJob", 4.6, job("a", 3), told=None, attempt=1)
    both(also(release), held("a", lost=True))(history)


ALL, OTHER, ONE = 0, 1, 2

A_DELETED = Message(11.6, job("a", 6, "COMPLETED"), deleted=True, removed=("x", "y", "z"))

UNKNOWN = {"outcome": Outcome.UNKNOWN, "told": None, "changed": False}


def test_a_correct_history_breaks_no_promise() -> None:
    assert not any(judge(story()).values())


SPOILT = {
    # of many jobs
    "a step is left out": ("reliable", change(ALL, 0, 3, steps=())),
    "a start is not sent": ("reliable", both(forget(OTHER, 0, 3))),
    "the terminal state is not sent": ("reliable", forget(ALL, 1, 5)),
    "the deletion is not sent": ("reliable", forget(OTHER, 0, 10)),
    "nothing is sent of a job": (
        "reliable",
        lambda h: h.watchers[OTHER].streams[0].messages.__delitem__(slice(1, None)),
    ),
    "a watch of many ends": ("reliable", end(OTHER, 0, "OK")),
    "a watch breaks in an odd way": ("reliable", end(OTHER, 0, "INTERNAL")),
    "a stream comes into sync twice": ("unique", insert(ALL, 1, 4, Message(7.0, synced=True))),
    "a deletion of a job that had not ended": (
        "terminal",
        change(OTHER, 0, 10, job=replace(job("b", 5), status="PROCESSING")),
    ),
    "a bug": ("kept", lambda h: h.refusals.update(["GetJob INTERNAL INTERNAL"])),
    "a token is refused": ("resumable", end(ALL, 1, "INVALID_ARGUMENT")),
    "a job that was not asked for": (
        "reliable",
        lambda h: setattr(h.watchers[OTHER], "user_id", "bob"),
    ),
    "a message twice": ("unique", insert(OTHER, 0, 4, Message(3.65, A2))),
    "a step twice": ("unique", change(OTHER, 0, 5, steps=(START["a"],))),
    "a message after a deletion": ("unique", insert(OTHER, 0, 12, Message(10.7, job("b", 6)))),
    "an older version later": ("ordered: after version 4", swap(ALL, 1, 2, 4)),
    "jobs in another order": ("ordered", swap(ALL, 1, 2, 3)),
    "steps in another order": (
        "ordered",
        both(change(OTHER, 0, 9, steps=(END["a"], START["a"]))),
    ),
    "a step is missed on resuming": (
        "resumable",
        both(
            lambda h: setattr(h.watchers[ALL].streams[1], "after", Place(0, 2)),
            lambda h: messages(h, ALL, 0).__delitem__(slice(3, None)),
        ),
    ),
    "a message again on resuming": ("resumable", insert(ALL, 1, 0, Message(5.3, job("b", 2)))),
    "a step again on resuming": ("resumable", change(ALL, 1, 0, steps=(START["a"],))),
    "a step that never was": (
        "kept",
        change(OTHER, 0, 5, steps=(Step(3, "PROCESSING", "PROCESSING"),)),
    ),
    "a job that never was": ("kept", insert(OTHER, 0, 4, Message(3.7, job("z", 1)))),
    "the end of a deleted job is not sent": ("reliable", forget(ALL, 1, 4)),
    "the end of a deleted job is not sent on resuming": (
        "resumable",
        lambda h: messages(h, ALL, 1).__delitem__(slice(0, 5)),
    ),
    "a deletion as the version that it deletes": (
        "kept: deleted after version 4",
        change(OTHER, 0, 10, job=B4),
    ),
    "a deletion that never was": ("kept: a deletion that never was", record("b", deleted=False)),
    # of one job
    "a step of one job is left out": ("reliable", change(ONE, 0, 1, steps=())),
    "a step of one job is missed on resuming": (
        "resumable",
        lambda h: setattr(h.watchers[ONE].streams[1], "after_version", 1),
    ),
    "a step of one job again": ("unique", change(ONE, 1, 2, steps=(START["a"],))),
    "a step of one job again on resuming": (
        "resumable",
        change(ONE, 1, 0, steps=(START["a"],)),
    ),
    "steps of one job in another order": (
        "ordered: one, a, message 3: steps",
        change(ONE, 1, 3, steps=(END["a"], START["a"])),
    ),
    "a step of one job that never was": (
        "kept: one, a, message 2: Step",
        change(ONE, 1, 2, steps=(Step(3, "PROCESSING", "PROCESSING"),)),
    ),
    "a watch of one job breaks in an odd way": ("reliable: INTERNAL", end(ONE, 0, "INTERNAL")),
    "a version of one job twice": ("unique", change(ONE, 1, 1, job=A2, heartbeat=False)),
    "an older version of one job": ("ordered", change(ONE, 1, 0, job=A1)),
    "OK before the terminal state": ("terminal", forget(ONE, 1, 3)),
    "more after the terminal state": (
        "terminal",
        insert(ONE, 1, 4, Message(9.8, heartbeat=True)),
    ),
    "not found but there": ("kept", end(ONE, 1, "NOT_FOUND")),
    "a watch without a terminal state": ("reliable", both(forget(ONE, 1, 3), end(ONE, 1, "left"))),
    "another job than asked for": ("reliable", change(ONE, 1, 2, job=B3)),
    # of what was done
    "a watched job is not there": ("kept: not there any more", lambda h: h.records.pop("a")),
    "an acknowledged job is not there": (
        "kept: the job is not there",
        lambda h: h.records.pop("a"),
    ),
    "an acknowledged job is another": ("kept: is that of z", record("a", created_by="z")),
    "an acknowledged version is not there": ("kept", also(done("UpdateProgress", 9, job("a", 6)))),
    "an acknowledged version is another": (
        "kept: like UpdateProgress",
        also(done("UpdateProgress", 5, A3, mark="other")),
    ),
    "an acknowledged version is sent with other content": (
        "kept: sent with other content",
        change(OTHER, 0, 5, job=replace(A3, content=b"other")),
    ),
    "an acknowledged terminal state is another": ("kept", record("a", ended_by="")),
    "an acknowledged asset is not there": ("kept", record("a", assets=("y", "z"))),
    "an acknowledged deletion is not made": ("kept: still there", record("b", deleted=False)),
    "a request makes two jobs": ("atomic", again),
    "a request makes two jobs, and one is deleted later": (
        "atomic: made 2 jobs",
        both(
            record("b", created_by="create a"),
            lambda history: history.operations.pop(1),
        ),
    ),
    "a claim is given twice": ("atomic", also(done("ClaimJobs", 3, given(A2, "create a")))),
    "a finish with half of its assets": ("atomic", record("a", assets=("x", "y"))),
    "assets without their finish": (
        "atomic",
        both(record("a", ended_by=""), operation(8, **UNKNOWN)),
    ),
    "a finish without its assets": (
        "atomic",
        both(record("a", assets=("x",)), operation(8, **UNKNOWN)),
    ),
    "an asset twice": ("atomic", record("a", assets=("x", "x", "y", "z"))),
    "a refused asset": (
        "atomic",
        operation(6, outcome=Outcome.REFUSED),
    ),
    "an asset from nowhere": ("atomic", record("a", assets=("w", "x", "y", "z"))),
    "two terminal states": (
        "atomic",
        record("a", steps=(START["a"], END["a"], replace(END["a"], version=5))),
    ),
    "no transition to the terminal state": (
        "atomic: by the steps",
        record("a", steps=(START["a"],)),
    ),
    "no start": ("atomic", record("a", steps=(END["a"],))),
    "two contents of one version": (
        "atomic",
        change(OTHER, 0, 5, job=replace(A3, content=b"other")),
    ),
    "a job without a terminal state": (
        "terminal",
        record("a", job=A4, steps=(START["a"],), ended_by=""),
    ),
    # of payloads
    "parameters do not come first": ("views", change(ONE, 0, 0, job=A1)),
    "parameters do not come first on resuming": ("views", change(ONE, 1, 0, job=A2)),
    "parameters come again": ("views", change(ONE, 1, 2, job=given(A3, "create a"))),
    "parameters come with the end": (
        "views",
        change(ONE, 1, 3, job=replace(FULL["a"], parameters="create a")),
    ),
    "other parameters": ("views", change(ONE, 0, 0, job=given(A1, "other"))),
    "the result does not come last": ("views", change(ONE, 1, 3, job=A5)),
    "parameters that were not asked for": ("views", change(ALL, 1, 0, job=given(A3, "create a"))),
    "a result that was not asked for": (
        "views",
        change(ALL, 1, 5, job=replace(A5, result="end a")),
    ),
    "an answer to a write with parameters": ("views", operation(4, told=given(A3, "create a"))),
    "a claim without parameters": ("views", operation(2, told=A2)),
    "a watch of many in full without payloads": (
        "views",
        lambda h: setattr(h.watchers[OTHER], "full", True),
    ),
    # of attempts
    "an attempt is not listed": ("attempts: made 1 attempts, and []", record("a", attempts=())),
    "an attempt too many": ("attempts: [1, 2]", attempts_of_a(MADE_A, replace(MADE_A, number=2))),
    "an attempt of another worker": (
        "attempts: was given to w",
        attempts_of_a(replace(MADE_A, worker="v")),
    ),
    "an attempt with less progress than was seen": (
        "attempts: had reached 70",
        both(
            operation(4, told=replace(A3, progress=70)),
            attempts_of_a(replace(MADE_A, progress=60)),
        ),
    ),
    "an attempt that finished its job in another way": (
        "attempts: did not end in this way",
        attempts_of_a(replace(MADE_A, outcome="FAILED")),
    ),
    "an attempt that goes on when all is over": (
        "attempts: did not end in this way",
        attempts_of_a(Attempt(1, "w")),
    ),
    "an attempt that nobody released": (
        "attempts: was not released",
        both(second_attempt, earlier_attempt(outcome="RELEASED", seconds=1.0)),
    ),
    "an attempt whose release was refused": (
        "attempts: was not released",
        both(second_attempt, released(outcome=Outcome.REFUSED)),
    ),
    "an attempt that was released and is said to have lost its lease": (
        "attempts: is shorter than its lease",
        both(second_attempt, released(), earlier_attempt(outcome="LEASE_EXPIRED", seconds=1.0)),
    ),
    "an earlier attempt that ended the job": (
        "attempts: did not end in this way",
        both(second_attempt, earlier_attempt(outcome="FAILED")),
    ),
    "an attempt is not listed while it runs": ("attempts: in attempt 1", also(listed(1))),
    "attempts are listed without the first": (
        "attempts: in attempt 1",
        also(listed(1, Attempt(2, "w"))),
    ),
    "an attempt changes after its end": (
        "attempts: and one became",
        also(listed(1, replace(MADE_A, seconds=2.0))),
    ),
    "a job that ended without a start begins with an attempt": (
        "attempts: began with attempt 0",
        record("a", steps=(replace(START["a"], attempt=0), END["a"])),
    ),
    "a job that is held after its end": (
        "attempts: and held",
        change(OTHER, 0, 9, job=replace(A5, held=True)),
    ),
    "a claimed job that nobody holds": (
        "attempts: held is False",
        operation(2, told=replace(given(A2, "create a"), held=False)),
    ),
    "a released job that is held": (
        "attempts: after ReleaseJob",
        also(done("ReleaseJob", 5, A3, attempt=1)),
    ),
    "an asset does not come with the deletion": (
        "removed: all: b had ('x',), and () came",
        both(record("b", assets=("x",)), also(done("CreateAsset", 7, B3, mark="x", assets=("x",)))),
    ),
    "an asset of another job comes with the answer to a deletion": (
        "removed: the answer",
        operation(9, removed=("x",)),
    ),
    # of retries
    "an attempt starts before the end of its pause": (
        "scheduled: attempt 2 started 1.000 s too early",
        both(second_attempt, failed_retryably(), starts_at(8_000_000)),
    ),
    "an attempt starts without the backoff after a lost lease": (
        "scheduled: attempt 2 started 0.060 s too early",
        both(second_attempt, starts_at(5_100_000)),
    ),
    "a job starts before its schedule": (
        "scheduled: attempt 1 started",
        both(
            operation(0, told=replace(A1, due=2_000_000)),
            attempts_of_a(replace(MADE_A, start=1_999_999)),
        ),
    ),
    "a retryable failure is listed as a release": (
        "attempts: failed retryably",
        both(second_attempt, failed_retryably(), released(Outcome.UNKNOWN)),
    ),
    "an attempt that did not fail is listed as retried": (
        "attempts: did not fail retryably",
        both(second_attempt, earlier_attempt(outcome="RETRIED", seconds=1.0)),
    ),
    "an attempt whose retryable failure was refused": (
        "attempts: did not fail retryably",
        both(second_attempt, failed_retryably(outcome=Outcome.REFUSED)),
    ),
    "more attempts than the policy has": (
        "retried: used up 4 attempts",
        attempts_of_a(*(Attempt(n, "w", "LEASE_EXPIRED", 5.0) for n in (1, 2, 3)), MADE_A),
    ),
    "a job is given up although its policy has more attempts": (
        "retried: was given up after",
        both(
            attempts_of_a(Attempt(1, "w", "LEASE_EXPIRED", 5.5)),
            record("a", steps=(START["a"], replace(END["a"], reason="LEASE_EXPIRED"))),
        ),
    ),
    "a job that was started by its id is tried again without a policy": (
        "retried: used up 2 attempts",
        both(
            attempts_of_a(Attempt(1, "w", "LEASE_EXPIRED", 5.0), MADE_A),
            brief_without_policy,
        ),
    ),
    "a lease ends soon after an outage": (
        "attempts: ended 3.000 s after an outage",
        both(second_attempt, outage(1_000_000, 2_000_000)),
    ),
    "a worker is told that it lost what it ends": (
        "attempts: was lost, and ended by MarkFailed",
        both(held("b", lost=True), operation(7, rpc="MarkFailed", attempt=1)),
    ),
    "a worker is told that it lost what it releases": (
        "attempts: was lost, and ended by ReleaseJob",
        both(second_attempt, earlier_attempt(outcome="RELEASED", seconds=1.0), released_when_lost),
    ),
    "a checkpoint is lost": ("checkpoints: got ''", goes_on("x", gets="")),
    "an older checkpoint": ("checkpoints: got 'x'", goes_on("x", "y", gets="x")),
    "a checkpoint from nowhere": ("checkpoints: got 'z'", goes_on("x", unknown="y", gets="z")),
    "a cancelled job does not say so": (
        "cancelled: was cancelled, and does not say so",
        both(unstarted, record("c", job=job("c", 3, "FAILED"))),
    ),
    "a job that failed by itself says that it was cancelled": (
        "cancelled: was not cancelled, and says so",
        record("b", job=cancelled(B4)),
    ),
    "a job is cancelled that nobody cancelled": (
        "cancelled: nobody asked for it",
        both(unstarted, lambda h: h.operations.pop()),
    ),
    "a cancelled job ends in another way": (
        "cancelled: was not cancelled as asked",
        both(
            record("b", ended_by=""),
            lambda h: h.operations.append(done("CancelJob", 7, B3, changed=False)),
        ),
    ),
    "a message says cancelled of a job that was not": (
        "cancelled: is FAILED BROKEN: cancelled is True",
        insert(OTHER, 0, 10, Message(9.6, replace(B4, reason="BROKEN", cancelled=True))),
    ),
    "a job is created beyond what its creator may choose": (
        "permitted: create a was created with max_priority: 9",
        operation(0, beyond="max_priority: 9"),
    ),
    "a job is created beyond what its creator may choose, and no answer came": (
        "permitted: create a was created with fairness: acme",
        operation(0, beyond="fairness: acme", **UNKNOWN),
    ),
    "a job is repeated twice": ("repeated: is repeated by", repeated("c", "d")),
    "a job is repeated with other content": (
        "repeated: with the content of create b",
        repeated("c", content="create b"),
    ),
    "a change after the terminal state": (
        "terminal",
        insert(OTHER, 0, 11, Message(9.7, job("a", 6))),
    ),
}


@pytest.mark.parametrize("promise", {broken.partition(": ")[0]: 0 for broken, _ in SPOILT.values()})
def test_a_history_that_breaks_a_promise_is_found(promise: str) -> None:
    for name, (broken, spoil) in SPOILT.items():
        of, _, words = broken.partition(": ")
        if of == promise:
            history = story()
            spoil(history)
            assert any(words in violation.what for violation in judge(history)[promise]), name


ALLOWED = {
    "progress is skipped": forget(OTHER, 0, 5),
    "the last progress is skipped before the terminal state": forget(ALL, 1, 2),
    "a step is sent with a later version": both(
        forget(OTHER, 0, 3), change(OTHER, 0, 4, steps=(START["a"],))
    ),
    "a terminal state that is sent with the deletion": both(
        forget(ALL, 1, 4), change(ALL, 1, 5, steps=(END["b"],))
    ),
    "a finish of unknown outcome was applied": operation(8, **UNKNOWN),
    "a finish of unknown outcome was not applied": both(
        operation(7, **UNKNOWN), record("b", ended_by="")
    ),
    "an asset of unknown outcome was not linked": both(
        operation(6, outcome=Outcome.UNKNOWN), record("a", assets=("y", "z"))
    ),
    "a creation is repeated after the deletion of its job": again_after_its_deletion,
    "a lease that expired": second_attempt,
    "a lease that expired after a backoff": both(second_attempt, starts_at(5_160_000)),
    "a lease that expired before an outage": both(second_attempt, outage(5_000_000, 9_000_000)),
    "a lease that expired a lease after an outage": both(second_attempt, outage(-9, 0)),
    "a worker that held what it ended": both(held("b"), operation(7, rpc="MarkFailed", attempt=1)),
    "a worker is told that it lost it, and ends it then": both(
        held("b", lost=True), operation(7, attempt=1, sent=9.2, answered=9.6)
    ),
    "a release of an attempt whose lease had expired": both(second_attempt, released_when_lost),
    "an attempt that was released": both(second_attempt, released()),
    "a release of unknown outcome": both(second_attempt, released(outcome=Outcome.UNKNOWN)),
    "a retryable failure": both(second_attempt, failed_retryably(), starts_at(9_000_000)),
    "a retryable failure of unknown outcome": both(
        second_attempt, failed_retryably(outcome=Outcome.UNKNOWN, told=None)
    ),
    "attempts are listed while one runs": also(listed(1, Attempt(1, "w", progress=20))),
    "a job that ended without a start": unstarted,
    "a job is deleted before its payloads are read": both(
        change(ONE, 1, 3, job=A5),
        record("a", deleted=True),
        insert(ALL, 1, 7, A_DELETED),
        insert(OTHER, 0, 12, A_DELETED),
    ),
    "a job of one watcher is deleted": both(
        forget(ONE, 1, 3),
        end(ONE, 1, "NOT_FOUND"),
        record("a", deleted=True),
        insert(ALL, 1, 7, A_DELETED),
        insert(OTHER, 0, 12, A_DELETED),
    ),
    "changes requested at the same time are sent in either order": both(
        operation(5, sent=5.1),
        swap(ALL, 1, 0, 2),
        swap(OTHER, 0, 5, 6),
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed_behavior_is_no_violation(name: str) -> None:
    history = story()
    ALLOWED[name](history)
    found = judge(history)
    assert not any(found.values()), found


@pytest.mark.parametrize(
    "allowed",
    [
        goes_on(gets=""),
        goes_on("x", "y", gets="y"),
        goes_on("x", unknown="y", gets="x"),
        goes_on("x", unknown="y", gets="y"),
        goes_on(unknown="y", gets=""),
        repeated("c"),
    ],
)
def test_the_last_checkpoint_or_one_of_unknown_outcome_and_one_repetition_are_allowed(
    allowed: Spoil,
) -> None:
    history = story()
    allowed(history)
    found = judge(history)
    assert not any(found[promise] for promise in ("checkpoints", "repeated", "atomic"))


def test_a_watch_of_one_that_stays_open_receives_the_end() -> None:
    history = story()
    watcher = history.watchers[ONE]
    stream = watcher.streams[-1]
    last = stream.messages.pop()
    stream.end = "left"
    watcher.streams.append(replace_stream(stream, end="OK"))
    watcher.streams[-1].messages.append(last)
    known = 9.5  # when the end was acknowledged
    for closed, broken, late in ((known + 11, 5.0, True), (known + 9, 5.0, False), (25, 20, False)):
        stream.closed = closed
        history.faults = [Fault("SIGSTOP", 1.0, broken)]
        assert bool(judge(history)["reliable"]) is late


def test_a_watcher_that_resumes_at_an_older_cursor_gets_changes_again() -> None:
    history = story()
    watcher = history.watchers[ALL]
    back = replace_stream(watcher.streams[1], after=Place(0, 2))
    back.messages[:0] = watcher.streams[0].messages[3:]
    watcher.streams.append(back)
    watcher.streams[1].messages = watcher.streams[1].messages[:2]
    assert not any(judge(history).values())
    back.messages.pop(0)
    assert judge(history)["resumable"]


@pytest.mark.parametrize(
    ("kept", "removed", "violations"), [(0.6, (), 1), (0.4, (), 0), (0.4, ("x",), 1)]
)
def test_assets_are_missing_only_if_the_deletion_took_longer_than_it_is_kept(
    kept: float, removed: tuple[str, ...], violations: int
) -> None:
    history = History(
        operations=[done("DeleteJob", 10, B4, removed=removed)],
        records={"b": Record(B4, assets=("x", "y"), deleted=True)},
        retain_deletions=kept,
    )
    assert len(judge(history)["removed"]) == violations


def unanswered(rpc: str, mark: str, user_id: str = "ada", **fields: Any) -> Operation:
    fields = {"outcome": Outcome.UNKNOWN, "user_id": user_id, "mark": mark, **fields}
    return Operation(rpc, 10, 11, **fields)


REPEATS_A = replace(job("c", 1, "QUEUED"), origin="a")


@pytest.mark.parametrize(
    ("operation", "made", "at", "violations"),
    [
        (unanswered("CreateJob", "create c"), job("c", 1, "QUEUED"), 21, 0),
        (unanswered("CreateJob", "create c"), job("c", 1, "QUEUED"), 19, 1),
        (unanswered("CreateJob", "create c", "eve"), job("c", 1, "QUEUED"), 21, 1),
        (unanswered("CreateJob", "create a"), job("c", 1, "QUEUED"), 21, 1),
        (unanswered("CreateJob", "create b"), job("c", 1, "QUEUED"), 21, 0),
        (unanswered("CreateJob", "c", outcome=Outcome.REFUSED), job("c", 1, "QUEUED"), 21, 1),
        (unanswered("CreateJob", "create c"), REPEATS_A, 21, 1),
        (unanswered("RerunJob", "a"), REPEATS_A, 21, 0),
        (unanswered("RerunJob", "b"), REPEATS_A, 21, 1),
        (unanswered("RerunJobs", ""), REPEATS_A, 21, 0),
        (unanswered("RerunJobs", "", "eve"), REPEATS_A, 21, 1),
        (unanswered("RerunJobs", ""), job("c", 1, "QUEUED"), 21, 1),
    ],
)
def test_only_a_creation_without_an_answer_may_be_made_after_all_jobs_were_read(
    operation: Operation, made: Snapshot, at: float, violations: int
) -> None:
    history = story()
    history.read_at = 20
    history.operations.append(operation)
    history.watchers.append(Watcher("late", streams=[Stream(1, messages=[Message(at, made)])]))
    assert len(never_existed(history)) == violations


def test_a_creation_without_an_answer_makes_one_job_at_most() -> None:
    history = story()
    history.read_at = 20
    history.operations.append(unanswered("CreateJob", "create c"))
    for name in ("one", "other"):
        told = [Message(21, job("c", 1, "QUEUED")), Message(22, job("d", 1, "QUEUED"))]
        history.watchers.append(Watcher(name, streams=[Stream(1, messages=told)]))
    assert {each.rpartition("received")[2] for each in never_existed(history)} == {
        " d, which never existed"
    }


def never_existed(history: History) -> list[str]:
    return [each.what for each in judge(history)["kept"] if "never existed" in each.what]


def replace_stream(stream, **fields):
    return replace(stream, messages=list(stream.messages), **fields)


def test_a_summary_counts_what_was_done_and_voids_a_run_without_load() -> None:
    history = story()
    summary = summarize(history)
    assert (summary.changes, summary.void) == (10, True)
    assert summary.attempts == {"COMPLETED": 1, "FAILED": 1}
    history.load_ended = 10.6
    history.load_began = 10.55
    assert not summarize(history).void


def test_a_recovery_lasts_until_the_first_change_requested_after_the_failure() -> None:
    history = story()
    stream = history.watchers[OTHER].streams[0]
    history.watchers = [history.watchers[OTHER]]
    history.faults = [Fault("cut", 4.0, 4.0, recovers_from=4.0, replicas=frozenset({0}))]
    # Version 2 of b was asked for at 4, before which nothing is said; then comes 3 of a, at 5.
    assert summarize(history).recoveries == {"cut": [pytest.approx(1.6)]}
    history.faults.append(Fault("kill -9", 5.5, 5.5, recovers_from=5.5, alone=False))
    assert summarize(history).recoveries == {"cut": [None]}
    history.faults.pop()
    history.load_ended = 5.5
    assert summarize(history).recoveries == {"cut": [None]}
    stream.replica = 1
    assert summarize(history).recoveries == {}
