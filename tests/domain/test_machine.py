"""Every state and every command, against tables written out from the contract.

The tables below are the expectation. They are written by hand, from the
contract on the wire, and never derived from the code that they test.
"""

from dataclasses import replace
from itertools import product

import pytest

from domain.jobs import (
    ENDED_BY,
    ERROR,
    JOB_ID,
    LINK,
    NOW,
    OTHER_LINK,
    OWNER,
    WORKER,
    ids,
    job_in,
)
from jobledger_server.domain.commands import Delete, JobCommand, LinkAsset, Report, Transit
from jobledger_server.domain.errors import (
    DomainError,
    IllegalTransition,
    JobNotFound,
    JobTerminal,
    LeaseLost,
    RequestIdReused,
    VersionMismatch,
)
from jobledger_server.domain.machine import TERMINAL, TRANSITIONS, Decision, decide
from jobledger_server.domain.model import (
    Asset,
    AssetId,
    Instant,
    Job,
    JobStatus,
    Payload,
    Transition,
)

STATES = list(JobStatus)
QUEUED, PROCESSING, COMPLETED, PARTIAL, FAILED = STATES

ALLOWED = {
    QUEUED: ("PROCESSING",),
    PROCESSING: ("COMPLETED", "PARTIAL", "FAILED"),
    COMPLETED: (),
    PARTIAL: (),
    FAILED: (),
}


def table(text: str) -> dict[tuple[str, JobStatus], str]:
    """Read a table whose columns are the states and whose rows are what is asked."""
    head, *rows = [line.split() for line in text.strip().splitlines()]
    assert head[1:] == [state.value for state in STATES]
    return {
        (name, JobStatus(state)): cell
        for name, *cells in rows
        for state, cell in zip(head[1:], cells, strict=True)
    }


# What a TransitionJob comes to that names neither attempt nor version.
UNFENCED = table("""
    target      QUEUED   PROCESSING  COMPLETED  PARTIAL   FAILED
    QUEUED      illegal  illegal     terminal   terminal  terminal
    PROCESSING  moves    illegal     terminal   terminal  terminal
    COMPLETED   illegal  moves       terminal   terminal  terminal
    PARTIAL     illegal  moves       terminal   terminal  terminal
    FAILED      illegal  moves       terminal   terminal  terminal
""")
# … that names the job's attempt, its version, or both.
FENCED = table("""
    target      QUEUED   PROCESSING  COMPLETED  PARTIAL   FAILED
    QUEUED      illegal  illegal     terminal   terminal  terminal
    PROCESSING  moves    reports     terminal   terminal  terminal
    COMPLETED   illegal  moves       terminal   terminal  terminal
    PARTIAL     illegal  moves       terminal   terminal  terminal
    FAILED      illegal  moves       terminal   terminal  terminal
""")
# … that names a version that is not the job's, with the right attempt or none.
WRONG_VERSION = table("""
    target      QUEUED   PROCESSING  COMPLETED  PARTIAL   FAILED
    QUEUED      version  version     terminal   terminal  terminal
    PROCESSING  version  version     terminal   terminal  terminal
    COMPLETED   version  version     terminal   terminal  terminal
    PARTIAL     version  version     terminal   terminal  terminal
    FAILED      version  version     terminal   terminal  terminal
""")
# … that names an attempt that is not the job's, whatever else it says.
STALE = table("""
    target      QUEUED   PROCESSING  COMPLETED  PARTIAL   FAILED
    QUEUED      lease    lease       lease      lease     lease
    PROCESSING  lease    lease       lease      lease     lease
    COMPLETED   lease    lease       lease      lease     lease
    PARTIAL     lease    lease       lease      lease     lease
    FAILED      lease    lease       lease      lease     lease
""")
# … that is, word for word, the report that ended the job, whatever version it expects.
ENDING_AGAIN = table("""
    target      QUEUED   PROCESSING  COMPLETED  PARTIAL   FAILED
    COMPLETED   illegal  moves       repeats    terminal  terminal
    PARTIAL     illegal  moves       terminal   repeats   terminal
    FAILED      illegal  moves       terminal   terminal  repeats
""")
# What a report of progress comes to, unfenced or with the job's attempt.
REPORTS = table("""
    progress    QUEUED   PROCESSING  COMPLETED  PARTIAL   FAILED
    alive       illegal  repeats     late       late      late
    lower       illegal  late        late       late      late
    same        illegal  repeats     late       late      late
    message     illegal  reports     late       late      late
    higher      illegal  reports     late       late      late
    full        illegal  reports     late       late      late
""")
# What linking an asset comes to, unfenced or with the job's attempt.
LINKS = table("""
    request     QUEUED   PROCESSING  COMPLETED  PARTIAL   FAILED
    first       illegal  links       terminal   terminal  terminal
    again       repeats  repeats     repeats    repeats   repeats
    reused      reused   reused      reused     reused    reused
""")
DELETES = table("""
    who         QUEUED   PROCESSING  COMPLETED  PARTIAL   FAILED
    owner       illegal  illegal     deletes    deletes   deletes
    stranger    absent   absent      absent     absent    absent
""")

