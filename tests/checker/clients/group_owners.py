"""Clients that make groups of jobs, seal them or not, cancel some, and delete or repeat them."""

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Any

from jobledger.v1 import job_pb2
from jobledger.v1 import job_service_pb2 as pb
from tests.checker.clients.asking import Answer, Replicas
from tests.checker.clients.board import GROUP, TYPES, USERS, Board, pause
from tests.checker.clients.records import Unreadable, read_record
from tests.checker.clients.writers import QUEUE_TIMEOUT, cancel_job, create_job, marked
from tests.checker.facts import snapshot
from tests.checker.history import History, Outcome, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE_SECONDS = (0.1, 1.5)

IN_PARTS = 0.3
"""How many of the groups that are created with their jobs are there already when these come."""

MOST_JOBS = 6
"""Of a group that are created one by one, at most; some of them are groups in turn."""

WITH_ALL = 0.3
"""How many of the groups are created by one call with their jobs."""

WITHIN = 0.2
"""How many of the jobs of a group are groups."""

FAIL_FAST = 0.3

CANCELLED = 0.15

AT_ONCE = 0.5
"""How many of the groups are sealed or cancelled while another job is added."""

FORGOTTEN = 0.1
"""How many of the groups nobody seals but the service."""

REPEATED = 0.3
"""How many of the groups that have ended are repeated before they are deleted, or not."""


async def own_groups(
    name: str, replicas: Replicas, rng: random.Random, board: Board, history: History
) -> None:
    """Make one group after the other until stopped."""
    owner = _Owner(replicas, rng, board, history)
    for number in itertools.count():
        await pause(board.load, rng.uniform(*PAUSE_SECONDS))
        if board.load.is_set():
            return
        mark = f"{name}-{number}"
        if rng.random() < WITH_ALL:
            await owner.create_whole(mark)
        else:
            group = await owner.create(mark)
            if group is not None:
                await owner.fill(group, mark)
        await owner.look_back()


