"""The defaults of a job type: where they apply, and what they make of a repeated creation."""

import pytest
from msgspec.structs import asdict, replace

from jobledger_server.domain.commands import Create
from jobledger_server.domain.decisions import create
from jobledger_server.domain.errors import RequestIdReused
from jobledger_server.domain.job import Job, JobId, Micros, Silent
from jobledger_server.domain.type_defaults import FIELDS, NO_DEFAULTS, TypeDefaults
from tests.unit.domain.jobs import NOW, OWNER, SECOND, ids

EVERYTHING = sum(Silent)

DEFAULTS = TypeDefaults(
    max_attempts=7,
    initial_backoff=Micros(2 * SECOND),
    max_backoff=Micros(9 * SECOND),
    backoff_multiplier=1.5,
    queue_timeout=Micros(60 * SECOND),
    run_timeout=Micros(50 * SECOND),
    stall_timeout=Micros(40 * SECOND),
    priority=8,
    retention=Micros(30 * SECOND),
)

SAID = Create(
    user_id=OWNER,
    job_type="render",
    request_id="r",
    max_attempts=2,
    initial_backoff=Micros(SECOND),
    max_backoff=Micros(3 * SECOND),
    backoff_multiplier=3.0,
    queue_timeout=Micros(6 * SECOND),
    run_timeout=Micros(5 * SECOND),
    stall_timeout=Micros(4 * SECOND),
    priority=1,
)

UNSAID = Create(user_id=OWNER, job_type="render", request_id="r", silent=EVERYTHING)


def created(command: Create, defaults: TypeDefaults = NO_DEFAULTS) -> Job:
    return create(None, command, now=NOW, new_id=ids(), defaults=defaults).job


def values(one: Job | Create | TypeDefaults) -> dict[str, object]:
    """Return the fields that may have defaults."""
    return {name: getattr(one, name) for names in FIELDS.values() for name in names}


def test_every_default_belongs_to_something_that_a_creation_may_leave_unsaid() -> None:
    sayable = asdict(DEFAULTS)
    del sayable["retention"]  # no creation says it
    assert values(DEFAULTS) == sayable
    assert set(FIELDS) == set(Silent)


@pytest.mark.parametrize("part", list(Silent))
def test_a_default_applies_where_the_creation_is_silent_and_nowhere_else(part: Silent) -> None:
    job = created(replace(SAID, silent=part), DEFAULTS)
    unsaid = {name: getattr(DEFAULTS, name) for name in FIELDS[part]}
    assert values(job) == {**values(SAID), **unsaid}
    assert job.silent == part


def test_a_job_has_the_retention_of_its_type_and_a_rerun_that_of_its_origin() -> None:
    assert created(SAID, DEFAULTS).retention == DEFAULTS.retention
    assert created(SAID).retention is None
    for retention in (None, Micros(SECOND)):
        rerun = replace(SAID, origin_job_id=JobId("failed"), retention=retention)
        assert created(rerun, DEFAULTS).retention == retention


@pytest.mark.parametrize("then", [NO_DEFAULTS, DEFAULTS], ids=["none", "some"])
@pytest.mark.parametrize("now", [NO_DEFAULTS, DEFAULTS], ids=["none", "some"])
def test_a_creation_is_repeated_whatever_the_defaults_are_by_now(
    then: TypeDefaults, now: TypeDefaults
) -> None:
    job = created(UNSAID, then)
    again = create((job, None), UNSAID, now=NOW, new_id=ids(), defaults=now)
    assert (again.changed, again.job) == (False, job)


@pytest.mark.parametrize("part", list(Silent))
def test_to_say_what_was_left_unsaid_is_no_repetition(part: Silent) -> None:
    """Even if it says what the job has: the default decided that, and not its creator."""
    for first, other in ((UNSAID, 0), (replace(UNSAID, silent=0), part)):
        job = created(first, DEFAULTS)
        has = {name: getattr(job, name) for name in FIELDS[part]}
        again = replace(first, **has, silent=first.silent & ~part | other)
        with pytest.raises(RequestIdReused):
            create((job, None), again, now=NOW, new_id=ids(), defaults=DEFAULTS)


@pytest.mark.parametrize("part", list(Silent))
def test_what_was_said_is_compared_beside_what_was_not(part: Silent) -> None:
    first = replace(SAID, silent=EVERYTHING & ~part)
    job = created(first, DEFAULTS)
    assert not create((job, None), first, now=NOW, new_id=ids()).changed
    for name in FIELDS[part]:
        other = replace(first, **{name: getattr(DEFAULTS, name)})
        with pytest.raises(RequestIdReused):
            create((job, None), other, now=NOW, new_id=ids())


def test_a_rerun_has_what_its_origin_stores_whatever_the_defaults_are() -> None:
    rerun = replace(UNSAID, origin_job_id=JobId("failed"), priority=3)
    assert values(created(rerun, DEFAULTS)) == values(rerun)