REFUSALS = {
    "illegal": IllegalTransition,
    "terminal": JobTerminal,
    "lease": LeaseLost,
    "version": VersionMismatch,
    "reused": RequestIdReused,
    "absent": JobNotFound,
}


def attempts(state: JobStatus) -> dict[str, int | None]:
    current = 0 if state is QUEUED else 1
    return {"none": None, "current": current, "earlier": current - 1, "later": current + 1}


def outcome_of(job: Job, command: JobCommand, linked: Asset | None = None) -> Decision | str:
    try:
        return decide(job, command, now=NOW, new_id=ids(), linked=linked)
    except DomainError as refusal:
        return next(name for name, kind in REFUSALS.items() if type(refusal) is kind)


def name_of(job: Job, outcome: Decision | str) -> str:
    """Say in the tables' words what came of a command."""
    if isinstance(outcome, str):
        return outcome
    if outcome.deleted:
        return "deletes"
    if outcome.transition is not None:
        return "moves"
    if outcome.changed:
        return "links" if outcome.assets else "reports"
    assert outcome.job is job, "what is not changed is returned as it was"
    return "repeats" if outcome.applied else "late"


def content_for(target: JobStatus) -> Transit:
    """Say something new about the job that is valid for this target."""
    command = Transit(
        job_id=JOB_ID,
        target=target,
        progress=70,
        progress_message="shading",
        worker_id="worker-2",
        assets=(OTHER_LINK,),
    )
    if target in (COMPLETED, PARTIAL, FAILED):
        command = replace(command, result=Payload(b"other"))
    if target is FAILED:
        command = replace(command, error=ERROR)
    return command


def test_the_transitions_are_those_of_the_contract() -> None:
    assert {
        state: tuple(target.value for target in targets) for state, targets in TRANSITIONS.items()
    } == ALLOWED
    assert {COMPLETED, PARTIAL, FAILED} == TERMINAL


@pytest.mark.parametrize("target", STATES)
@pytest.mark.parametrize("state", STATES)
def test_every_transition_from_every_state(state: JobStatus, target: JobStatus) -> None:
    job = job_in(state)
    versions = {"none": None, "right": job.version, "wrong": job.version - 1}
    for (fence, attempt), (expects, version) in product(attempts(state).items(), versions.items()):
        command = replace(content_for(target), attempt=attempt, expected_version=version)
        if fence in ("earlier", "later"):
            expected = STALE
        elif expects == "wrong":
            expected = WRONG_VERSION
        elif (fence, expects) == ("none", "none"):
            expected = UNFENCED
        else:
            expected = FENCED
        outcome = outcome_of(job, command)
        # A PROCESSING report that links assets too is still a report.
        name = name_of(job, outcome).replace("links", "reports")
        assert name == expected[target.value, state], (fence, expects)


