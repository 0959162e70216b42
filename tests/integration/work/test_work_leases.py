"""The leases of a stream: renewed, lost to others, and what is said of them."""

import pytest
from msgspec.structs import replace

from jobledger_server.admission.caller import Caller, Identity, Permissions, Quotas
from jobledger_server.admission.rates import RateLimit
from jobledger_server.domain.commands import Cancel, ChangeStatus, Create
from jobledger_server.domain.job import Job, JobId, JobStatus, Micros
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.rpc.workers.work_leases import Leases
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreUnavailable
from jobledger_server.watch.held_jobs import HeldJobs, Signal
from tests.support.ledger_calls import apply
from tests.support.store_writer import read_jobs

LEASE = Micros(30_000_000)

WORKER = Caller(
    "eve",
    permissions=Permissions(
        Identity("eve"),
        job_types=frozenset({"render"}),
        quotas=Quotas(updates_per_second=1),
    ),
)


@pytest.fixture
def rate() -> RateLimit:
    return RateLimit("updates_per_second", lambda quotas: quotas.updates_per_second, lambda: 0.0)


@pytest.fixture
async def leases(ledger: Ledger, held: HeldJobs, rate: RateLimit) -> Leases:
    return Leases(ledger, held, WORKER, rate)


async def running(ledger: Ledger, job_type: str = "render") -> Job:
    job = (await apply(ledger, Create(user_id="ada", job_type=job_type))).job
    start = ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING, lease_duration=LEASE)
    return (await apply(ledger, start)).job


def signals(leases: Leases) -> list[Signal]:
    found = []
    while (signal := leases.next_signal()) is not None:
        found.append(signal)
    return found


def finish(job: Job, attempt: int = 1) -> ChangeStatus:
    return ChangeStatus(job_id=job.id, attempt=attempt, target=JobStatus.COMPLETED)


async def cancelled(ledger: Ledger, job: Job) -> None:
    await apply(ledger, Cancel(job_id=job.id, user_id=job.user_id, reason="enough"))


async def test_each_lease_that_is_held_is_renewed_and_counted(
    ledger: Ledger, leases: Leases, rate: RateLimit, store: SqlStore
) -> None:
    jobs = [await running(ledger) for _ in range(3)]
    await leases.hold(Micros(60_000_000), [(job.id, 1) for job in jobs])
    after = await read_jobs(store, [job.id for job in jobs])
    for job in jobs:
        renewed, before = after[job.id].lease_expire_time, job.lease_expire_time
        assert renewed is not None
        assert before is not None
        assert renewed > before
    assert leases.seconds == 30  # the shortest
    assert signals(leases) == []
    assert rate.wait_of(WORKER) == pytest.approx(3)  # one was allowed, and the next one needs one


async def test_what_is_not_the_callers_is_lost_at_once_and_said_once(
    ledger: Ledger, leases: Leases
) -> None:
    other, own = await running(ledger, "other"), await running(ledger)
    await leases.hold(LEASE, [(other.id, 1), (own.id, 2), (JobId("none"), 1)])
    lost = signals(leases)
    assert lost == [
        Signal(each, n, lost=True) for each, n in ((other.id, 1), (own.id, 2), ("none", 1))
    ]
    await cancelled(ledger, other)
    assert signals(leases) == []


async def test_a_job_is_verified_although_the_first_message_finishes_another_attempt_of_it(
    ledger: Ledger, leases: Leases
) -> None:
    other = await running(ledger, "other")
    wrong = replace(finish(other, attempt=2), job_types=frozenset({"render"}))
    leases.submitted(wrong)
    await leases.hold(LEASE, [(other.id, 1)])
    (outcome,) = await ledger.submit([wrong], WORKER)
    assert isinstance(outcome, Exception)
    leases.decided(wrong, outcome)
    await cancelled(ledger, other)
    assert signals(leases) == [Signal(other.id, 1, lost=True)]


async def test_no_signal_is_sent_of_a_job_while_it_is_being_finished(
    ledger: Ledger, leases: Leases, held: HeldJobs
) -> None:
    job = await running(ledger)
    await leases.hold(LEASE, [(job.id, 1)])
    leases.submitted(finish(job))
    decision = await apply(ledger, finish(job))
    assert signals(leases) == []  # its end is the stream's own doing
    leases.decided(finish(job), decision)
    assert signals(leases) == []
    assert len(held) == 0


async def test_a_cancellation_is_said_once(ledger: Ledger, leases: Leases) -> None:
    job = await running(ledger)
    await leases.hold(LEASE, [(job.id, 1)])
    await cancelled(ledger, job)
    assert signals(leases) == [Signal(job.id, 1, lost=False, cancel_reason="enough")]
    await leases.renew()
    assert signals(leases) == []


async def test_leases_are_not_renewed_again_at_once(
    ledger: Ledger, leases: Leases, rate: RateLimit
) -> None:
    job = await running(ledger)
    await leases.hold(LEASE, [(job.id, 1)])
    before = rate.wait_of(WORKER)
    await leases.renew_if_due()
    assert rate.wait_of(WORKER) == before


async def test_leases_that_could_not_be_renewed_are_renewed_by_the_next_message(
    ledger: Ledger,
    leases: Leases,
    held: HeldJobs,
    store: SqlStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object) -> None:
        raise StoreUnavailable("away", kind="timeout")

    job = await running(ledger)
    held.add(job.id, 1)
    leases.seconds = 30.0
    with monkeypatch.context() as outage:
        outage.setattr(ledger, "submit", fail)
        await leases.renew_if_due()
    await leases.renew_if_due()
    (renewed,) = (await read_jobs(store, [job.id])).values()
    assert renewed.lease_expire_time is not None
    assert job.lease_expire_time is not None
    assert renewed.lease_expire_time > job.lease_expire_time
