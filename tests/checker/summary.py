"""A run in numbers: counts, rates, failures, and the times of recovery."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.checker.clients.calls import not_made
from tests.checker.clients.update_kinds import unused
from tests.checker.history import Fault, History, Outcome, Watcher
from tests.checker.judge.violation import Kind, Promise, Violation
from tests.checker.judge.writing import DELETIONS, ENDS, RETRYABLE
from tests.checker.timeline import Timeline

LEAST_RATE = 100.0
"""Changes a second; less is no load, and a run with less shows nothing."""

SHOWN = 10
"""Violations of one kind that are shown in words."""

WRITES = (
    ENDS
    | DELETIONS
    | {
        RETRYABLE,
        "RerunJob",
        "CreateJob",
        "StartJob",
        "CancelJob",
        "SealGroup",
        "UpdateJob",
        "ClaimJobs",
        "Work",
        "UpdateProgress",
        "ReleaseJob",
        "CreateAsset",
    }
)


@dataclass(frozen=True, slots=True)
class Summary:
    """The counts of a run.

    `changes` are acknowledged ones while there was load, `attempts` those that ended, by outcome,
    `unused` the kinds of updates that no worker sent, `not_made` the calls that no client made.
    """

    seconds: float
    changes: int
    unknown: int
    refused: int
    jobs: int
    deleted: int
    repeated: int
    deliveries: int
    streams: int
    resumed: int
    attempts: Counter[str]
    faults: Counter[str]
    refusals: Counter[str]
    recounts: int
    starts: int
    keyed: int
    settings: int
    unused: Sequence[str]
    not_made: Sequence[str]
    recoveries: Mapping[str, Sequence[float | None]]

    @property
    def rate(self) -> float:
        return self.changes / self.seconds

    @property
    def void(self) -> bool:
        return self.rate < LEAST_RATE


def summarize(history: History) -> Summary:
    streams = [stream for watcher in history.watchers for stream in watcher.streams]
    writes = Counter(o.outcome for o in history.operations if o.rpc in WRITES)
    changes = sum(
        o.outcome is Outcome.ACKNOWLEDGED and o.rpc in WRITES and o.answered <= history.load_ended
        for o in history.operations
    )
    return Summary(
        seconds=history.load_ended - history.load_began,
        changes=changes,
        unknown=writes[Outcome.UNKNOWN],
        refused=writes[Outcome.REFUSED],
        jobs=len(history.records),
        repeated=sum(bool(record.job.origin) for record in history.records.values()),
        deleted=sum(record.deleted for record in history.records.values()),
        deliveries=sum(m.job is not None for s in streams for m in s.messages),
        streams=len(streams),
        resumed=sum(s.after is not None or s.after_version > 0 for s in streams),
        attempts=Counter(a.outcome for r in history.records.values() for a in r.attempts),
        faults=Counter(fault.kind for fault in history.faults),
        refusals=history.refusals,
        recounts=len(history.recounts),
        starts=len(history.starts),
        keyed=sum(bool(start.key) for start in history.starts),
        settings=history.settings,
        unused=unused(history.updates),
        not_made=not_made(history.answered),
        recoveries=_recoveries(history),
    )


def _recoveries(history: History) -> dict[str, list[float | None]]:
    """Return for each kind of failure how long each watcher that felt it took to recover.

    It has recovered when it receives a change that was requested after the failure (see
    `Fault.recovers_from`). Only failures that came alone count; None if the next one
    began before that, or the load ended.
    """
    timeline = Timeline(history)
    recoveries: dict[str, list[float | None]] = defaultdict(list)
    for fault in history.faults:
        later = [f.began for f in history.faults if f.began > fault.recovers_from]
        # Without load there is nothing to receive.
        too_late = min([history.load_ended, *later])
        for watcher in history.watchers:
            if fault.alone and not watcher.job_id and _feels(watcher, fault):
                at = _told_again(watcher, fault.recovers_from, timeline)
                recovered = at - fault.recovers_from if at < too_late else None
                recoveries[fault.kind].append(recovered)
    return recoveries


def _feels(watcher: Watcher, fault: Fault) -> bool:
    return any(
        stream.replica in fault.replicas
        and stream.opened < fault.began
        and (stream.closed is None or stream.closed > fault.began)
        for stream in watcher.streams
    )


def _told_again(watcher: Watcher, since: float, timeline: Timeline) -> float:
    """Return when the watcher first received a change that was requested after `since`."""
    for stream in watcher.streams:
        if stream.closed is not None and stream.closed < since:
            continue
        for message in stream.messages:
            job = message.job
            if job is None or message.at <= since:
                continue
            if timeline.not_before(job.job_id, job.version) > since:
                return message.at
    return float("inf")


def describe(summary: Summary, violations: Mapping[Promise, Sequence[Violation]]) -> str:
    """Return the whole in words, a line each."""
    kinds = Counter(v.kind for found in violations.values() for v in found)
    written = f"{summary.changes:,} acknowledged in {summary.seconds:.0f} s, {summary.rate:.0f}/s"
    told = f"{summary.deliveries:,}, {summary.deliveries / summary.seconds:.0f}/s"
    counted = ", ".join(f"{kind} {kinds[kind]}" for kind in ("lost", "duplicated", "reordered"))
    queues = f"{summary.starts:,} starts, {summary.keyed:,} of them with a key"
    queues += f"; {summary.settings} changes of limits and pauses"
    lines = [
        f"changes     {written}; {summary.unknown} of unknown outcome, {summary.refused} refused",
        f"jobs        {summary.jobs:,}, {summary.deleted} deleted, {summary.repeated} repetitions",
        f"deliveries  {told}, on {summary.streams:,} streams, {summary.resumed} of them resumed",
        f"{counted}, otherwise wrong {kinds['wrong']}",
        "attempts    " + ", ".join(f"{count} {how}" for how, count in summary.attempts.items()),
        f"queues      {summary.recounts} recounts, {queues}",
        "broken      " + ", ".join(f"{p} {len(found)}" for p, found in violations.items()),
    ]
    for kind, count in sorted(summary.faults.items()):
        lines.append(f"{kind:20} {count:3} times; {_recovered(summary.recoveries.get(kind, ()))}")
    if summary.unused:
        lines.append(f"no worker has sent: {', '.join(summary.unused)}")
    if summary.not_made:
        lines.append(f"no client has made: {', '.join(summary.not_made)}")
    refusals = ", ".join(f"{count} x {what}" for what, count in summary.refusals.most_common())
    lines.append(f"not answered, or refused: {refusals}")
    shown: Counter[tuple[Promise, Kind]] = Counter()
    for violation in (v for found in violations.values() for v in found):
        shown[violation.promise, violation.kind] += 1
        if shown[violation.promise, violation.kind] <= SHOWN:
            lines.append(f"NOT {violation.promise}: {violation.kind}: {violation.what}")
    return "\n".join(lines)


def _recovered(samples: Sequence[float | None]) -> str:
    seconds = [sample for sample in samples if sample is not None]
    if not seconds:
        return "felt by no watcher while nothing else was broken"
    words = (
        f"recovered in {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s "
        f"({len(seconds)} watchers)"
    )
    overtaken = len(samples) - len(seconds)
    return (
        f"{words}; {overtaken} did not recover before the next failure or the end"
        if overtaken
        else words
    )
