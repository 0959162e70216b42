"""What tests ask of a ledger, each in one call: in the service's own name, so without limits."""

from collections.abc import Callable, Sequence

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Claim, Command, CreateAll
from jobledger_server.domain.job import Job
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


async def claim_jobs(
    ledger: Ledger,
    command: Claim,
    wanted: Callable[[], bool] = lambda: True,
    oldest: Claimable | None = None,
) -> Sequence[Job]:
    claim = Allocation(command, wanted, oldest)
    return [each.job for each in decisions_of(await ledger.submit([claim], SERVICE))]
