"""A small history made by hand that keeps every promise, to be spoilt in one way at a time."""

from dataclasses import replace

from tests.checker.history import (
    Attempt,
    History,
    Message,
    Operation,
    Outcome,
    Place,
    Record,
    Snapshot,
    Step,
    Stream,
    Watcher,
)

START = {"a": Step(2, "QUEUED", "PROCESSING"), "b": Step(2, "QUEUED", "PROCESSING")}
END = {"a": Step(5, "PROCESSING", "COMPLETED"), "b": Step(4, "PROCESSING", "FAILED")}


def job(job_id: str, version: int, status: str = "PROCESSING") -> Snapshot:
    content = f"{job_id} {version} {status}".encode()
    return Snapshot(
        job_id,
        version,
        status,
        attempt=min(1, version - 1),
        content=content,
        worker="w" if version > 1 else "",
        held=status == "PROCESSING",
    )


A1, A2, A3, A4, A5 = (
    job("a", 1, "QUEUED"),
    job("a", 2),
    job("a", 3),
    job("a", 4),
    job("a", 5, "COMPLETED"),
)
B1, B2, B3, B4 = job("b", 1, "QUEUED"), job("b", 2), job("b", 3), job("b", 4, "FAILED")
FULL = {
    "a": replace(A5, parameters="create a", result="end a"),
    "b": replace(B4, parameters="create b", result="end b", details="end b"),
}
"""The jobs as they are read in full when all is over."""

MADE = {
    "a": (Attempt(1, "w", "COMPLETED", 5.5, progress=100),),
    "b": (Attempt(1, "w", "FAILED", 4.5, reason="BROKEN"),),
}
"""Their attempts."""


def given(shown: Snapshot, mark: str) -> Snapshot:
    """Return a job as its worker received it."""
    return replace(shown, parameters=mark)


def done(rpc: str, sent: float, shown: Snapshot, **fields: object) -> Operation:
    """Return what was asked for at a time and acknowledged half a second later."""
    return Operation(
        **{
            "rpc": rpc,
            "sent": sent,
            "answered": sent + 0.5,
            "outcome": Outcome.ACKNOWLEDGED,
            "job_id": shown.job_id,
            "told": shown,
            "changed": True,
            **fields,
        }
    )


def story() -> History:
    """Two jobs, one after the other step by step; `a` completes with an asset, `b` is deleted.

    Three watch: `all` resumes once, `other` never, and `one` watches `a` in full and resumes once.
    """
    operations = [
        done("CreateJob", 1, A1, mark="create a"),
        done("CreateJob", 2, B1, mark="create b"),
        done("ClaimJobs", 3, given(A2, "create a")),
        done("ClaimJobs", 4, given(B2, "create b")),
        done("UpdateProgress", 5, A3),
        done("UpdateProgress", 6, B3),
        done("CreateAsset", 7, A4, mark="x", assets=("x",), told=None, changed=False),
        done("MarkFailed", 8, B4, mark="end b"),
        done("MarkCompleted", 9, A5, mark="end a", assets=("y", "z")),
        done("DeleteJob", 10, B4, told=None, changed=False),
    ]
    return History(
        operations=operations,
        watchers=[_all(), _other(), _one()],
        records={
            "a": Record(
                FULL["a"],
                (START["a"], END["a"]),
                ("x", "y", "z"),
                MADE["a"],
                "create a",
                "end a",
            ),
            "b": Record(
                FULL["b"],
                (START["b"], END["b"]),
                (),
                MADE["b"],
                "create b",
                "end b",
                deleted=True,
            ),
        },
        load_began=0.0,
        load_ended=11.0,
    )


def _all() -> Watcher:
    first = Stream(
        opened=0.1,
        messages=[
            Message(0.2, synced=True),
            Message(1.6, A1),
            Message(2.6, B1),
            Message(3.6, A2, (START["a"],)),
            Message(4.6, B2, (START["b"],)),
        ],
        end="UNAVAILABLE",
    )
    second = Stream(
        opened=5.2,
        after=Place(0, 4),
        messages=[
            Message(5.6, A3),
            Message(5.7, synced=True),
            Message(6.6, B3),
            Message(7.6, A4),
            Message(8.6, B4, (END["b"],)),
            Message(9.6, A5, (END["a"],)),
            Message(10.6, replace(B4, version=5, content=b""), deleted=True),
        ],
        end="left",
    )
    return Watcher("all", streams=[first, second])


def _other() -> Watcher:
    messages = [m for s in _all().streams for m in s.messages if m.job is not None]
    start = Message(0.3, synced=True)
    return Watcher("other", streams=[Stream(0.1, messages=[start, *messages], end="left")])


def _one() -> Watcher:
    begin = given(A1, "create a")
    first = Stream(2.1, messages=[Message(2.2, begin), Message(3.7, A2, (START["a"],))], end="left")
    second = Stream(
        4.1,
        after_version=2,
        messages=[
            Message(4.2, given(A2, "create a")),
            Message(5.1, heartbeat=True),
            Message(5.7, A3),
            Message(9.7, replace(A5, result="end a"), (END["a"],)),
        ],
        end="OK",
    )
    return Watcher("one", job_id="a", full=True, streams=[first, second])
