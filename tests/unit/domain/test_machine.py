"""Every state and every command, against tables written out from the contract.

The tables below are the expectation. They are written by hand, from the
contract on the wire, and never derived from the code that they test.
"""
# The tables have a column for each state.
# ruff: noqa: E501

from itertools import product

import pytest
from msgspec.structs import replace

from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Claim,
    Delete,
    Expire,
    JobCommand,
    LinkAsset,
    Release,
    Report,
    WorkerCommand,
)
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.errors import (
    DomainError,
    IllegalTransition,
    JobNotFound,
    JobTerminal,
    LeaseLost,
    RequestIdReused,
    VersionMismatch,
)
from jobledger_server.domain.job import Asset, AssetId, Instant, Job, JobStatus, Payload
from jobledger_server.domain.leases import claim
from jobledger_server.domain.queues import KeyState, Limits, make_ready
from jobledger_server.domain.state_machine import TERMINAL, TRANSITIONS, Decision
from tests.unit.domain.jobs import (
    ENDED,
    ENDED_BY,
    ERROR,
    HELD,
    JOB_ID,
    LATER,
    LEASE,
    LINK,
    NOW,
    OTHER_LINK,
    OWNER,
    STATES,
    WORKER,
    State,
    ids,
    job_in,
    name_of,
    outcome_of,
    table,
)

TARGETS = list(JobStatus)

ALLOWED = {
    JobStatus.QUEUED: ("PROCESSING",),
    JobStatus.PROCESSING: ("COMPLETED", "PARTIAL", "FAILED"),
    JobStatus.COMPLETED: (),
    JobStatus.PARTIAL: (),
    JobStatus.FAILED: (),
}

