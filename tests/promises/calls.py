"""Breaks of promises 43 to 55: what is kept, calls that are repeated, batches, streams, errors."""

from tests.promises.entry import Entry, planted
from tests.simulation.planted.bug import Bug

ERRORS = "tests/e2e/rpc/refusals/test_errors.py"
MACHINE = "tests/unit/domain/test_machine.py"
WORK = "tests/e2e/rpc/test_work.py"

ENTRIES = {
    43: Entry(
        Bug(
            "nobody looks for jobs whose own retention is over",
            "maintenance.retention",
            "outlived = await self._store.find_outlived(limit=self._tuning.purge_search)",
            "outlived: Sequence[JobId] = ()",
        ),
        "tests/integration/ledger/test_retention.py"
        "::test_jobs_are_purged_earlier_or_later_by_the_retention_of_their_type[sqlite-an hour]",
    ),
    44: Entry(
        Bug(
            "deletions are forgotten at once",
            "sql.sql_store",
            "before = await self._dialect.now(connection) - age",
            "before = await self._dialect.now(connection)",
        ),
        "tests/integration/store/test_feed.py"
        "::test_deletions_are_compacted_oldest_first_and_an_older_cursor_is_refused[sqlite]",
    ),
    45: Entry(
        Bug(
            "a start that its worker repeats is refused",
            "domain.decisions",
            "if not repeated or command.worker_id != job.worker_id:",
            "if not repeated or command.worker_id:",
        ),
        f"{MACHINE}::test_starting_a_job_again_by_the_same_worker[State.HELD]",
    ),
    46: Entry(
        Bug(
            "a batch of creations is made up to the one that is refused",
            "ledger.working_set",
            "                refusal.index = index\n                raise\n",
            "                refusal.index = index\n                return decisions\n",
        ),
        "tests/e2e/rpc/test_batches.py"
        "::test_a_reused_request_id_is_named_by_index_and_no_job_is_created[sqlite-False]",
    ),
    47: Entry(
        Bug(
            "the newest result is sent first",
            "rpc.workers.work_results",
            "        self._pending.append(pending)\n",
            "        self._pending.appendleft(pending)\n",
        ),
        f"{WORK}::test_results_are_in_the_order_of_the_updates[sqlite]",
    ),
    48: Entry(
        Bug(
            "a slot that an update frees gets no job",
            "rpc.workers.work_streams",
            "        if ends(command):\n            self._slots.changed()\n        self._results",
            "        self._results",
        ),
        f"{WORK}::test_jobs_are_pushed_while_there_are_free_slots[sqlite]",
    ),
    49: Entry(
        planted("cancellation untold"),
        f"{WORK}::test_a_cancellation_is_pushed_once[sqlite]",
    ),
    50: Entry(
        Bug(
            "leases that a message could not renew are not renewed by the next one",
            "rpc.workers.work_leases",
            '            self._renewed = float("-inf")  # by the next message',
            "            pass",
        ),
        "tests/integration/work/test_work_leases.py"
        "::test_leases_that_could_not_be_renewed_are_renewed_by_the_next_message[sqlite]",
    ),
    51: Entry(
        Bug(
            "a worker does not send again what was not answered",
            "jobledger.worker.session.work_stream",
            "            if update.result is None or not update.result.done():",
            "            if update.result is None:",
        ),
        "tests/e2e/worker/test_stream.py::test_only_unanswered_updates_are_sent_again",
    ),
    52: Entry(
        Bug(
            "an error that says no more than its reason",
            "rpc.status",
            "return Refusal(codes.FAILED_PRECONDITION, reason, message, facts, details)",
            "return Refusal(codes.FAILED_PRECONDITION, reason, message, NO_FACTS, details)",
        ),
        f"{ERRORS}::test_a_transition_that_is_not_in_the_table_is_refused[sqlite]",
    ),
    53: Entry(
        Bug(
            "whoever cancels another owner's job that has ended is answered",
            "domain.leases",
            "    if job.user_id != command.user_id:\n",
            "    if job.user_id != command.user_id and job.status not in TERMINAL:\n",
        ),
        f"{ERRORS}::test_an_absent_job_and_another_owners_job_give_identical_answers[sqlite]",
    ),
    54: Entry(
        Bug(
            "a worker may work on jobs of types that it was not given",
            "domain.decisions",
            "    return job.job_type in command.job_types\n",
            "    return True\n",
        ),
        f"{MACHINE}::test_a_job_of_another_type_does_not_exist_for_a_limited_worker",
    ),
    55: Entry(
        Bug(
            "a caller is sent the text of an unexpected error",
            "rpc.status",
            'f"internal error; see {correlation_id} in the server\'s log"',
            'f"internal error {correlation_id}: {error}"',
        ),
        f"{ERRORS}::test_a_programming_error_is_reported_by_its_id_only_and_logged_in_full[sqlite]",
    ),
}
