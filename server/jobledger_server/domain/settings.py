"""Settings: every request of an operator to change what operators set.

That is pauses, limits, defaults of job types, and the key of watch tokens.
"""

from msgspec import Struct

from jobledger_server.domain.type_defaults import TypeDefaults


class PauseType(Struct, frozen=True):
    """Let no job of a type start. It keeps an earlier pause."""

    job_type: str
    reason: str
    actor: str


class ResumeType(Struct, frozen=True):
    """End the pause of a job type, if it is paused."""

    job_type: str


class SetLimit(Struct, frozen=True):
    """Set the limit of a concurrency key, or of all keys that begin with it and a `:`.

    None removes it.
    """

    name: str
    max_running: int | None


class PauseKey(Struct, frozen=True):
    """Let no job with such a key start. It keeps an earlier pause."""

    name: str
    reason: str
    actor: str


class ResumeKey(Struct, frozen=True):
    """End the pause of a name of keys, if it is paused."""

    name: str


class SetTypeDefaults(Struct, frozen=True):
    """Replace the defaults of a job type. It has none if they are NO_DEFAULTS."""

    job_type: str
    defaults: TypeDefaults


class RevokeWatchTokens(Struct, frozen=True):
    """Make all watch tokens invalid."""


Setting = (
    PauseType | ResumeType | SetLimit | PauseKey | ResumeKey | SetTypeDefaults | RevokeWatchTokens
)
