"""The tables. Their constraints check the domain's rules again.

Times are microseconds since the Unix epoch and payloads are serialized Structs, as in the
domain, so nothing is converted. See docs/decisions/0002-rows-hold-what-the-domain-holds.md.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

from jobledger_server.domain.limits import (
    MAX_ASSET_TYPE_CHARACTERS,
    MAX_ERROR_MESSAGE_CHARACTERS,
    MAX_ERROR_REASON_CHARACTERS,
    MAX_ID_CHARACTERS,
    MAX_JOB_TYPE_CHARACTERS,
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_PROGRESS,
    MAX_STORAGE_PATH_CHARACTERS,
    MAX_URL_CHARACTERS,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Ids compare byte by byte, whatever the database's collation.
_ID = String(MAX_ID_CHARACTERS).with_variant(String(MAX_ID_CHARACTERS, collation="C"), "postgresql")

_STATUSES = "('QUEUED', 'PROCESSING', 'COMPLETED', 'PARTIAL', 'FAILED')"
_TERMINAL = "('COMPLETED', 'PARTIAL', 'FAILED')"

ACTIVE = "complete_time IS NULL"
"""The condition for a job that has not finished."""

CLAIMABLE = "complete_time IS NULL AND lease_expire_time IS NULL"
"""The condition for a job that waits for a worker; `state_machine.is_claimable` in SQL."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("job_type", String(MAX_JOB_TYPE_CHARACTERS), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("queue_timeout", BigInteger, nullable=False),
    Column("status", String(10), nullable=False),
    Column("progress", Integer, nullable=False),
    Column("progress_message", String(MAX_MESSAGE_CHARACTERS), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("releases", Integer, nullable=False),
    Column("worker_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("request_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("start_time", BigInteger),
    Column("complete_time", BigInteger),
    Column("lease_duration", BigInteger),
    Column("lease_expire_time", BigInteger),
    Column("queue_expire_time", BigInteger),
    Column("run_timeout", BigInteger),
    Column("run_expire_time", BigInteger),
    Column("cancel_request_time", BigInteger),
    Column("cancel_reason", String(MAX_MESSAGE_CHARACTERS), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("outcome_digest", LargeBinary),
    # The earliest time at which something happens without a call; NULL in a terminal state.
    Column("deadline", BigInteger),
    Column("change_seq", BigInteger, nullable=False),
    Column("error_reason", String(MAX_ERROR_REASON_CHARACTERS)),
    # The largest come last: SQLite reads them to find the columns stored after them.
    Column("error_message", String(MAX_ERROR_MESSAGE_CHARACTERS)),
    Column("error_details", LargeBinary),
    Column("parameters", LargeBinary),
    Column("result", LargeBinary),
    CheckConstraint(f"status IN {_STATUSES}", name="status"),
    CheckConstraint(f"progress BETWEEN 0 AND {MAX_PROGRESS}", name="progress"),
    CheckConstraint(f"length(user_id) BETWEEN 1 AND {MAX_NAME_CHARACTERS}", name="user_id"),
    CheckConstraint(f"length(job_type) BETWEEN 1 AND {MAX_JOB_TYPE_CHARACTERS}", name="job_type"),
    CheckConstraint("version >= 1", name="version"),
    CheckConstraint("attempt >= 0 AND (status = 'QUEUED') = (attempt = 0)", name="attempt"),
    CheckConstraint("(status = 'QUEUED') = (start_time IS NULL)", name="start_time"),
    CheckConstraint(f"(status IN {_TERMINAL}) = (complete_time IS NOT NULL)", name="complete_time"),
    CheckConstraint(
        f"status NOT IN ('COMPLETED', 'PARTIAL') OR progress = {MAX_PROGRESS}",
        name="complete_progress",
    ),
    CheckConstraint(
        "(error_message IS NULL) = (error_reason IS NULL)"
        " AND (error_message IS NULL OR length(error_message) > 0)"
        " AND (status <> 'FAILED' OR error_message IS NOT NULL)"
        " AND (status IN ('PARTIAL', 'FAILED') OR error_message IS NULL)",
        name="error",
    ),
    CheckConstraint("status = 'PROCESSING' OR lease_expire_time IS NULL", name="lease"),
    CheckConstraint(f"(status IN {_TERMINAL}) = (deadline IS NULL)", name="deadline"),
    CheckConstraint("max_attempts >= 1 AND releases BETWEEN 0 AND attempt", name="attempts"),
    Index("ix_jobs_user_id_id", "user_id", "id"),
    # Claimable jobs, oldest first within each type.
    Index(
        "ix_jobs_claimable",
        "job_type",
        "create_time",
        "id",
        sqlite_where=text(CLAIMABLE),
        postgresql_where=text(CLAIMABLE),
    ),
    Index(
        "ix_jobs_deadline",
        "deadline",
        sqlite_where=text("deadline IS NOT NULL"),
        postgresql_where=text("deadline IS NOT NULL"),
    ),
    Index("uq_jobs_change_seq", "change_seq", unique=True),
    # Active jobs in the order of their latest changes: a feed watch starts with these, and does
    # not read finished ones.
    Index(
        "ix_jobs_active",
        "change_seq",
        sqlite_where=text(ACTIVE),
        postgresql_where=text(ACTIVE),
    ),
    # The same for one owner, without reading other owners' jobs.
    Index(
        "ix_jobs_active_by_owner",
        "user_id",
        "change_seq",
        sqlite_where=text(ACTIVE),
        postgresql_where=text(ACTIVE),
    ),
    Index(
        "uq_jobs_user_id_request_id",
        "user_id",
        "request_id",
        unique=True,
        sqlite_where=text("request_id <> ''"),
        postgresql_where=text("request_id <> ''"),
    ),
)

# A transition, with the job's fields after it that later changes overwrite in the job's row.
job_transitions = Table(
    "job_transitions",
    metadata,
    Column("job_id", _ID, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("from_status", String(10), nullable=False),
    Column("to_status", String(10), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("actor", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("reason", String(MAX_ERROR_REASON_CHARACTERS), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("change_seq", BigInteger, nullable=False),
    Column("progress", Integer, nullable=False),
    Column("progress_message", String(MAX_MESSAGE_CHARACTERS), nullable=False),
    Column("worker_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("lease_expire_time", BigInteger),
    PrimaryKeyConstraint("job_id", "version"),
    CheckConstraint(
        "(from_status = 'QUEUED' AND to_status = 'PROCESSING')"
        f" OR (from_status = 'PROCESSING' AND to_status IN {_TERMINAL})",
        name="edge",
    ),
    Index("uq_job_transitions_change_seq", "change_seq", unique=True),
)

assets = Table(
    "assets",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("job_id", _ID, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("asset_type", String(MAX_ASSET_TYPE_CHARACTERS), nullable=False),
    Column("url", String(MAX_URL_CHARACTERS), nullable=False),
    Column("storage_path", String(MAX_STORAGE_PATH_CHARACTERS), nullable=False),
    Column("file_size", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("request_id", String(MAX_NAME_CHARACTERS), nullable=False),
    CheckConstraint("file_size >= 0", name="file_size"),
    CheckConstraint(
        f"length(asset_type) BETWEEN 1 AND {MAX_ASSET_TYPE_CHARACTERS}", name="asset_type"
    ),
    CheckConstraint("length(url) > 0 OR length(storage_path) > 0", name="location"),
    Index("ix_assets_job_id_id", "job_id", "id"),
    Index(
        "uq_assets_job_id_request_id",
        "job_id",
        "request_id",
        unique=True,
        sqlite_where=text("request_id <> ''"),
        postgresql_where=text("request_id <> ''"),
    ),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("job_id", _ID, primary_key=True),
    Column("user_id", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("job_type", String(MAX_JOB_TYPE_CHARACTERS), nullable=False),
    Column("status", String(10), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("delete_time", BigInteger, nullable=False),
    Column("change_seq", BigInteger, nullable=False),
    Index("uq_tombstones_change_seq", "change_seq", unique=True),
    Index("ix_tombstones_user_id_change_seq", "user_id", "change_seq"),
)

# One row. `seq` is the sequence number of the newest committed change. Its row lock is held until
# the commit, so sequence order is commit order. `compacted_seq` is the greatest sequence number of
# a deletion that is no longer among the tombstones. `database_identity` differs in a copy of the
# database.
feed = Table(
    "feed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("compacted_seq", BigInteger, nullable=False),
    Column("database_identity", Text, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
    CheckConstraint("seq >= 0", name="seq"),
)
