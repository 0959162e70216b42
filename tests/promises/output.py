"""Breaks of promises 93 to 98: what a job writes."""

from tests.promises.entry import Entry, planted

DOMAIN = "tests/unit/domain/test_output.py"
LEDGER = "tests/integration/ledger/test_output.py"
WATCH = "tests/integration/watch/test_outputs.py"

ENTRIES = {
    93: Entry(
        planted("gap in the buffer"),
        f"{WATCH}::test_a_buffer_has_what_follows_and_begins_anew_after_a_gap",
    ),
    94: Entry(
        planted("output not fenced"),
        "tests/e2e/rpc/test_output.py"
        "::test_another_attempt_is_said_and_a_message_is_of_one[sqlite]",
    ),
    95: Entry(
        planted("repetition appended"),
        f"{DOMAIN}::test_a_retry_is_answered_whatever_became_of_the_job[State.HELD]",
    ),
    96: Entry(
        planted("closed without a look"),
        f"{WATCH}::test_an_ended_stream_is_final_once_the_table_has_no_more[sqlite]",
    ),
    97: Entry(
        planted("nothing dropped"),
        f"{LEDGER}::test_the_oldest_output_goes_of_the_longest_stream[sqlite]",
    ),
    98: Entry(
        planted("output makes a version"),
        f"{LEDGER}::test_output_is_appended_in_order_and_read_back[sqlite]",
    ),
}
