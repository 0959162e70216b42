"""How the command line shows the service's messages: JSON for scripts, tables for eyes."""

from collections.abc import Sequence
from datetime import UTC
from typing import Final

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1.asset_pb2 import Asset
from jobledger.v1.job_pb2 import Job, JobStatus, JobTransition

_ID: Final = 36
_STATUS: Final = 10

# Fixed widths, so that rows can be shown while more are still being fetched;
# what has no limit worth keeping comes last.
JOB_COLUMNS: Final = (("ID", _ID), ("STATUS", _STATUS), ("PROGRESS", 8), ("CREATED", 20))
TRANSITION_COLUMNS: Final = (
    ("TIME", 27),
    ("FROM", _STATUS),
    ("TO", _STATUS),
    ("VERSION", 7),
    ("ATTEMPT", 7),
)
ASSET_COLUMNS: Final = (("ID", _ID), ("SIZE", 12), ("TYPE", 24))


def to_json(message: Message) -> str:
    """One line of proto3 JSON with the names of the protos; plain fields always present."""
    return MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=None,
    )


def row(columns: Sequence[tuple[str, int]], cells: Sequence[str], last: str) -> str:
    padded = [clean(cell).ljust(width) for cell, (_, width) in zip(cells, columns, strict=True)]
    return "  ".join([*padded, clean(last)]).rstrip()


def header(columns: Sequence[tuple[str, int]], last: str) -> str:
    return row(columns, [name for name, _ in columns], last)


def job_row(job: Job) -> str:
    cells = (job.id, status_name(job.status), f"{job.progress} %", _time(job.create_time))
    return row(JOB_COLUMNS, cells, job.job_type)


def transition_row(step: JobTransition) -> str:
    cells = (
        _time(step.time, "microseconds"),
        status_name(step.from_status),
        status_name(step.to_status),
        str(step.version),
        str(step.attempt),
    )
    return row(TRANSITION_COLUMNS, cells, f"{step.actor}  {step.reason}")


def asset_row(asset: Asset) -> str:
    cells = (asset.id, str(asset.file_size), asset.asset_type)
    return row(ASSET_COLUMNS, cells, "  ".join(filter(None, (asset.url, asset.storage_path))))


def job_card(job: Job) -> list[str]:
    """Lay out a whole job as `name  value` lines; what is unset has none."""
    facts = [
        ("id", job.id),
        ("type", job.job_type),
        ("status", status_name(job.status)),
        ("progress", f"{job.progress} %  {job.progress_message}"),
        ("owner", job.user_id),
        ("labels", "  ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))),
        ("attempt", str(job.attempt)),
        ("worker", job.worker_id),
        ("created", _time(job.create_time)),
        ("started", _time(job.start_time) if job.HasField("start_time") else ""),
        ("updated", _time(job.update_time)),
        ("ended", _time(job.complete_time) if job.HasField("complete_time") else ""),
        ("version", str(job.version)),
        ("parameters", to_json(job.parameters) if job.parameters.fields else ""),
        ("result", to_json(job.result) if job.HasField("result") else ""),
        ("error", f"{job.error.reason}: {job.error.message}" if job.HasField("error") else ""),
        ("details", to_json(job.error.details) if job.error.HasField("details") else ""),
    ]
    return [f"{name:<10}  {clean(value).strip()}" for name, value in facts if value]


def job_words(job: Job) -> str:
    """Tell what the job says of itself: its error, or the last message of its worker."""
    return (
        f"{job.error.reason}: {job.error.message}"
        if job.HasField("error")
        else job.progress_message
    )


def short_id(job: Job) -> str:
    """For narrow terminals; the end of an id is its random part."""
    return f"\N{HORIZONTAL ELLIPSIS}{job.id[-12:]}"


def status_name(status: JobStatus.ValueType) -> str:
    try:
        return JobStatus.Name(status).removeprefix("JOB_STATUS_")
    except ValueError:  # of a newer service
        return str(status)


def clean(text: str) -> str:
    """Make text from elsewhere safe to show: it could carry a terminal's control sequences."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _time(moment: Timestamp, precision: str = "seconds") -> str:
    text = moment.ToDatetime(tzinfo=UTC).isoformat(timespec=precision)
    return text.replace("+00:00", "Z")
