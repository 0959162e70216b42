"""Breaks of promises 80 to 92: retries, schedules, who goes next, defaults, webhooks."""

from tests.promises.entry import Entry, planted
from tests.simulation.planted.bug import Bug

NEXT = "tests/integration/ledger/test_who_goes_next.py"

ENTRIES = {
    80: Entry(
        Bug(
            "a job may be started by its id before its time",
            "domain.decisions",
            "    if due is not None and due > now:\n        raise JobNotDue(job.id, due)\n",
            "",
        ),
        "tests/e2e/rpc/test_schedule.py"
        "::test_a_job_that_is_not_due_cannot_be_started_by_its_id[sqlite]",
    ),
    81: Entry(
        Bug(
            "a job has one attempt more than it was given",
            "domain.leases",
            "return job.attempt - job.releases < job.attempts_allowed",
            "return job.attempt - job.releases <= job.attempts_allowed",
        ),
        "tests/unit/domain/test_retries.py"
        "::test_lost_leases_stalls_and_failures_use_up_the_same_attempts",
    ),
    82: Entry(
        Bug(
            "a job forgets its checkpoint when it is started again",
            "domain.state_machine",
            "        report_number=0,\n        progress_message",
            "        report_number=0,\n        checkpoint_bytes=0,\n        progress_message",
        ),
        "tests/e2e/rpc/test_checkpoints.py"
        "::test_a_checkpoint_is_replaced_kept_and_given_to_each_later_attempt[sqlite]",
    ),
    83: Entry(
        Bug(
            "a job that was rerun is rerun again",
            "ledger.working_set",
            "        if origin is not None and origin in self.reruns:",
            "        if False:",
        ),
        "tests/e2e/rpc/test_rerun_job.py::test_a_job_is_rerun_once[sqlite]",
    ),
    84: Entry(
        Bug(
            "a watch is not sent the assets of a deleted job",
            "rpc.jobs.feed_streams",
            "removed = assets and change.deleted and job.asset_count > 0",
            "removed = False",
        ),
        "tests/e2e/rpc/test_assets.py"
        "::test_a_deletion_delivers_the_assets_to_its_caller_and_to_every_watch[sqlite]",
    ),
    85: Entry(
        Bug(
            "the lowest priority goes first",
            "domain.queues",
            "heaps[job_type].append((-priority, queue",
            "heaps[job_type].append((priority, queue",
        ),
        f"{NEXT}::test_a_higher_priority_goes_first_and_the_oldest_of_equal_ones[sqlite]",
    ),
    86: Entry(
        planted("limit ignored"),
        f"{NEXT}::test_no_more_jobs_are_held_than_a_limit_permits_over_all_servers[sqlite]",
    ),
    87: Entry(
        planted("blocked jobs forgotten"),
        f"{NEXT}::test_the_end_of_a_job_gives_its_slot_to_a_blocked_one_in_the_same_commit[sqlite]",
    ),
    88: Entry(
        planted("pause of a type ignored"),
        f"{NEXT}::test_no_job_of_a_paused_type_or_key_starts_until_it_goes_on[sqlite]",
    ),
    89: Entry(
        planted("unique key ignored"),
        f"{NEXT}::test_a_unique_key_is_refused_or_returns_the_job_that_has_it[sqlite]",
    ),
    90: Entry(
        Bug(
            "jobs of a type are still counted in the phases that they have left",
            "domain.queues",
            "                level[1 + phase] += change\n",
            "                level[1 + phase] += max(0, change)\n",
        ),
        "tests/integration/store/test_queue_reports.py"
        "::test_each_job_is_counted_once_by_its_type_priority_and_phase[sqlite]",
    ),
    91: Entry(
        Bug(
            "an event that could not be delivered at once is not tried again",
            "jobledger_gateway.webhooks.attempts",
            "                if not answer.failure:\n"
            "                    return None\n"
            "                attempts, next_time",
            "                if not answer.failure or answer.status:\n"
            "                    return None\n"
            "                attempts, next_time",
        ),
        "tests/e2e/webhooks/test_deliveries.py"
        "::test_all_transitions_come_in_order_though_the_first_attempts_fail[sqlite]",
    ),
    92: Entry(
        planted("changed default ignored"),
        "tests/integration/ledger/test_type_defaults.py"
        "::test_no_job_is_created_without_the_defaults_whose_call_has_returned[sqlite]",
    ),
}
