"""Any history of commands, retries among them, keeps the promises of the contract."""

from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from domain.jobs import ENDED_BY, JOB_ID, LINK, NOW, OTHER_LINK, OWNER, ids
from jobledger_server.domain.commands import Create, Delete, JobCommand, LinkAsset, Report, Transit
from jobledger_server.domain.errors import DomainError, IllegalTransition, RequestIdReused
from jobledger_server.domain.machine import Decision, create, decide
from jobledger_server.domain.model import Asset, AssetLink, Job, JobStatus, Transition

EDGES = {"QUEUED": ["PROCESSING"], "PROCESSING": ["COMPLETED", "PARTIAL", "FAILED"]}


@dataclass(frozen=True)
class Model:
    """What the contract makes of a job, as far as it can be said in ten lines."""

    status: str = "QUEUED"
    progress: int = 0
    attempt: int = 0
    version: int = 1

    def after(self, target: str, progress: int) -> "Model":
        progress = max(self.progress, progress)
        if target in EDGES.get(self.status, []):
            attempt = self.attempt + (target == "PROCESSING")
            progress = 100 if target in ("COMPLETED", "PARTIAL") else progress
            return Model(target, progress, attempt, self.version + 1)
        if self.status == target == "PROCESSING" and progress > self.progress:
            return replace(self, progress=progress, version=self.version + 1)
        return self


@dataclass
class Record:
    """What a store would keep of one job."""

    job: Job
    assets: list[Asset] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    accepted: list[JobCommand] = field(default_factory=list)


progresses = st.none() | st.integers(0, 100)
attempts = st.none() | st.integers(0, 2)
version_offsets = st.none() | st.sampled_from([0, 0, 0, -1, 1])
workers = st.sampled_from(["", "worker-1", "worker-2"])


class Histories(RuleBasedStateMachine):
    @initialize()
    def create(self) -> None:
        self.new_id = ids()
        command = Create(user_id=OWNER, job_type="render", request_id="request-1")
        self.record = Record(create(None, command, now=NOW, new_id=self.new_id).job)
        self.model = Model()

    def send(self, command: JobCommand) -> Decision | DomainError:
        """Decide on a command and keep what comes of it, as the ledger does."""
        record, linked = self.record, None
        if isinstance(command, LinkAsset) and command.request_id:
            known = {asset.request_id: asset for asset in record.assets}
            linked = known.get(command.request_id)
        before = record.job
        try:
            decision = decide(before, command, now=NOW, new_id=self.new_id, linked=linked)
        except DomainError as refusal:
            return refusal
        assert decision.job.version == before.version + decision.changed
        assert decision.changed or decision.job is before
        if decision.changed:
            record.job = decision.job
            record.assets += decision.assets
            if decision.transition:
                record.transitions.append(decision.transition)
        # Without a request id each link makes an asset: the one call that may not be repeated.
        if not isinstance(command, LinkAsset) or command.request_id:
            record.accepted.append(command)
        return decision

    @rule(
        to=st.sampled_from(list(JobStatus)),
        progress=progresses,
        attempt=attempts,
        version_offset=version_offsets,
        worker=workers,
    )
    def transit(
        self,
        to: JobStatus,
        progress: int | None,
        attempt: int | None,
        version_offset: int | None,
        worker: str,
    ) -> None:
        content = ENDED_BY.get(to, Transit(job_id=JOB_ID, target=to))
        version = None if version_offset is None else self.model.version + version_offset
        command = replace(
            content,
            progress=progress,
            attempt=attempt,
            expected_version=version,
            worker_id=worker,
        )
        fenced = attempt is not None or version is not None
        held = attempt in (None, self.model.attempt) and version in (None, self.model.version)
        if held and (fenced or self.model.status != to.value):
            self.model = self.model.after(to.value, progress or 0)
        self.send(command)

    @rule(progress=progresses, attempt=attempts)
    def report(self, progress: int | None, attempt: int | None) -> None:
        decision = self.send(Report(job_id=JOB_ID, progress=progress, attempt=attempt))
        if self.model.status == "PROCESSING" and attempt in (None, self.model.attempt):
            late = progress is not None and progress < self.model.progress
            self.model = self.model.after("PROCESSING", progress or 0)
            assert isinstance(decision, Decision)
            assert decision.applied is not late

    @rule(
        link=st.sampled_from([LINK, OTHER_LINK]),
        request_id=st.sampled_from(["", "link-1", "link-2"]),
        attempt=attempts,
    )
    def link(self, link: AssetLink, request_id: str, attempt: int | None) -> None:
        known = {a.request_id: a for a in self.record.assets if a.request_id}.get(request_id)
        count = len(self.record.assets)
        outcome = self.send(
            LinkAsset(job_id=JOB_ID, link=link, request_id=request_id, attempt=attempt)
        )
        if attempt not in (None, self.model.attempt):
            return
        if known is not None and known.link != link:
            assert isinstance(outcome, RequestIdReused)
        elif known is not None:
            assert isinstance(outcome, Decision)
            assert outcome.assets == (known,)
        elif self.model.status == "PROCESSING":
            self.model = replace(self.model, version=self.model.version + 1)
            assert len(self.record.assets) == count + 1

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
        is_end = isinstance(command, Transit) and command.target in ENDED_BY
        if is_end or isinstance(command, Report | LinkAsset):
            assert isinstance(outcome, Decision), "what was accepted once is accepted again"

    @rule(worker=st.sampled_from(["worker-1", "worker-2"]), progress=progresses)
    def start_twice(self, worker: str, progress: int | None) -> None:
        """A worker that names itself may start again, having lost the answer."""
        start = Transit(
            job_id=JOB_ID, target=JobStatus.PROCESSING, worker_id=worker, progress=progress
        )
        if self.model.status == "QUEUED":
            self.model = self.model.after("PROCESSING", progress or 0)
            assert isinstance(self.send(start), Decision)
            assert isinstance(self.send(start), Decision)
        elif self.record.job.worker_id != worker:
            assert isinstance(self.send(start), DomainError)

    @rule()
    def delete(self) -> None:
        outcome = self.send(Delete(job_id=JOB_ID, user_id=OWNER))
        if self.model.status in EDGES:
            assert isinstance(outcome, IllegalTransition)
        else:
            assert isinstance(outcome, Decision)
            assert outcome.deleted
            self.create()

    @invariant()
    def job_is_what_the_model_says(self) -> None:
        job, model = self.record.job, self.model
        assert (job.status.value, job.progress, job.attempt, job.version) == (
            model.status,
            model.progress,
            model.attempt,
            model.version,
        )

    @invariant()
    def transitions_are_contiguous_and_lead_to_the_job(self) -> None:
        status, version = JobStatus.QUEUED, 1
        for transition in self.record.transitions:
            assert transition.from_status is status
            assert transition.version > version
            status, version = transition.to_status, transition.version
        assert self.record.job.status is status
        assert self.record.job.version >= version

    @invariant()
    def times_and_outcome_fit_the_state(self) -> None:
        job = self.record.job
        assert (job.start_time is None) == (job.status is JobStatus.QUEUED)
        assert (job.complete_time is None) == (job.status not in ENDED_BY)
        assert (job.end_digest is None) == (job.complete_time is None)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
