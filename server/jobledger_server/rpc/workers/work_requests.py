"""Converts messages of Work to commands. Raises InvalidRequest."""

from collections.abc import Collection
from typing import NamedTuple

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.domain.commands import (
    ChangeStatus,
    LinkAsset,
    Release,
    Report,
    WorkerCommand,
)
from jobledger_server.domain.job import JobId, JobStatus, Micros
from jobledger_server.domain.limits import (
    MAX_CHECKPOINT_BYTES,
    MAX_JOB_TYPES,
    MAX_MESSAGE_BYTES,
    MAX_SLOTS,
    MAX_UPDATES,
)
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.rpc import fields
from jobledger_server.rpc.incoming import parsed
from jobledger_server.rpc.validation import Checker, InvalidRequest
from jobledger_server.rpc.workers.worker_requests import (
    DEFAULT_CLAIM_LEASE,
    check_outcome,
    delay,
    held_attempt,
    job_error,
    lease,
    link,
    links,
    progress,
    progress_message,
    retry_delay,
)


class Hello(NamedTuple):
    """Who the worker of a stream is, what it can run, and what it holds already."""

    worker_id: str
    job_types: tuple[str, ...]
    lease_duration: Micros
    holding: list[tuple[JobId, int]]


class Update(NamedTuple):
    """A command, or why the update is not one."""

    job_id: str
    command: WorkerCommand | InvalidRequest


class WorkMessage(NamedTuple):
    """A message of a worker. `slots` is None if it does not change them."""

    hello: Hello | None
    slots: int | None
    updates: list[Update]


class WorkRequests:
    """Converts messages. `url_schemes` are the schemes that an asset's URL may have."""

    def __init__(self, url_schemes: Collection[str]) -> None:
        self._url_schemes = url_schemes

    def message(self, data: bytes, *, first: bool) -> WorkMessage:
        """Parse and convert a message. The first one has `hello`, and no other."""
        request = parsed(pb.WorkRequest, data, max_bytes=MAX_MESSAGE_BYTES)
        check = Checker()
        hello, slots = None, None
        if request.HasField("hello"):
            hello = _hello(check.within("hello."), request.hello)
        if first is not (hello is not None):
            where = "is required in" if first else "is allowed in"
            check.add("hello", f"{where} the first message{'' if first else ' only'}")
        if request.HasField("slots"):
            slots = check.number("slots", request.slots, 0, MAX_SLOTS)
        check.at_most("updates", request.updates, MAX_UPDATES)
        check.finish()
        return WorkMessage(hello, slots, [self._update(update) for update in request.updates])

    def _update(self, update: pb.JobUpdate) -> Update:
        try:
            return Update(update.job_id, self._command(update))
        except InvalidRequest as refusal:
            refusal.__traceback__ = None  # it refers to the message
            return Update(update.job_id, refusal)

    def _command(self, update: pb.JobUpdate) -> WorkerCommand:
        check = Checker()
        job_id, attempt = _held(check, update)
        command: WorkerCommand
        match update.WhichOneof("update"):
            case "progress":
                within = check.within("progress.")
                command = Report(
                    job_id=job_id,
                    attempt=attempt,
                    progress=progress(within, update.progress),
                    progress_message=progress_message(within, update.progress),
                    checkpoint=within.struct(
                        "checkpoint", update.progress.checkpoint, MAX_CHECKPOINT_BYTES
                    ),
                    number=within.at_least_zero("report_number", update.progress.report_number),
                )
            case "asset":
                within = check.within("asset.")
                command = LinkAsset(
                    job_id=job_id,
                    attempt=attempt,
                    link=link(within, "asset.", update.asset.asset, self._url_schemes),
                    request_id=fields.request_id(within, update.asset.request_id),
                )
            case "finish":
                command = self._finish(check.within("finish."), job_id, attempt, update.finish)
            case "release":
                pause = delay(check.within("release."), update.release)
                command = Release(job_id=job_id, attempt=attempt, delay=pause)
            case _:
                raise InvalidRequest([("update", "is required")])
        check.finish()
        return command

    def _finish(
        self, check: Checker, job_id: JobId, attempt: int, finish: pb.FinishUpdate
    ) -> ChangeStatus:
        has = finish.HasField
        targets = fields.statuses(check, "status", [finish.status])
        if targets and targets[0] not in TERMINAL:
            check.add("status", "must be COMPLETED, PARTIAL or FAILED")
            targets = []
        command = ChangeStatus(
            job_id=job_id,
            target=targets[0] if targets else JobStatus.FAILED,  # refused by `finish`
            attempt=attempt,
            result=check.struct("result", finish.result),
            error=job_error(check, finish.error) if has("error") else None,
            error_details=check.struct("error.details", finish.error.details),
            assets=links(check, finish.assets, self._url_schemes),
            retryable=finish.retryable,
            retry_delay=retry_delay(check, finish),
        )
        if targets:
            check_outcome(check, command)
        return command


def _hello(check: Checker, hello: pb.WorkHello) -> Hello:
    if not hello.job_types:
        check.add("job_types", f"must have from 1 to {MAX_JOB_TYPES} entries")
    holding = []
    if check.at_most("holding", hello.holding, MAX_SLOTS):
        for index, held in enumerate(hello.holding):
            holding.append(_held(check.within(f"holding[{index}]."), held))
    return Hello(
        worker_id=fields.worker_id(check, hello.worker_id),
        job_types=fields.job_types(check, hello.job_types),
        lease_duration=lease(check, hello) or DEFAULT_CLAIM_LEASE,
        holding=holding,
    )


def _held(check: Checker, held: pb.HeldJob | pb.JobUpdate) -> tuple[JobId, int]:
    attempt = held_attempt(check, held.attempt)
    return fields.job_id(check, held.job_id), attempt