# What a TransitionJob comes to that names no attempt, with the job's version or with none.
UNFENCED = table("""
    target     QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    QUEUED     illegal illegal   illegal illegal illegal  illegal illegal illegal  ended     ended   ended
    PROCESSING moves   notdue    moves   illegal takes    notdue  takes   notdue   ended     ended   ended
    COMPLETED  illegal illegal   illegal moves   moves    moves   moves   moves    ended     ended   ended
    PARTIAL    illegal illegal   illegal moves   moves    moves   moves   moves    ended     ended   ended
    FAILED     illegal illegal   illegal moves   moves    moves   moves   moves    ended     ended   ended
""")
# … that names the job's attempt, with its version or with none.
BY_ATTEMPT = table("""
    target     QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED LEFT  RETRYING COMPLETED PARTIAL FAILED
    QUEUED     illegal illegal   illegal illegal lease    lease  lease lease    ended     ended   ended
    PROCESSING moves   notdue    moves   illegal lease    lease  lease lease    ended     ended   ended
    COMPLETED  illegal illegal   illegal moves   lease    lease  lease lease    ended     ended   ended
    PARTIAL    illegal illegal   illegal moves   lease    lease  lease lease    ended     ended   ended
    FAILED     illegal illegal   illegal moves   lease    lease  lease lease    ended     ended   ended
""")
# … that names a version that is not the job's, and no attempt.
BY_OTHER_VERSION = table("""
    target     QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    QUEUED     version version   version version version  version version version  ended     ended   ended
    PROCESSING version version   version version version  version version version  ended     ended   ended
    COMPLETED  version version   version version version  version version version  ended     ended   ended
    PARTIAL    version version   version version version  version version version  ended     ended   ended
    FAILED     version version   version version version  version version version  ended     ended   ended
""")
# … that names the job's attempt, and a version that is not the job's.
BY_ATTEMPT_AND_OTHER_VERSION = table("""
    target     QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED LEFT  RETRYING COMPLETED PARTIAL FAILED
    QUEUED     version version   version version lease    lease  lease lease    ended     ended   ended
    PROCESSING version version   version version lease    lease  lease lease    ended     ended   ended
    COMPLETED  version version   version version lease    lease  lease lease    ended     ended   ended
    PARTIAL    version version   version version lease    lease  lease lease    ended     ended   ended
    FAILED     version version   version version lease    lease  lease lease    ended     ended   ended
""")
# … that names an attempt that is not the job's, whatever else it says.
STALE = table("""
    target     QUEUED SCHEDULED BLOCKED HELD  RELEASED PAUSED LEFT  RETRYING COMPLETED PARTIAL FAILED
    QUEUED     lease  lease     lease   lease lease    lease  lease lease    lease     lease   lease
    PROCESSING lease  lease     lease   lease lease    lease  lease lease    lease     lease   lease
    COMPLETED  lease  lease     lease   lease lease    lease  lease lease    lease     lease   lease
    PARTIAL    lease  lease     lease   lease lease    lease  lease lease    lease     lease   lease
    FAILED     lease  lease     lease   lease lease    lease  lease lease    lease     lease   lease
""")
# … that is, word for word, the report that finished the job, whatever version it expects.
ENDING_AGAIN = table("""
    target     QUEUED  SCHEDULED BLOCKED HELD  RELEASED PAUSED LEFT  RETRYING COMPLETED PARTIAL FAILED
    COMPLETED  illegal illegal   illegal moves moves    moves  moves moves    repeats   ended   ended
    PARTIAL    illegal illegal   illegal moves moves    moves  moves moves    ended     repeats ended
    FAILED     illegal illegal   illegal moves moves    moves  moves moves    ended     ended   repeats
""")
# … the same, with the attempt.
ENDING_AGAIN_BY_ATTEMPT = table("""
    target     QUEUED  SCHEDULED BLOCKED HELD  RELEASED PAUSED LEFT  RETRYING COMPLETED PARTIAL FAILED
    COMPLETED  illegal illegal   illegal moves lease    lease  lease lease    repeats   ended   ended
    PARTIAL    illegal illegal   illegal moves lease    lease  lease lease    ended     repeats ended
    FAILED     illegal illegal   illegal moves lease    lease  lease lease    ended     ended   repeats
""")
# What a start comes to by the worker that started the job before: the answer may have been lost.
STARTING_AGAIN = table("""
    version    QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    none       moves   notdue    moves   repeats takes    notdue  takes   notdue   ended     ended   ended
    right      moves   notdue    moves   illegal takes    notdue  takes   notdue   ended     ended   ended
    wrong      version version   version version version  version version version  ended     ended   ended
""")
# What a retryable failure comes to, with the job's attempt or with none: `same` has the content of
# the failure after which the job waits or ended, `others` another error, `last` comes when no
# attempt is left, and a cancelled job is one whose worker was asked to cancel it.
RETRIES = table("""
    failure    QUEUED  SCHEDULED BLOCKED HELD   RELEASED PAUSED LEFT  RETRYING COMPLETED PARTIAL FAILED
    same       illegal illegal   illegal leaves lease    lease  lease repeats  ended     ended   repeats
    others     illegal illegal   illegal leaves lease    lease  lease lease    ended     ended   ended
    last       -       -         -       moves  -        -      -     -        ended     ended   repeats
    cancelled  -       -         -       moves  -        -      -     -        ended     ended   repeats
""")
# What a report of progress comes to that names no attempt.
REPORTS = table("""
    progress   QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    alive      illegal illegal   illegal renews  repeats  repeats repeats repeats  late      late    late
    lower      illegal illegal   illegal renews  repeats  repeats repeats repeats  late      late    late
    but_says   illegal illegal   illegal reports reports  reports reports reports  late      late    late
    same       illegal illegal   illegal renews  repeats  repeats repeats repeats  late      late    late
    message    illegal illegal   illegal reports reports  reports reports reports  late      late    late
    higher     illegal illegal   illegal reports reports  reports reports reports  late      late    late
    full       illegal illegal   illegal reports reports  reports reports reports  late      late    late
    saves      illegal illegal   illegal reports reports  reports reports reports  late      late    late
""")
# … that names the job's attempt.
REPORTS_BY_ATTEMPT = table("""
    progress   QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED LEFT  RETRYING COMPLETED PARTIAL FAILED
    alive      illegal illegal   illegal renews  lease    lease  lease lease    late      late    late
    lower      illegal illegal   illegal renews  lease    lease  lease lease    late      late    late
    but_says   illegal illegal   illegal reports lease    lease  lease lease    late      late    late
    same       illegal illegal   illegal renews  lease    lease  lease lease    late      late    late
    message    illegal illegal   illegal reports lease    lease  lease lease    late      late    late
    higher     illegal illegal   illegal reports lease    lease  lease lease    late      late    late
    full       illegal illegal   illegal reports lease    lease  lease lease    late      late    late
    saves      illegal illegal   illegal reports lease    lease  lease lease    late      late    late
""")
# What linking an asset comes to that names no attempt.
LINKS = table("""
    request    QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    first      illegal illegal   illegal links   links    links   links   links    ended     ended   ended
    again      repeats repeats   repeats repeats repeats  repeats repeats repeats  repeats   repeats repeats
    reused     reused  reused    reused  reused  reused   reused  reused  reused   reused    reused  reused
""")
# … that names the job's attempt.
LINKS_BY_ATTEMPT = table("""
    request    QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    first      illegal illegal   illegal links   lease    lease   lease   lease    ended     ended   ended
    again      repeats repeats   repeats repeats repeats  repeats repeats repeats  repeats   repeats repeats
    reused     reused  reused    reused  reused  reused   reused  reused  reused   reused    reused  reused
""")
# What giving a job back comes to; a cancelled job is one whose worker was asked to cancel it.
RELEASES = table("""
    attempt    QUEUED  SCHEDULED BLOCKED HELD   RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    current    illegal illegal   illegal leaves repeats  repeats repeats repeats  ended     ended   ended
    cancelled  -       -         -       moves  -        -       -       -        ended     ended   ended
    earlier    lease   lease     lease   lease  lease    lease   lease   lease    lease     lease   lease
    later      lease   lease     lease   lease  lease    lease   lease   lease    lease     lease   lease
""")
CANCELS = table("""
    who        QUEUED SCHEDULED BLOCKED HELD    RELEASED PAUSED LEFT   RETRYING COMPLETED PARTIAL FAILED
    owner      passes passes    passes  asks    moves    moves  moves  moves    repeats   repeats repeats
    again      -      -         -       repeats -        -      -      -        repeats   repeats repeats
    stranger   absent absent    absent  absent  absent   absent absent absent   absent    absent  absent
""")
# What becomes of a job by itself, before its lease or its time to wait is over, and after.
EXPIRES = table("""
    when       QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    early      repeats repeats   repeats repeats repeats  repeats repeats repeats  repeats   repeats repeats
    due        passes  passes    passes  leaves  moves    moves   moves   moves    repeats   repeats repeats
    resumed    passes  passes    passes  renews  moves    moves   moves   moves    repeats   repeats repeats
""")
CLAIMS = table("""
    when       QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    early      moves   nothing   nothing nothing takes    nothing takes   nothing  nothing   nothing nothing
    later      moves   nothing   nothing nothing takes    nothing takes   nothing  nothing   nothing nothing
    over       nothing nothing   nothing nothing nothing  nothing nothing nothing  nothing   nothing nothing
""")
# What becomes of a job when its time may have come, or a slot may be free: `full` where its key has
# none.
MAKES_READY = table("""
    when       QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    early      repeats repeats   readies repeats repeats  repeats repeats repeats  repeats   repeats repeats
    due        repeats readies   readies repeats repeats  readies repeats readies  repeats   repeats repeats
    full       repeats blocks    readies repeats repeats  blocks  repeats blocks   repeats   repeats repeats
""")
# What a start comes to while its type or its key is paused, and while its key is full.
LIMITED = table("""
    limits     QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    type       paused  notdue    paused  illegal paused   notdue  paused  notdue   ended     ended   ended
    key        paused  notdue    paused  illegal paused   notdue  paused  notdue   ended     ended   ended
    full       full    notdue    full    illegal full     notdue  full    notdue   ended     ended   ended
""")
DELETES = table("""
    who        QUEUED  SCHEDULED BLOCKED HELD    RELEASED PAUSED  LEFT    RETRYING COMPLETED PARTIAL FAILED
    owner      illegal illegal   illegal illegal illegal  illegal illegal illegal  deletes   deletes deletes
    stranger   absent  absent    absent  absent  absent   absent  absent  absent   absent    absent  absent
""")

