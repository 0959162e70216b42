"""What the page on groups shows does what it says."""

import threading
from pathlib import Path

from jobledger import Client
from tests.e2e.docs.programs import output, program, shell
from tests.support.pages import ROOT, blocks
from tests.support.server_process import ServerProcess

PAGE = ROOT / "docs/guides/many-jobs-as-one.md"


def test_the_program_of_the_page_waits_for_the_jobs_of_its_group(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    def work() -> None:
        with Client(own_server.target, user_id="ada") as client:
            done = 0
            while done < 3:
                for job in client.claim_jobs(["page"], wait=5):
                    client.mark_completed(job.id, attempt=job.attempt)
                    done += 1

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    *pages, last = output(program(PAGE, "client.group", own_server), tmp_path).splitlines()
    worker.join()
    assert sorted(pages) == [f"{page} COMPLETED" for page in range(3)]
    assert last == "COMPLETED 3 of 3"


def test_the_commands_of_the_page_fill_a_group(own_server: ServerProcess, tmp_path: Path) -> None:
    (block,) = blocks(PAGE, "console")
    create, *commands = block.commands
    group = shell(create, own_server.target, tmp_path).strip()
    said = shell("\n".join(commands).replace("GROUP", group), own_server.target, tmp_path)
    assert f"sealed {group}" in said
    assert "0 of 1 ended, 1 queued; sealed" in said
