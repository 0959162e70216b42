"""Breaks of promises 99 and 100: jobs that belong to a group."""

from tests.promises.entry import Entry, planted

RPC = "tests/e2e/rpc/test_groups.py"

ENTRIES = {
    99: Entry(
        planted("ends with a job open"),
        f"{RPC}::test_a_group_ends_with_its_last_job[sqlite]",
    ),
    100: Entry(
        planted("children run on"),
        f"{RPC}::test_cancelling_a_group_cancels_its_jobs[sqlite]",
    ),
}
