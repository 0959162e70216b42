"""Calls that change many jobs: RerunJob, and the steps of RerunJobs, CancelJobs and DeleteJobs.

A job is run again as a new one. If it went back to QUEUED, no watch, cache or bill could rely on a
terminal state.

A step lists jobs as ListJobs does, and submits a command for each. It changes nothing twice: the
jobs that it has changed do not match any more.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.admission.caller import Caller
from jobledger_server.domain.commands import Cancel, Create, Delete
from jobledger_server.domain.errors import JobInGroup, JobNotFound, UniqueKeyTaken
from jobledger_server.domain.job import (
    MICROS_PER_SECOND,
    Instant,
    Job,
    JobId,
    Payload,
    content_of,
)
from jobledger_server.domain.limits import MAX_DELAY_SECONDS, MAX_SAMPLED_JOBS
from jobledger_server.domain.state_machine import TERMINAL, Decision, illegal_transition
from jobledger_server.ledger.ledger import Ledger, decision_of
from jobledger_server.ledger.reads import Reads
from jobledger_server.rpc.access.permissions import check_creations
from jobledger_server.rpc.encoding import encoded_field
from jobledger_server.rpc.jobs.bulk_requests import Step
from jobledger_server.rpc.jobs.creation_quotas import CreationQuotas
from jobledger_server.rpc.jobs.groups import Groups
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.messages import job_bytes
from jobledger_server.rpc.payloads import payloads_of
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.store import JobPage, Store
from jobledger_server.tuning import Tuning


class Stepped(NamedTuple):
    """What a step did.

    Attributes:
        matched: How many jobs it matched.
        changed: How many it changed, or made.
        next_page_token: Continues after it; empty if no job follows.
        sample: The first jobs as they are now, or the first new ones.
    """

    matched: int
    changed: int
    next_page_token: str
    sample: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Bulk:
    """Reruns, cancels and deletes jobs."""

    store: Store
    ledger: Ledger
    reads: Reads
    lists: Lists
    creations: CreationQuotas
    groups: Groups
    tuning: Tuning

    async def rerun(
        self, job_id: JobId, user_id: str, request_id: str, traceparent: str, caller: Caller
    ) -> Decision:
        """Decide the rerun of a terminal job: make it if there is none."""
        read = await self.reads.job(job_id, user_id, caller, full=True)
        if read.job.status not in TERMINAL:
            raise illegal_transition(read.job, "RERUN")
        check_creations(caller, [read.job])
        if read.job.children is not None:
            return await self.groups.rerun(
                read.job, caller, traceparent=traceparent, request_id=request_id
            )
        command = _repetition(
            read.job, read.payloads.parameters, traceparent=traceparent, request_id=request_id
        )
        async with self.creations.creating(caller, {user_id: 1}):
            return decision_of(await self.ledger.submit([command], caller))

    async def rerun_jobs(self, step: Step, traceparent: str, caller: Caller) -> Stepped:
        if not step.validate_only:
            self.creations.check(caller)  # before jobs are read for it
        page = await self._page(step, caller, full=not step.validate_only)
        if step.validate_only:
            return _matched(step, page)
        check_creations(caller, page.jobs)
        schedule: Sequence[Instant | None] = [None] * len(page.jobs)
        next_time = 0
        if step.jobs_per_second:
            now = (await self.store.news(())).now  # other servers pace by the same clock
            schedule, next_time = _schedule(step, len(page.jobs), now)
        made: list[Job] = []
        async with self.creations.creating(caller, Counter(job.user_id for job in page.jobs)):
            for begin, jobs in _parts(page.jobs, self.tuning):
                payloads = await payloads_of(self.reads, jobs, caller)
                due = schedule[begin : begin + len(jobs)]
                commands = [
                    _repetition(job, found.parameters, traceparent=traceparent, schedule_time=time)
                    for job, found, time in zip(jobs, payloads, due, strict=True)
                    # A group is run again by itself; some were deleted since.
                    if found is not None and job.children is None
                ]
                made += await self._submit(commands, caller)
        return _stepped(step, page, made, next_time)

    async def cancel_jobs(self, step: Step, caller: Caller) -> Stepped:
        def cancel(job: Job) -> Cancel:
            # A worker may have started it since.
            return Cancel(
                job_id=job.id,
                user_id=job.user_id,
                reason=step.reason,
                statuses=step.query.statuses,
                held=step.query.held,
                phases=step.query.phases,
                worker_id=step.query.worker_id,
            )

        return await self._change(step, cancel, caller)

    async def delete_jobs(self, step: Step, caller: Caller) -> Stepped:
        def delete(job: Job) -> Delete:
            return Delete(job_id=job.id, user_id=job.user_id)

        stepped = await self._change(step, delete, caller)
        return stepped if step.validate_only else stepped._replace(sample=())

    async def _change(
        self, step: Step, command: Callable[[Job], Cancel | Delete], caller: Caller
    ) -> Stepped:
        page = await self._page(step, caller)
        if step.validate_only:
            return _matched(step, page)
        changed: list[Job] = []
        for _, jobs in _parts(page.jobs, self.tuning):
            changed += await self._submit([command(job) for job in jobs], caller)
        return _stepped(step, page, changed)

    async def _page(self, step: Step, caller: Caller, *, full: bool = False) -> JobPage:
        """Return the next page that has jobs, or an empty one if the search takes too long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.tuning.search_seconds
        before = step.before
        while True:
            async with self.lists.turn(caller):
                page = await self.store.list_jobs(
                    step.query, before=before, limit=step.limit, full=full
                )
            if page.jobs or page.next_before is None or loop.time() > until:
                return page
            before = page.next_before

    async def _submit(
        self, commands: Sequence[Create | Cancel | Delete], caller: Caller
    ) -> Sequence[Job]:
        """Return the jobs that the commands have changed or made.

        A job that is gone is passed over, and one whose unique key another one has.
        """
        changed: list[Job] = []
        for outcome in await self.ledger.submit(commands, caller):
            if not isinstance(outcome, Exception):
                changed += [decision.job for decision in outcome if decision.changed]
            elif not isinstance(outcome, JobNotFound | UniqueKeyTaken | JobInGroup):
                raise outcome
        return changed