EARLY, AFTERWARDS, OVER = NOW, LATER, Instant(1_000_000_000)
"""Before the time of a job that has one; then; and after every deadline."""


def attempts(state: State) -> dict[str, int | None]:
    current = 0 if state.status is JobStatus.QUEUED else 1
    return {"none": None, "current": current, "earlier": current - 1, "later": current + 1}


def content_for(target: JobStatus) -> ChangeStatus:
    """Say something new about the job that is valid for this target."""
    command = ChangeStatus(
        job_id=JOB_ID,
        target=target,
        progress=70,
        progress_message="shading",
        worker_id="worker-2",
    )
    if target in TERMINAL:
        command = replace(command, result=Payload(b"other"), assets=(OTHER_LINK,))
    if target is JobStatus.FAILED:
        command = replace(command, error=ERROR)
    return command


def asked_to_cancel(job: Job) -> Job:
    return replace(job, cancel_request_time=Instant(2_500_000), cancel_reason="too dear")


def test_the_transitions_are_those_of_the_contract() -> None:
    assert {
        state: tuple(target.value for target in targets) for state, targets in TRANSITIONS.items()
    } == ALLOWED
    assert {state.status for state in ENDED} == TERMINAL


@pytest.mark.parametrize("state", STATES)
def test_every_transition_from_every_state(state: State) -> None:
    job = job_in(state)
    versions = {"none": None, "right": job.version, "wrong": job.version - 1}
    expectations = {
        ("none", "none"): UNFENCED,
        ("none", "right"): UNFENCED,
        ("none", "wrong"): BY_OTHER_VERSION,
        ("current", "none"): BY_ATTEMPT,
        ("current", "right"): BY_ATTEMPT,
        ("current", "wrong"): BY_ATTEMPT_AND_OTHER_VERSION,
    }
    for target, (fence, attempt), (expects, version) in product(
        TARGETS, attempts(state).items(), versions.items()
    ):
        command = replace(content_for(target), attempt=attempt, expected_version=version)
        expected = expectations.get((fence, expects), STALE)
        name = name_of(job, outcome_of(job, command))
        assert name == expected[target.value, state], (target, fence, expects)


