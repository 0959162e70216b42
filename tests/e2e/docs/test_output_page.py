"""The programs of docs/guides/output.md, and its command, do what the page says."""

import os
import signal
from pathlib import Path

from jobledger import Client
from tests.e2e.docs.programs import output, program, shell
from tests.support.forked import Piped
from tests.support.pages import ROOT, blocks
from tests.support.server_process import ServerProcess

PAGE = ROOT / "docs/guides/output.md"

PROGRAM = """
import json, sys

print("decoding")
print("half of it", file=sys.stderr)
print(json.dumps({"progress": 50}))
"""


def test_the_worker_of_the_page_writes_what_its_readers_see(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    _, option, text = program(PAGE, "await job.write(word)", own_server)
    assert option == "-c"
    worker = Piped("python", [text], env=os.environ)
    with Client(own_server.target, user_id="ada") as client:
        job = client.create_job("answer")
        assert "".join(piece.text for piece in client.output(job)) == "Once upon a time"
        shown = shell(f"jobledger logs {job.id} -f --user ada", own_server.target, tmp_path)
        assert shown == "Once upon a time"
        log = shell(f"jobledger logs {job.id} --stream log --user ada", own_server.target, tmp_path)
        assert log == "the model is loaded\n"
    worker.send_signal(signal.SIGINT)
    _, said = worker.communicate(20)
    assert worker.returncode == 0, said


def test_the_reader_of_the_page_prints_all_and_the_state_in_which_the_job_ended(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    printed = output(program(PAGE, "client.append_output", own_server), tmp_path)
    assert printed == "Once upon a timeCOMPLETED\n"


def test_what_a_program_of_worker_exec_writes_for_people_is_output_unless_it_is_not_wanted(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "work.py").write_text(PROGRAM)
    environment = {**os.environ, "JOBLEDGER_SERVER": own_server.target}
    for options, written in ((), "decoding"), (("--no-output",), ""):
        command = ["worker", "exec", "render", *options, "--", "python3", "work.py"]
        worker = Piped("jobledger", command, env=environment, cwd=tmp_path)
        with Client(own_server.target, user_id="ada") as client:
            job = client.create_job("render")
            read = "".join(piece.text for piece in client.output(job))
        assert sorted(read.splitlines()) == ([written, "half of it"] if written else [])
        worker.send_signal(signal.SIGINT)
        _, said = worker.communicate(20)
        assert worker.returncode == 0, said
        assert "decoding" in said


def test_each_program_of_the_page_has_a_test() -> None:
    assert len(blocks(PAGE, "python")) == 2
