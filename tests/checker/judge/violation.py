"""A promise that was broken, and how."""

from dataclasses import dataclass
from typing import Literal

Promise = Literal[
    "ordered",
    "unique",
    "reliable",
    "resumable",
    "atomic",
    "terminal",
    "kept",
    "cancelled",
    "attempts",
    "views",
    "scheduled",
    "retried",
    "checkpoints",
    "repeated",
    "removed",
    "counted",
    "limited",
    "unblocked",
    "fair",
    "single",
    "webhooks",
    "defaults",
    "permitted",
    "output",
    "grouped",
]
Kind = Literal["lost", "duplicated", "reordered", "wrong"]


@dataclass(frozen=True, slots=True)
class Violation:
    """`what` says which client received what, for people."""

    promise: Promise
    kind: Kind
    what: str