def _parts(jobs: Sequence[Job], tuning: Tuning) -> Iterator[tuple[int, Sequence[Job]]]:
    """Cut the jobs of a step into those that are changed together, each with its position."""
    most, most_bytes = tuning.bulk_part, tuning.bulk_part_bytes
    begin = size = 0
    for position, job in enumerate(jobs):
        size += job.payload_bytes
        if position - begin == most or (position > begin and size > most_bytes):
            yield begin, jobs[begin:position]
            begin, size = position, job.payload_bytes
    if jobs:
        yield begin, jobs[begin:]


def _schedule(step: Step, count: int, now: Instant) -> tuple[Sequence[Instant], int]:
    """Return when each new job of a paced step is to start, and the time for the next step.

    Raises InvalidRequest if the pace is so slow that some would start too late.
    """
    begin, interval = max(step.next_time, now), MICROS_PER_SECOND / step.jobs_per_second
    end = begin + int(count * interval)
    if end - now > MAX_DELAY_SECONDS * MICROS_PER_SECOND:
        days = MAX_DELAY_SECONDS // 86400
        late = f"is too slow: jobs would start later than {days} days from now"
        raise InvalidRequest([("jobs_per_second", late)])
    return [Instant(begin + int(i * interval)) for i in range(count)], end


def stepped_response(
    response: type[pb.RerunJobsResponse | pb.CancelJobsResponse | pb.DeleteJobsResponse],
    stepped: Stepped,
) -> bytes:
    """Serialize the response of a step."""
    rest = response(
        matched=stepped.matched,
        changed=stepped.changed,
        done=not stepped.next_page_token,
        next_page_token=stepped.next_page_token,
    )
    sample = [
        encoded_field(response, "sample", job_bytes(job, to_owner=True)) for job in stepped.sample
    ]
    return b"".join([*sample, rest.SerializeToString()])


def _matched(step: Step, page: JobPage) -> Stepped:
    return Stepped(len(page.jobs), 0, step.token(page.next_before), page.jobs[:MAX_SAMPLED_JOBS])


def _stepped(step: Step, page: JobPage, changed: Sequence[Job], next_time: int = 0) -> Stepped:
    token = step.token(page.next_before, next_time)
    return Stepped(len(page.jobs), len(changed), token, changed[:MAX_SAMPLED_JOBS])


def _repetition(
    job: Job,
    parameters: Payload | None,
    *,
    traceparent: str,
    request_id: str = "",
    schedule_time: Instant | None = None,
) -> Create:
    """Return the command that creates a job with the content of this one."""
    return Create(
        parameters=parameters,
        request_id=request_id,
        schedule_time=schedule_time,
        traceparent=traceparent,
        origin_job_id=job.id,
        **content_of(job),
    )