class _Owner:
    def __init__(
        self, replicas: Replicas, rng: random.Random, board: Board, history: History
    ) -> None:
        self._replicas, self._rng, self._board = replicas, rng, board
        self._history = history
        self._made: list[Snapshot] = []

    async def create(self, mark: str, within: Snapshot | None = None) -> Snapshot | None:
        """Create a group without jobs; return it if that was acknowledged."""
        user_id = self._rng.choice(USERS) if within is None else within.user_id
        request = self._request(mark, fail_fast=self._rng.random() < FAIL_FAST)
        request.user_id = user_id
        request.group_id = "" if within is None else within.job_id
        answer = await self._replicas.ask("CreateJob", request)
        job = None if answer.response is None else answer.response.job
        return self._note(answer, mark, user_id, job)

    def _request(self, mark: str, **options: Any) -> pb.CreateJobRequest:
        return pb.CreateJobRequest(
            job_type=GROUP,
            parameters=marked(mark),
            labels={"mark": mark},
            request_id=mark,
            queue_timeout=QUEUE_TIMEOUT,
            group=pb.GroupOptions(**options),
        )

    async def create_whole(self, mark: str) -> None:
        """Create a group, a group within it, and jobs of both, by one call."""
        user_id, marks = self._rng.choice(USERS), [f"{mark}-{n}" for n in range(5)]
        batch = pb.BatchCreateJobsRequest(user_id=user_id)
        sealed = self._rng.random() < 0.5
        batch.requests.append(self._request(marks[0], sealed=sealed))
        batch.requests.append(self._request(marks[1], sealed=True))
        batch.requests[1].group_index = 0
        for number, each in enumerate(marks[2:]):
            batch.requests.add(
                job_type=self._rng.choice(TYPES),
                parameters=marked(each),
                labels={"mark": each},
                request_id=each,
                queue_timeout=QUEUE_TIMEOUT,
                group_index=(number + 1) % 2,
            )
        told: list[Snapshot | None] = []
        if not sealed and self._rng.random() < IN_PARTS:
            part = pb.BatchCreateJobsRequest(user_id=user_id, requests=batch.requests[:1])
            answer = await self._replicas.ask("BatchCreateJobs", part)
            if answer.response is not None:
                told.append(self._note(answer, marks[0], user_id, answer.response.jobs[0]))
        answer = await self._replicas.ask("BatchCreateJobs", batch)
        # Somebody may have ended the group, or deleted it, and then this call creates another one.
        owed = Outcome.ACKNOWLEDGED if told and answer.reason == "JOB_NOT_FOUND" else None
        jobs: Sequence[Any] = [None] * len(marks)
        if answer.response is not None:
            jobs = answer.response.jobs
        told += [
            self._note(answer, each, user_id, job, owed)
            for each, job in list(zip(marks, jobs, strict=True))[len(told) :]
        ]
        if told[0] is not None and not sealed:
            await self.seal(told[0])

    def _note(
        self,
        answer: Answer,
        mark: str,
        user_id: str,
        job: job_pb2.Job | None,
        owed: Outcome | None = None,
    ) -> Snapshot | None:
        told = None if job is None else snapshot(job)
        self._history.operations.append(
            answer.operation(
                "CreateJob",
                job_id=told.job_id if told else "",
                user_id=user_id,
                mark=mark,
                told=told,
                changed=told is not None and told.version == 1,
                owed=owed,
            )
        )
        if told is not None:
            self._board.created += 1
            self._board.fresh.append(told)
            if told.group is not None:
                self._made.append(told)
        return told

    async def fill(self, group: Snapshot, mark: str, level: int = 1) -> None:
        """Add jobs to a group, and then cancel it, seal it, or forget it."""
        rng = self._rng
        for number in range(rng.randint(0, MOST_JOBS)):
            each = f"{mark}-{number}"
            await pause(self._board.load, rng.choice((0.0, 0.0, 0.2)))
            if level < 3 and rng.random() < WITHIN:
                inner = await self.create(each, group)
                if inner is not None:
                    await self.fill(inner, each, level + 1)
                continue
            await self._add(each, group)
        # One more job may come in the commit that could end the group.
        async with asyncio.TaskGroup() as both:
            if rng.random() < AT_ONCE:
                both.create_task(self._add(f"{mark}-last", group))
            both.create_task(self._end(group))

    async def _add(self, mark: str, group: Snapshot) -> None:
        await create_job(
            mark,
            self._replicas,
            self._rng,
            self._board,
            self._history,
            users=[group.user_id],
            group_id=group.job_id,
        )

    async def _end(self, group: Snapshot) -> None:
        end = self._rng.random()
        if end < CANCELLED:
            await cancel_job(group, self._replicas, self._board, self._history)
        elif end > CANCELLED + FORGOTTEN:
            await self.seal(group)

    async def seal(self, group: Snapshot) -> None:
        """Seal a group, and try to add one more job to it."""
        request = pb.SealGroupRequest(job_id=group.job_id, user_id=group.user_id)
        answer = await self._replicas.ask("SealGroup", request)
        self._history.operations.append(
            answer.operation("SealGroup", job_id=group.job_id, told=answer.told)
        )
        if answer.outcome is not Outcome.ACKNOWLEDGED or self._rng.random() > FORGOTTEN:
            return
        mark = f"too late for {group.job_id}"
        late = pb.CreateJobRequest(
            user_id=group.user_id,
            job_type=TYPES[0],
            labels={"mark": mark},
            request_id=mark,
            group_id=group.job_id,
        )
        answer = await self._replicas.ask("CreateJob", late)
        self._history.operations.append(
            answer.operation("CreateJob", user_id=group.user_id, mark=mark, owed=Outcome.REFUSED)
        )

    async def look_back(self) -> None:
        """Repeat some of the groups that have ended, and delete some."""
        if not self._made:
            return
        group = self._made.pop(self._rng.randrange(len(self._made)))
        get = pb.GetJobRequest(job_id=group.job_id, user_id=group.user_id, view="JOB_VIEW_BASIC")
        job = (await self._replicas.ask("GetJob", get)).told
        if job is None:
            return
        if not job.terminal:
            self._made.append(group)
            return
        self._board.close(job)
        if job.status != "COMPLETED" and self._rng.random() < REPEATED:
            await self._repeat(job)
        if not job.group_id and self._rng.random() < REPEATED:
            await self._delete(job)

    async def _repeat(self, group: Snapshot) -> None:
        request = pb.RerunJobRequest(job_id=group.job_id, user_id=group.user_id)
        answer = await self._replicas.ask("RerunJob", request)
        told = answer.told
        self._history.operations.append(
            answer.operation(
                "RerunJob",
                job_id=told.job_id if told else "",
                user_id=group.user_id,
                mark=group.job_id,
                told=told,
            )
        )

    async def _delete(self, group: Snapshot) -> None:
        """Delete a group that has ended, after noting down what it and its jobs were."""
        try:
            jobs = await self._all_of(group)
        except Unreadable:  # something is broken for long
            return
        for job in jobs:
            record = await read_record(self._replicas, job.job_id, job.user_id)
            if record is None:
                return
            self._history.records[job.job_id] = record
        request = pb.DeleteJobRequest(job_id=group.job_id, user_id=group.user_id)
        answer = await self._replicas.ask("DeleteJob", request)
        self._history.operations.append(answer.operation("DeleteJob", job_id=group.job_id))
        for job in jobs:
            self._board.close(job)

    async def _all_of(self, group: Snapshot) -> list[Snapshot]:
        """Return a group with all jobs within it, the group last. Raises Unreadable."""
        request = pb.ListJobsRequest(
            user_id=group.user_id, filter={"group_id": group.job_id}, page_size=1000
        )
        answer = await self._replicas.ask("ListJobs", request)
        if answer.response is None or answer.response.next_page_token:
            raise Unreadable(f"the jobs of {group.job_id}")
        found: list[Snapshot] = []
        for each in map(snapshot, answer.response.jobs):
            found += [each] if each.group is None else await self._all_of(each)
        return [*found, group]
