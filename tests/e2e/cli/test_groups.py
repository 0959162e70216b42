"""Groups on the command line: made, filled, sealed and shown."""

import json
from datetime import UTC, datetime

from jobledger import Client
from jobledger.cli.render import job_message
from tests.e2e.cli.conftest import Shell


def test_a_group_is_created_filled_sealed_and_ends_with_its_jobs(
    jobledger: Shell, client: Client
) -> None:
    group = jobledger.ok("group", "create", "album", "--fail-fast").strip()
    jobs = [jobledger.ok("create", "page", "--group", group).strip() for _ in range(2)]
    listed = jobledger.ok("list", "--group", group, "--json").splitlines()
    assert [json.loads(line)["id"] for line in listed] == jobs[::-1]
    client.start_job(jobs[0])
    client.mark_completed(jobs[0], attempt=1)
    line = "jobs         1 of 2 ended, 1 queued; not sealed"
    assert line in jobledger.ok("get", group).splitlines()
    assert jobledger.ok("group", "seal", group) == f"sealed {group}\n"
    client.start_job(jobs[1])
    client.mark_completed(jobs[1], attempt=1)
    *_, last = jobledger.ok("watch", group).splitlines()
    assert json.loads(last)["job"]["group"]["completed"] == 2
    # In a terminal it is a bar with these words.
    assert job_message(client.get_job(group), datetime.now(UTC)) == "2 of 2 ended; sealed"
    shown = json.loads(jobledger.ok("get", group, "--json"))
    assert (shown["status"], shown["group"]["fail_fast"]) == ("COMPLETED", True)


def test_a_group_says_that_it_waits_for_its_jobs(jobledger: Shell, client: Client) -> None:
    group = client.create_group("album")
    client.create_job("page", group_id=group)
    said = jobledger.ok("explain", group.id)
    assert "it is a group, of which 1 job has not ended" in said
    assert "more may be added until it is sealed" in said


def test_a_job_that_is_no_group_cannot_be_sealed(jobledger: Shell, client: Client) -> None:
    ran = jobledger("group", "seal", client.create_job("page").id)
    assert ran.returncode != 0
    assert ran.stderr.startswith("error: ")
