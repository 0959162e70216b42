"""What tests ask of a ledger, each in one call: in the service's own name, so without limits."""

from collections.abc import Callable, Sequence
from typing import Any

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Claim, Command, Create, CreateAll
from jobledger_server.domain.job import Job, Micros
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.allocation import Allocation
from jobledger_server.ledger.ledger import Ledger, decision_of, decisions_of
from jobledger_server.store import Claimable


async def apply(ledger: Ledger, command: Command) -> Decision:
    return decision_of(await ledger.submit([command], SERVICE))


async def apply_all(ledger: Ledger, commands: Sequence[Command]) -> Sequence[Decision]:
    """Return the decisions on those commands that are not refused."""
    outcomes = await ledger.submit(commands, SERVICE)
    return [each for outcome in outcomes if not isinstance(outcome, Exception) for each in outcome]


async def create_all(ledger: Ledger, command: CreateAll) -> Sequence[Job]:
    return [each.job for each in decisions_of(await ledger.submit([command], SERVICE))]


async def created(
    ledger: Ledger, job_type: str = "render", *, user_id: str = "ada", **fields: Any
) -> Job:
    return (await apply(ledger, Create(user_id=user_id, job_type=job_type, **fields))).job


def claim(*job_types: str, worker: str = "w", max_jobs: int = 1) -> Claim:
    """Ask for jobs of these types, or of `render`, under leases of a minute."""
    return Claim(
        worker_id=worker,
        job_types=frozenset(job_types or ("render",)),
        max_jobs=max_jobs,
        lease_duration=Micros(60_000_000),
    )


async def claim_jobs(
    ledger: Ledger,
    command: Claim,
    wanted: Callable[[], bool] = lambda: True,
    oldest: Claimable | None = None,
) -> Sequence[Job]:
    allocation = Allocation(command, wanted, oldest)
    return [each.job for each in decisions_of(await ledger.submit([allocation], SERVICE))]
