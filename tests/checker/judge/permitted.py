"""Callers of whom an access file says what they may choose, and the judge of what they got."""

from collections.abc import Iterator

from jobledger.v1 import job_service_pb2 as pb
from tests.checker.history import History, Outcome
from tests.checker.judge.violation import Violation
from tests.support.access_file import rule

ANYBODY = "anybody"
"""The token of all clients but one: they may do everything."""

CHOOSER = "chooser"
"""The token of one that creates jobs, and may not choose everything for them."""

CHOOSES = "writer-0"

MAX_PRIORITY, KEY, PREFIX, TYPES = 5, "one", "s3:", ("render", "encode")

RULES = "".join(
    (
        rule(
            ANYBODY,
            'roles = ["owner", "worker", "operator"]\nusers = ["*"]\njob_types = ["*"]',
        ),
        rule(
            CHOOSER,
            f'roles = ["owner"]\nusers = ["*"]\nfairness = "owner"\nmax_priority = {MAX_PRIORITY}\n'
            f'concurrency_keys = ["{KEY}", "{PREFIX}*"]\n'
            f"create_types = {list(TYPES)}",
        ),
    )
)
"""Of the access file."""


def token_of(client: str) -> str:
    """Return the token that a client of the load calls with."""
    return CHOOSER if client == CHOOSES else ANYBODY


def beyond(request: pb.CreateJobRequest) -> str:
    """Name what in a request the chooser may not choose; empty if it may have all of it."""
    if request.job_type not in TYPES:
        return f"create_types: {request.job_type}"
    if request.fairness_key not in ("", request.user_id):
        return f"fairness: {request.fairness_key}"
    if request.priority > MAX_PRIORITY:
        return f"max_priority: {request.priority}"
    key = request.concurrency_key
    if key not in ("", KEY) and not key.startswith(PREFIX):
        return f"concurrency_keys: {key}"
    return ""


def check_permitted(history: History) -> Iterator[Violation]:
    """Nothing is created beyond what its creator may choose."""
    made = {record.created_by: job_id for job_id, record in history.records.items()}
    for operation in history.operations:
        accepted = operation.outcome is Outcome.ACKNOWLEDGED
        if operation.beyond and (accepted or operation.mark in made):
            what = f"{operation.mark} was created with {operation.beyond}"
            yield Violation("permitted", "wrong", what)