@pytest.mark.parametrize("state", STATES)
def test_starting_a_job_again_by_the_same_worker(state: State) -> None:
    job = job_in(state)
    for version, expected in ("none", None), ("right", job.version), ("wrong", job.version - 1):
        start = ChangeStatus(
            job_id=JOB_ID,
            target=JobStatus.PROCESSING,
            worker_id=WORKER,
            expected_version=expected,
            progress=70,
        )
        assert name_of(job, outcome_of(job, start)) == STARTING_AGAIN[version, state], version


@pytest.mark.parametrize("state", STATES)
def test_repeating_the_report_that_finished_a_job_changes_nothing(state: State) -> None:
    job = job_in(state)
    for target, version in product(ENDED_BY, (None, job.version, job.version - 1)):
        if version == job.version - 1 and state not in ENDED:
            continue
        for fence, attempt in attempts(state).items():
            again = replace(ENDED_BY[target], attempt=attempt, expected_version=version)
            expected = {"none": ENDING_AGAIN, "current": ENDING_AGAIN_BY_ATTEMPT}.get(fence, STALE)
            name = name_of(job, outcome_of(job, again))
            assert name == expected[target.value, state], (target, fence, version)


@pytest.mark.parametrize("state", STATES)
def test_every_retryable_failure_in_every_state(state: State) -> None:
    job, failure = job_in(state), replace(ENDED_BY[JobStatus.FAILED], retryable=True)
    others = replace(failure, error=replace(ERROR, message="x"))
    for name, of, command in (
        ("same", job, failure),
        ("others", job, others),
        ("last", replace(job, max_attempts=1), failure),
        ("cancelled", asked_to_cancel(job), failure),
    ):
        for fence, attempt in attempts(state).items():
            if RETRIES[name, state] == "-":
                continue
            outcome = outcome_of(of, replace(command, attempt=attempt))
            expected = "lease" if fence in ("earlier", "later") else RETRIES[name, state]
            assert name_of(of, outcome) == expected, (name, fence)


@pytest.mark.parametrize("state", STATES)
def test_every_report_in_every_state(state: State) -> None:
    job = job_in(state)
    reports = {
        "alive": Report(job_id=JOB_ID),
        "lower": Report(job_id=JOB_ID, progress=39),
        "but_says": Report(job_id=JOB_ID, progress=0, progress_message="once more"),
        "same": Report(job_id=JOB_ID, progress=40, progress_message="drawing"),
        "message": Report(job_id=JOB_ID, progress_message="shading"),
        "higher": Report(job_id=JOB_ID, progress=41),
        "full": Report(job_id=JOB_ID, progress=100),
        "saves": Report(job_id=JOB_ID, checkpoint=Payload(b"here")),
    }
    for (content, report), (fence, attempt) in product(reports.items(), attempts(state).items()):
        name = name_of(job, outcome_of(job, replace(report, attempt=attempt)))
        if fence in ("earlier", "later"):
            expected = "lease"
        else:
            expected = (REPORTS if fence == "none" else REPORTS_BY_ATTEMPT)[content, state]
        assert name == expected, (content, fence)


