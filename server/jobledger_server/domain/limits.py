"""The limits of the contract, and those that several packages share. Each is defined once, here.

Validation, the tables and docs/reference/limits.md follow from them.
"""

MAX_ID_CHARACTERS = 36
"""A job's id, a UUID."""

MAX_NAME_CHARACTERS = 128
"""`user_id`, `worker_id`, `request_id`, and the keys of a job."""

MAX_IDENTITY_CHARACTERS = 512
"""The identity of a caller."""

MAX_JOB_TYPE_CHARACTERS = 50
"""`job_type`, and each entry of `job_types`."""

MAX_PROGRESS = 100

MAX_MESSAGE_CHARACTERS = 512
"""`progress_message`, and the `reason` of a cancellation."""

MAX_ERROR_REASON_CHARACTERS = 63

MAX_ERROR_MESSAGE_CHARACTERS = 4096

MAX_TRACEPARENT_CHARACTERS = 64

MAX_LABELS = 32

MAX_LABEL_KEY_CHARACTERS = 63

MAX_LABEL_VALUE_CHARACTERS = 255

DEFAULT_WATCH_TOKEN_SECONDS = 3600

MAX_WATCH_TOKEN_SECONDS = 24 * 3600
"""The greatest `ttl` of a watch token."""

MAX_STRUCT_BYTES = 256 * 1024
"""`parameters`, `result` and `error.details`, each serialized."""

MAX_CHECKPOINT_BYTES = 64 * 1024
"""`checkpoint`, serialized."""

MAX_STRUCT_DEPTH = 32

MAX_ASSETS = 1000
"""Assets of a job."""

MAX_ASSET_BYTES = 1024 * 1024
"""Bytes of the texts of a job's assets."""

MAX_ASSET_NAME_CHARACTERS = 255

MAX_ETAG_CHARACTERS = 255

MAX_ASSET_TYPE_CHARACTERS = 50

MAX_URL_CHARACTERS = 2048

MAX_STORAGE_PATH_CHARACTERS = 1024

MAX_OUTPUT_STREAMS = 8
"""Streams of a job's output."""

MAX_STREAM_NAME_CHARACTERS = 64
"""The `stream` of output."""

MAX_CONTENT_TYPE_CHARACTERS = 128
"""The `content_type` of a stream of output."""

MAX_OUTPUT_DATA_BYTES = 64 * 1024
"""`data` of one append."""

MAX_OUTPUT_PIECE_BYTES = 1024 * 1024
"""`data` of one answer with output."""

MIN_JOB_OUTPUT_BYTES, DEFAULT_JOB_OUTPUT_BYTES = 64 * 1024, 1024 * 1024
"""Output that is stored of one job: the least and the usual value of the operator's setting."""

MAX_JOB_OUTPUT_BYTES = 64 * 1024 * 1024
"""The greatest value of that setting."""

DEFAULT_OWNER_OUTPUT_RATE, DEFAULT_OUTPUT_RATE = 8 * 1024 * 1024, 32 * 1024 * 1024
"""Bytes of output that the jobs of one owner, and of all, append in a second at one server."""

MAX_CHILDREN = 100_000
"""Jobs of a group."""

MAX_GROUP_LEVELS = 8
"""How deep groups are within groups."""

MAX_ATTEMPTS = 1000
"""The greatest `retry_policy.max_attempts`."""

MAX_PRIORITY = 9
"""The greatest `priority`; the least is 0."""

MIN_BACKOFF_SECONDS, MAX_INITIAL_BACKOFF_SECONDS = 0.1, 24 * 3600
"""`retry_policy.initial_backoff`."""

MAX_BACKOFF_SECONDS = 7 * 24 * 3600
"""The greatest `retry_policy.max_backoff`. The least is `initial_backoff`."""

MIN_BACKOFF_MULTIPLIER, MAX_BACKOFF_MULTIPLIER = 1, 100
"""`retry_policy.backoff_multiplier`."""

MAX_DELAY_SECONDS = 365 * 24 * 3600
"""`retry_delay`, the `delay` of a release or a creation, and how far ahead a `schedule_time` may
be."""

MIN_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS = 1, 365 * 24 * 3600
"""`queue_timeout`, `stall_timeout` and `run_timeout`."""

