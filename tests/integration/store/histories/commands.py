"""Commands that chance decides, about jobs that there are. Few are refused."""

import random as chance
from collections.abc import Sequence

from msgspec.structs import replace

from jobledger_server.domain.commands import (
    AppendOutput,
    Cancel,
    ChangeStatus,
    Command,
    Create,
    CreateAll,
    Delete,
    Expire,
    LinkAsset,
    NewGroup,
    PassOn,
    Purge,
    Release,
    Report,
    Seal,
    Update,
)
from jobledger_server.domain.job import (
    MICROS_PER_SECOND,
    AssetLink,
    Instant,
    Job,
    JobError,
    JobStatus,
    Micros,
    Payload,
    Phase,
    Silent,
)
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.sql.postgresql.postgresql_driver import COPY_FROM_ROWS

OWNERS = ("ada", "bob")
TYPES = ("a", "b", "c")
TENANTS = ("ada", "t1", "t2")
KEYS = ("", "", "k", "k:1", "k:2", "other")
STREAMS = ("", "log", "x")
SECOND = MICROS_PER_SECOND
LEASE = Micros(200 * SECOND)

BEGIN = Instant(1_800_000_000 * SECOND)
"""When each history begins."""

FEW = 10
"""Jobs. While there are fewer, most commands create some."""


def some_command(random: chance.Random, jobs: Sequence[Job]) -> Command:
    """Return a command, most often about a job for which it is meant."""
    if not jobs or random.random() < (0.6 if len(jobs) < FEW else 0.2):
        return random.choices((_creation, _creations), (4, 1))[0](random, jobs)
    command, meant = random.choices(
        (
            (_on_held, [job for job in jobs if job.leased]),
            (_on_ready, [job for job in jobs if job.phase is Phase.READY]),
            (_update, [job for job in jobs if job.status is JobStatus.QUEUED]),
            (_on_ended, [job for job in jobs if job.phase is None]),
            (_on_any, jobs),
            (_on_group, [job for job in jobs if job.children is not None]),
        ),
        (12, 3, 2, 1, 1, 3),
    )[0]
    return command(random, random.choice(meant if meant and random.random() < 0.95 else jobs))


def _creation(random: chance.Random, jobs: Sequence[Job]) -> Create:
    """Create a job, or a group, perhaps in one of the groups."""
    found = _job_creation(random, jobs)
    groups = [job for job in jobs if job.children is not None]
    if groups and random.random() < 0.4:
        group = random.choice(groups)
        owner = group.user_id if random.random() < 0.95 else found.user_id
        found = replace(found, user_id=owner, group_id=group.id)
    return _group(random, found) if random.random() < 0.15 else found


def _group(random: chance.Random, creation: Create) -> Create:
    return Create(
        user_id=creation.user_id,
        job_type=creation.job_type,
        labels=creation.labels,
        request_id=creation.request_id,
        queue_timeout=creation.queue_timeout,
        origin_job_id=creation.origin_job_id,
        group_id=creation.group_id,
        group=NewGroup(fail_fast=random.random() < 0.3),
    )


def _job_creation(random: chance.Random, jobs: Sequence[Job]) -> Create:
    ended = [job for job in jobs if job.status in TERMINAL]
    repeated = random.choice(ended) if ended and random.random() < 0.1 else None
    later = random.choice((None, None, None, 5, 100, 5000))
    after = random.choice((None, None, None, None, 5, 100))
    return Create(
        user_id=repeated.user_id if repeated else random.choice(OWNERS),
        job_type=repeated.job_type if repeated else random.choice(TYPES),
        parameters=random.choice((None, Payload(b"p" * 9))),
        labels=random.choice(({}, {"n": "1"}, {"n": "2", "ü": "🎬"})),
        request_id=random.choice(("", "", f"r{random.randrange(9)}")),
        silent=random.choice((0, random.randrange(2 * max(Silent)))),
        max_attempts=random.randint(0, 3),  # 0: no policy
        initial_backoff=Micros(random.choice((1, 10 * SECOND))),
        schedule_time=None if after or not later else Instant(BEGIN + later * SECOND),
        delay=after and Micros(after * SECOND),
        queue_timeout=Micros(random.choice((100, 10_000, 10**6)) * SECOND),
        stall_timeout=random.choice((None, Micros(15 * SECOND))),
        run_timeout=random.choice((None, Micros(500 * SECOND))),
        origin_job_id=repeated and repeated.id,
        priority=random.choice((1, 5, 5, 9)),
        fairness_key=random.choice(("", "t1", "t2")),
        concurrency_key=random.choice(KEYS),
        unique_key=random.choice(("", "", "", "u1", "u2")),
        retention=random.choice((None, None, Micros(300 * SECOND))),
        return_existing=random.random() < 0.5,
    )


def _creations(random: chance.Random, jobs: Sequence[Job]) -> Command:
    # From some number on, PostgreSQL copies new rows.
    first, *others = (
        _creation(random, jobs) for _ in range(random.choice((1, 2, 3, COPY_FROM_ROWS)))
    )
    # All are refused with one of them.
    new = {"request_id": "", "unique_key": "", "origin_job_id": None}
    others = [replace(each, **new) for each in others]
    if random.random() < 0.3:
        return _group_with(random, first, others)
    return CreateAll((first, *others))


