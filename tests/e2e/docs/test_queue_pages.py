"""What the pages on priorities, limits and pauses show does what they say."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobledger import Client
from tests.e2e.docs.programs import output, program, shell
from tests.support.pages import ROOT, blocks
from tests.support.server_process import ServerProcess

GUIDES = ROOT / "docs/guides"
PRIORITIES, LIMITS, PAUSE = (GUIDES / f"{name}.md" for name in ("priorities", "limits", "pause"))


@pytest.fixture
def ada(own_server: ServerProcess) -> Iterator[Client]:
    with Client(own_server.target, user_id="ada") as client:
        yield client


def test_jobs_of_the_page_are_claimed_by_priority(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    assert output(program(PRIORITIES, "urgent", own_server), tmp_path) == "9\n"
    claimed = [ada.claim_jobs(["render"])[0].priority for _ in range(3)]
    assert claimed == [9, 5, 1]


def test_a_tenant_with_one_job_is_among_the_first_beside_one_with_a_thousand(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    job_id, tenant = output(program(PRIORITIES, "newton", own_server), tmp_path).split()
    assert tenant == "newton"
    assert job_id in {ada.claim_jobs(["import"])[0].id for _ in range(2)}


def test_the_commands_of_the_page_say_why_a_job_waits_and_how_many_do(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    for _ in range(3):
        job = ada.create_job("render")
    explain, stats = (block.commands[0] for block in blocks(PRIORITIES, "console"))
    command = f"{explain.replace('JOB', job.id)} --user ada"
    assert "no worker" in shell(command, own_server.target, tmp_path)
    assert "render" in shell(stats, own_server.target, tmp_path)


def test_at_most_as_many_jobs_of_the_page_are_held_as_its_limit_allows(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    (block,) = blocks(LIMITS, "console")
    assert "stripe" in shell("\n".join(block.commands), own_server.target, tmp_path)
    output(program(LIMITS, "for order in range(3)", own_server), tmp_path)
    free = ada.create_job("charge")
    held = ada.claim_jobs(["charge"], max_jobs=10)
    assert sorted(job.concurrency_key for job in held) == ["", "stripe", "stripe"]
    assert free.id in {job.id for job in held}
    assert output(program(LIMITS, "operator", own_server), tmp_path) == "2 2 1\n"
    ada.mark_completed(next(job.id for job in held if job.id != free.id), attempt=1)
    assert len(ada.claim_jobs(["charge"], max_jobs=10, wait=30)) == 1
    shell("jobledger limits remove stripe", own_server.target, tmp_path)
    output(program(LIMITS, "for order in range(3)", own_server), tmp_path)
    assert len(ada.claim_jobs(["charge"], max_jobs=10)) == 3


def test_a_key_of_the_page_has_its_own_limit_before_that_of_its_name(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    output(program(LIMITS, "tenant:acme", own_server), tmp_path)
    for key in ("tenant:acme", "tenant:newton"):
        for _ in range(10):
            ada.create_job("import", concurrency_key=key)
    claimed = [job.concurrency_key for job in ada.claim_jobs(["import"], max_jobs=30)]
    assert sorted(claimed) == ["tenant:acme"] * 8 + ["tenant:newton"] * 4


def test_the_program_of_the_page_creates_a_job_once(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    printed = output(program(LIMITS, "UniqueKeyTaken", own_server), tmp_path)
    assert printed == "True\nTrue\n"
    assert len(list(ada.list_jobs())) == 1


def test_a_paused_type_starts_no_job_until_it_is_resumed(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    first, *reasons, last = output(program(PAUSE, "pause_job_type", own_server), tmp_path).split(
        "\n"
    )[:-1]
    assert first == "the render farm moves []"
    assert "TYPE_PAUSED" in reasons
    assert last == "[True]"


def test_the_commands_of_the_page_pause_and_resume(
    own_server: ServerProcess, ada: Client, tmp_path: Path
) -> None:
    job = ada.create_job("render", concurrency_key="stripe")
    for block in blocks(PAUSE, "console"):
        pause, show, resume = block.commands
        shell(pause, own_server.target, tmp_path)
        assert "paused" in shell(show, own_server.target, tmp_path)
        assert ada.claim_jobs(["render"]) == []
        shell(resume, own_server.target, tmp_path)
    assert [each.id for each in ada.claim_jobs(["render"], wait=30)] == [job.id]