MIN_RETENTION_SECONDS, MAX_RETENTION_SECONDS = 1, 3650 * 24 * 3600
"""`retention`."""

MIN_LEASE_SECONDS, MAX_LEASE_SECONDS = 5, 24 * 3600

MAX_CLAIMED_JOBS = 100
"""Jobs that one claim returns."""

MAX_CLAIM_WAIT_SECONDS = 60

MAX_SLOTS = 1000
"""Jobs that a worker holds on one stream of Work, and entries of `holding`."""

MAX_UPDATES = 1000
"""Updates of one message of Work."""

MAX_CREATIONS = 1000
"""Jobs of one BatchCreateJobs."""

MAX_BULK_JOBS, DEFAULT_BULK_JOBS = 1000, 100
"""Jobs that one step of RerunJobs, CancelJobs or DeleteJobs changes."""

MAX_SAMPLED_JOBS = 10
"""Jobs in the `sample` of such a step."""

MIN_JOBS_PER_SECOND, MAX_JOBS_PER_SECOND = 0.001, 1000
"""The pace of RerunJobs."""

MAX_ERROR_REASONS = 100
"""Entries of `error_reasons`."""

MAX_JOB_IDS = 1000
"""Entries of `job_ids`."""

MAX_JOB_TYPES = 100
"""Entries of `job_types`."""

MAX_STATUSES = 100
MAX_PHASES = 100
"""Entries of `statuses`."""

MAX_COUNTED = 1000
"""Jobs before a job, tenants, and holders of a key that are looked at for what a job waits for."""

MAX_HOLDERS = 10
"""Holders of a key that are named there."""

MAX_REPORTED_REASONS = 100
"""Statuses and reasons of the jobs of a type that are reported apart."""

MAX_COUNTED_KEYS = 100_000
"""Concurrency keys whose jobs one answer with limits counts, shared by its names."""

MAX_CONCURRENCY_LIMITS = 10_000
"""Limits and pauses of concurrency keys."""

MAX_PAUSED_JOB_TYPES = 10_000
"""Job types that are paused."""

MAX_DEFAULTED_JOB_TYPES = 10_000
"""Job types that have defaults."""

MAX_WEBHOOKS, DEFAULT_WEBHOOKS_EACH = 1000, 10
"""Webhooks, and those of one owner by default: each end of a job is posted to all of them."""

MAX_CLAIMED_WEBHOOKS = 10
"""Webhooks that one ClaimWebhooks returns."""

WEBHOOK_LEASE_SECONDS = 30
"""How long a deliverer holds a webhook without a further ClaimWebhooks."""

MAX_PENDING_DELIVERIES = 100
"""Deliveries of a webhook that wait for a further attempt."""

MAX_PENDING_BYTES = 48 * 1024
"""The same, serialized."""

MAX_ROTATION_IDS = 20
"""Rotations of a webhook's secret whose request ids are kept: a repetition of these is seen."""

DEFAULT_KEEP_SECRET_SECONDS, MAX_KEEP_SECRET_SECONDS = 24 * 3600, 7 * 24 * 3600
"""How long a webhook's secret before the last one is signed with, too."""

MAX_RESUME_TOKEN_CHARACTERS = 1024

MAX_PAGE_SIZE, DEFAULT_PAGE_SIZE = 1000, 50

MAX_FILTER_CHARACTERS = 256
"""The filter of ListOperations."""

MAX_MESSAGE_BYTES = 1024 * 1024
"""A request with a Struct or a list of assets."""

MAX_PLAIN_MESSAGE_BYTES = 64 * 1024
"""Any other request."""

MAX_REFLECTION_BYTES = 4 * 1024
"""One request of a reflection stream. Each is parsed in the event loop."""

MAX_ANSWER_BYTES = 3 * 1024 * 1024
"""A page or a claim, which holds at least one item. gRPC clients accept 4 MiB by default."""

MAX_FULL_PAGE_BYTES = 1024 * 1024
"""A page of jobs with their payloads. Clients that do not read their pages can make the server hold
many of them."""

MAX_SCANNED_JOBS = 5_000
"""Jobs of an owner that one list call scans, whether or not they match its filters."""

COMMAND_SECONDS = 5
"""How long a database server may take for one statement before it counts as unavailable."""

LIST_SECONDS = 2
"""The time limit of a list, from its turn on."""
