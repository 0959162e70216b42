"""Any history of commands, retries and deaths among them, keeps the promises of the contract."""

from collections.abc import Mapping, Sequence
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
    Update,
)
from jobledger_server.domain.decisions import create, decide
from jobledger_server.domain.errors import (
    AssetNameTaken,
    DomainError,
    IllegalTransition,
    JobNotDue,
    JobStarted,
    JobTerminal,
    RequestIdReused,
    VersionMismatch,
)
from jobledger_server.domain.job import (
    Asset,
    AssetId,
    AssetLink,
    Attempt,
    AttemptOutcome,
    Instant,
    Job,
    JobError,
    JobStatus,
    Micros,
    Payload,
    Phase,
    Transition,
)
from jobledger_server.domain.leases import attempts, claim, deadline
from jobledger_server.domain.queues import make_ready
from jobledger_server.domain.state_machine import (
    Decision,
    awaits_worker,
    due_time,
    was_just_started,
)
from tests.unit.domain.jobs import (
    ENDED_BY,
    JOB_ID,
    LINK,
    NOW,
    OTHER_LINK,
    OWNER,
    SECOND,
    claim_due,
    ids,
)

HOUR = 3600 * SECOND
GRACE = 30 * SECOND
TERMINAL = ("COMPLETED", "PARTIAL", "FAILED")


