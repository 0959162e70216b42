"""Breaks of promises 23 to 41: the feed, and watches of one job and of many."""

from tests.promises.entry import Entry, planted
from tests.simulation.planted.bug import Bug

FEED = "tests/e2e/rpc/test_watch_jobs.py"
HUB = "tests/integration/watch/test_hub.py"
JOB = "tests/e2e/rpc/test_watch_job.py"
JOB_WATCH = "tests/unit/server/test_job_watch.py"

ENTRIES = {
    23: Entry(
        planted("feed locked late"),
        "tests/integration/store/test_feed.py"
        "::test_a_reader_that_follows_concurrent_writers_misses_nothing[postgresql]",
    ),
    24: Entry(
        planted("read before subscribing"),
        f"{JOB}::test_a_change_between_reading_and_the_first_message_is_not_lost[sqlite]",
    ),
    25: Entry(
        Bug(
            "a watch of one job is sent the same version twice",
            "watch.job_watch",
            "        elif change.job.version > self._version:",
            "        else:",
        ),
        f"{JOB_WATCH}::test_a_change_offered_twice_is_delivered_once",
    ),
    26: Entry(
        Bug(
            "a resumed watch of one job starts one version too late",
            "rpc.jobs.job_streams",
            "if each.version > after_version)",
            "if each.version > after_version + 1)",
        ),
        f"{JOB}::test_resumable_after_any_version_no_transition_is_lost[sqlite]",
    ),
    27: Entry(
        Bug(
            "a watch of one job keeps the oldest state that was not sent",
            "watch.job_watch",
            "            self._job = change.job\n",
            "            self._job = self._job or change.job\n",
        ),
        f"{JOB_WATCH}::test_progress_conflates_and_transitions_do_not",
    ),
    28: Entry(
        Bug(
            "a server that drains does not send the terminal state that it knows",
            "watch.job_watch",
            "if job is not None and (self._ending is None or job.status in TERMINAL):",
            "if job is not None and self._ending is None:",
        ),
        f"{JOB_WATCH}::test_a_draining_watch_still_delivers_a_known_terminal_state",
    ),
    29: Entry(
        Bug(
            "an idle watch of one job is sent nothing",
            "rpc.jobs.job_streams",
            "                    message = WATCH_HEARTBEAT\n",
            "                    continue\n",
        ),
        f"{JOB}::test_an_idle_watch_sends_heartbeats_without_the_job[sqlite]",
    ),
    30: Entry(
        Bug(
            "a watch that has ended counts for ever, so no other takes its place",
            "watch.hub",
            "        with self._admission.admit(caller):\n",
            "        self._admission.acquire(caller)\n        with nullcontext():\n",
        ),
        f"{JOB}::test_a_watcher_that_disconnects_frees_its_slot[sqlite]",
    ),
    31: Entry(
        planted("notification lost"),
        "tests/integration/watch/test_notifications.py"
        "::test_a_notification_delivers_a_commit_to_another_server_without_a_poll[tuning0]",
    ),
    32: Entry(
        Bug(
            "connections reach no maximum age below an hour",
            "rpc.serving.server",
            "    if settings.max_watch_age:\n",
            "    if settings.max_watch_age > 3600:\n",
        ),
        "tests/e2e/server/test_connection_age.py"
        "::test_a_connection_of_the_maximum_age_is_sent_goaway",
    ),
    33: Entry(
        Bug(
            "a server goes on if the sequence numbers of its database went backwards",
            "watch.tail",
            "if head.epoch != self.epoch or head.seq < known:",
            "if head.epoch != self.epoch:",
        ),
        f"{HUB}::test_a_restored_database_ends_every_watch_and_new_watches_work",
    ),
    34: Entry(
        Bug(
            "a message has as many changes as are ready, whatever their size",
            "rpc.jobs.feed_streams",
            "        if changes and room < 0:",
            "        if changes and False:",
        ),
        f"{FEED}::test_a_message_has_a_mebibyte_at_most_and_a_token_to_resume_after_it"
        "[sqlite-1-list]",
    ),
    35: Entry(
        planted("list moves on"),
        f"{FEED}::test_a_job_that_changes_during_the_listing_is_delivered_in_its_present_state"
        "[sqlite-tuning0]",
    ),
    36: Entry(
        planted("resume repeats one"),
        f"{FEED}::test_resumable_after_any_message_without_loss_or_duplicates[sqlite]",
    ),
    37: Entry(
        planted("resume skips one"),
        f"{FEED}::test_resumable_after_any_message_without_loss_or_duplicates[sqlite]",
    ),
    38: Entry(
        Bug(
            "the change buffer keeps fewer changes than is promised",
            "tuning",
            "buffered_changes: int = 8192",
            "buffered_changes: int = 4096",
        ),
        "tests/unit/server/test_change_buffer.py"
        "::test_progress_is_not_conflated_within_8192_changes_and_32_mib",
    ),
    39: Entry(
        Bug(
            "a watch reads all changes at once, however many bytes they have",
            "watch.feed_reader",
            "        if room < 0:\n            return max(1, count)\n",
            "",
        ),
        "tests/integration/watch/test_feed_watch.py"
        "::test_each_update_is_bounded_by_bytes[sqlite-1-expected0]",
    ),
    40: Entry(
        Bug(
            "a client resumes in the middle of a message after the end of it",
            "jobledger.core.feed_watch",
            "events = [self._event(change, before) for",
            "events = [self._event(change, self._token) for",
        ),
        "tests/unit/client/test_feed_watch_decisions.py"
        "::test_only_the_last_change_of_a_message_has_its_token",
    ),
    41: Entry(
        planted("read of another owner"),
        "tests/unit/server/test_feed_reader.py"
        "::test_watches_of_two_owners_at_one_place_are_sent_their_own_jobs",
    ),
}
