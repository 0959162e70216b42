"""Messages of WatchJobs, taken apart: one event for each change, or for `synced` or a heartbeat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc


@dataclass(frozen=True)
class Event:
    job: Any = None
    transitions: Sequence[Any] = ()
    deleted: bool = False
    synced: bool = False
    heartbeat: bool = False
    resume_token: str = ""
    """Of the last event of a message; the others have none."""


def events(message: Any) -> list[Event]:
    """Return what a message says, in order."""
    assert message is not grpc.aio.EOF
    *first, last = message.changes.changes or [None]
    content = message.WhichOneof("content")
    assert content == ("changes" if last else "synced" if message.synced else "heartbeat")
    assert message.resume_token
    assert last or message.synced or message.heartbeat
    found = [Event(each.job, each.transitions, each.deleted) for each in first]
    token = message.resume_token
    if last is None:
        found.append(Event(synced=message.synced, heartbeat=message.heartbeat, resume_token=token))
    else:
        found.append(Event(last.job, last.transitions, last.deleted, resume_token=token))
    return found