@pytest.mark.parametrize("state", STATES)
def test_every_link_in_every_state(state: State) -> None:
    job = job_in(state)
    linked = Asset(
        id=AssetId("asset-1"),
        job_id=JOB_ID,
        link=LINK,
        create_time=Instant(3_000_000),
        attempt=1,
        request_id="link-1",
    )
    links = {
        "first": (LinkAsset(job_id=JOB_ID, link=LINK, request_id="link-1"), None),
        "again": (LinkAsset(job_id=JOB_ID, link=LINK, request_id="link-1"), linked),
        "reused": (LinkAsset(job_id=JOB_ID, link=OTHER_LINK, request_id="link-1"), linked),
    }
    for (request, (link, known)), (fence, attempt) in product(
        links.items(), attempts(state).items()
    ):
        outcome = outcome_of(job, replace(link, attempt=attempt), known)
        if fence in ("earlier", "later"):
            expected = "lease"
        else:
            expected = (LINKS if fence == "none" else LINKS_BY_ATTEMPT)[request, state]
        assert name_of(job, outcome) == expected, (request, fence)
        if expected == "repeats":
            assert isinstance(outcome, Decision)
            assert outcome.asset == linked, "the answer is the asset that was linked"


@pytest.mark.parametrize("state", STATES)
def test_every_release_in_every_state(state: State) -> None:
    job = job_in(state)
    for fence, attempt in attempts(state).items():
        if attempt is not None:
            outcome = outcome_of(job, Release(job_id=JOB_ID, attempt=attempt))
            assert name_of(job, outcome) == RELEASES[fence, state], fence
    if RELEASES["cancelled", state] != "-":
        cancelled = asked_to_cancel(job)
        outcome = outcome_of(cancelled, Release(job_id=JOB_ID, attempt=1))
        assert name_of(cancelled, outcome) == RELEASES["cancelled", state]


@pytest.mark.parametrize("state", STATES)
def test_every_cancellation_in_every_state(state: State) -> None:
    job, cancel = job_in(state), Cancel(job_id=JOB_ID, user_id=OWNER, reason="too dear")
    assert name_of(job, outcome_of(job, cancel)) == CANCELS["owner", state]
    stranger = outcome_of(job, replace(cancel, user_id="eve"))
    assert name_of(job, stranger) == CANCELS["stranger", state]
    if CANCELS["again", state] != "-":
        cancelled = asked_to_cancel(job)
        for again in (cancel, replace(cancel, reason="second thoughts")):
            assert name_of(cancelled, outcome_of(cancelled, again)) == CANCELS["again", state]


@pytest.mark.parametrize("state", STATES)
def test_every_expiry_in_every_state(state: State) -> None:
    job = job_in(state)
    for when, now, resumed_at in (
        ("early", EARLY, None),
        ("early", EARLY, EARLY),
        ("due", OVER, None),
        ("due", OVER, EARLY),
        ("resumed", OVER, OVER),
    ):
        outcome = outcome_of(job, Expire(job_id=JOB_ID), now=now, resumed_at=resumed_at)
        assert name_of(job, outcome) == EXPIRES[when, state], when


@pytest.mark.parametrize("state", STATES)
def test_every_claim_in_every_state(state: State) -> None:
    job = job_in(state)
    command = Claim(
        worker_id="worker-2", job_types=frozenset(["render"]), max_jobs=1, lease_duration=LEASE
    )
    for when, now in (("early", EARLY), ("later", AFTERWARDS), ("over", OVER)):
        decision = claim(job, command, now)
        assert name_of(job, decision or "nothing") == CLAIMS[when, state], when


@pytest.mark.parametrize("state", STATES)
def test_every_job_that_is_to_be_made_ready(state: State) -> None:
    job = job_in(state)
    for when, now, full in (
        ("early", Instant(LATER - 1), False),
        ("due", LATER, False),
        ("full", LATER, True),
    ):
        assert name_of(job, make_ready(job, now, full=full)) == MAKES_READY[when, state], when


@pytest.mark.parametrize("state", STATES)
def test_every_start_that_an_operator_does_not_allow(state: State) -> None:
    job = job_in(state)
    start = ChangeStatus(job_id=JOB_ID, target=JobStatus.PROCESSING, worker_id="worker-2")
    for name, limits in (
        ("type", Limits(type_paused=True)),
        ("key", Limits(KeyState(paused=True))),
        ("full", Limits(KeyState(running=3, max_running=3))),
    ):
        assert name_of(job, outcome_of(job, start, limits=limits)) == LIMITED[name, state], name