@pytest.mark.parametrize("target", list(ENDED_BY))
@pytest.mark.parametrize("state", STATES)
def test_repeating_the_report_that_ended_a_job_changes_nothing(
    state: JobStatus, target: JobStatus
) -> None:
    job = job_in(state)
    for version in (None, job.version, job.version - 1):
        if version == job.version - 1 and state not in TERMINAL:
            continue
        for fence, attempt in attempts(state).items():
            again = replace(ENDED_BY[target], attempt=attempt, expected_version=version)
            expected = STALE if fence in ("earlier", "later") else ENDING_AGAIN
            name = name_of(job, outcome_of(job, again))
            assert name == expected[target.value, state], (fence, version)


@pytest.mark.parametrize("state", [COMPLETED, PARTIAL, FAILED])
def test_another_worker_may_repeat_the_end_but_not_change_a_word_of_it(state: JobStatus) -> None:
    job, end = job_in(state), ENDED_BY[state]
    assert name_of(job, outcome_of(job, replace(end, worker_id="worker-2"))) == "repeats"
    for other in (
        replace(end, result=Payload(b"x")),
        replace(end, result=Payload(b"")),
        replace(end, error=replace(ERROR, message="x")),
        replace(end, progress=100),
        replace(end, progress_message=""),
        replace(end, assets=(OTHER_LINK,)),
        replace(end, assets=(LINK, LINK)),
    ):
        assert outcome_of(job, other) == "terminal"


@pytest.mark.parametrize("state", STATES)
def test_every_report_in_every_state(state: JobStatus) -> None:
    job = job_in(state)
    reports = {
        "alive": Report(job_id=JOB_ID),
        "lower": Report(job_id=JOB_ID, progress=39, progress_message="late"),
        "same": Report(job_id=JOB_ID, progress=40, progress_message="drawing"),
        "message": Report(job_id=JOB_ID, progress_message="shading"),
        "higher": Report(job_id=JOB_ID, progress=41),
        "full": Report(job_id=JOB_ID, progress=100),
    }
    for (content, report), (fence, attempt) in product(reports.items(), attempts(state).items()):
        name = name_of(job, outcome_of(job, replace(report, attempt=attempt)))
        expected = "lease" if fence in ("earlier", "later") else REPORTS[content, state]
        assert name == expected, (content, fence)


