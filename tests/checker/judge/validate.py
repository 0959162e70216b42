"""The judge: a history in, what broke each promise out."""

from typing import get_args

from tests.checker.history import History
from tests.checker.judge import watching_many as many
from tests.checker.judge.attempts import check_attempts
from tests.checker.judge.cancelling import check_cancelled
from tests.checker.judge.delivering import check_webhooks
from tests.checker.judge.grouping import check_groups
from tests.checker.judge.holding import check_cancellations, check_losses
from tests.checker.judge.output import check_output
from tests.checker.judge.permitted import check_permitted
from tests.checker.judge.queues import (
    check_counters,
    check_shares,
    check_starts,
    check_unblocked,
    check_unique_keys,
)
from tests.checker.judge.refusing import check_refusals
from tests.checker.judge.retries import (
    check_checkpoints,
    check_creations,
    check_defaults,
    check_policies,
    check_repetitions,
    check_schedules,
)
from tests.checker.judge.views import check_views
from tests.checker.judge.violation import Promise, Violation
from tests.checker.judge.watching_one import check_streams
from tests.checker.judge.writing import check_kept, check_terminal, check_whole
from tests.checker.timeline import Timeline

PROMISES: tuple[Promise, ...] = get_args(Promise)


def judge(history: History) -> dict[Promise, list[Violation]]:
    """Return what in the history breaks each promise; empty lists where all were kept."""
    timeline = Timeline(history)
    late = many.made_late(history)
    found: list[Violation] = []
    for line in many.all_lines(history):
        found += many.check_versions(line)
        found += many.check_steps(line, timeline, history, late)
        found += many.check_commit_order(line, timeline)
        if line.last:
            found += many.check_newest(line, timeline, history.records.values())
    found += many.check_same_order(history)
    found += many.check_ends(history)
    found += check_streams(history, timeline)
    found += check_kept(history)
    found += check_whole(history)
    found += check_terminal(history)
    found += check_cancellations(history)
    found += check_cancelled(history)
    found += check_losses(history)
    found += check_attempts(history)
    found += check_views(history)
    found += check_schedules(history)
    found += check_creations(history)
    found += check_defaults(history)
    found += check_policies(history)
    found += check_checkpoints(history)
    found += check_repetitions(history)
    found += many.check_removed(history)
    found += check_counters(history)
    found += check_starts(history)
    found += check_unblocked(history)
    found += check_shares(history)
    found += check_unique_keys(history)
    found += check_webhooks(history)
    found += check_permitted(history)
    found += check_refusals(history)
    found += check_output(history)
    found += check_groups(history)
    # Lines of one watcher have a beginning in common, and what is wrong in it too.
    unique = dict.fromkeys(found)
    return {promise: [v for v in unique if v.promise == promise] for promise in PROMISES}
