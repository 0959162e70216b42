"""Converts messages of Work to commands. Raises InvalidRequest."""

from collections.abc import Collection
from typing import NamedTuple

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.domain.commands import Claim, WorkerCommand
from jobledger_server.domain.limits import MAX_MESSAGE_BYTES, MAX_SLOTS, MAX_UPDATES
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.rpc.incoming import parsed
from jobledger_server.rpc.validation import Checker, InvalidRequest
from jobledger_server.rpc.workers import updates
from jobledger_server.rpc.workers.worker_requests import Held, claim, held, holding, status


class Hello(NamedTuple):
    """What the worker of a stream claims, as often as it has free slots, and what it holds."""

    claim: Claim
    holding: Held


class Update(NamedTuple):
    """A command, or why the update is not one."""

    job_id: str
    command: WorkerCommand | InvalidRequest


class WorkMessage(NamedTuple):
    """A message of a worker. `slots` is None if it does not change them."""

    hello: Hello | None
    slots: int | None
    updates: list[Update]


def work_message(data: bytes, url_schemes: Collection[str], *, first: bool) -> WorkMessage:
    """Parse and convert a message. The first one has `hello`, and no other.

    `url_schemes` are the schemes that an asset's URL may have.
    """
    request = parsed(pb.WorkRequest, data, max_bytes=MAX_MESSAGE_BYTES)
    hello, slots = None, None
    with Checker() as check:
        if request.HasField("hello"):
            hello = _hello(check.within("hello."), request.hello)
        if first is not (hello is not None):
            where = "is required in" if first else "is allowed in"
            check.add("hello", f"{where} the first message{'' if first else ' only'}")
        if request.HasField("slots"):
            slots = check.number("slots", request.slots, 0, MAX_SLOTS)
        check.at_most("updates", request.updates, MAX_UPDATES)
    return WorkMessage(hello, slots, [_update(update, url_schemes) for update in request.updates])


def _update(update: pb.JobUpdate, url_schemes: Collection[str]) -> Update:
    try:
        return Update(update.job_id, _command(update, url_schemes))
    except InvalidRequest as refusal:
        refusal.__traceback__ = None  # it refers to the message
        return Update(update.job_id, refusal)


def _command(update: pb.JobUpdate, url_schemes: Collection[str]) -> WorkerCommand:
    with Checker() as check:
        job_id, attempt = held(check, update)
        match update.WhichOneof("update"):
            case "progress":
                within = check.within("progress.")
                return updates.report(within, update.progress, job_id, attempt)
            case "asset":
                within = check.within("asset.")
                return updates.link_asset(within, update.asset, url_schemes, job_id, attempt)
            case "finish":
                within = check.within("finish.")
                target = status(within, "status", update.finish.status)
                if target is not None and target not in TERMINAL:
                    within.add("status", "must be COMPLETED, PARTIAL or FAILED")
                    target = None
                return updates.finish(
                    within, update.finish, url_schemes, job_id, attempt, target=target
                )
            case "release":
                within = check.within("release.")
                return updates.release(within, update.release, job_id, attempt)
            case "output":
                within = check.within("output.")
                return updates.append_output(within, update.output, job_id, attempt)
            case _:
                raise InvalidRequest([("update", "is required")])


def _hello(check: Checker, hello: pb.WorkHello) -> Hello:
    held = holding(check, hello.holding)
    return Hello(claim(check, hello, max_jobs=1), held)
