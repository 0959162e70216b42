"""Breaks of promises 1 to 22: what is durable, jobs and their states, claims, leases, deadlines."""

from tests.promises.entry import Entry, planted
from tests.simulation.planted.bug import Bug

CLAIMS = "tests/integration/ledger/test_claims.py"
DOMAIN = "tests/unit/domain"
LEDGER = "tests/integration/ledger/test_ledger.py"
STORE = "tests/integration/store/test_store.py"

ENTRIES = {
    1: Entry(
        planted("published before the commit"),
        f"{LEDGER}::test_a_crash_between_load_and_commit_writes_nothing_and_leaves_no_hole[sqlite]",
    ),
    2: Entry(
        Bug(
            "SQLite does not wait until a commit is on the disk",
            "sql.sqlite.sqlite_engines",
            '"PRAGMA synchronous=FULL"',
            '"PRAGMA synchronous=NORMAL"',
        ),
        f"{STORE}::test_a_commit_is_on_the_disk_before_it_is_acknowledged[sqlite]",
    ),
    3: Entry(
        Bug(
            "PostgreSQL does not wait for the standby",
            "sql.postgresql.postgresql_engines",
            '"synchronous_commit": "on"',
            '"synchronous_commit": "local"',
        ),
        "tests/robustness/test_standby.py::test_a_change_that_no_standby_has_is_not_acknowledged"
        "_and_not_sent_to_watchers[stays]",
    ),
    5: Entry(
        Bug(
            "a job ends without the assets of the call that ends it",
            "domain.decisions",
            "    return replace(decision, assets=linked.added, updated=linked.updated)",
            "    return decision",
        ),
        f"{DOMAIN}/test_assets.py"
        "::test_the_assets_of_an_outcome_that_were_linked_before_are_not_linked_again[False]",
    ),
    6: Entry(
        Bug(
            "a job is written although another server has changed it since it was read",
            "sql.postgresql.postgresql_driver",
            "len(await self._same(unlocked, _LOCK)) < len(unlocked)",
            "len(await self._same(unlocked, _LOCK)) < 0",
        ),
        f"{STORE}::test_transactions_that_change_one_job_lose_no_update[postgresql]",
    ),
    7: Entry(
        Bug(
            "a job that is PARTIAL may still be completed",
            "domain.state_machine",
            "    JobStatus.PARTIAL: (),",
            "    JobStatus.PARTIAL: (JobStatus.COMPLETED,),",
        ),
        f"{DOMAIN}/test_machine.py::test_the_transitions_are_those_of_the_contract",
    ),
    8: Entry(
        Bug(
            "a lower progress replaces a higher one",
            "domain.decisions",
            "return max(job.progress, progress or 0), job",
            "return job.progress if progress is None else progress, job",
        ),
        f"{DOMAIN}/test_reports.py"
        "::test_a_lower_progress_stays_as_it_was_and_the_rest_of_the_report_is_taken",
    ),
    9: Entry(
        Bug(
            "the details of an error are not stored",
            "sql.rows",
            "ended = (outcome.result, outcome.error_details) if",
            "ended = (outcome.result, None) if",
        ),
        f"{STORE}::test_a_job_is_read_back_exactly_as_it_was_written[sqlite]",
    ),
    10: Entry(
        planted("no fence"),
        "tests/e2e/rpc/refusals/test_errors.py"
        "::test_a_report_with_a_stale_attempt_is_refused[sqlite]",
    ),
    11: Entry(
        Bug(
            "a claim starts a job although another one has it",
            "domain.leases",
            "if job.phase is not Phase.READY or _passed(deadline(job), now):",
            "if job.status in TERMINAL or _passed(deadline(job), now):",
        ),
        f"{DOMAIN}/test_machine.py::test_every_claim_in_every_state",
    ),
    12: Entry(
        Bug(
            "the bytes of a claim's jobs are not added up",
            "ledger.allocation",
            "        self._bytes -= JOB_BYTES + job.size\n",
            "",
        ),
        f"{CLAIMS}::test_a_claim_returns_and_reads_no_more_bytes_than_an_answer_holds[sqlite]",
    ),
    13: Entry(
        planted("wake-up not handed on"),
        "tests/unit/server/test_claim_waiters.py"
        "::test_a_woken_claim_that_is_cancelled_before_it_queries_wakes_the_next",
    ),
    14: Entry(
        Bug(
            "a job that waits in its queue has no deadline",
            "domain.leases",
            "    earliest = job.queue_expire_time\n",
            "    earliest = None\n",
        ),
        f"{DOMAIN}/test_machine.py::test_every_expiry_in_every_state",
    ),
    15: Entry(
        Bug(
            "a worker without news keeps its job",
            "domain.leases",
            "        job.stall_expire_time,\n        job.run",
            "        job.run",
        ),
        f"{DOMAIN}/test_stalls.py::test_a_stalled_attempt_is_lost_although_its_lease_is_valid",
    ),
    16: Entry(
        Bug(
            "a report without news is a change",
            "domain.decisions",
            "if late_retry or not (said or checkpoint is not None):",
            "if late_retry:",
        ),
        f"{LEDGER}::test_a_heartbeat_renews_the_lease_and_changes_nothing[sqlite]",
    ),
    17: Entry(
        planted("outage ignored"),
        "tests/integration/ledger/test_outages.py::test_an_expiry_decided_before_an_outage"
        "_extends_the_lease_if_applied_after_it[sqlite]",
    ),
    18: Entry(
        planted("expires unseen"),
        f"{CLAIMS}"
        "::test_a_heartbeat_racing_expiry_either_renews_the_lease_or_reports_its_loss[sqlite]",
    ),
    19: Entry(
        Bug(
            "the clock of the server decides what has expired",
            "ledger.ledger",
            "now = about or await transaction.now()",
            "import time; now = int(time.time() * 1_000_000)",
        ),
        f"{CLAIMS}::test_the_databases_clock_decides_even_if_the_servers_clock_is_wrong",
    ),
    20: Entry(
        planted("release uses up an attempt"),
        "tests/e2e/rpc/test_claims.py"
        "::test_a_released_job_is_claimable_again_and_keeps_its_attempts[sqlite]",
    ),
    21: Entry(
        Bug(
            "a worker does not finish a job whose outcome cannot be sent",
            "jobledger.worker.session.job_updates",
            "except (TypeError, ValueError) as error:",
            "except TypeError as error:",
        ),
        "tests/unit/client/test_job_updates.py"
        "::test_an_outcome_that_was_changed_after_it_was_made_makes_the_job_failed",
    ),
    22: Entry(
        Bug(
            "a worker that ignores a cancellation keeps the job",
            "domain.leases",
            "        _cancel_time(job),\n",
            "",
        ),
        f"{DOMAIN}/test_deadlines.py::test_the_deadline_is_the_earliest_of_the_times_that_apply",
    ),
}
