"""Breaks of promises 56 to 79: security, callers kept apart, logs, lists, running a server."""

from tests.promises.entry import Entry
from tests.simulation.planted.bug import Bug

ADMISSION = "tests/unit/server/test_admission.py"
BATCHER = "tests/unit/server/test_batcher.py"
STORE_ERRORS = "tests/e2e/rpc/refusals/test_store_errors.py"

ENTRIES = {
    56: Entry(
        Bug(
            "everybody may read the file of the database",
            "database.file_lock",
            "os.O_CLOEXEC, 0o600)",
            "os.O_CLOEXEC, 0o644)",
        ),
        "tests/e2e/server/test_server_command.py"
        "::test_files_that_the_server_creates_are_readable_by_their_owner_only",
    ),
    57: Entry(
        Bug(
            "a file that has another name is another database",
            "database.file_lock",
            "    path = Path(str(url.database)).resolve()\n",
            "    path = Path(str(url.database))\n",
        ),
        "tests/e2e/server/test_server_command.py"
        "::test_a_second_server_is_refused_under_any_name_of_the_file[symlink_to]",
    ),
    58: Entry(
        Bug(
            "a new certificate is read and not used",
            "runtime.tls",
            "            return self._content.configuration\n\n\ndef",
            "            return None\n\n\ndef",
        ),
        "tests/e2e/server/test_tls.py"
        "::test_new_files_are_used_from_the_next_connection_on_and_end_nothing[sqlite]",
    ),
    59: Entry(
        Bug(
            "a caller may call every method",
            "rpc.access.permissions",
            "    if method.path not in permissions.methods:",
            "    if method.path not in METHODS:",
        ),
        "tests/e2e/access/test_every_method.py"
        "::test_each_caller_may_call_its_methods_and_no_others[sqlite]",
    ),
    60: Entry(
        Bug(
            "the audit log does not say what is wrong with a refused identity",
            "rpc.access.audit",
            '        facts["kind"] = error.fault\n',
            "        pass\n",
        ),
        "tests/e2e/access/test_identity_faults.py"
        "::test_the_audit_log_says_why_a_token_is_refused_and_the_answer_does_not[sqlite]",
    ),
    61: Entry(
        Bug(
            "the event loop parses large requests",
            "rpc.incoming",
            "        if size <= INLINE_BYTES:\n            admit()",
            "        if size <= MAX_MESSAGE_BYTES:\n            admit()",
        ),
        "tests/robustness/abuse/test_large_requests.py"
        "::test_the_event_loop_parses_no_large_request[sqlite-JobService/GetJob]",
    ),
    62: Entry(
        Bug(
            "a connection that holds nothing is refused while others hold all",
            "admission.admission",
            "                if of_origin + weight > self.total // origins:",
            "                if origins:",
        ),
        f"{ADMISSION}::test_many_connections_cannot_shut_out_another_one",
    ),
    63: Entry(
        Bug(
            "a batch of creations counts as one for the quota",
            "rpc.jobs.creation_quotas",
            "self.rate.take(caller, sum(counts.values()))",
            "self.rate.take(caller, len(counts))",
        ),
        "tests/e2e/access/test_quotas.py"
        "::test_jobs_created_a_second_count_each_job_of_a_batch[sqlite]",
    ),
    64: Entry(
        Bug(
            "the bytes that wait are counted and never refused",
            "ledger.batcher",
            "            self._bytes.acquire(caller, size)\n",
            "            self._bytes.acquire(caller, size, refuse=False)\n",
        ),
        f"{BATCHER}::test_what_is_refused_for_its_bytes_takes_no_place",
    ),
    65: Entry(
        Bug(
            "the weight of what a caller was served does not count",
            "admission.fair_queue",
            "            self._origins.add_again(origin, weight)",
            "            self._origins.add_again(origin, 1)",
        ),
        f"{ADMISSION}::test_heavy_requests_wait_for_light_ones_of_other_callers",
    ),
    67: Entry(
        Bug(
            "the gateway keeps connections on which nothing comes",
            "jobledger_gateway.connections",
            "        self._http.connection_made(transport)\n        self._await_head()\n",
            "        self._http.connection_made(transport)\n",
        ),
        "tests/e2e/gateway/test_bounds.py::test_a_connection_that_sends_no_request_is_closed",
    ),
    68: Entry(
        Bug(
            "a caller that reports too late writes as many lines as it likes",
            "ledger.ledger",
            'extra={"count": len(late), "job": late[-1]})',
            'extra={"reports": len(late), "job": late[-1]})',
        ),
        "tests/robustness/abuse/test_logs.py"
        "::test_late_reports_are_merged_into_one_log_line[sqlite]",
    ),
    69: Entry(
        Bug(
            "each call of a client imports OpenTelemetry",
            "jobledger.core.tracing",
            "    if not tracing():\n        return ()\n",
            "",
        ),
        "tests/e2e/worker/test_traces.py::test_a_program_without_opentelemetry_imports_none_of_it",
    ),
    70: Entry(
        Bug(
            "a job does not keep the trace of its creator",
            "domain.decisions",
            "        traceparent=command.traceparent,\n",
            '        traceparent="",\n',
        ),
        "tests/e2e/rpc/test_traceparent.py"
        "::test_a_traceparent_is_kept_and_given_to_each_attempt[sqlite]",
    ),
    71: Entry(
        Bug(
            "a server has metrics of Python that are not in the reference",
            "telemetry.prometheus",
            "    collectors = CollectorRegistry()\n",
            "    from prometheus_client import GCCollector\n"
            "    collectors = CollectorRegistry()\n"
            "    GCCollector(collectors)\n",
        ),
        "tests/e2e/server/test_metrics.py"
        "::test_a_server_has_the_metrics_that_are_declared_and_no_others[sqlite]",
    ),
    72: Entry(
        Bug(
            "a page of jobs begins with the last one of the page before",
            "sql.job_lists",
            "else own < tuple_(*values, literal(end, ID)))",
            "else own <= tuple_(*values, literal(end, ID)))",
        ),
        "tests/e2e/rpc/test_jobs.py"
        "::test_jobs_are_paged_newest_first_without_gap_or_duplicate[sqlite]",
    ),
    73: Entry(
        Bug(
            "a server that stops drops the commands that wait",
            "ledger.batcher",
            "            while len(self._queue):\n                if callers",
            "            while len(self._queue) and not self._closed:\n                if callers",
        ),
        f"{BATCHER}::test_accepted_items_are_finished_before_the_batcher_closes",
    ),
    74: Entry(
        Bug(
            "a process that was killed is not replaced",
            "runtime.processes",
            "                with suppress(TimeoutError):\n"
            "                    await asyncio.wait_for(self._stopping.wait(), pause)\n",
            "                return\n",
        ),
        "tests/robustness/test_several_processes.py::test_a_killed_process_is_replaced"
        "_without_an_error_and_sigterm_drains_them_all",
    ),
    75: Entry(
        Bug(
            "an outage of the database is an internal error for callers",
            "rpc.status",
            "        case StoreUnavailable():\n"
            '            return _unavailable("the database does not answer")\n',
            "",
        ),
        f"{STORE_ERRORS}::test_an_outage_of_postgresql_is_unavailable_and_counted"
        "_and_ends_without_a_restart",
    ),
    76: Entry(
        Bug(
            "failed writes are not counted",
            "ledger.ledger",
            "        self.store_errors[error.kind] += 1\n",
            "",
        ),
        f"{STORE_ERRORS}::test_a_temporary_database_error_is_unavailable_and_reads_continue",
    ),
    77: Entry(
        Bug(
            "a server of which a part has failed exits with code 0",
            "cli.serve",
            "    if app.failed.is_set():\n",
            "    if app.failed.is_set() and stop.is_set():\n",
        ),
        "tests/e2e/server/test_supervision.py::test_a_task_that_fails_stops_the_server",
    ),
    78: Entry(
        Bug(
            "a migration waits for a lock for as long as it takes",
            "sql.schema",
            "SET lock_timeout = '{LOCK_SECONDS}s'",
            "SET lock_timeout = 0",
        ),
        "tests/integration/store/test_upgrades.py"
        "::test_what_waits_behind_a_migration_that_waits_goes_on",
    ),
    79: Entry(
        Bug(
            "a server changes jobs in a phase that it does not know",
            "domain.decisions",
            "isinstance(job.phase, UnknownPhase) and (",
            "job is None and (",
        ),
        "tests/integration/ledger/test_newer_phase.py"
        "::test_it_is_neither_claimed_nor_changed_and_other_jobs_are[sqlite]",
    ),
}