def _group_with(random: chance.Random, first: Create, others: Sequence[Create]) -> Command:
    """Create a group with these jobs, sealed or not."""
    group = replace(_group(random, first), group=NewGroup(sealed=random.random() < 0.5))
    within = {"user_id": group.user_id, "group_id": None, "group_index": 0}
    others = others or [replace(first, request_id="", unique_key="", origin_job_id=None)]
    return CreateAll((group, *(replace(each, **within) for each in others)))


def _report(random: chance.Random, job: Job) -> Command:
    """Report with or without news, with a number that is new, an earlier one, or none."""
    again = random.random() < 0.5
    return Report(
        job_id=job.id,
        attempt=random.choice((None, job.attempt)),
        progress=job.progress if again else random.choice((None, random.randint(1, 99))),
        progress_message=None if again else random.choice((None, "", "half")),
        checkpoint=None if again else random.choice((None, Payload(random.randbytes(2)))),
        number=random.choice((0, job.report_number, job.report_number + random.randint(1, 3))),
    )


def _end(random: chance.Random, job: Job) -> Command:
    error = JobError(random.choice(("X", "Y")), "no")
    links = tuple(_link(random) for _ in range(random.randint(0, 2)))
    own = {"job_id": job.id, "attempt": random.choice((None, job.attempt))}
    return random.choice(
        (
            ChangeStatus(
                **own, target=JobStatus.COMPLETED, result=Payload(b"r"), assets=links, progress=100
            ),
            ChangeStatus(**own, target=JobStatus.PARTIAL, error=error, assets=links),
            ChangeStatus(
                **own,
                target=JobStatus.FAILED,
                error=error,
                error_details=Payload(b"d"),
                retryable=random.random() < 0.7,
                retry_delay=random.choice((None, Micros(0), Micros(30 * SECOND))),
            ),
        )
    )


def _link(random: chance.Random) -> AssetLink:
    number = random.randrange(9)
    return AssetLink("t", "", f"p{number}", number, random.choice((f"n{number % 5}", "")))


def _on_ready(random: chance.Random, job: Job) -> Command:
    return ChangeStatus(
        job_id=job.id,
        target=JobStatus.PROCESSING,
        worker_id="w",
        expected_version=random.choice((None, job.version)),
        lease_duration=random.choice((None, LEASE)),
    )


def _update(random: chance.Random, job: Job) -> Command:
    """Move a job to another queue, or to another time, or to where it is."""
    later = random.choice((None, None, 0, 5, 100, 5000))
    return Update(
        job_id=job.id,
        user_id=job.user_id,
        priority=random.choice((None, 1, 5, 9)) if later is not None else random.choice((1, 5, 9)),
        schedule_time=None if later is None else Instant(BEGIN + later * SECOND),
        expected_version=random.choice((None, None, job.version, job.version + 1)),
    )


def _on_held(random: chance.Random, job: Job) -> Command:
    kinds = {_report: 7, _append: 5, _linked: 2, _released: 1, _end: 1}
    return random.choices(list(kinds), list(kinds.values()))[0](random, job)


def _append(random: chance.Random, job: Job) -> Command:
    """Append output, with a number that is new, an earlier one, too great, or none."""
    return AppendOutput(
        job_id=job.id,
        attempt=job.attempt - (random.random() < 0.1),
        data=random.randbytes(random.choice((1, 9))) * random.choice((1, 200)),
        stream=random.choice(STREAMS),
        number=random.choice((0, 0, 1, 2, 3)),
    )


def _linked(random: chance.Random, job: Job) -> Command:
    return LinkAsset(
        job_id=job.id,
        link=_link(random),
        attempt=random.choice((None, job.attempt)),
        request_id=random.choice(("", f"l{random.randrange(9)}")),
    )


def _released(random: chance.Random, job: Job) -> Command:
    delay = Micros(random.choice((0, 30 * SECOND)))
    return Release(job_id=job.id, attempt=job.attempt, delay=delay)


def _on_any(random: chance.Random, job: Job) -> Command:
    held = random.choice((None, None, True, False))
    return random.choice(
        (
            Cancel(job_id=job.id, user_id=job.user_id, reason="enough", held=held),
            Expire(job_id=job.id),
        )
    )


def _on_group(random: chance.Random, job: Job) -> Command:
    return random.choice(
        (
            Seal(job_id=job.id, user_id=job.user_id),
            Cancel(job_id=job.id, user_id=job.user_id, reason="enough"),
            PassOn(job_id=job.id, done=random.random() < 0.5),
            Expire(job_id=job.id),
        )
    )


def _on_ended(random: chance.Random, job: Job) -> Command:
    return random.choice(
        (
            Delete(
                job_id=job.id,
                user_id=job.user_id,
                childless=job.children is not None and not job.children.total,
            ),
            Purge(job_id=job.id, age=random.choice((None, Micros(100 * SECOND)))),
            _end(random, job),
        )
    )
