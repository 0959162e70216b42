"""Tables within pages: the settings, the limits of requests, the error reasons."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from jobledger.core.metrics import Metric
from jobledger.v1.job_service_pb2 import CreateJobRequest
from jobledger.worker.metrics import METRICS as WORKER_METRICS
from jobledger_gateway.metrics import METRICS as GATEWAY_METRICS
from jobledger_server.cli.durations import duration_text
from jobledger_server.cli.options import DATABASE_SETTINGS
from jobledger_server.domain import limits
from jobledger_server.domain.queues import MAX_RUNNING
from jobledger_server.metrics import METRICS
from jobledger_server.settings import Setting, all_settings
from scripts.reference import grpc_api


def settings_rows() -> Iterable[tuple[str, ...]]:
    """Return the rows of the table of settings."""
    for setting in (*DATABASE_SETTINGS, *all_settings()):
        flag = f"`{setting.flag}`"
        if setting.kind == "switch":
            flag += f", `--no-{setting.flag.removeprefix('--')}`"
        yield flag, f"`{setting.variable}`", _default(setting), setting.help


def _default(setting: Setting) -> str:
    match setting.kind:
        case _ if setting.default is None:
            return setting.none
        case "duration":
            return f"`{duration_text(setting.default)}`"
        case "schemes":
            return ", ".join(f"`{word}`" for word in sorted(setting.default))
        case "switch":
            return "on" if setting.default else "off"
        case "count" | "fraction":
            return str(setting.default)
        case _:
            return f"`{setting.default}`"


def limits_rows() -> Iterable[tuple[str, ...]]:
    """Return the rows of the table of limits."""
    structs = f"{_bytes(limits.MAX_STRUCT_BYTES)}, {limits.MAX_STRUCT_DEPTH} levels deep"
    checkpoint = f"{_bytes(limits.MAX_CHECKPOINT_BYTES)}, {limits.MAX_STRUCT_DEPTH} levels deep"
    shortest = f"{limits.MIN_BACKOFF_SECONDS}s"
    labels = (
        f"{limits.MAX_LABELS}; keys of {limits.MAX_LABEL_KEY_CHARACTERS}, "
        f"values of {limits.MAX_LABEL_VALUE_CHARACTERS} characters"
    )
    return (
        ("`user_id`, `worker_id`, `request_id`", _characters(limits.MAX_NAME_CHARACTERS)),
        ("`job_type`", _characters(limits.MAX_JOB_TYPE_CHARACTERS)),
        ("`parameters`, `result`, `error.details`, each", structs),
        ("`labels`", labels),
        ("`priority`", f"0 to {limits.MAX_PRIORITY}"),
        (
            f"{_of_creations('_key')}, `name` of a limit",
            _characters(limits.MAX_NAME_CHARACTERS),
        ),
        (
            "`progress_message`, `reason` of a cancellation or a pause",
            _characters(limits.MAX_MESSAGE_CHARACTERS),
        ),
        ("`error.reason`", _characters(limits.MAX_ERROR_REASON_CHARACTERS)),
        ("`error.message`", _characters(limits.MAX_ERROR_MESSAGE_CHARACTERS)),
        ("`asset_type`", _characters(limits.MAX_ASSET_TYPE_CHARACTERS)),
        ("`url`", _characters(limits.MAX_URL_CHARACTERS)),
        ("`storage_path`", _characters(limits.MAX_STORAGE_PATH_CHARACTERS)),
        ("`name` of an asset", _characters(limits.MAX_ASSET_NAME_CHARACTERS)),
        ("`sha256`", "64 hexadecimal digits"),
        ("`etag`", _characters(limits.MAX_ETAG_CHARACTERS)),
        ("`assets` of a report", str(limits.MAX_ASSETS)),
        ("jobs of BatchCreateJobs", str(limits.MAX_CREATIONS)),
        ("`group_id`", _characters(limits.MAX_ID_CHARACTERS)),
        ("jobs of a group", f"{limits.MAX_CHILDREN:,}; {limits.MAX_GROUP_LEVELS} levels deep"),
        ("`checkpoint`", checkpoint),
        ("`max_attempts`", str(limits.MAX_ATTEMPTS)),
        (
            "`initial_backoff`",
            f"{duration_text(limits.MAX_INITIAL_BACKOFF_SECONDS)}; at least {shortest}",
        ),
        (
            "`max_backoff`",
            f"{duration_text(limits.MAX_BACKOFF_SECONDS)}; at least `initial_backoff`",
        ),
        (
            "`backoff_multiplier`",
            f"{limits.MAX_BACKOFF_MULTIPLIER}; at least {limits.MIN_BACKOFF_MULTIPLIER}",
        ),
        (
            "`retry_delay`, `delay` of a release or a creation, `schedule_time` from now",
            duration_text(limits.MAX_DELAY_SECONDS),
        ),
        (
            _of_creations("_timeout"),
            _range(limits.MIN_TIMEOUT_SECONDS, limits.MAX_TIMEOUT_SECONDS),
        ),
        ("`lease_duration`", _range(limits.MIN_LEASE_SECONDS, limits.MAX_LEASE_SECONDS)),
        ("`ttl` of a watch token", _range(1, limits.MAX_WATCH_TOKEN_SECONDS)),
        ("`max_jobs` of a claim", str(limits.MAX_CLAIMED_JOBS)),
        ("`wait` of a claim", duration_text(limits.MAX_CLAIM_WAIT_SECONDS)),
        (
            "`job_types`, `statuses`, `phases`",
            f"{limits.MAX_JOB_TYPES}, {limits.MAX_STATUSES}, {limits.MAX_PHASES} entries",
        ),
        ("`error_reasons`", f"{limits.MAX_ERROR_REASONS} entries"),
        ("`job_ids`", f"{limits.MAX_JOB_IDS} entries"),
        ("`max_jobs` of RerunJobs, CancelJobs, DeleteJobs", str(limits.MAX_BULK_JOBS)),
        (
            "`jobs_per_second` of RerunJobs",
            f"{limits.MAX_JOBS_PER_SECOND}; at least {limits.MIN_JOBS_PER_SECOND}",
        ),
        ("`max_running`", f"{MAX_RUNNING:,}"),
        ("`page_size`", f"{limits.MAX_PAGE_SIZE}; a higher one is lowered"),
        ("`filter` of ListOperations", _characters(limits.MAX_FILTER_CHARACTERS)),
    )


def _of_creations(ending: str) -> str:
    """Return the fields of a creation that have one rule, by the end of their names."""
    names = CreateJobRequest.DESCRIPTOR.fields_by_name
    return ", ".join(f"`{name}`" for name in names if name.endswith(ending))


def _characters(number: int) -> str:
    return f"{number} characters"


def _bytes(number: int) -> str:
    return f"{number // 1024} KiB"


def _range(shortest: int, longest: int) -> str:
    return f"{duration_text(longest)}; at least {duration_text(shortest)}"


def reason_rows() -> Iterable[tuple[str, ...]]:
    """Return the rows of the table of error reasons, from the comments of their enum."""
    (file,) = (f for f in grpc_api.files() if f.name.endswith("/error_reason.proto"))
    values = file.enum_type[0].value
    for location in file.source_code_info.location:
        if len(location.path) == 4 and location.path[3]:  # noqa: PLR2004 - a value of the enum
            name = values[location.path[3]].name.removeprefix("ERROR_REASON_")
            comment = grpc_api.prose(location.leading_comments)
            code, _, meaning = comment.partition(": ")
            yield f"`{name}`", code, meaning[0].upper() + meaning[1:]


def metrics_rows() -> Iterable[tuple[str, ...]]:
    """Return the rows of the table of metrics."""
    for metric in METRICS:
        labels = ", ".join(f"`{label.replace('.', '_')}`" for label in metric.labels)
        names = f"`{metric.prometheus_name}`", f"`{metric.name}`"
        yield *names, metric.kind, labels or "none", metric.description


def other_metrics_rows(metrics: Iterable[Metric[Any]]) -> Iterable[tuple[str, ...]]:
    """Return the rows of a table of metrics that exist in Prometheus alone."""
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"`{metric.name}`", metric.kind, labels or "none", metric.description


def with_table(page: str, head: str, rows: Iterable[tuple[str, ...]]) -> str:
    """Return the page with the rows of the table that has this head."""
    before, _, rest = page.partition(head)
    _, _, after = rest.partition("\n\n")
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{before}{head}{table}\n\n{after}"


Table = tuple[str, Callable[[], Iterable[tuple[str, ...]]]]

TABLES: Mapping[str, Sequence[Table]] = {
    "settings.md": [
        ("| flag | variable | default | meaning |\n| --- | --- | --- | --- |\n", settings_rows)
    ],
    "limits.md": [("| in a request | at most |\n| --- | --- |\n", limits_rows)],
    "metrics.md": [
        (
            (
                "| in Prometheus | in OpenTelemetry | type | labels | meaning |\n"
                "| --- | --- | --- | --- | --- |\n"
            ),
            metrics_rows,
        ),
        (
            "| of the gateway | type | labels | meaning |\n| --- | --- | --- | --- |\n",
            partial(other_metrics_rows, GATEWAY_METRICS),
        ),
        (
            "| of a worker | type | labels | meaning |\n| --- | --- | --- | --- |\n",
            partial(other_metrics_rows, WORKER_METRICS),
        ),
    ],
    "errors.md": [("| reason | code | meaning |\n| --- | --- | --- |\n", reason_rows)],
}
"""Of each page, the heads of its tables and what makes the rows."""
