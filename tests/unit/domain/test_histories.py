"""Any history of commands, retries and deaths among them, keeps the promises of the contract."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Claim,
    Create,
    Delete,
    Expire,
    JobCommand,
    LinkAsset,
    Release,
    Report,
)
from jobledger_server.domain.decisions import create, decide
from jobledger_server.domain.errors import DomainError, IllegalTransition, RequestIdReused
from jobledger_server.domain.job import (
    Asset,
    AssetLink,
    Attempt,
    Instant,
    Job,
    JobStatus,
    Micros,
    Transition,
)
from jobledger_server.domain.leases import attempts, claim, deadline
from jobledger_server.domain.state_machine import Decision, is_claimable, was_just_started
from tests.unit.domain.jobs import ENDED_BY, JOB_ID, LINK, NOW, OTHER_LINK, OWNER, SECOND, ids

HOUR = 3600 * SECOND
GRACE = 30 * SECOND
TERMINAL = ("COMPLETED", "PARTIAL", "FAILED")


@dataclass(frozen=True)
class Model:
    """What the contract makes of a job, as far as it can be said in a page.

    `lost` counts the attempts whose leases expired or that stalled; `past` are the attempts that
    ended, each with its outcome and its progress; `times` are those of the causes that can end what
    is going on, as far as they apply.
    """

    max_attempts: int
    queue_timeout: int
    run_timeout: int | None
    stall_timeout: int | None
    times: Mapping[str, int]
    status: str = "QUEUED"
    held: bool = False
    progress: int = 0
    attempt: int = 0
    lost: int = 0
    past: tuple[tuple[int, str, int], ...] = ()
    lease: int = 0
    reason: str = ""
    version: int = 1

    def fenced_out(self, attempt: int | None) -> bool:
        left = self.status == "PROCESSING" and not self.held
        return attempt is not None and (attempt != self.attempt or left)

    def taken(self, now: int, lease: int, progress: int = 0) -> "Model":
        times = {cause: time for cause, time in self.times.items() if cause != "QUEUE_EXPIRED"}
        times["LEASE_EXPIRED"] = now + lease
        if self.stall_timeout is not None:
            times["STALLED"] = now + self.stall_timeout
        if self.attempt == 0 and self.run_timeout is not None:
            times["RUN_EXPIRED"] = now + self.run_timeout
        return replace(
            self,
            times=times,
            status="PROCESSING",
            held=True,
            progress=progress,
            attempt=self.attempt + 1,
            lease=lease,
            version=self.version + 1,
        )

    def put_down(self, now: int, outcome: str) -> "Model":
        held = ("LEASE_EXPIRED", "STALLED")
        times = {cause: time for cause, time in self.times.items() if cause not in held}
        times["QUEUE_EXPIRED"] = now + self.queue_timeout
        return replace(
            self,
            times=times,
            held=False,
            lost=self.lost + (outcome != "RELEASED"),
            past=(*self.past, (self.attempt, outcome, self.progress)),
            version=self.version + 1,
        )

    def reported(self, now: int, progress: int | None) -> "Model":
        model = self
        if self.held:
            model = replace(self, times={**self.times, "LEASE_EXPIRED": now + self.lease})
        if progress is None or progress <= self.progress:
            return model
        return replace(model.with_news(now), progress=progress)

    def with_news(self, now: int) -> "Model":
        times = dict(self.times)
        if "STALLED" in times and self.stall_timeout is not None:
            times["STALLED"] = now + self.stall_timeout
        return replace(self, times=times, version=self.version + 1)

    def ended(self, status: str, reason: str = "", progress: int = 0) -> "Model":
        progress = 100 if status in ("COMPLETED", "PARTIAL") else max(progress, self.progress)
        outcome = reason if reason in ("LEASE_EXPIRED", "STALLED") else status
        steps = 2 if self.status == "QUEUED" else 1
        return replace(
            self,
            times={},
            status=status,
            held=False,
            progress=progress,
            past=(*self.past, (self.attempt, outcome, progress)) if self.held else self.past,
            reason=reason,
            version=self.version + steps,
        )

    def cancelled(self, now: int) -> "Model":
        if self.status in TERMINAL or "CANCELLED" in self.times:
            return self
        if not self.held:
            return self.ended("FAILED", "CANCELLED")
        return replace(
            self, times={**self.times, "CANCELLED": now + GRACE}, version=self.version + 1
        )

    def released(self, now: int, attempt: int) -> "Model":
        if not self.held or attempt != self.attempt:
            return self
        if "CANCELLED" in self.times:
            return self.ended("FAILED", "CANCELLED")
        return self.put_down(now, "RELEASED")

    def expired(self, now: int, resumed_at: int | None) -> "Model":
        if resumed_at is not None and "LEASE_EXPIRED" in self.times:
            extended = max(self.times["LEASE_EXPIRED"], resumed_at + self.lease)
            times = {**self.times, "LEASE_EXPIRED": extended}
            if "STALLED" in times and self.stall_timeout is not None:
                times["STALLED"] = max(times["STALLED"], resumed_at + self.stall_timeout)
            if min(self.times.values()) <= now < min(times.values()):
                return replace(self, times=times)
        passed = {cause for cause, time in self.times.items() if time <= now}
        if passed and "CANCELLED" in self.times:
            passed.add("CANCELLED")
        for cause in ("CANCELLED", "RUN_EXPIRED", "QUEUE_EXPIRED"):
            if cause in passed:
                return self.ended("FAILED", cause)
        for cause in ("LEASE_EXPIRED", "STALLED"):
            if cause in passed:
                if self.lost + 1 < self.max_attempts:
                    return self.put_down(now, cause)
                return self.ended("FAILED", cause)
        return self


@dataclass
class Record:
    """What a store would keep of one job."""

    job: Job
    assets: list[Asset] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    ended: list[Attempt] = field(default_factory=list)
    accepted: list[JobCommand] = field(default_factory=list)


progresses = st.none() | st.integers(0, 100)
fences = st.none() | st.integers(0, 3)
# Of the job's own attempt, most often.
attempt_offsets = st.none() | st.sampled_from([0, 0, 0, -1, 1])
version_offsets = st.none() | st.sampled_from([0, 0, 0, -1, 1])
workers = st.sampled_from(["", "worker-1", "worker-2"])
leases = st.sampled_from([Micros(5 * SECOND), Micros(60 * SECOND), Micros(HOUR)])


class Histories(RuleBasedStateMachine):
    @initialize(
        max_attempts=st.integers(1, 3),
        queue_timeout=st.sampled_from([Micros(SECOND), Micros(100 * SECOND), Micros(9 * HOUR)]),
        run_timeout=st.sampled_from([None, Micros(20 * SECOND), Micros(2 * HOUR)]),
        stall_timeout=st.sampled_from([None, Micros(7 * SECOND), Micros(HOUR)]),
    )
    def create(
        self,
        max_attempts: int,
        queue_timeout: Micros,
        run_timeout: Micros | None,
        stall_timeout: Micros | None,
    ) -> None:
        self.new_id = ids()
        self.now = NOW
        self.resumed_at: Instant | None = None
        command = Create(
            user_id=OWNER,
            job_type="render",
            request_id="request-1",
            max_attempts=max_attempts,
            queue_timeout=queue_timeout,
            run_timeout=run_timeout,
            stall_timeout=stall_timeout,
        )
        self.record = Record(create(None, command, now=NOW, new_id=self.new_id).job)
        times = {"QUEUE_EXPIRED": NOW + queue_timeout}
        self.model = Model(max_attempts, queue_timeout, run_timeout, stall_timeout, times)

    def send(self, command: JobCommand) -> Decision | DomainError:
        """Decide on a command and keep what comes of it, as the ledger does."""
        record, linked = self.record, None
        if isinstance(command, LinkAsset) and command.request_id:
            known = {asset.request_id: asset for asset in record.assets}
            linked = known.get(command.request_id)
        try:
            decision = decide(
                record.job,
                command,
                now=self.now,
                new_id=self.new_id,
                linked=linked,
                resumed_at=self.resumed_at,
            )
        except DomainError as refusal:
            return refusal
        self.keep(decision)
        if isinstance(command, Cancel | Release) or (
            (isinstance(command, ChangeStatus) and command.target in ENDED_BY)
            or (isinstance(command, LinkAsset) and command.request_id)
        ):
            record.accepted.append(command)
        return decision

    def keep(self, decision: Decision) -> None:
        record, before, after = self.record, self.record.job, decision.job
        if not decision.changed:
            assert (decision.via, decision.transition, decision.ended) == (None, None, None)
            renewed = structs.replace(
                before,
                lease_duration=after.lease_duration,
                lease_expire_time=after.lease_expire_time,
                stall_expire_time=after.stall_expire_time,
            )
            assert after == (renewed if decision.renewed else before)
            record.job = after
            return
        for step in (decision.via, decision):
            if step is not None:
                assert step.job.version == record.job.version + 1
                assert step.job.update_time == self.now
                if step.transition:
                    assert step.transition.version == step.job.version
                    assert step.transition.attempt == step.job.attempt
                    assert step.transition.time == self.now
                    record.transitions.append(step.transition)
                record.job = step.job
        record.assets += decision.assets
        assert before.complete_time is None or decision.deleted, "what has ended never changes"
        taken = after.leased and not before.leased
        assert after.attempt == before.attempt + taken
        requeued = before.leased and is_claimable(after)
        assert (decision.ended is not None) == requeued
        if decision.ended is not None:
            record.ended.append(decision.ended)
        assert after.attempt > before.attempt or after.progress >= before.progress
        assert before.start_time in (None, after.start_time)
        assert before.run_expire_time in (None, after.run_expire_time)
        assert before.cancel_request_time in (None, after.cancel_request_time)

    @rule(
        to=st.sampled_from([JobStatus.PROCESSING] * 4 + list(JobStatus)),
        progress=progresses,
        attempt_offset=attempt_offsets,
        version_offset=version_offsets,
        worker=workers,
        lease=st.none() | leases,
    )
    def transit(
        self,
        to: JobStatus,
        progress: int | None,
        attempt_offset: int | None,
        version_offset: int | None,
        worker: str,
        lease: Micros | None,
    ) -> None:
        model = self.model
        content = ENDED_BY.get(to, ChangeStatus(job_id=JOB_ID, target=to, lease_duration=lease))
        attempt = None if attempt_offset is None else model.attempt + attempt_offset
        version = None if version_offset is None else model.version + version_offset
        command = structs.replace(
            content,
            progress=progress,
            attempt=attempt,
            expected_version=version,
            worker_id=worker,
        )
        if (
            model.status not in TERMINAL
            and not model.fenced_out(attempt)
            and version in (None, model.version)
        ):
            if to in ENDED_BY and model.status == "PROCESSING":
                reason = content.error.reason if content.error else ""
                self.model = model.ended(to.value, reason, progress or 0)
            elif to is JobStatus.PROCESSING and not model.held:
                self.model = model.taken(self.now, lease or HOUR, progress or 0)
        self.send(command)

    @rule(worker=st.sampled_from(["worker-1", "worker-2"]), lease=leases)
    def claim(self, worker: str, lease: Micros) -> None:
        command = Claim(worker_id=worker, job_types=frozenset(), max_jobs=1, lease_duration=lease)
        decision = claim(self.record.job, command, self.now)
        due = any(time <= self.now for time in self.model.times.values())
        if self.model.held or self.model.status in TERMINAL or due:
            assert decision is None
            return
        assert decision is not None
        assert decision.job.worker_id == worker
        self.model = self.model.taken(self.now, lease)
        self.keep(decision)

    @rule(progress=progresses, attempt_offset=attempt_offsets)
    def report(self, progress: int | None, attempt_offset: int | None) -> None:
        model = self.model
        attempt = None if attempt_offset is None else model.attempt + attempt_offset
        decision = self.send(Report(job_id=JOB_ID, progress=progress, attempt=attempt))
        if model.status == "PROCESSING" and not model.fenced_out(attempt):
            self.model = model.reported(self.now, progress)
            assert isinstance(decision, Decision)
            assert decision.applied

    @rule(
        link=st.sampled_from([LINK, OTHER_LINK]),
        request_id=st.sampled_from(["", "link-1", "link-2"]),
        attempt=fences,
    )
    def link(self, link: AssetLink, request_id: str, attempt: int | None) -> None:
        known = {a.request_id: a for a in self.record.assets if a.request_id}.get(request_id)
        count = len(self.record.assets)
        outcome = self.send(
            LinkAsset(job_id=JOB_ID, link=link, request_id=request_id, attempt=attempt)
        )
        if known is not None and attempt in (None, self.model.attempt):
            if known.link != link:
                assert isinstance(outcome, RequestIdReused)
            else:
                assert isinstance(outcome, Decision)
                assert outcome.assets == (known,)
        elif self.model.status == "PROCESSING" and not self.model.fenced_out(attempt):
            self.model = self.model.with_news(self.now)
            assert len(self.record.assets) == count + 1

    @rule(attempt_offset=st.sampled_from([0, 0, 0, -1, 1]))
    def release(self, attempt_offset: int) -> None:
        attempt = self.model.attempt + attempt_offset
        self.model = self.model.released(self.now, attempt)
        self.send(Release(job_id=JOB_ID, attempt=attempt))

    @rule(reason=st.sampled_from(["", "too dear"]))
    def cancel(self, reason: str) -> None:
        self.model = self.model.cancelled(self.now)
        cancel = Cancel(job_id=JOB_ID, user_id=OWNER, reason=reason)
        assert isinstance(self.send(cancel), Decision)

    @rule(at=st.sampled_from(["now", "deadline", "deadline", "just before it"]))
    def expire(self, at: str) -> None:
        """The reaper comes by, and another one right after it."""
        if at != "now" and self.model.times:
            due = min(self.model.times.values()) - (at == "just before it")
            self.now = Instant(max(self.now, due))
        self.model = self.model.expired(self.now, self.resumed_at)
        for _ in range(2):
            assert isinstance(self.send(Expire(job_id=JOB_ID)), Decision)

    @rule(lasted=st.sampled_from([3 * SECOND, 3 * HOUR]))
    def outage(self, lasted: int) -> None:
        """The service was unavailable for so long, and answers again."""
        self.now = self.resumed_at = Instant(self.now + lasted)

    @rule(by=st.sampled_from([1, SECOND, 6 * SECOND, GRACE, HOUR]))
    def let_time_pass(self, by: int) -> None:
        self.now = Instant(self.now + by)

    @precondition(lambda self: self.record.accepted)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Send again what was accepted before: the last command, or an older one come late."""
        history = self.record.accepted
        command = history[-1 - data.draw(st.integers(0, len(history) - 1))]
        before, links = self.record.job, list(self.record.assets)
        outcome = self.send(command)
        assert self.record.job is before
        assert self.record.assets == links
        if isinstance(command, ChangeStatus | Cancel) or getattr(command, "attempt", None) is None:
            assert isinstance(outcome, Decision), "what was accepted once is accepted again"

    @rule(worker=st.sampled_from(["worker-1", "worker-2"]), progress=progresses)
    def start_twice(self, worker: str, progress: int | None) -> None:
        """A worker that names itself may start again, having lost the answer."""
        start = ChangeStatus(
            job_id=JOB_ID, target=JobStatus.PROCESSING, worker_id=worker, progress=progress
        )
        if self.model.status not in TERMINAL and not self.model.held:
            self.model = self.model.taken(self.now, HOUR, progress or 0)
            assert isinstance(self.send(start), Decision)
            assert isinstance(self.send(start), Decision)
        elif self.record.job.worker_id != worker:
            assert isinstance(self.send(start), DomainError)

    @rule()
    def delete(self) -> None:
        job = self.record.job
        outcome = self.send(Delete(job_id=JOB_ID, user_id=OWNER))
        if self.model.status not in TERMINAL:
            assert isinstance(outcome, IllegalTransition)
        else:
            assert isinstance(outcome, Decision)
            assert outcome.deleted
            self.create(job.max_attempts, job.queue_timeout, job.run_timeout, job.stall_timeout)

    @invariant()
    def job_is_what_the_model_says(self) -> None:
        job, model = self.record.job, self.model
        assert (
            job.status.value,
            job.leased,
            job.progress,
            job.attempt,
            job.error.reason if job.error else "",
            job.version,
        ) == (
            model.status,
            model.held,
            model.progress,
            model.attempt,
            model.reason,
            model.version,
        )
        assert deadline(job) == min(model.times.values(), default=None)
        if model.status not in TERMINAL:
            assert job.attempt - job.releases - job.leased == model.lost

    @invariant()
    def transitions_are_contiguous_and_lead_to_the_job(self) -> None:
        status, version = JobStatus.QUEUED, 1
        for transition in self.record.transitions:
            assert transition.from_status is status
            assert transition.to_status is not status
            assert transition.version > version
            status, version = transition.to_status, transition.version
        assert self.record.job.status is status
        assert self.record.job.version >= version

    @invariant()
    def attempts_are_those_that_were_made(self) -> None:
        job, model, record = self.record.job, self.model, self.record
        found = attempts(job, record.ended)
        running = ((model.attempt, None, model.progress),) if model.held else ()
        assert [
            (each.number, each.outcome.value if each.outcome else None, each.progress)
            for each in found
        ] == [*model.past, *running]
        assert [each.number for each in found] == list(range(1, job.attempt + 1))
        ends = [job.create_time, *(each.end_time for each in found)]
        for before, each in zip(ends, found, strict=False):
            assert before is not None
            assert before <= each.start_time
            assert each.end_time is None or each.start_time <= each.end_time
            assert (each.end_time is None) == (each.outcome is None)
            assert each.job_id == job.id
        assert not found or found[0].start_time == job.start_time

    @invariant()
    def fields_fit_the_state(self) -> None:
        job = self.record.job
        ended = job.status in ENDED_BY
        waits = not ended and not job.leased
        unstarted = job.attempt == 0
        assert not unstarted or job.status in (JobStatus.QUEUED, JobStatus.FAILED)
        assert job.status is not JobStatus.QUEUED or unstarted
        assert (job.start_time is None) == unstarted
        assert (job.attempt_time is None) == unstarted
        assert (job.complete_time is None) == (not ended)
        assert job.outcome_digest is None or ended
        assert (deadline(job) is None) == ended
        assert not job.leased or job.status is JobStatus.PROCESSING
        assert (job.lease_duration is None) == (job.lease_expire_time is None)
        assert (job.queue_expire_time is None) == (not waits)
        stalls = job.leased and job.stall_timeout is not None
        assert (job.stall_expire_time is None) == (not stalls)
        assert (job.progress_time is None) == unstarted
        assert not waits or job.cancel_request_time is None, "who waits was not cancelled"
        assert not waits or not job.worker_id
        assert 0 <= job.releases <= job.attempt
        assert (job.version == 1) == (job.status is JobStatus.QUEUED)
        assert not was_just_started(job) or len(self.record.transitions) == 1

    @invariant()
    def whoever_dies_the_job_ends_by_itself(self) -> None:
        """With nobody left but a reaper: one lease, one wait, and it is over."""
        job, now = self.record.job, self.now
        for _ in range(2):
            now = Instant(max(now, deadline(job) or now))
            job = decide(job, Expire(job_id=JOB_ID), now=now, new_id=self.new_id).job
        assert job.status in ENDED_BY
        assert now <= self.now + self.model.lease + job.queue_timeout

    @invariant()
    def workers_that_take_a_job_and_die_cannot_keep_it_from_ending(self) -> None:
        job, now = self.record.job, self.now
        command = Claim(
            worker_id="w", job_types=frozenset(), max_jobs=1, lease_duration=Micros(5 * SECOND)
        )
        for _ in range(job.max_attempts + 1):
            taken = claim(job, command, now)
            job = taken.job if taken else job
            now = Instant(max(now, deadline(job) or now))
            job = decide(job, Expire(job_id=JOB_ID), now=now, new_id=self.new_id).job
        assert job.status in ENDED_BY


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