@dataclass(frozen=True)
class Model:
    """What the contract makes of a job, as far as it can be said in a page.

    `used` counts the attempts that were used up; `past` are the attempts that
    ended, each with its outcome and its progress; `times` are those of the causes that can end what
    is going on, as far as they apply; `due` is when the job may be claimed, if that is not at once;
    `pause` is from when to when it may be, until the job says when; `quick` counts quick releases;
    `by_id` says that the latest attempt was not claimed.
    """

    policy: Create
    times: Mapping[str, int]
    due: int | None
    status: str = "QUEUED"
    held: bool = False
    progress: int = 0
    attempt: int = 0
    used: int = 0
    past: tuple[tuple[int, str, int], ...] = ()
    lease: int = 0
    began: int = 0
    pause: tuple[float, float] | None = None
    quick: int = 0
    last_reason: str = ""
    checkpoint: bytes | None = None
    number: int = 0
    reason: str = ""
    version: int = 1
    by_id: bool = False
    priority: int = 5
    scheduled: int | None = None

    def updated(self, now: int, priority: int | None, time: int | None) -> "Model":
        """Update the job, unless it is so already."""
        priority = self.priority if priority is None else priority
        is_due = max(time or 0, NOW, self.scheduled or 0) <= now
        if time is None or time == self.scheduled or is_due:
            if priority == self.priority:
                return self
            return replace(self, priority=priority, version=self.version + 1)
        time = max(time, now)
        times = {**self.times, "QUEUE_EXPIRED": time + self.policy.queue_timeout}
        return replace(
            self,
            times=times,
            due=time,
            scheduled=time,
            priority=priority,
            version=self.version + 1,
        )

    def waits_at(self, now: int) -> bool:
        return self.status not in TERMINAL and not self.held and (self.due or 0) > now

    def fenced_out(self, attempt: int | None) -> bool:
        left = self.status == "PROCESSING" and not self.held
        return attempt is not None and (attempt != self.attempt or left)

    def has_another_attempt(self) -> bool:
        if self.by_id and self.policy.max_attempts == 0:
            return False
        return self.used + 1 < (self.policy.max_attempts or 3)

    def taken(self, now: int, lease: int, progress: int = 0, *, by_id: bool = False) -> "Model":
        times = {cause: time for cause, time in self.times.items() if cause != "QUEUE_EXPIRED"}
        times["LEASE_EXPIRED"] = now + lease
        if self.policy.stall_timeout is not None:
            times["STALLED"] = now + self.policy.stall_timeout
        if self.attempt == 0 and self.policy.run_timeout is not None:
            times["RUN_EXPIRED"] = now + self.policy.run_timeout
        return replace(
            self,
            times=times,
            status="PROCESSING",
            held=True,
            progress=progress,
            attempt=self.attempt + 1,
            lease=lease,
            began=now,
            number=0,
            due=None,
            by_id=by_id,
            version=self.version + 1,
        )

    def backoff(self, number: int) -> tuple[float, float]:
        """Return the shortest and the longest pause before the retry of this number."""
        longer = self.policy.initial_backoff * self.policy.backoff_multiplier ** (number - 1)
        pause = min(longer, self.policy.max_backoff)
        return (0.8 * pause - 1, 1.2 * pause) if number else (0, 0)

    def put_down(
        self,
        now: int,
        outcome: str,
        reason: str = "",
        *,
        delay: int | None = None,
        number: int | None = None,
        quick: int = 0,
    ) -> "Model":
        """Requeue the job, to pause for the `delay` at least, or as the policy says."""
        held = ("LEASE_EXPIRED", "STALLED")
        used = self.used + (outcome != "RELEASED")
        shortest, longest = self.backoff(used if number is None else number)
        if delay is not None:
            shortest, longest = max(shortest, delay), max(longest, delay)
        return replace(
            self,
            times={cause: time for cause, time in self.times.items() if cause not in held},
            held=False,
            used=used,
            pause=(now + shortest, now + longest),
            quick=quick,
            last_reason=reason or self.last_reason,
            past=(*self.past, (self.attempt, outcome, self.progress)),
            version=self.version + 1,
        )

    def paused_until(self, due: int | None, now: int) -> "Model":
        """Take over the time that was drawn, if it is within the bounds."""
        assert self.pause is not None
        shortest, longest = self.pause
        begins = due or now
        assert shortest <= begins <= longest
        times = {**self.times, "QUEUE_EXPIRED": begins + self.policy.queue_timeout}
        return replace(self, times=times, due=due, pause=None)

    def failed(self, now: int, reason: str, delay: int | None, progress: int) -> "Model":
        """Fail retryably."""
        model = replace(self, progress=max(progress, self.progress))
        if "CANCELLED" in self.times or not self.has_another_attempt():
            return model.ended("FAILED", reason)
        number = None if delay is None else 0
        return model.put_down(now, "RETRIED", reason, delay=delay, number=number)

    def reported(
        self, now: int, progress: int | None, checkpoint: bytes | None, number: int
    ) -> "Model":
        model = self
        if self.held:
            model = replace(self, times={**self.times, "LEASE_EXPIRED": now + self.lease})
        progress = max(progress or 0, self.progress)
        late = 0 < number <= self.number
        model = replace(model, number=max(number, self.number))
        if late or (progress == self.progress and checkpoint is None):
            return model
        checkpoint = checkpoint or self.checkpoint
        return replace(model, progress=progress, checkpoint=checkpoint).with_news(now)

    def with_news(self, now: int) -> "Model":
        times = dict(self.times)
        if "STALLED" in times and self.policy.stall_timeout is not None:
            times["STALLED"] = now + self.policy.stall_timeout
        return replace(self, times=times, version=self.version + 1)

    def ended(self, status: str, reason: str = "", progress: int = 0) -> "Model":
        progress = 100 if status in ("COMPLETED", "PARTIAL") else max(progress, self.progress)
        outcome = reason if reason in ("LEASE_EXPIRED", "STALLED") else status
        steps = 2 if self.status == "QUEUED" else 1
        return replace(
            self,
            times={},
            due=None,
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

    def released(self, now: int, attempt: int, delay: int) -> "Model":
        if not self.held or attempt != self.attempt:
            return self
        if "CANCELLED" in self.times:
            return self.ended("FAILED", "CANCELLED")
        if now - self.began >= self.lease or delay >= self.policy.initial_backoff:
            return self.put_down(now, "RELEASED", delay=delay, number=0)
        return self.put_down(now, "RELEASED", delay=delay, number=self.quick, quick=self.quick + 1)

    def expired(self, now: int, resumed_at: int | None) -> "Model":
        if resumed_at is not None and "LEASE_EXPIRED" in self.times:
            extended = max(self.times["LEASE_EXPIRED"], resumed_at + self.lease)
            times = {**self.times, "LEASE_EXPIRED": extended}
            if "STALLED" in times and self.policy.stall_timeout is not None:
                times["STALLED"] = max(times["STALLED"], resumed_at + self.policy.stall_timeout)
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
                if self.has_another_attempt():
                    return self.put_down(now, cause, cause)
                return self.ended("FAILED", cause)
        return self


@dataclass
class Record:
    """What a store would keep of one job."""

    job: Job
    assets: dict[AssetId, Asset] = field(default_factory=dict)
    transitions: list[Transition] = field(default_factory=list)
    ended: list[Attempt] = field(default_factory=list)
    accepted: list[tuple[JobCommand, int]] = field(default_factory=list)
    """Each with the version that it led to."""
    checkpoint: Payload | None = None


progresses = st.none() | st.integers(0, 100)
fences = st.none() | st.integers(0, 3)
# Of the job's own attempt, most often.
attempt_offsets = st.none() | st.sampled_from([0, 0, 0, -1, 1])
version_offsets = st.none() | st.sampled_from([0, 0, 0, -1, 1])
workers = st.sampled_from(["", "worker-1", "worker-2"])
delays = st.sampled_from([None, Micros(0), Micros(SECOND // 2), Micros(50 * SECOND)])
reasons = st.sampled_from(["DISK_FULL", "TIMEOUT"])
leases = st.sampled_from([Micros(5 * SECOND), Micros(60 * SECOND), Micros(HOUR)])


class Histories(RuleBasedStateMachine):
    @initialize(
        max_attempts=st.integers(0, 3),  # 0: no policy
        queue_timeout=st.sampled_from([Micros(SECOND), Micros(100 * SECOND), Micros(9 * HOUR)]),
        run_timeout=st.sampled_from([None, Micros(20 * SECOND), Micros(2 * HOUR)]),
        stall_timeout=st.sampled_from([None, Micros(7 * SECOND), Micros(HOUR)]),
        initial_backoff=st.sampled_from([Micros(SECOND // 10), Micros(SECOND)]),
        max_backoff=st.sampled_from([Micros(SECOND), Micros(HOUR)]),
        backoff_multiplier=st.sampled_from([1.0, 2.0, 100.0]),
        schedule=st.sampled_from([None, -SECOND, 2 * SECOND, 9 * HOUR]),
    )
    def create(
        self,
        max_attempts: int,
        queue_timeout: Micros,
        run_timeout: Micros | None,
        stall_timeout: Micros | None,
        initial_backoff: Micros,
        max_backoff: Micros,
        backoff_multiplier: float,
        schedule: int | None,
    ) -> None:
        self.new_id = ids()
        self.resumed_at: Instant | None = None
        command = Create(
            user_id=OWNER,
            job_type="render",
            request_id="request-1",
            max_attempts=max_attempts,
            queue_timeout=queue_timeout,
            run_timeout=run_timeout,
            stall_timeout=stall_timeout,
            initial_backoff=initial_backoff,
            max_backoff=max_backoff,
            backoff_multiplier=backoff_multiplier,
            schedule_time=None if schedule is None else Instant(NOW + schedule),
        )
        self.begin(command)

    def begin(self, command: Create) -> None:
        self.now = NOW
        self.resumed_at = None
        self.record = Record(create(None, command, now=NOW, new_id=self.new_id).job)
        due = command.schedule_time
        times = {"QUEUE_EXPIRED": max(NOW, due or NOW) + command.queue_timeout}
        self.model = Model(command, times, due, scheduled=due)

    def send(self, command: JobCommand) -> Decision | DomainError:
        """Decide on a command and keep what comes of it, as the ledger does."""
        record, linked = self.record, None
        if isinstance(command, LinkAsset) and command.request_id:
            known = {asset.request_id: asset for asset in record.assets.values()}
            linked = known.get(command.request_id)
        try:
            decision = decide(
                record.job,
                command,
                now=self.now,
                new_id=self.new_id,
                linked=linked,
                named={asset.link.name: asset for asset in record.assets.values()},
                resumed_at=self.resumed_at,
            )
        except DomainError as refusal:
            return refusal
        self.keep(decision)
        # Without an attempt a retryable failure that comes late is one of a later attempt.
        fenced = not isinstance(command, ChangeStatus) or not command.retryable or command.attempt
        if isinstance(command, Cancel | Release) or (
            (isinstance(command, ChangeStatus) and command.target in ENDED_BY and fenced)
            or (isinstance(command, LinkAsset) and command.request_id)
        ):
            record.accepted.append((command, record.job.version))
        return decision

    def keep(self, decision: Decision) -> None:
        record, before, after = self.record, self.record.job, decision.job
        if not decision.changed:
            assert (decision.via, decision.transition, decision.ended) == (None, None, None)
            renewed = structs.replace(
                before,
                phase=after.phase,
                lease_duration=after.lease_duration,
                lease_expire_time=after.lease_expire_time,
                stall_expire_time=after.stall_expire_time,
                report_number=max(before.report_number, after.report_number),
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
        record.assets |= {each.id: each for each in (*decision.updated, *decision.assets)}
        assert after.asset_count == len(record.assets)
        assert after.asset_bytes == sum(each.link.text_bytes for each in record.assets.values())
        record.checkpoint = decision.payloads.checkpoint or record.checkpoint
        if self.model.pause is not None:
            self.model = self.model.paused_until(after.retry_time, self.now)
        assert before.complete_time is None or decision.deleted, "what has ended never changes"
        taken = after.leased and not before.leased
        assert after.attempt == before.attempt + taken
        assert not taken or (due_time(before) or 0) <= self.now, "never claimed before its time"
        requeued = before.leased and awaits_worker(after)
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
                if self.has_other_asset_named_like(content.assets):
                    assert isinstance(self.send(command), AssetNameTaken)
                    return
                reason = content.error.reason if content.error else ""
                self.model = model.ended(to.value, reason, progress or 0)
            elif to is JobStatus.PROCESSING and not model.held:
                if model.waits_at(self.now):
                    assert isinstance(self.send(command), JobNotDue)
                    return
                self.model = model.taken(self.now, lease or HOUR, progress or 0, by_id=True)
        self.send(command)

    def has_other_asset_named_like(self, links: Sequence[AssetLink]) -> bool:
        """Return whether this attempt has linked another file under one of these names."""
        ours = [a.link for a in self.record.assets.values() if a.attempt == self.model.attempt]
        return any(old.name == new.name and old != new for old in ours for new in links)

    @rule(
        progress=progresses,
        attempt_offset=attempt_offsets,
        version_offset=version_offsets,
        reason=reasons,
        delay=delays,
    )
    def fail(
        self,
        progress: int | None,
        attempt_offset: int | None,
        version_offset: int | None,
        reason: str,
        delay: Micros | None,
    ) -> None:
        """A worker fails, and thinks that another attempt may succeed."""
        model = self.model
        attempt = None if attempt_offset is None else model.attempt + attempt_offset
        version = None if version_offset is None else model.version + version_offset
        command = ChangeStatus(
            job_id=JOB_ID,
            target=JobStatus.FAILED,
            error=JobError(reason, "no"),
            progress=progress,
            attempt=attempt,
            expected_version=version,
            retryable=True,
            retry_delay=delay,
        )
        if model.held and attempt in (None, model.attempt) and version in (None, model.version):
            self.model = model.failed(self.now, reason, delay, progress or 0)
            assert isinstance(self.send(command), Decision)
        else:
            self.send(command)

    @rule(worker=st.sampled_from(["worker-1", "worker-2"]), lease=leases)
    def claim(self, worker: str, lease: Micros) -> None:
        command = Claim(worker_id=worker, job_types=frozenset(), max_jobs=1, lease_duration=lease)
        self.keep(make_ready(self.record.job, self.now))
        decision = claim(self.record.job, command, self.now)
        due = any(time <= self.now for time in self.model.times.values())
        waits = self.model.waits_at(self.now)
        if self.model.held or self.model.status in TERMINAL or due or waits:
            assert decision is None
            return
        assert decision is not None
        assert decision.job.worker_id == worker
        self.model = self.model.taken(self.now, lease)
        self.keep(decision)

    @rule(
        progress=progresses,
        attempt_offset=attempt_offsets,
        checkpoint=st.sampled_from([None, None, Payload(b"page 1"), Payload(b"page 12")]),
        number=st.integers(0, 4),
    )
    def report(
        self,
        progress: int | None,
        attempt_offset: int | None,
        checkpoint: Payload | None,
        number: int,
    ) -> None:
        model = self.model
        attempt = None if attempt_offset is None else model.attempt + attempt_offset
        decision = self.send(
            Report(
                job_id=JOB_ID,
                progress=progress,
                attempt=attempt,
                checkpoint=checkpoint,
                number=number,
            )
        )
        if model.status == "PROCESSING" and not model.fenced_out(attempt):
            self.model = model.reported(self.now, progress, checkpoint, number)
            assert isinstance(decision, Decision)
            assert decision.applied

    @rule(
        link=st.sampled_from(
            [
                LINK,
                structs.replace(LINK, file_size=8),
                structs.replace(LINK, storage_path="2/a.png"),
                OTHER_LINK,
            ]
        ),
        request_id=st.sampled_from(["", "link-1", "link-2"]),
        attempt=fences,
    )
    def link(self, link: AssetLink, request_id: str, attempt: int | None) -> None:
        linked = list(self.record.assets.values())
        known = {a.request_id: a for a in linked if a.request_id}.get(request_id)
        named = {a.link.name: a for a in linked}.get(link.name)
        places = {a.link.place for a in linked}
        outcome = self.send(
            LinkAsset(job_id=JOB_ID, link=link, request_id=request_id, attempt=attempt)
        )
        if known is not None and attempt in (None, self.model.attempt):
            if known.link != link:
                assert isinstance(outcome, RequestIdReused)
            else:
                assert isinstance(outcome, Decision)
                assert outcome.asset == known
        elif named is not None and named.link == link and attempt in (None, self.model.attempt):
            assert isinstance(outcome, Decision)
            assert (outcome.changed, outcome.asset) == (False, named)
        elif self.model.status == "PROCESSING" and not self.model.fenced_out(attempt):
            if named is not None and named.attempt == self.model.attempt:
                assert isinstance(outcome, AssetNameTaken)
                return
            self.model = self.model.with_news(self.now)
            linked = list(self.record.assets.values())
            assert [a.link for a in linked if a.link.name == link.name] == [link]
            assert {a.link.place for a in linked} == places | {link.place}, "no file is forgotten"

    @rule(attempt_offset=st.sampled_from([0, 0, 0, -1, 1]), delay=delays)
    def release(self, attempt_offset: int, delay: Micros | None) -> None:
        attempt, delay = self.model.attempt + attempt_offset, delay or Micros(0)
        self.model = self.model.released(self.now, attempt, delay)
        self.send(Release(job_id=JOB_ID, attempt=attempt, delay=delay))

    @rule(
        priority=st.sampled_from([None, 5, 9]),
        offset=st.sampled_from([None, -SECOND, 0, 3 * SECOND, HOUR]),
        version_offset=version_offsets,
    )
    def update(self, priority: int | None, offset: int | None, version_offset: int | None) -> None:
        job = self.record.job
        time = None if offset is None else Instant(self.now + offset)
        version = None if version_offset is None else job.version + version_offset
        command = Update(
            job_id=JOB_ID,
            user_id=OWNER,
            priority=priority,
            schedule_time=time,
            expected_version=version,
        )
        outcome = self.send(command)
        model = self.model.updated(self.now, priority, time)
        if model is self.model:
            assert isinstance(outcome, Decision)
        elif self.model.status != "QUEUED":
            kind = JobTerminal if self.model.status in TERMINAL else JobStarted
            assert isinstance(outcome, kind)
        elif version not in (None, job.version):
            assert isinstance(outcome, VersionMismatch)
        else:
            assert isinstance(outcome, Decision)
            self.model = model
            assert isinstance(self.send(command), Decision), "it may be repeated"

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

    @rule()
    def make_ready(self) -> None:
        """The promoter comes by."""
        waits = self.model.waits_at(self.now)
        self.keep(make_ready(self.record.job, self.now))
        assert (self.record.job.phase is Phase.SCHEDULED) == waits

    @rule(early=st.sampled_from([0, 1]))
    def its_time_comes(self, early: int) -> None:
        self.now = Instant(max(self.now, (self.model.due or 0) - early))

    @precondition(lambda self: self.record.accepted)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Send again what was accepted before: the last command, or an older one come late."""
        history = self.record.accepted
        command, version = history[-1 - data.draw(st.integers(0, len(history) - 1))]
        before, links = self.record.job, dict(self.record.assets)
        if isinstance(command, LinkAsset) and (command.request_id, command.link) not in {
            (asset.request_id, asset.link) for asset in links.values()
        }:
            return  # a later attempt has replaced the asset: this would link it anew
        outcome = self.send(command)
        assert self.record.job is before
        assert self.record.assets == links
        again = isinstance(command, ChangeStatus | Cancel) or command.attempt is None
        if isinstance(command, ChangeStatus) and command.retryable:
            again = before.version == version  # until the job is claimed, or ends without a worker
        if again:
            assert isinstance(outcome, Decision), "what was accepted once is accepted again"

    @rule(worker=st.sampled_from(["worker-1", "worker-2"]), progress=progresses)
    def start_twice(self, worker: str, progress: int | None) -> None:
        """A worker that names itself may start again, having lost the answer."""
        start = ChangeStatus(
            job_id=JOB_ID, target=JobStatus.PROCESSING, worker_id=worker, progress=progress
        )
        if self.model.waits_at(self.now):
            assert isinstance(self.send(start), JobNotDue)
        elif self.model.status not in TERMINAL and not self.model.held:
            self.model = self.model.taken(self.now, HOUR, progress or 0, by_id=True)
            assert isinstance(self.send(start), Decision)
            assert isinstance(self.send(start), Decision)
        elif self.record.job.worker_id != worker:
            assert isinstance(self.send(start), DomainError)

    @rule()
    def delete(self) -> None:
        outcome = self.send(Delete(job_id=JOB_ID, user_id=OWNER))
        if self.model.status not in TERMINAL:
            assert isinstance(outcome, IllegalTransition)
        else:
            assert isinstance(outcome, Decision)
            assert outcome.deleted
            self.begin(self.model.policy)

    @invariant()
    def job_is_what_the_model_says(self) -> None:
        job, model = self.record.job, self.model
        assert (
            job.status.value,
            job.leased,
            job.progress,
            job.attempt,
            job.error.reason if job.error else "",
            job.last_error.reason if job.last_error else "",
            job.quick_releases,
            due_time(job),
            job.version,
        ) == (
            model.status,
            model.held,
            model.progress,
            model.attempt,
            model.reason,
            model.last_reason,
            model.quick,
            model.due,
            model.version,
        )
        assert (job.schedule_time, job.priority) == (model.scheduled, model.priority)
        assert job.checkpoint_bytes == len(model.checkpoint or b"")
        assert self.record.checkpoint == model.checkpoint, "it survives to the next attempt"
        assert deadline(job) == min(model.times.values(), default=None)
        if model.status not in TERMINAL:
            assert job.attempt - job.releases - job.leased == model.used

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
        used = [each for each in found if each.outcome is not AttemptOutcome.RELEASED]
        assert len(used) <= job.attempts_allowed
        if job.schedule_time is not None and job.start_time is not None:
            assert job.start_time >= job.schedule_time

    @invariant()
    def fields_fit_the_state(self) -> None:
        job = self.record.job
        ended = job.status in ENDED_BY
        assert (job.phase is None) == ended
        assert (job.phase is Phase.HELD) == job.leased
        assert job.phase is not Phase.READY or (due_time(job) or 0) <= self.now
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
        assert job.retry_time is None or (waits and not unstarted)
        stalls = job.leased and job.stall_timeout is not None
        assert (job.stall_expire_time is None) == (not stalls)
        assert (job.progress_time is None) == unstarted
        assert not waits or job.cancel_request_time is None, "who waits was not cancelled"
        assert not waits or not job.worker_id
        assert 0 <= job.releases <= job.attempt
        assert (job.version == 1 + job.updates) == (job.status is JobStatus.QUEUED)
        assert not was_just_started(job) or len(self.record.transitions) == 1

    @invariant()
    def whoever_dies_the_job_ends_by_itself(self) -> None:
        """With nobody left but a reaper: one lease, one wait, and it is over."""
        job, now = self.record.job, self.now
        for _ in range(2):
            now = Instant(max(now, deadline(job) or now))
            job = decide(job, Expire(job_id=JOB_ID), now=now, new_id=self.new_id).job
        assert job.status in ENDED_BY
        begins = max(self.now, self.model.due or 0)
        pause = 1.2 * job.max_backoff if self.model.held else 0
        assert now <= begins + self.model.lease + pause + job.queue_timeout

    @invariant()
    def workers_that_take_a_job_and_die_cannot_keep_it_from_ending(self) -> None:
        job, now = self.record.job, self.now
        command = Claim(
            worker_id="w", job_types=frozenset(), max_jobs=1, lease_duration=Micros(5 * SECOND)
        )
        for _ in range(job.attempts_allowed + 1):
            now = Instant(max(now, due_time(job) or now))
            taken = claim_due(job, command, now)
            job = taken.job if taken else job
            now = Instant(max(now, deadline(job) or now))
            job = decide(job, Expire(job_id=JOB_ID), now=now, new_id=self.new_id).job
        assert job.status in ENDED_BY


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
