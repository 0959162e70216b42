"""The audit log: which identity changed which job, pause, limit or default, and who was denied.

It has no parameters, results or tokens. Lines are queued like all lines of the log, so no
call waits for them. The log limits the rate of lines with a `count`, for each caller.
"""

import logging
from collections.abc import Mapping, Sequence

from msgspec.structs import asdict

from jobledger_server.admission.caller import Caller
from jobledger_server.domain.commands import (
    AppendOutput,
    Cancel,
    ChangeStatus,
    Command,
    Create,
    CreateAll,
    Delete,
    Expire,
    LinkAsset,
    PassOn,
    Purge,
    Release,
    Report,
    Seal,
    Update,
)
from jobledger_server.domain.job import is_id
from jobledger_server.domain.settings import (
    PauseKey,
    PauseType,
    ResumeKey,
    ResumeType,
    RevokeWatchTokens,
    SetLimit,
    Setting,
    SetTypeDefaults,
)
from jobledger_server.ledger.allocation import Allocation
from jobledger_server.ledger.ledger import Outcome
from jobledger_server.rpc.access.permissions import AccessDenied, Unauthenticated
from jobledger_server.rpc.status import printed, reason_of

log = logging.getLogger("jobledger.audit")

CHANGES: Mapping[type, str | None] = {
    Create: "create",
    CreateAll: "create",
    Allocation: "claim",
    Cancel: "cancel",
    Update: "update",
    Delete: "delete",
    Seal: "seal",
    ChangeStatus: "change_status",
    LinkAsset: "link_asset",
    Release: "release",
    # Reports and output are far too many, and change no state.
    Report: None,
    AppendOutput: None,
    # The service's own.
    Expire: None,
    PassOn: None,
    Purge: None,
}
"""The names of commands in the audit log. None: it has none of these."""

SETTINGS: Mapping[type, str] = {
    PauseType: "pause_job_type",
    ResumeType: "resume_job_type",
    SetLimit: "set_concurrency_limit",
    SetTypeDefaults: "set_job_type_defaults",
    PauseKey: "pause_concurrency_key",
    ResumeKey: "resume_concurrency_key",
    RevokeWatchTokens: "revoke_watch_tokens",
}
"""The names of settings in the audit log."""

RERUN = "rerun"
"""The name of a creation that runs a job again."""


def audit(caller: Caller, command: Command | Allocation, outcome: Outcome) -> None:
    """Log what a caller's command has changed, or that it was refused. Observes the ledger."""
    change = CHANGES[type(command)]
    if isinstance(command, Create) and command.origin_job_id is not None:
        change = RERUN
    if change is None or not caller.identity:
        return
    if not isinstance(outcome, Exception):
        if outcome:  # else a claim that found no job
            _log(caller, change, outcome, jobs=[decision.job.id for decision in outcome])
    elif not isinstance(command, Allocation):
        _log(caller, change, outcome, jobs=_named(command))


def audit_setting(caller: Caller, setting: Setting, outcome: object) -> None:
    """Log what an operator has set, or that it was refused."""
    if not caller.identity:
        return
    facts: dict[str, object] = {}
    if isinstance(setting, PauseType | ResumeType | SetTypeDefaults):
        facts["job_type"] = setting.job_type
    elif not isinstance(setting, RevokeWatchTokens):
        facts["concurrency_key"] = printed(setting.name)
    if isinstance(setting, SetLimit):
        facts["max_running"] = setting.max_running
    if isinstance(setting, SetTypeDefaults):
        said = asdict(setting.defaults).items()
        facts["defaults"] = {name: value for name, value in said if value is not None}
    _log(caller, SETTINGS[type(setting)], outcome, **facts)


def audit_denial(method: str, caller: str, error: Exception) -> None:
    """Log that a caller was denied a call: what is wrong with its identity, or its rule lacks.

    A caller without an identity is its address. There can be any number of them, so after some they
    share a line; no caller with an identity shares one.
    """
    facts: dict[str, str | int] = {
        "address" if isinstance(error, Unauthenticated) else "caller": caller,
        "method": method,
        "outcome": reason_of(error),
        "count": 1,
    }
    if isinstance(error, Unauthenticated):
        facts["kind"] = error.fault
    elif isinstance(error, AccessDenied):
        facts |= {"missing": error.key, "value": printed(error.value)}
    log.warning("denied", extra=facts)


def _log(caller: Caller, change: str, outcome: object, **facts: object) -> None:
    facts = {"caller": caller.identity, "change": change, **facts}
    if isinstance(outcome, Exception):
        facts |= {"outcome": reason_of(outcome), "count": 1}
    else:
        facts["outcome"] = "OK"
    log.info("change", extra=facts)


def _named(command: Command) -> Sequence[str]:
    """Return the job that a command names. What is no id is not logged: it can be anything."""
    if isinstance(command, CreateAll):
        return []
    named = command.origin_job_id if isinstance(command, Create) else command.job_id
    return [named] if named is not None and is_id(named) else []
