"""Sizes and paces inside of the server that no user has to decide.

Nothing that callers are promised depends on them. A simulation makes them small, because much of
the code runs only where a buffer is full or a page has a next one; and makes polls rare, so that an
idle server costs nothing.
"""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The buffers, pages, batches and intervals of one server.

    Each size is at least 1, if it does not say that it may be 0.
    """

    # --- watches ---------------------------------------------------------------------------------

    tail_page: int = 200
    """Changes of other servers that are read at once."""

    tail_busy_seconds: float = 0.05
    """Between polls of the feed while other servers commit."""

    tail_idle_seconds: float = 1.0
    """Without news of the feed for this long, the tail polls it itself."""

    woken_watches: int = 50
    """Watches woken in one turn of the event loop. Ten thousand take it half a second, in which
    nobody else is served."""

    buffered_changes: int = 8192
    """Changes that the change buffer keeps at most, for watches that keep up."""

    buffered_bytes: int = 32 * MIB
    """Bytes of these changes at most."""

    early_changes: int = 4096
    """Changes of this process, after a gap, that are kept until it is filled; those of one commit
    more. What does not fit is read from the table."""

    early_bytes: int = 16 * MIB
    """Bytes of these changes at most, and those of one commit more."""

    fill_page: int = 200
    """Changes read at once to fill the change buffer when the server starts."""

    feed_page: int = 100
    """Changes that a watch reads at once from the table. Few: a page is one turn."""

    feed_readers: int = 2
    """Watches that read the table at once. The rest wait, and callers take turns, so that thousands
    that resume together leave connections and turns to everybody else."""

    feed_message_bytes: int = MIB
    """Bytes of one message with changes at most, or one larger change."""

    shared_messages: int = 1024
    """Serialized messages kept at most, of each kind of watch, for other watches that are sent the
    same."""

    shared_message_bytes: int = 8 * MIB
    """Bytes of these messages at most."""

    woken_readers: int = 8
    """Watches of output woken in one turn of the event loop."""

    output_page: int = 64
    """Pieces of output, each of up to 64 KiB, that are read at once of a stream."""

    output_readers: int = 2
    """Watches of output that read the table at once."""

    polled_streams: int = 500
    """Streams of output that one statement looks for what other servers appended to."""

    output_poll_seconds: float = 2.0
    """Between two such looks, where notifications say what to look for in time."""

    output_buffer_bytes: int = 64 * MIB
    """Bytes of output that are buffered of all streams together."""

    # --- commands, claims and reads --------------------------------------------------------------

    command_batch: int = 512
    """Commands in a transaction: enough that the cost of the commit hardly counts, few enough that
    the first of them does not wait long for the last. The commands of one message stay together."""

    command_batch_bytes: int = MIB
    """Bytes of payloads in one transaction, and one message more. A small command waits for the
    batch that is under way and for its own, so both are short; more would make nothing cheaper."""

    waiting_command_bytes: int = 256 * MIB
    """Bytes of the commands that wait or are under way, of all callers together."""

    linger_ticks: int = 10
    """A batch is waited for at most this many milliseconds after the one before, so that of many
    callers some are answered while the database works for others."""

    claim_batch: int = 100
    """Weight of the claims that are served together. A claim's weight is the number of its job
    types or of the jobs that it requests, whichever is greater."""

    claim_batch_bytes: int = 4 * MIB
    """Bytes of jobs that one transaction starts at most, or one larger job."""

    planned_jobs: int = 256
    """Jobs that one read for claims finds at most."""

    passed_at_once: int = 64
    """The same for a claim that passed over jobs already. Few: claims of other types wait for such
    a step, and so does whoever writes while it blocks these jobs."""

    passed_jobs: int = 4096
    """After so many jobs that others claim or that are blocked, claims are answered with no jobs.
    The blocked ones have left their queues, so the next claims come further."""

    claim_pause_seconds: float = 0.005
    """How much later a batch that found no job is answered, if a full one waits. Otherwise callers
    that poll and find nothing, one poll after the other, would take all of the event loop."""

    read_batch: int = 64
    """Jobs read by one statement, without their payloads. More would not be faster."""

    full_read_batch: int = 64
    """Jobs read by one statement with their payloads, each of up to 832 KiB."""

    full_read_bytes: int = 8 * MIB
    """Bytes of the payloads of one such statement, if its jobs are as large as those before it."""

    asset_batch_bytes: int = MIB
    """Bytes of assets read by one statement, and one request more."""

    unblocked_jobs: int = 200
    """Jobs of one type and concurrency key that are ready at most; more are made ready when these
    have started. Also how many one transaction makes ready, but for those of its last type."""

    unblocked_keys: int = 4
    """Concurrency keys that a commit looks at itself: meanwhile the feed is locked."""

    full_keys: int = 10_000
    """Concurrency keys that are known to be full at most."""

    release_retry_seconds: float = 1.0
    """Between attempts to release jobs of callers that are gone, while the database does not
    answer."""

    # --- streams of work -------------------------------------------------------------------------

    updates_per_turn: int = 250
    """Updates, and assets in them, that a stream submits before another one, and the rest of the
    server, has its turn."""

    unsent_results: int = 1000
    """Updates of one stream without a result that was sent, and assets in them; at this number no
    more are submitted."""

    unsent_result_bytes: int = 64 * KIB
    """Bytes of results that were not sent; at this number no more updates are read."""

    renewals_per_lease: float = 10
    """Leases are renewed by a message if that was not done within this part of the lease. Else a
    worker with many jobs and many updates would renew all of the jobs with each update."""

    quiet_part: float = 0.5
    """After this part of a lease without a message, a stream is pushed no jobs. It is less than
    what the leases of its jobs last, so a worker that stalls is not pushed other jobs."""

    claim_retry_seconds: float = 1.0
    """Before a stream's next claim after one that failed."""

    # --- groups ----------------------------------------------------------------------------------

    cancelled_children: int = 200
    """Jobs of a cancelled group that are cancelled together."""

    # --- other calls -----------------------------------------------------------------------------

    bulk_part: int = 250
    """Jobs of a step of RerunJobs, CancelJobs or DeleteJobs that are changed together: others wait
    for a part of a step at most."""

    bulk_part_bytes: int = MIB
    """Bytes of the payloads of these jobs, or one larger job: as many as one request may have."""

    search_seconds: float = 1.0
    """How long such a step looks for the first job that it matches, one page after the other. So a
    caller that begins each step with the newest job comes to the end, too."""

    count_seconds: float = 1.0
    """How long a count of a caller's unfinished jobs is used. Creations are added to it."""

    active_seconds: float = 5.0
    """How often a stream of KEDA's looks whether any job is left. KEDA waits for minutes before it
    scales to zero."""

    caller_seconds: float = 0.5
    """Between looks for calls that have to end, because their callers may not make them any
    more."""

    quiet_seconds: float = 0.1
    """A server that drains stops once nobody has called it for this long: then no call has arrived
    that was not started."""

    untimed_requests: int = 64
    """Requests that gRPC itself waits for at most; it may be 0. Each can hold a message of
    1.25 MiB."""

    prompt_seconds: float = 1.0
    """A request that takes longer to arrive is slow, and only a few of an address may be."""

    request_seconds: float = 20
    """How long a request that gRPC does not wait for may take to arrive after its headers."""

    # --- maintenance -----------------------------------------------------------------------------

    look_seconds: float = 0.5
    """Between looks for what there is to do. Jobs start and expire this late. Without
    notifications, watches are this late with the first change of another server."""

    reap_batch: int = 100
    """Jobs expired together: few, so that callers' commands do not wait long."""

    promote_batch: int = 64
    """Scheduled jobs made ready together: few, so that callers' commands do not wait long."""

    rechecked_keys: int = 100
    """Concurrency keys looked at in one step: each is a transaction."""

    awaited_types: int = 100
    """Job types that one query looks for."""

    wake_seconds: float = 0.02
    """Pause for each such query after other servers said that jobs are ready: they may say so
    hundreds of times a second. `look_seconds` at most."""

    purge_seconds: float = 60.0
    """Between polls for old jobs and deletions while there is nothing to do."""

    purge_search: int = 1000
    """Old jobs found together: a search costs as much as purging a batch of `purge_batch`."""

    purge_batch: int = 100
    """Jobs purged together at most: more cost no less each."""

    purge_least: int = 20
    """The size of the smallest batch. While there are no calls, each batch is larger by this."""

    later_purges: int = 10_000
    """Jobs that a search passed over and that are kept to be purged later: a clock was fast when
    they finished."""

    compacted_deletions: int = 200
    """Deleted jobs forgotten together: few, because they are held by one transaction."""

    sweep_seconds: float = 60.0
    """Pause between two passes over the rows that count jobs."""

    sweep_step_seconds: float = 1.0
    """Pause between two steps of a pass, if less than half of the rows were idle."""

    sweep_rows: int = 500
    """Rows that one step of a pass looks at and deletes at most."""

    poller_seconds: float = 10.0
    """Between two records of what the workers here ask for. They last 30 seconds: longer, by enough
    for a slow database."""

    counters_seconds: float = 10.0
    """Between two reads of the counters of jobs for the metrics."""

    # --- SQL -------------------------------------------------------------------------------------

    blocked_types: int = 100
    """Types of blocked jobs that are looked at in one transaction."""

    scanned_keys: int = 10_000
    """Concurrency keys looked at by one statement when their limit changes."""

    marked_keys: int = 1000
    """Those of them that are marked at once: the feed is locked meanwhile."""

    job_cache_bytes: int = 32 * MIB
    """Bytes of jobs cached at most: about 13,000 jobs."""

    list_step: int = 100
    """Jobs that a list reads at once. Others are served between two steps."""

    scanned_ends: int = 2000
    """Changes that one search for old jobs reads: most jobs have two, their starts and ends."""

    overdue_queues: int = 100
    """Queues that a search for claimable jobs passes over if what it would take is overdue."""