@pytest.mark.parametrize("who", ["owner", "stranger"])
@pytest.mark.parametrize("state", STATES)
def test_every_deletion_in_every_state(state: State, who: str) -> None:
    job = job_in(state)
    user = OWNER if who == "owner" else "eve"
    outcome = outcome_of(job, Delete(job_id=JOB_ID, user_id=user))
    assert name_of(job, outcome) == DELETES[who, state]
    if isinstance(outcome, Decision):
        assert outcome.job == replace(job, version=job.version + 1, update_time=NOW)


@pytest.mark.parametrize(
    "command",
    [
        ChangeStatus(job_id=JOB_ID, target=JobStatus.PROCESSING),
        Report(job_id=JOB_ID),
        LinkAsset(job_id=JOB_ID, link=LINK),
        Release(job_id=JOB_ID, attempt=1),
        Cancel(job_id=JOB_ID, user_id=OWNER),
        Expire(job_id=JOB_ID),
        Delete(job_id=JOB_ID, user_id=OWNER),
    ],
)
def test_every_command_on_an_absent_job_finds_no_job(command: JobCommand) -> None:
    with pytest.raises(JobNotFound) as refusal:
        decide(None, command, now=NOW, new_id=ids())
    assert refusal.value.job_id == JOB_ID


@pytest.mark.parametrize("state", STATES)
def test_refusals_carry_the_facts(state: State) -> None:
    job, status = job_in(state), state.status
    facts: list[DomainError] = []
    for command in (
        ChangeStatus(job_id=JOB_ID, target=JobStatus.QUEUED),
        ChangeStatus(job_id=JOB_ID, target=JobStatus.PROCESSING, attempt=9),
        ChangeStatus(job_id=JOB_ID, target=JobStatus.COMPLETED, expected_version=9),
        Release(job_id=JOB_ID, attempt=9),
        Delete(job_id=JOB_ID, user_id=OWNER),
        Delete(job_id=JOB_ID, user_id="eve"),
        Cancel(job_id=JOB_ID, user_id="eve"),
    ):
        try:
            decide(job, command, now=NOW, new_id=ids())
        except DomainError as refusal:
            facts.append(refusal)
    expected: list[DomainError]
    if state in ENDED:
        expected = [
            JobTerminal(JOB_ID, status, "QUEUED"),
            LeaseLost(JOB_ID, 1),
            JobTerminal(JOB_ID, status, "COMPLETED"),
            LeaseLost(JOB_ID, 1),
        ]
    else:
        attempt = 0 if state.status is JobStatus.QUEUED else 1
        expected = [
            IllegalTransition(JOB_ID, status, "QUEUED", ALLOWED[status]),
            LeaseLost(JOB_ID, attempt),
            VersionMismatch(JOB_ID, job.version),
            LeaseLost(JOB_ID, attempt),
            IllegalTransition(JOB_ID, status, "DELETED", ALLOWED[status]),
        ]
    expected += [JobNotFound(JOB_ID), JobNotFound(JOB_ID)]
    assert [repr(fact) for fact in facts] == [repr(fact) for fact in expected]


def test_a_reused_request_id_names_the_asset_that_has_it() -> None:
    linked = Asset(id=AssetId("asset-1"), job_id=JOB_ID, link=LINK, create_time=NOW, attempt=1)
    with pytest.raises(RequestIdReused) as refusal:
        decide(
            job_in(HELD),
            LinkAsset(job_id=JOB_ID, link=OTHER_LINK, request_id="link-1"),
            now=NOW,
            new_id=ids(),
            linked=linked,
        )
    assert repr(refusal.value) == repr(RequestIdReused("link-1", "Asset", "asset-1"))


@pytest.mark.parametrize(
    "command",
    [
        *ENDED_BY.values(),
        ChangeStatus(job_id=JOB_ID, target=JobStatus.PROCESSING, worker_id="w"),
        Report(job_id=JOB_ID, progress=50),
        LinkAsset(job_id=JOB_ID, link=LINK),
        Release(job_id=JOB_ID, attempt=1),
    ],
)
def test_a_job_of_another_type_does_not_exist_for_a_limited_worker(
    command: WorkerCommand,
) -> None:
    for job in map(job_in, STATES):
        others = replace(command, job_types=frozenset({"encode"}))
        own = replace(command, job_types=frozenset({"encode", job.job_type}))
        with pytest.raises(JobNotFound):
            decide(job, others, now=NOW, new_id=ids())
        assert outcome_of(job, own) == outcome_of(job, command)
