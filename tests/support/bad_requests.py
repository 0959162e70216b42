"""Requests that break a rule: each method, its fields, the invalid field, words about it."""

import math
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from tests.support.rpc_caller import COMPLETED, FAILED, PROCESSING, QUEUED

CREATE = {"user_id": "ada", "job_type": "render"}
JOB_OF = {"job_type": "t", "group_index": 0}
FENCED = {"job_id": "j", "attempt": 1}
ASSET = {"asset_type": "image/png", "url": "https://e.example/a.png", "file_size": 1}


def struct(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


def seconds(value: int) -> Duration:
    return Duration(seconds=value)


NO_KIND = Struct(fields={"a": Value()})
NO_KIND_IN_LIST = Struct(fields={"a": Value(list_value=ListValue(values=[Value()]))})

JOBS: list[tuple[dict[str, Any], str]] = [
    ({"user_id": ""}, "user_id"),
    ({"user_id": "x" * 129}, "user_id"),
    ({"user_id": "a\nb"}, "user_id"),
    ({"user_id": "a\0b"}, "user_id"),
    ({"user_id": "a\x9fb"}, "user_id"),
    ({"job_type": ""}, "job_type"),
    ({"job_type": "x" * 51}, "job_type"),
    ({"job_type": "-x"}, "job_type"),
    ({"job_type": "a b"}, "job_type"),
    ({"job_type": "a\n"}, "job_type"),
    ({"request_id": "x" * 129}, "request_id"),
    ({"request_id": "\x7f"}, "request_id"),
    ({"labels": {str(i): "" for i in range(33)}}, "labels"),
    ({"labels": {"x" * 64: ""}}, "labels"),
    ({"labels": {'a"b': ""}}, "labels"),
    ({"labels": {"a": "x" * 256}}, "labels['a']"),
    ({"labels": {"a": "\0"}}, "labels['a']"),
    ({"parameters": struct(a=math.nan)}, "parameters"),
    ({"parameters": struct(a=[math.inf])}, "parameters"),
    ({"parameters": struct(a={"b": "\0"})}, "parameters"),
    ({"parameters": struct(**{"\0": 1})}, "parameters"),
    ({"parameters": struct(a="x" * 262_144)}, "parameters"),
    ({"parameters": NO_KIND}, "parameters"),
    ({"parameters": NO_KIND_IN_LIST}, "parameters"),
    *(
        ({"retry_policy": policy}, f"retry_policy.{next(iter(policy))}")
        for policy in (
            {"max_attempts": -1},
            {"max_attempts": 1001},
            {"initial_backoff": Duration()},
            {"initial_backoff": Duration(nanos=99_999_999)},
            {"initial_backoff": seconds(86_401)},
            {"initial_backoff": Duration(seconds=86_400, nanos=1)},
            {"initial_backoff": seconds(-1)},
            {"initial_backoff": Duration(seconds=1, nanos=-1)},  # malformed
            {"initial_backoff": Duration(seconds=1, nanos=10**9)},  # malformed
            {"max_backoff": Duration(nanos=999_999_999)},  # less than the first
            {"max_backoff": seconds(4), "initial_backoff": seconds(5)},
            {"max_backoff": seconds(7 * 86_400 + 1)},
            {"backoff_multiplier": 0.99},
            {"backoff_multiplier": 100.1},
            {"backoff_multiplier": -2},
            {"backoff_multiplier": math.nan},
            {"backoff_multiplier": math.inf},
        )
    ),
    ({"schedule_time": Timestamp(nanos=-1)}, "schedule_time"),
    ({"schedule_time": Timestamp(seconds=253_402_300_799)}, "schedule_time"),
    ({"delay": seconds(-1)}, "delay"),
    ({"delay": seconds(365 * 86_400 + 1)}, "delay"),
    ({"delay": seconds(1), "schedule_time": Timestamp(seconds=1)}, "delay"),
    ({"priority": -1}, "priority"),
    ({"priority": 10}, "priority"),
    ({"fairness_key": "x" * 129}, "fairness_key"),
    ({"concurrency_key": "a\n"}, "concurrency_key"),
    ({"unique_key": "\0"}, "unique_key"),
    ({"unique_key": "k", "unique_policy": 3}, "unique_policy"),
    ({"unique_policy": 1}, "unique_policy"),  # needs a unique_key
]
"""What makes a good job a bad one."""

ASSETS: list[tuple[dict[str, Any], str, str]] = [
    ({"asset_type": ""}, "asset.asset_type", "required"),
    ({"asset_type": "x" * 51}, "asset.asset_type", "51 characters"),
    ({"url": ""}, "asset.url", "required"),
    ({"url": "ftp://e.example/a"}, "asset.url", "scheme"),
    ({"url": "javascript:alert(1)"}, "asset.url", "scheme"),
    ({"url": "/relative"}, "asset.url", "absolute"),
    ({"url": "https://"}, "asset.url", "no host"),
    ({"url": "https://user:secret@e.example/a"}, "asset.url", "password"),
    ({"url": "https://user@e.example/a"}, "asset.url", "user name"),
    ({"url": "https://e.example/a b"}, "asset.url", "space"),
    ({"url": "https://e.example/a\nb"}, "asset.url", "control character"),
    ({"url": "https://[::1/a"}, "asset.url", "not a URL"),
    ({"name": "x" * 256}, "asset.name", "256 characters"),
    ({"name": "a\tb"}, "asset.name", "control character"),
    ({"sha256": "0" * 63}, "asset.sha256", "64 hexadecimal digits"),
    ({"sha256": "g" * 64}, "asset.sha256", "64 hexadecimal digits"),
    ({"etag": "x" * 256}, "asset.etag", "256 characters"),
    ({"etag": "\n"}, "asset.etag", "control character"),
    ({"url": "https://e.example:99999/"}, "asset.url", "not a URL"),
    ({"url": "https://e.example/" + "x" * 2048}, "asset.url", "2048"),
    ({"storage_path": "x" * 1025}, "asset.storage_path", "1025"),
    ({"storage_path": "a\0"}, "asset.storage_path", "control character"),
    ({"file_size": -1}, "asset.file_size", "negative"),
    ({"request_id": "\0"}, "request_id", "control character"),
]
"""What makes a good asset a bad one."""

BAD_FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"statuses": [0]}, "statuses"),
    ({"statuses": [77]}, "statuses"),
    ({"job_types": ["a b"]}, "job_types[0]"),
    ({"job_types": ["a"] * 101}, "job_types"),
    ({"labels": {"'": ""}}, "labels"),
    ({"created_after": Timestamp(seconds=2**62)}, "created_after"),
    ({"created_after": Timestamp(nanos=-1)}, "created_after"),
    ({"created_before": Timestamp(nanos=-1)}, "created_before"),
    ({"error_reasons": ["A"] * 101}, "error_reasons"),
    ({"error_reasons": ["A", "not upper"]}, "error_reasons[1]"),
    ({"error_reasons": [""]}, "error_reasons[0]"),
    ({"origin_job_id": "x" * 37}, "origin_job_id"),
    ({"unique_key": "x" * 129}, "unique_key"),
    ({"request_id": "\0"}, "request_id"),
    ({"concurrency_key": "x" * 129}, "concurrency_key"),
    ({"phases": [0]}, "phases"),
    ({"phases": [2, 77]}, "phases"),
    ({"worker_id": "x" * 129}, "worker_id"),
]
"""Filters of lists, and of the calls that change many jobs."""


