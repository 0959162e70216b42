"""Any history of a group and its jobs keeps what the contract says of groups."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobledger_server.domain.commands import Cancel, Create, Expire, NewGroup, PassOn, Seal
from jobledger_server.domain.decisions import create, decide
from jobledger_server.domain.errors import GroupSealed
from jobledger_server.domain.groups import level_in, recount
from jobledger_server.domain.job import Instant, JobStatus, Phase
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import NOW, OWNER, QUEUE_TIMEOUT, SECOND, ids

ENDS = {"COMPLETED", "PARTIAL", "FAILED"}

CHANGES = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["PROCESSING", *sorted(ENDS)])), max_size=4
)
"""Which of the jobs that have not ended a commit changes, and to which state."""


class GroupHistories(RuleBasedStateMachine):
    """A group, and a list of the states of its jobs as its only model."""

    @initialize(fail_fast=st.booleans())
    def begin(self, fail_fast: bool) -> None:  # noqa: FBT001
        self.now = NOW
        self.fail_fast = fail_fast
        self.states: list[str] = []
        self.sealed = self.asked = self.failed_fast = self.forgotten = False
        self.began_before_asked = False
        self.seen: list[Decision] = []
        options = NewGroup(fail_fast=fail_fast)
        command = Create(
            user_id=OWNER, job_type="album", group=options, queue_timeout=QUEUE_TIMEOUT
        )
        self.group = create(None, command, now=self.now, new_id=ids()).job

    def apply(self, decision: Decision) -> None:
        for each in (decision.via, decision):
            if each is not None and (each.changed or each.renewed):
                assert each.changed == (each.job.version == self.group.version + 1)
                assert each.job.progress >= self.group.progress
                assert self.group.status.value not in ENDS  # nothing follows the end
                self.group = each.job
                self.seen.append(each)

    @rule(seconds=st.sampled_from([-5, 0, 1, 11, 700]))
    def wait(self, seconds: int) -> None:
        self.now = Instant(self.now + seconds * SECOND)

    @rule(added=st.integers(0, 3), changes=CHANGES)
    def commit(self, added: int, changes: list[tuple[int, str]]) -> None:
        """Add jobs, and change some of those that were there."""
        before = Counter(self.states)
        for place, state in changes:
            if open_ := [at for at, each in enumerate(self.states) if each not in ENDS]:
                self.states[open_[place % len(open_)]] = state
        try:
            level_in(self.group, owner=OWNER, group_id=self.group.id, more=0)
        except GroupSealed:
            assert self.sealed
        else:
            assert not self.sealed
            self.states += ["QUEUED"] * added
        after = Counter(self.states)
        change = {each: after[each.value] - before[each.value] for each in JobStatus}
        if self.fail_fast and change[JobStatus.FAILED] > 0 and not self.over:
            self.sealed = self.failed_fast = True
        if any(change.values()):
            self.apply(recount(self.group, change, self.now))

    @rule()
    def seal(self) -> None:
        self.apply(self.decided(Seal(job_id=self.group.id, user_id=OWNER)))
        self.sealed = True

    @rule(reason=st.sampled_from(["", "too late"]))
    def cancel(self, reason: str) -> None:
        if not self.over:
            self.began_before_asked |= not self.asked and self.group.start_time is not None
            self.asked = self.sealed = True
        self.apply(self.decided(Cancel(job_id=self.group.id, user_id=OWNER, reason=reason)))

    @rule(done=st.booleans())
    def pass_on(self, done: bool) -> None:  # noqa: FBT001
        self.apply(self.decided(PassOn(job_id=self.group.id, done=done)))

    @rule()
    def expire(self) -> None:
        if self.now >= NOW + QUEUE_TIMEOUT and not self.sealed:
            self.sealed = True
            self.forgotten = not self.states
        before = self.group.children
        decision = self.decided(Expire(job_id=self.group.id))
        # A server that goes on cancelling says so to nobody.
        assert not (decision.changed and before is not None and before.cancelling)
        self.apply(decision)

    def decided(self, command: Cancel | Expire | PassOn | Seal) -> Decision:
        return decide(self.group, command, now=self.now, new_id=ids())

    @property
    def over(self) -> bool:
        return self.group.status.value in ENDS

    @invariant()
    def it_counts_its_jobs(self) -> None:
        children = self.group.children
        assert children is not None
        counts = {each.value: getattr(children, each.value.lower()) for each in JobStatus}
        assert {state: count for state, count in counts.items() if count} == Counter(self.states)
        assert children.sealed == self.sealed
        assert not children.cancelling or self.asked or self.failed_fast

    @invariant()
    def its_state_follows(self) -> None:
        group, states = self.group, Counter(self.states)
        ended = sum(states[state] for state in ENDS)
        is_over = self.sealed and ended == len(self.states)
        assert self.over == is_over
        assert (group.status is JobStatus.QUEUED) == (group.version == 1 + group.updates)
        assert (group.phase is Phase.WAITING) == (not is_over)
        if not is_over:
            begun = len(self.states) > states["QUEUED"]
            assert group.status is (JobStatus.PROCESSING if begun else JobStatus.QUEUED)
            return
        reason = group.error.reason if group.error else ""
        if self.forgotten:
            assert (group.status.value, reason) == ("FAILED", "QUEUE_EXPIRED")
        elif not self.states and self.asked:
            assert (group.status.value, reason) == ("FAILED", "CANCELLED")
        elif states["COMPLETED"] == len(self.states):
            assert (group.status.value, reason) == ("COMPLETED", "")
        elif states["COMPLETED"] or states["PARTIAL"]:
            assert (group.status.value, reason) == ("PARTIAL", "CHILDREN_FAILED")
        else:
            expected_reason = "CANCELLED" if self.asked else "CHILDREN_FAILED"
            assert (group.status.value, reason) == ("FAILED", expected_reason)

    @invariant()
    def its_times_say_what_came_first(self) -> None:
        """Also where the clock was set back: its state after the start is read from them."""
        start, asked = self.group.start_time, self.group.cancel_request_time
        if start is not None and asked is not None:
            assert (asked > start) == self.began_before_asked

    @invariant()
    def it_is_looked_at(self) -> None:
        """While something is left to do for it, there is a time at which somebody does it."""
        children = self.group.children
        assert children is not None
        if not self.over and (children.cancelling or not children.sealed):
            assert self.group.queue_expire_time is not None

    def teardown(self) -> None:
        transitions = [each.transition for each in self.seen if each.transition is not None]
        assert len(transitions) <= 2
        assert all(each.from_status.value not in ENDS for each in transitions)


TestGroupHistories = GroupHistories.TestCase
TestGroupHistories.settings = settings(max_examples=300, stateful_step_count=30)


def test_a_cancellation_comes_after_the_start_though_the_clock_was_set_back() -> None:
    history = GroupHistories()
    history.begin(fail_fast=False)
    history.commit(2, [])
    history.commit(0, [(0, "PROCESSING")])
    history.wait(-5)
    history.cancel("too late")
    history.its_times_say_what_came_first()