@pytest.mark.parametrize("state", STATES)
def test_every_link_in_every_state(state: JobStatus) -> None:
    job = job_in(state)
    linked = Asset(
        id=AssetId("asset-1"),
        job_id=JOB_ID,
        user_id=OWNER,
        link=LINK,
        create_time=Instant(3_000_000),
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
        expected = "lease" if fence in ("earlier", "later") else LINKS[request, state]
        assert name_of(job, outcome) == expected, (request, fence)
        if expected == "repeats":
            assert isinstance(outcome, Decision)
            assert outcome.assets == (linked,), "the answer is the asset that was linked"


@pytest.mark.parametrize("who", ["owner", "stranger"])
@pytest.mark.parametrize("state", STATES)
def test_every_deletion_in_every_state(state: JobStatus, who: str) -> None:
    job = job_in(state)
    user = OWNER if who == "owner" else "eve"
    outcome = outcome_of(job, Delete(job_id=JOB_ID, user_id=user))
    assert name_of(job, outcome) == DELETES[who, state]
    if isinstance(outcome, Decision):
        assert outcome.job == replace(job, version=job.version + 1, update_time=NOW)


@pytest.mark.parametrize(
    "command",
    [
        Transit(job_id=JOB_ID, target=PROCESSING),
        Report(job_id=JOB_ID),
        LinkAsset(job_id=JOB_ID, link=LINK),
        Delete(job_id=JOB_ID, user_id=OWNER),
    ],
)
def test_every_command_on_an_absent_job_finds_no_job(command: JobCommand) -> None:
    with pytest.raises(JobNotFound) as refusal:
        decide(None, command, now=NOW, new_id=ids())
    assert refusal.value.job_id == JOB_ID


def test_a_start_counts_the_attempt_and_records_who_and_when() -> None:
    job = job_in(QUEUED)
    start = Transit(
        job_id=JOB_ID,
        target=PROCESSING,
        worker_id=WORKER,
        progress=5,
        progress_message="warm",
        assets=(LINK,),
    )
    decision = decide(job, start, now=NOW, new_id=ids())
    assert decision == Decision(
        job=replace(
            job,
            status=PROCESSING,
            progress=5,
            progress_message="warm",
            attempt=1,
            worker_id=WORKER,
            start_time=NOW,
            update_time=NOW,
            version=2,
        ),
        transition=Transition(
            job_id=JOB_ID,
            from_status=QUEUED,
            to_status=PROCESSING,
            version=2,
            attempt=1,
            actor=WORKER,
            reason="",
            time=NOW,
        ),
        assets=(
            Asset(
                id=AssetId("id-000001"), job_id=JOB_ID, user_id=OWNER, link=LINK, create_time=NOW
            ),
        ),
    )


@pytest.mark.parametrize(
    ("target", "reported", "progress"),
    [
        (COMPLETED, None, 100),
        (COMPLETED, 70, 100),
        (COMPLETED, 10, 100),
        (PARTIAL, None, 100),
        (PARTIAL, 70, 100),
        (FAILED, None, 40),
        (FAILED, 70, 70),
        (FAILED, 10, 40),
    ],
)
def test_an_end_sets_progress_outcome_and_time(
    target: JobStatus, reported: int | None, progress: int
) -> None:
    job = job_in(PROCESSING)
    end = replace(ENDED_BY[target], progress=reported, assets=(LINK, OTHER_LINK))
    decision = decide(job, end, now=NOW, new_id=ids())
    assert decision.job == replace(
        job,
        status=target,
        progress=progress,
        result=end.result,
        error=end.error,
        complete_time=NOW,
        update_time=NOW,
        version=4,
        end_digest=decision.job.end_digest,
    )
    assert decision.job.end_digest
    assert decision.transition == Transition(
        job_id=JOB_ID,
        from_status=PROCESSING,
        to_status=target,
        version=4,
        attempt=1,
        actor=WORKER,
        reason="" if target is COMPLETED else "OUT_OF_MEMORY",
        time=NOW,
    )
    assert [asset.link for asset in decision.assets] == [LINK, OTHER_LINK]
    assert name_of(decision.job, outcome_of(decision.job, end)) == "repeats"


def test_a_transition_names_its_actor_as_well_as_it_can() -> None:
    def actor(started_by: str, ended_by: str) -> str:
        job = replace(job_in(PROCESSING), worker_id=started_by)
        end = replace(ENDED_BY[COMPLETED], worker_id=ended_by)
        transition = decide(job, end, now=NOW, new_id=ids()).transition
        assert transition is not None
        return transition.actor

    assert actor("worker-1", "worker-2") == "worker-2"
    assert actor("worker-1", "") == "worker-1"
    assert actor("", "") == "worker"


def test_only_the_worker_that_started_a_job_may_start_it_again() -> None:
    start = Transit(job_id=JOB_ID, target=PROCESSING)
    job = job_in(PROCESSING)
    assert name_of(job, outcome_of(job, replace(start, worker_id=WORKER))) == "repeats"
    assert outcome_of(job, replace(start, worker_id="worker-2")) == "illegal"
    assert outcome_of(job, start) == "illegal"
    nameless = replace(job, worker_id="")
    assert outcome_of(nameless, start) == "illegal"


@pytest.mark.parametrize(
    ("progress", "message", "after"),
    [
        (None, None, None),
        (40, "drawing", None),
        (41, None, (41, "drawing")),
        (40, "shading", (40, "shading")),
        (None, "", (40, "")),
        (39, None, "late"),
        (39, "shading", "late"),
        (0, None, "late"),
    ],
)
def test_progress_never_goes_backwards_by_either_door(
    progress: int | None, message: str | None, after: tuple[int, str] | str | None
) -> None:
    job = job_in(PROCESSING)
    report = Report(job_id=JOB_ID, progress=progress, progress_message=message)
    transit = Transit(
        job_id=JOB_ID,
        target=PROCESSING,
        attempt=1,
        progress=progress,
        progress_message=message,
    )
    if isinstance(after, tuple):
        changed = replace(
            job, progress=after[0], progress_message=after[1], update_time=NOW, version=4
        )
        expected = Decision(job=changed)
    else:
        expected = Decision(job=job, changed=False, applied=after != "late")
    assert outcome_of(job, report) == expected
    assert outcome_of(job, transit) == expected


def test_a_linked_asset_belongs_to_the_job_and_its_owner() -> None:
    job = job_in(PROCESSING)
    link = LinkAsset(job_id=JOB_ID, link=LINK, request_id="link-1")
    assert decide(job, link, now=NOW, new_id=ids()) == Decision(
        job=replace(job, update_time=NOW, version=4),
        assets=(
            Asset(
                id=AssetId("id-000001"),
                job_id=JOB_ID,
                user_id=OWNER,
                link=LINK,
                create_time=NOW,
                request_id="link-1",
            ),
        ),
    )


@pytest.mark.parametrize("state", STATES)
def test_refusals_carry_the_facts(state: JobStatus) -> None:
    job = job_in(state)
    facts: list[DomainError] = []
    for command in (
        Transit(job_id=JOB_ID, target=QUEUED),
        Transit(job_id=JOB_ID, target=PROCESSING, attempt=9),
        Transit(job_id=JOB_ID, target=COMPLETED, expected_version=9),
        Delete(job_id=JOB_ID, user_id=OWNER),
    ):
        try:
            decide(job, command, now=NOW, new_id=ids())
        except DomainError as refusal:
            facts.append(refusal)
    allowed = ALLOWED[state]
    expected: list[DomainError] = [LeaseLost(JOB_ID, job.attempt)]
    if state in TERMINAL:
        expected.insert(0, JobTerminal(JOB_ID, state, "QUEUED"))
        expected.append(JobTerminal(JOB_ID, state, "COMPLETED"))
    else:
        expected.insert(0, IllegalTransition(JOB_ID, state, "QUEUED", allowed))
        expected.append(VersionMismatch(JOB_ID, job.version))
        expected.append(IllegalTransition(JOB_ID, state, "DELETED", allowed))
    assert [repr(fact) for fact in facts] == [repr(fact) for fact in expected]


def test_a_report_or_a_link_on_a_queued_job_says_which_state_it_needs() -> None:
    for command in (Report(job_id=JOB_ID), LinkAsset(job_id=JOB_ID, link=LINK)):
        with pytest.raises(IllegalTransition) as refusal:
            decide(job_in(QUEUED), command, now=NOW, new_id=ids())
        assert refusal.value.wanted == "PROCESSING"


def test_a_reused_request_id_names_the_asset_that_has_it() -> None:
    linked = Asset(id=AssetId("asset-1"), job_id=JOB_ID, user_id=OWNER, link=LINK, create_time=NOW)
    with pytest.raises(RequestIdReused) as refusal:
        decide(
            job_in(PROCESSING),
            LinkAsset(job_id=JOB_ID, link=OTHER_LINK, request_id="link-1"),
            now=NOW,
            new_id=ids(),
            linked=linked,
        )
    assert (refusal.value.request_id, refusal.value.made_id) == ("link-1", "asset-1")
