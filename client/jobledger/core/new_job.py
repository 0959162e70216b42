"""What a job is created from, where many are created at once."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

from jobledger.core.conversion import JsonObject


@dataclass(frozen=True, slots=True)
class NewJob:
    """One job for create_jobs(); the fields are the arguments of create_job().

    Args:
        job_type: 1 to 50 characters: letters, digits, `.`, `_` and `-`.
        parameters: the input: a JSON object of at most 256 KiB.
        labels: at most 32 key-value pairs of your own.
        request_id: 1 to 128 characters. The same id with the same content returns the job that
            exists. Default: a new one for each call.
        max_attempts: how many attempts may be lost, 1 to 1000; 0, the default, leaves it to the
            server: 1.
        queue_timeout: seconds, or a timedelta, that the job may wait for a worker. Default: 7 days.
        run_timeout: seconds, or a timedelta, from its first start to its terminal state. Default:
            no limit.
        stall_timeout: seconds, or a timedelta, that an attempt may go without progress. Default:
            no limit.
    """

    job_type: str
    parameters: JsonObject | None = None
    _: KW_ONLY
    labels: Mapping[str, str] | None = None
    request_id: str | None = None
    max_attempts: int = 0
    queue_timeout: float | timedelta | None = None
    run_timeout: float | timedelta | None = None
    stall_timeout: float | timedelta | None = None
