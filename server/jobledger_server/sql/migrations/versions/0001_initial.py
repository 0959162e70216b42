"""Jobs with their payloads, attempts and assets, the feed, queues and limits.

Revision ID: 0001
"""

import secrets
import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

revision = "0001"
down_revision = None

_TERMINAL = "('COMPLETED', 'PARTIAL', 'FAILED')"


def _id() -> sa.String:
    return sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")


def _seq() -> sa.BigInteger:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _id(), nullable=False),
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("job_type", sa.String(50), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("queue_timeout", sa.BigInteger, nullable=False),
        sa.Column("queue_id", sa.BigInteger, nullable=False),
        sa.Column("start_seq", sa.BigInteger),
        sa.Column("start_actor", sa.String(128)),
        sa.Column("start_worker_id", sa.String(128)),
        sa.Column("start_progress", sa.Integer),
        sa.Column("start_progress_message", sa.String(512)),
        sa.Column("start_lease_expire_time", sa.BigInteger),
        sa.Column("start_children", sa.Text),
        # What an end changes begins here, and what a report changes at `change_seq`: an update is
        # logged from the first to the last byte that differs.
        sa.Column("deadline", sa.BigInteger),
        sa.Column("end_actor", sa.String(128)),
        sa.Column("delete_seq", sa.BigInteger),
        sa.Column("delete_time", sa.BigInteger),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("progress_time", sa.BigInteger),
        sa.Column("stall_expire_time", sa.BigInteger),
        sa.Column("lease_expire_time", sa.BigInteger),
        sa.Column("progress", sa.Integer, nullable=False),
        sa.Column("report_number", sa.BigInteger, nullable=False),
        sa.Column("checkpoint_bytes", sa.Integer, nullable=False),
        sa.Column("progress_message", sa.String(512), nullable=False),
        sa.Column("asset_count", sa.Integer, nullable=False),
        sa.Column("asset_bytes", sa.Integer, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("phase", sa.SmallInteger),
        sa.Column("updates", sa.Integer, nullable=False),
        sa.Column("children", sa.Text),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("releases", sa.Integer, nullable=False),
        sa.Column("quick_releases", sa.Integer, nullable=False),
        sa.Column("started_by_id", sa.Boolean, nullable=False),
        sa.Column("worker_id", sa.String(128), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
        sa.Column("origin_job_id", _id()),
        sa.Column("group_id", _id()),
        sa.Column("schedule_time", sa.BigInteger),
        sa.Column("retry_time", sa.BigInteger),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("attempt_time", sa.BigInteger),
        sa.Column("complete_time", sa.BigInteger),
        sa.Column("lease_duration", sa.BigInteger),
        sa.Column("queue_expire_time", sa.BigInteger),
        sa.Column("stall_timeout", sa.BigInteger),
        sa.Column("run_timeout", sa.BigInteger),
        sa.Column("run_expire_time", sa.BigInteger),
        sa.Column("cancel_request_time", sa.BigInteger),
        sa.Column("cancel_reason", sa.String(512), nullable=False),
        sa.Column("outcome_digest", sa.LargeBinary),
        sa.Column("outcome_bytes", sa.Integer, nullable=False),
        sa.Column("parameters_bytes", sa.Integer, nullable=False),
        sa.Column("silent", sa.SmallInteger, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("initial_backoff", sa.BigInteger, nullable=False),
        sa.Column("max_backoff", sa.BigInteger, nullable=False),
        sa.Column("backoff_multiplier", sa.Double, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("fairness_key", sa.String(128), nullable=False),
        sa.Column("concurrency_key", sa.String(128), nullable=False),
        sa.Column("unique_key", sa.String(128), nullable=False),
        sa.Column("refuse_output", sa.Boolean, nullable=False),
        sa.Column("retention", sa.BigInteger),
        sa.Column("output_streams", sa.Text),
        sa.Column("last_error_reason", sa.String(63)),
        sa.Column("last_error_message", sa.String(4096)),
        sa.Column("error_reason", sa.String(63)),
        sa.Column("error_message", sa.String(4096)),
        sa.Column("result", sa.LargeBinary),
        sa.Column("error_details", sa.LargeBinary),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.CheckConstraint(
            "status IN ('QUEUED', 'PROCESSING', 'COMPLETED', 'PARTIAL', 'FAILED')",
            name=op.f("ck_jobs_status"),
        ),
        sa.CheckConstraint("progress BETWEEN 0 AND 100", name=op.f("ck_jobs_progress")),
        sa.CheckConstraint("length(user_id) BETWEEN 1 AND 128", name=op.f("ck_jobs_user_id")),
        sa.CheckConstraint("length(job_type) BETWEEN 1 AND 50", name=op.f("ck_jobs_job_type")),
        sa.CheckConstraint(
            "version >= 1 AND updates >= 0 AND (status = 'QUEUED') = (version = 1 + updates)"
            " AND (status = 'QUEUED') = (start_seq IS NULL)",
            name=op.f("ck_jobs_version"),
        ),
        sa.CheckConstraint(
            "attempt >= 0 AND (attempt = 0) = (children IS NOT NULL OR start_time IS NULL)"
            " AND (attempt = 0) = (attempt_time IS NULL)",
            name=op.f("ck_jobs_attempt"),
        ),
        sa.CheckConstraint(
            "(start_time IS NULL"
            " AND (status = 'QUEUED' OR (status = 'FAILED' AND version = 3 + updates)))"
            " OR (start_time IS NOT NULL AND status <> 'QUEUED')",
            name=op.f("ck_jobs_start_time"),
        ),
        sa.CheckConstraint(
            f"(status IN {_TERMINAL}) = (complete_time IS NOT NULL)"
            " AND (complete_time IS NULL) = (end_actor IS NULL)",
            name=op.f("ck_jobs_complete_time"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('COMPLETED', 'PARTIAL') OR progress = 100",
            name=op.f("ck_jobs_complete_progress"),
        ),
        sa.CheckConstraint(
            "(error_message IS NULL) = (error_reason IS NULL)"
            " AND (error_message IS NULL OR length(error_message) > 0)"
            " AND (status <> 'FAILED' OR error_message IS NOT NULL)"
            " AND (status IN ('PARTIAL', 'FAILED') OR error_message IS NULL)",
            name=op.f("ck_jobs_error"),
        ),
        sa.CheckConstraint(
            "status = 'PROCESSING' OR lease_expire_time IS NULL", name=op.f("ck_jobs_lease")
        ),
        sa.CheckConstraint(
            "(complete_time IS NULL AND lease_expire_time IS NULL)"
            " = (queue_expire_time IS NOT NULL)"
            " OR (children IS NOT NULL AND complete_time IS NULL)",
            name=op.f("ck_jobs_queue"),
        ),
        sa.CheckConstraint(
            f"(status IN {_TERMINAL}) = (deadline IS NULL)"
            " OR (children IS NOT NULL AND complete_time IS NULL)",
            name=op.f("ck_jobs_deadline"),
        ),
        sa.CheckConstraint(
            "max_attempts >= 0 AND releases BETWEEN 0 AND attempt"
            " AND quick_releases BETWEEN 0 AND releases",
            name=op.f("ck_jobs_attempts"),
        ),
        sa.CheckConstraint(
            "initial_backoff > 0 AND max_backoff >= initial_backoff AND backoff_multiplier >= 1",
            name=op.f("ck_jobs_backoff"),
        ),
        sa.CheckConstraint(
            "retry_time IS NULL OR (queue_expire_time IS NOT NULL AND attempt > 0)",
            name=op.f("ck_jobs_retry_time"),
        ),
        sa.CheckConstraint(
            "(phase IS NULL) = (complete_time IS NOT NULL)"
            " AND (phase IS NULL OR phase BETWEEN 0 AND 4)"
            " AND coalesce(phase = 4, FALSE) = (children IS NOT NULL AND complete_time IS NULL)"
            " AND (lease_expire_time IS NOT NULL) = coalesce(phase = 3, FALSE)"
            " AND (coalesce(retry_time, schedule_time) IS NOT NULL"
            " OR NOT coalesce(phase = 2, FALSE))",
            name=op.f("ck_jobs_phase"),
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("ck_jobs_priority")),
        sa.CheckConstraint(
            "(last_error_message IS NULL) = (last_error_reason IS NULL)"
            " AND (last_error_message IS NULL OR attempt > 0)",
            name=op.f("ck_jobs_last_error"),
        ),
        sa.CheckConstraint(
            "parameters_bytes >= 0 AND checkpoint_bytes >= 0 AND outcome_bytes >= 0"
            " AND (outcome_bytes = 0 OR complete_time IS NOT NULL)"
            " AND (outcome_bytes > 0 OR (result IS NULL AND error_details IS NULL))",
            name=op.f("ck_jobs_payloads"),
        ),
        sa.CheckConstraint(
            "asset_count >= 0 AND asset_bytes >= 0 AND (asset_count = 0) = (asset_bytes = 0)"
            " AND (asset_count = 0 OR attempt > 0)",
            name=op.f("ck_jobs_assets"),
        ),
        sa.CheckConstraint(
            "(delete_seq IS NULL) = (delete_time IS NULL)"
            " AND (delete_seq IS NULL OR complete_time IS NOT NULL)",
            name=op.f("ck_jobs_deleted"),
        ),
    )
    _index("ix_jobs_user_id_id", "jobs", ["user_id", "id"], "delete_seq IS NULL")
    _index("ix_jobs_delete_seq", "jobs", ["delete_seq"], "delete_seq IS NOT NULL")
    _index(
        "uq_jobs_origin_job_id",
        "jobs",
        ["origin_job_id"],
        "origin_job_id IS NOT NULL AND delete_seq IS NULL",
        unique=True,
    )
    _index(
        "ix_jobs_group_id_id",
        "jobs",
        ["group_id", "id"],
        "group_id IS NOT NULL AND delete_seq IS NULL",
    )
    _index(
        "ix_jobs_scheduled", "jobs", [sa.text("coalesce(retry_time, schedule_time)")], "phase = 2"
    )
    _index(
        "ix_jobs_outlived",
        "jobs",
        [sa.text("(complete_time + retention)")],
        "retention IS NOT NULL AND complete_time IS NOT NULL AND delete_seq IS NULL"
        " AND group_id IS NULL",
    )
    _index("ix_jobs_ready", "jobs", ["queue_id", "create_time", "id"], "phase = 0")
    _index(
        "ix_jobs_keyed",
        "jobs",
        ["concurrency_key", "phase", "job_type", sa.text("priority DESC"), "create_time", "id"],
        "concurrency_key <> '' AND phase IS NOT NULL",
    )
    _index(
        "uq_jobs_unique_key",
        "jobs",
        ["user_id", "job_type", "unique_key"],
        "unique_key <> '' AND complete_time IS NULL",
        unique=True,
    )
    _index(
        "ix_jobs_user_id_unique_key_id",
        "jobs",
        ["user_id", "unique_key", "id"],
        "unique_key <> '' AND delete_seq IS NULL",
    )
    _index("ix_jobs_deadline", "jobs", ["deadline"], "deadline IS NOT NULL")
    _index("ix_jobs_worker", "jobs", ["worker_id", "id"], "worker_id <> '' AND phase = 3")
    _index("ix_jobs_user_id_held", "jobs", ["user_id"], "user_id <> '' AND phase = 3")
    _index("ix_jobs_active", "jobs", ["user_id", "id"], "complete_time IS NULL")
    _index(
        "uq_jobs_user_id_request_id",
        "jobs",
        ["user_id", "request_id"],
        "request_id <> ''",
        unique=True,
    )

    op.create_table(
        "payloads",
        sa.Column("job_id", _id(), nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "kind", name="pk_payloads"),
        sa.CheckConstraint("kind BETWEEN 1 AND 2", name=op.f("ck_payloads_kind")),
        sa.CheckConstraint("length(content) > 0", name=op.f("ck_payloads_content")),
        sqlite_with_rowid=False,
    )

    op.create_table(
        "attempts",
        sa.Column("job_id", _id(), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("worker_id", sa.String(128), nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=False),
        sa.Column("progress", sa.Integer, nullable=False),
        sa.Column("end_time", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String(13), nullable=False),
        sa.Column("error_reason", sa.String(63)),
        sa.Column("error_message", sa.String(4096)),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_attempts"),
        sa.CheckConstraint("number >= 1", name=op.f("ck_attempts_number")),
        sa.CheckConstraint("progress BETWEEN 0 AND 100", name=op.f("ck_attempts_progress")),
        sa.CheckConstraint(
            "outcome IN ('LEASE_EXPIRED', 'STALLED', 'RELEASED', 'RETRIED')",
            name=op.f("ck_attempts_outcome"),
        ),
        sa.CheckConstraint(
            "(error_message IS NULL) = (error_reason IS NULL)", name=op.f("ck_attempts_error")
        ),
        sqlite_with_rowid=False,
    )

    op.create_table(
        "assets",
        sa.Column("id", _id(), nullable=False),
        sa.Column("job_id", _id(), nullable=False),
        sa.Column("asset_type", sa.String(50), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("storage_path", sa.String(1024), nullable=False),
        sa.Column("file_size", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("etag", sa.String(255), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "id", name="pk_assets"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_assets_job_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("file_size >= 0", name=op.f("ck_assets_file_size")),
        sa.CheckConstraint(
            "length(asset_type) BETWEEN 1 AND 50", name=op.f("ck_assets_asset_type")
        ),
        sa.CheckConstraint(
            "length(url) > 0 OR length(storage_path) > 0", name=op.f("ck_assets_location")
        ),
        sa.CheckConstraint("length(sha256) IN (0, 64)", name=op.f("ck_assets_sha256")),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_assets_attempt")),
        # A row is stored in the index of its primary key, a third less than with one apart.
        sqlite_with_rowid=False,
    )
    _index("uq_assets_job_id_name", "assets", ["job_id", "name"], "name <> ''", unique=True)
    _index(
        "uq_assets_job_id_request_id",
        "assets",
        ["job_id", "request_id"],
        "request_id <> ''",
        unique=True,
    )

    _create_changes()
    _create_outputs()
    _create_queues()
    _create_limits()
    _create_webhooks()
    feed = op.create_table(
        "feed",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("compacted_seq", sa.BigInteger, nullable=False),
        sa.Column("config_version", sa.BigInteger, nullable=False),
        sa.Column("watch_key", sa.Text, nullable=False),
        sa.Column("database_identity", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_feed"),
        sa.CheckConstraint("id = 1", name=op.f("ck_feed_one_row")),
    )
    new = {
        "id": 1,
        "epoch": uuid.uuid4().hex,
        "compacted_seq": 0,
        "config_version": 0,
        "watch_key": secrets.token_hex(32),
        "database_identity": "",
    }
    op.bulk_insert(feed, [new])

    if op.get_bind().dialect.name == "sqlite":
        _create_foreign_key_triggers()
    else:
        _tune_postgresql()
        op.execute(_LOCK_FEED)
        op.execute(_LOCK_KEYS)
        op.execute(_LOCK_UNCHANGED)
        op.execute(_LOCK_GROUPS)
        op.execute(_ALL_UPDATED)


def _index(
    name: str, table: str, columns: list[Any], condition: str, *, unique: bool = False
) -> None:
    """Create an index of the rows with the condition."""
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def _create_changes() -> None:
    op.create_table(
        "changes",
        sa.Column("seq", _seq(), autoincrement=False, nullable=False),
        sa.Column("job_id", _id(), nullable=False),
        sa.Column("user_id", sa.String(128)),
        sa.PrimaryKeyConstraint("seq", name="pk_changes"),
    )
    _index("ix_changes_user_id_seq", "changes", ["user_id", "seq"], "user_id IS NOT NULL")


def _create_outputs() -> None:
    op.create_table(
        "outputs",
        sa.Column("job_id", _id(), nullable=False),
        sa.Column("stream", sa.String(64), nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "stream", "start", name="pk_outputs"),
        sa.CheckConstraint(
            "start >= 0 AND attempt >= 1 AND number >= 0", name=op.f("ck_outputs_position")
        ),
        sa.CheckConstraint("length(data) > 0", name=op.f("ck_outputs_data")),
    )


def _create_queues() -> None:
    """Create the counters of queues and of concurrency keys."""
    counts = ("ready", "blocked", "scheduled", "held", "waiting")
    op.create_table(
        "queues",
        sa.Column("id", _seq(), sa.Identity(), nullable=False),
        sa.Column("job_type", sa.String(50), nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("fairness_key", sa.String(128), nullable=False),
        sa.Column("vtime", sa.BigInteger, nullable=False),
        sa.Column("claimed", sa.BigInteger, nullable=False),
        sa.Column("claimable", sa.SmallInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in counts),
        sa.Column("writes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("id", name="pk_queues"),
    )
    _index(
        "ix_queues_claimable",
        "queues",
        ["job_type", sa.text("priority DESC"), "vtime", "id"],
        "claimable = 1",
    )
    op.create_index(
        "uq_queues_fairness_key_job_type_priority",
        "queues",
        ["fairness_key", "job_type", "priority"],
        unique=True,
    )
    op.create_table(
        "limit_keys",
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("running", sa.BigInteger, nullable=False),
        sa.Column("blocked", sa.BigInteger, nullable=False),
        sa.Column("recheck", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_limit_keys"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_limit_keys_name_key", "limit_keys", ["name", "key"])
    _index("ix_limit_keys_recheck", "limit_keys", ["key"], "recheck = 1")
    op.create_table(
        "ended",
        sa.Column("job_type", sa.String(50), nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("reason", sa.String(63), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("job_type", "time", "status", "reason", name="pk_ended"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_ended_time", "ended", ["time"])


def _create_limits() -> None:
    """Create what operators set, and who asks for jobs."""
    op.create_table(
        "limit_rules",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("max_running", sa.Integer),
        sa.Column("pause_time", sa.BigInteger),
        sa.Column("pause_actor", sa.String(512), nullable=False),
        sa.Column("pause_reason", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_limit_rules"),
        sa.CheckConstraint("max_running >= 0", name=op.f("ck_limit_rules_max_running")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "paused_types",
        sa.Column("job_type", sa.String(50), nullable=False),
        sa.Column("pause_time", sa.BigInteger, nullable=False),
        sa.Column("pause_actor", sa.String(512), nullable=False),
        sa.Column("pause_reason", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint("job_type", name="pk_paused_types"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "type_defaults",
        sa.Column("job_type", sa.String(50), nullable=False),
        sa.Column("max_attempts", sa.Integer),
        sa.Column("initial_backoff", sa.BigInteger),
        sa.Column("max_backoff", sa.BigInteger),
        sa.Column("backoff_multiplier", sa.Double),
        sa.Column("queue_timeout", sa.BigInteger),
        sa.Column("run_timeout", sa.BigInteger),
        sa.Column("stall_timeout", sa.BigInteger),
        sa.Column("priority", sa.SmallInteger),
        sa.Column("retention", sa.BigInteger),
        sa.PrimaryKeyConstraint("job_type", name="pk_type_defaults"),
        sa.CheckConstraint(
            "(max_attempts IS NULL) = (initial_backoff IS NULL)"
            " AND (max_attempts IS NULL) = (max_backoff IS NULL)"
            " AND (max_attempts IS NULL) = (backoff_multiplier IS NULL)",
            name=op.f("ck_type_defaults_policy"),
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("ck_type_defaults_priority")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pollers",
        sa.Column("server", sa.String(36), nullable=False),
        sa.Column("job_type", sa.String(50), nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("job_type", "server", name="pk_pollers"),
        sqlite_with_rowid=False,
    )


def _create_webhooks() -> None:
    op.create_table(
        "webhook_deliverers",
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliverers"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "webhooks",
        sa.Column("id", _id(), nullable=False),
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("job_types", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("transitions", sa.JSON, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("disable_time", sa.BigInteger),
        sa.Column("disable_reason", sa.String(512), nullable=False),
        sa.Column("success_time", sa.BigInteger),
        sa.Column("failure_time", sa.BigInteger),
        sa.Column("last_failure", sa.String(512), nullable=False),
        sa.Column("pending", sa.LargeBinary, nullable=False),
        sa.Column("pending_count", sa.Integer, nullable=False),
        sa.Column("given_up", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.Text, nullable=False),
        sa.Column("enable_time", sa.BigInteger),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("previous_secret", sa.Text, nullable=False),
        sa.Column("previous_secret_expire_time", sa.BigInteger),
        sa.Column("rotation_ids", sa.JSON, nullable=False),
        sa.Column("holder", sa.String(128), nullable=False),
        sa.Column("lease_expire_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
        sqlite_with_rowid=False,
    )
    _index(
        "uq_webhooks_user_id_request_id",
        "webhooks",
        ["user_id", "request_id"],
        "request_id <> ''",
        unique=True,
    )


def _tune_postgresql() -> None:
    """Leave free space in pages for rows that are updated often, and have them vacuumed often."""
    # Most updates of a job, or of its row in the feed, find free space on their page. The others
    # move to a page with more free space, so a full page empties itself.
    op.execute("ALTER TABLE jobs SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02)")
    # Each change leaves a dead row. A fraction of the table would be too many of them: most rows
    # are those of finished jobs, which never change.
    op.execute(
        "ALTER TABLE changes SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0,"
        " autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0)"
    )
    # Few rows that each commit changes.
    for table in ("queues", "limit_keys", "ended"):
        op.execute(
            f"ALTER TABLE {table} SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02,"
            " autovacuum_vacuum_threshold = 1000)"
        )


# Each query of a volatile function sees what was committed before it, and the second one begins
# when the lock is held. One statement alone would see what was committed before it waited. Its
# second argument is what has to be done before: arguments come before the function's body.
_LOCK_FEED = """
CREATE FUNCTION lock_feed(expected bigint, done boolean DEFAULT true, OUT before bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE config bigint;
BEGIN
    SELECT compacted_seq, config_version INTO before, config FROM feed FOR UPDATE;
    IF expected <> config THEN
        RAISE SQLSTATE 'JL001' USING MESSAGE = 'what operators set has changed';
    END IF;
    before := greatest(before, (SELECT max(seq) FROM changes));
END $$
"""

# The states of concurrency keys, as no other transaction can change them any more.
_LOCK_KEYS = """
CREATE FUNCTION lock_keys(keys text[])
RETURNS TABLE (key text, running bigint, max_running integer, paused boolean)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM feed FOR UPDATE;
    RETURN QUERY
    SELECT wanted.key, coalesce(found.running, 0), coalesce(own.max_running, general.max_running),
        own.pause_time IS NOT NULL OR general.pause_time IS NOT NULL
    FROM unnest(keys) AS wanted (key)
    LEFT JOIN limit_keys AS found ON found.key = wanted.key
    LEFT JOIN limit_rules AS own ON own.name = wanted.key
    LEFT JOIN limit_rules AS general ON general.name = split_part(wanted.key, ':', 1);
END $$
"""

# A statement that writes a batch locks its jobs by this one, and undoes itself if one has changed.
# Planned once: it can use one index only, and to plan it each time costs more than to run it.
_LOCK_UNCHANGED = """
CREATE FUNCTION lock_unchanged(ids uuid[], writers text[]) RETURNS boolean LANGUAGE plpgsql
SET plan_cache_mode = 'force_generic_plan' SET enable_seqscan = 'off' AS $$
DECLARE unchanged bigint;
BEGIN
    SELECT count(*) INTO unchanged FROM (
        SELECT id, xmin::text AS writer FROM jobs WHERE id = ANY(ids) ORDER BY id FOR UPDATE
    ) AS locked JOIN unnest(ids, writers) AS known (id, writer) USING (id, writer);
    IF unchanged <> cardinality(ids) THEN
        RAISE SQLSTATE 'JL001' USING MESSAGE = 'a job has changed';
    END IF;
    RETURN true;
END $$
"""

# Groups, but for those that another transaction has locked: it may wait for the feed.
_LOCK_GROUPS = """
CREATE FUNCTION lock_groups(ids uuid[]) RETURNS SETOF jobs LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM feed FOR UPDATE;
    RETURN QUERY SELECT * FROM jobs WHERE id = ANY(ids) AND delete_time IS NULL
        ORDER BY id FOR UPDATE SKIP LOCKED;
END $$
"""

# It undoes itself by this one, too.
_ALL_UPDATED = """
CREATE FUNCTION all_updated(updated bigint, expected bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF updated <> expected THEN
        RAISE data_corrupted USING MESSAGE =
            format('%s rows were to be updated, and %s are there',
                   expected, updated);
    END IF;
    RETURN true;
END $$
"""


def _create_foreign_key_triggers() -> None:
    """SQLite honors foreign keys only on connections that enable them; triggers always run."""
    for event in ("INSERT", "UPDATE OF job_id"):
        op.execute(
            f"CREATE TRIGGER assets_job_exists_{event.split()[0].lower()} "
            f"BEFORE {event} ON assets "
            "WHEN NOT EXISTS (SELECT 1 FROM jobs WHERE id = NEW.job_id) "
            "BEGIN SELECT RAISE(ABORT, 'assets.job_id names no job'); END"
        )
    op.execute(
        "CREATE TRIGGER jobs_delete_dependents AFTER DELETE ON jobs BEGIN "
        "DELETE FROM assets WHERE job_id = OLD.id; END"
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION lock_feed(bigint, boolean)")
        op.execute("DROP FUNCTION lock_keys(text[])")
        op.execute("DROP FUNCTION lock_unchanged(uuid[], text[])")
        op.execute("DROP FUNCTION lock_groups(uuid[])")
        op.execute("DROP FUNCTION all_updated(bigint, bigint)")
    for table in (
        *("webhooks", "webhook_deliverers", "feed", "pollers", "type_defaults"),
        *("paused_types", "limit_rules"),
        *(
            "ended",
            "limit_keys",
            "queues",
            "outputs",
            "changes",
            "assets",
            "attempts",
            "payloads",
            "jobs",
        ),
    ):
        op.drop_table(table)