def _link(changed: dict[str, Any]) -> dict[str, Any]:
    """Return the update that links an asset, with what makes it a bad one."""
    if "request_id" in changed:
        return {"asset": ASSET, **changed}
    return {"asset": {**ASSET, **changed}}


OTHERS: list[tuple[str, dict[str, Any], str]] = [
    ("GetJob", {"job_id": "", "user_id": "ada"}, "job_id"),
    ("GetJob", {"job_id": "x" * 37, "user_id": "ada"}, "job_id"),
    ("GetJob", {"job_id": "a\0", "user_id": "ada"}, "job_id"),
    ("GetJob", {"job_id": "j", "user_id": ""}, "user_id"),
    ("DeleteJob", {"job_id": "j", "user_id": ""}, "user_id"),
    ("ListAssets", {"job_id": "j", "user_id": "ada", "page_size": -1}, "page_size"),
    ("ListTransitions", {"job_id": "j", "user_id": "ada", "page_size": -1}, "page_size"),
    ("ListAttempts", {"job_id": "j", "user_id": "ada", "page_size": -1}, "page_size"),
    ("ListAttempts", {"job_id": "", "user_id": "ada"}, "job_id"),
    ("WatchOutput", {"job_id": "", "user_id": "ada"}, "job_id"),
    ("WatchOutput", {"job_id": "j", "user_id": "ada", "stream": "a b"}, "stream"),
    ("WatchOutput", {"job_id": "j", "user_id": "ada", "last_bytes": -1}, "last_bytes"),
    ("WatchOutput", {"job_id": "j", "user_id": "ada", "after_offset": -1}, "after_offset"),
    ("ReadOutput", {"job_id": "j", "user_id": ""}, "user_id"),
    ("ReadOutput", {"job_id": "j", "user_id": "ada", "stream": "x" * 65}, "stream"),
    ("ReadOutput", {"job_id": "j", "user_id": "ada", "offset": -1}, "offset"),
    ("ReadOutput", {"job_id": "j", "user_id": "ada", "last_bytes": -1}, "last_bytes"),
    ("ReadOutput", {"job_id": "j", "user_id": "ada", "max_bytes": -1}, "max_bytes"),
    ("ReadOutput", {"job_id": "j", "user_id": "ada", "max_bytes": 1024 * 1024 + 1}, "max_bytes"),
    ("ListJobs", {"user_id": "ada", "page_size": -1}, "page_size"),
    ("GetJob", {"job_id": "j", "user_id": "ada", "view": 3}, "view"),
    ("ListJobs", {"user_id": "ada", "view": 3}, "view"),
    ("BatchGetJobs", {"user_id": "ada", "job_ids": ["j"], "view": -1}, "view"),
    ("BatchGetJobs", {"job_ids": ["j"]}, "user_id"),
    ("BatchGetJobs", {"user_id": "ada"}, "job_ids"),
    ("BatchGetJobs", {"user_id": "ada", "job_ids": ["j", "i", "j"]}, "job_ids"),
    ("BatchGetJobs", {"user_id": "ada", "job_ids": [str(i) for i in range(1001)]}, "job_ids"),
    ("BatchGetJobs", {"user_id": "ada", "job_ids": ["j", ""]}, "job_ids[1]"),
    ("BatchGetJobs", {"user_id": "ada", "job_ids": ["x" * 37]}, "job_ids[0]"),
    ("UpdateJob", {"user_id": "ada", "priority": 1}, "job_id"),
    ("UpdateJob", {"job_id": "j", "priority": 1}, "user_id"),
    ("UpdateJob", {"job_id": "j", "user_id": "ada"}, "priority"),
    ("UpdateJob", {"job_id": "j", "user_id": "ada", "priority": -1}, "priority"),
    ("UpdateJob", {"job_id": "j", "user_id": "ada", "priority": 10}, "priority"),
    *(
        ("UpdateJob", {"job_id": "j", "user_id": "ada", "schedule_time": time}, "schedule_time")
        for time in (Timestamp(nanos=-1), Timestamp(seconds=4_000_000_000))
    ),
    ("RerunJob", {"user_id": "ada"}, "job_id"),
    ("RerunJob", {"job_id": "j"}, "user_id"),
    ("RerunJob", {"job_id": "j", "user_id": "ada", "request_id": "x" * 129}, "request_id"),
    *(
        (method, {"user_id": "ada", **fields}, field)
        for method in ("RerunJobs", "CancelJobs", "DeleteJobs")
        for fields, field in (
            ({"user_id": "x" * 129, "all": True}, "user_id"),
            ({"max_jobs": -1, "all": True}, "max_jobs"),
            ({"max_jobs": 1001, "all": True}, "max_jobs"),
            ({}, "filter"),
            ({"filter": {}}, "filter"),
            ({"filter": {"held": False}, "all": True}, "filter"),
        )
    ),
    *(
        (method, {"user_id": "ada", "filter": fields}, f"filter.{field}")
        for method in ("ListJobs", "RerunJobs", "CancelJobs", "DeleteJobs")
        for fields, field in BAD_FILTERS
    ),
    # Without an owner no index finds them.
    *(
        ("ListJobs", {"filter": {field: "x"}}, f"filter.{field}")
        for field in ("unique_key", "request_id")
    ),
    # States that the call cannot change.
    ("RerunJobs", {"filter": {"statuses": [FAILED, PROCESSING]}}, "filter.statuses"),
    ("CancelJobs", {"filter": {"statuses": [PROCESSING, COMPLETED]}}, "filter.statuses"),
    ("DeleteJobs", {"filter": {"statuses": [QUEUED]}}, "filter.statuses"),
    ("CancelJobs", {"reason": "x" * 513, "all": True}, "reason"),
    *(
        ("RerunJobs", {"jobs_per_second": pace, "all": True}, "jobs_per_second")
        for pace in (-1, 0.0009, 1000.1, math.nan, math.inf)
    ),
    ("UpdateProgress", {**FENCED, "progress": {"progress": 101}}, "progress.progress"),
    (
        "UpdateProgress",
        {**FENCED, "progress": {"checkpoint": struct(a=math.nan)}},
        "progress.checkpoint",
    ),
    (
        "UpdateProgress",
        {**FENCED, "progress": {"checkpoint": struct(a="x" * 65_536)}},
        "progress.checkpoint",
    ),
    ("UpdateProgress", {**FENCED, "progress": {"report_number": -1}}, "progress.report_number"),
    *(
        (
            method,
            {**FENCED, **target, "finish": {"error": {"message": "no"}, **fields}},
            "finish.retry_delay",
        )
        for method, target in (("MarkFailed", {}), ("TransitionJob", {"target_status": FAILED}))
        for fields in (
            {"retry_delay": seconds(1)},  # needs retryable
            {"retryable": True, "retry_delay": seconds(-1)},
            {"retryable": True, "retry_delay": seconds(365 * 86_400 + 1)},
        )
    ),
    (
        "TransitionJob",
        {**FENCED, "target_status": COMPLETED, "finish": {"retryable": True}},
        "finish.retryable",
    ),
    (
        "TransitionJob",
        {"job_id": "j", "target_status": 2, "finish": {"retryable": True}},
        "finish",
    ),
    # A call says its state itself.
    ("MarkCompleted", {**FENCED, "finish": {"status": FAILED}}, "finish.status"),
    ("MarkPartial", {**FENCED, "finish": {"status": COMPLETED}}, "finish.status"),
    (
        "MarkFailed",
        {**FENCED, "finish": {"status": PROCESSING, "error": {"message": "no"}}},
        "finish.status",
    ),
    (
        "TransitionJob",
        {**FENCED, "target_status": COMPLETED, "finish": {"status": FAILED}},
        "finish.status",
    ),
    ("TransitionJob", {"job_id": "j", "target_status": PROCESSING, "finish": {}}, "finish"),
    *(
        (
            "TransitionJob",
            {**FENCED, "target_status": COMPLETED, "progress": update},
            f"progress.{next(iter(update))}",
        )
        for update in ({"checkpoint": struct(a=1)}, {"report_number": 1}, {"progress": 101})
    ),
    ("ReleaseJob", {**FENCED, "release": {"delay": seconds(-1)}}, "release.delay"),
    ("ReleaseJob", {**FENCED, "release": {"delay": seconds(365 * 86_400 + 1)}}, "release.delay"),
    ("UpdateProgress", {**FENCED, "progress": {"progress": -1}}, "progress.progress"),
    (
        "UpdateProgress",
        {**FENCED, "progress": {"progress_message": "x" * 513}},
        "progress.progress_message",
    ),
    (
        "UpdateProgress",
        {**FENCED, "progress": {"progress_message": "\0"}},
        "progress.progress_message",
    ),
    *(
        ("AppendOutput", {**FENCED, "data": b"x", **fields}, next(iter(fields)))
        for fields in (
            {"job_id": ""},
            {"attempt": 0},
            {"data": b""},
            {"data": b"x" * (64 * 1024 + 1)},
            {"stream": "-log"},
            {"stream": "lo/g"},
            {"number": -1},
            {"content_type": "text"},
            {"content_type": "text/plain\n"},
            {"content_type": "text/" + "x" * 128},
        )
    ),
    ("TransitionJob", {"job_id": "j"}, "target_status"),
    ("TransitionJob", {"job_id": "j", "target_status": 9}, "target_status"),
    ("TransitionJob", {**FENCED, "target_status": FAILED}, "finish.error"),
    ("MarkFailed", FENCED, "finish.error"),
    ("UpdateProgress", {"job_id": "j"}, "attempt"),
    ("MarkCompleted", {"job_id": "j"}, "attempt"),
    ("CreateAsset", {"job_id": "j", "asset": {"asset": {**ASSET}}}, "attempt"),
    ("TransitionJob", {"job_id": "j", "target_status": COMPLETED}, "attempt"),
    ("UpdateProgress", {**FENCED, "any_attempt": True}, "any_attempt"),
    ("MarkPartial", {**FENCED, "any_attempt": True}, "any_attempt"),
    ("CreateAsset", {**FENCED, "any_attempt": True, "asset": {"asset": {**ASSET}}}, "any_attempt"),
    ("TransitionJob", {**FENCED, "target_status": COMPLETED, "any_attempt": True}, "any_attempt"),
    ("TransitionJob", {**FENCED, "target_status": PROCESSING}, "attempt"),
    (
        "TransitionJob",
        {"job_id": "j", "target_status": PROCESSING, "any_attempt": True},
        "any_attempt",
    ),
    ("ReleaseJob", {"job_id": "j"}, "attempt"),
    *(
        (
            "MarkFailed",
            {**FENCED, "finish": {"error": {"message": "no", "reason": reason}}},
            "finish.error.reason",
        )
        for reason in ("CANCELLED", "LEASE_EXPIRED", "QUEUE_EXPIRED", "RUN_EXPIRED", "STALLED")
    ),
    ("MarkFailed", {**FENCED, "finish": {"error": {}}}, "finish.error.message"),
    ("MarkFailed", {**FENCED, "finish": {"error": {"reason": "X"}}}, "finish.error.message"),
    (
        "MarkFailed",
        {**FENCED, "finish": {"error": {"message": "no", "reason": "not upper"}}},
        "finish.error.reason",
    ),
    (
        "MarkFailed",
        {**FENCED, "finish": {"error": {"message": "x" * 4097}}},
        "finish.error.message",
    ),
    (
        "MarkPartial",
        {**FENCED, "finish": {"error": {"message": "no", "details": struct(a=math.nan)}}},
        "finish.error.details",
    ),
    (
        "TransitionJob",
        {**FENCED, "target_status": COMPLETED, "finish": {"error": {"message": "no"}}},
        "finish.error",
    ),
    (
        "TransitionJob",
        {"job_id": "j", "target_status": PROCESSING, "finish": {"result": struct(a=1)}},
        "finish",
    ),
    (
        "TransitionJob",
        {"job_id": "j", "target_status": 2, "finish": {"assets": [ASSET]}},
        "finish",
    ),
    ("MarkCompleted", {**FENCED, "finish": {"result": struct(a=-math.inf)}}, "finish.result"),
    ("TransitionJob", {"job_id": "j", "target_status": 2, "worker_id": "\n"}, "worker_id"),
    ("MarkCompleted", {**FENCED, "finish": {"assets": [ASSET] * 1001}}, "finish.assets"),
    (
        "MarkCompleted",
        {**FENCED, "finish": {"assets": [ASSET, {"asset_type": "t"}]}},
        "finish.assets[1].url",
    ),
    ("ClaimJobs", {"job_types": ["t"]}, "worker_id"),
    ("ClaimJobs", {"worker_id": "w"}, "job_types"),
    ("ClaimJobs", {"worker_id": "w", "job_types": ["a b"]}, "job_types[0]"),
    ("ClaimJobs", {"worker_id": "w", "job_types": ["t"] * 101}, "job_types"),
    ("ClaimJobs", {"worker_id": "w", "job_types": ["t"], "max_jobs": 101}, "max_jobs"),
    ("ClaimJobs", {"worker_id": "w", "job_types": ["t"], "max_jobs": -1}, "max_jobs"),
    (
        "ClaimJobs",
        {"worker_id": "w", "job_types": ["t"], "lease_duration": seconds(4)},
        "lease_duration",
    ),
    (
        "ClaimJobs",
        {"worker_id": "w", "job_types": ["t"], "lease_duration": seconds(86_401)},
        "lease_duration",
    ),
    ("ClaimJobs", {"worker_id": "w", "job_types": ["t"], "wait": seconds(61)}, "wait"),
    ("ClaimJobs", {"worker_id": "w", "job_types": ["t"], "wait": seconds(-1)}, "wait"),
    *(
        ("ClaimJobs", {"worker_id": "w", "job_types": ["t"], "holding": holding, **more}, field)
        for holding, more, field in (
            ([{"job_id": "j"}], {}, "holding[0].attempt"),
            ([FENCED, {"attempt": 1}], {}, "holding[1].job_id"),
            ([FENCED] * 1001, {}, "holding"),
            ([FENCED], {"holds_none": True}, "holds_none"),
        )
    ),
    (
        "CreateWatchToken",
        {"user_id": "ada", "job_id": "j", "ttl": Duration(seconds=86_400, nanos=1)},
        "ttl",
    ),
    ("ReleaseJob", {"attempt": 1}, "job_id"),
    ("SealGroup", {"job_id": "j"}, "user_id"),
    ("SealGroup", {"user_id": "u"}, "job_id"),
    ("CreateJob", {**CREATE, "group": {"sealed": True}}, "group.sealed"),
    ("CreateJob", {**CREATE, "group_index": 0}, "group_index"),
    ("CreateJob", {**CREATE, "group_id": "x" * 37}, "group_id"),
    *(
        ("CreateJob", {**CREATE, "group": {}, name: value}, name)
        for name, value in (
            ("priority", 5),
            ("concurrency_key", "k"),
            ("fairness_key", "k"),
            ("delay", seconds(1)),
            ("run_timeout", seconds(9)),
            ("stall_timeout", seconds(9)),
            ("retry_policy", {"max_attempts": 2}),
            ("refuse_output", True),
        )
    ),
    *(
        ("BatchCreateJobs", {"user_id": "u", "requests": requests}, field)
        for requests, field in (
            ([JOB_OF, {"job_type": "t", "group": {}}], "requests[0].group_index"),
            ([{"job_type": "t"}, JOB_OF], "requests[1].group_index"),
            ([{"job_type": "t", "group": {"sealed": True}}], "requests[0].group.sealed"),
            (
                [{"job_type": "t", "group": {}}, {**JOB_OF, "group_id": "g"}],
                "requests[1].group_index",
            ),
        )
    ),
    ("CancelJob", {"job_id": "j"}, "user_id"),
    ("CancelJob", {"job_id": "j", "user_id": "u", "reason": "x" * 513}, "reason"),
    (
        "TransitionJob",
        {"job_id": "j", "target_status": PROCESSING, "lease_duration": seconds(1)},
        "lease_duration",
    ),
    (
        "TransitionJob",
        {**FENCED, "target_status": COMPLETED, "lease_duration": seconds(9)},
        "lease_duration",
    ),
    (
        "CreateJob",
        {"user_id": "u", "job_type": "t", "retry_policy": {"max_attempts": 1001}},
        "retry_policy.max_attempts",
    ),
    (
        "CreateJob",
        {"user_id": "u", "job_type": "t", "queue_timeout": seconds(0)},
        "queue_timeout",
    ),
    (
        "CreateJob",
        {"user_id": "u", "job_type": "t", "run_timeout": seconds(366 * 86_400)},
        "run_timeout",
    ),
    (
        "CreateJob",
        {"user_id": "u", "job_type": "t", "stall_timeout": seconds(0)},
        "stall_timeout",
    ),
]

BAD_REQUESTS: list[tuple[str, dict[str, Any], str, str]] = [
    *(("CreateJob", {**CREATE, **changed}, field, "") for changed, field in JOBS),
    *(
        ("CreateAsset", {**FENCED, "asset": _link(changed)}, f"asset.{field}", words)
        for changed, field, words in ASSETS
    ),
    *((*row, "") for row in OTHERS),
]
