"""The examples, run as users run them."""

import json
import os
import pty
import re
import runpy
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from jobledger import Client, JobStatus
from tests.e2e.cli.terminal import read_to_end
from tests.support import forked
from tests.support.pages import ROOT

EXAMPLES = ROOT / "examples"


class Example:
    """Runs an example with a folder of its own for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._mark = uuid.uuid4().hex
        self._environment = {**os.environ, "TMPDIR": str(self.temporary), "MARK": self._mark}

    def start(
        self,
        name: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        **options,
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(EXAMPLES / name), *arguments],
            env={**self._environment, **(environment or {})},
            text=True,
            encoding="utf-8",
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def run(self, name: str, *arguments: str, **options) -> tuple[int, str, str]:
        """Return the exit code, stdout and stderr."""
        with self.start(name, *arguments, **options) as process:
            out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    def forked(self, name: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """As `run`, but the example need not import what we have."""
        script = str(EXAMPLES / name)
        text = f"""if True:
            import runpy, sys
            sys.path.insert(0, {str(EXAMPLES)!r})
            runpy.run_path({script!r}, run_name="__main__")
            """
        run = forked.run("python", text, *arguments, env={**self._environment, **environment})
        return run.returncode, run.stdout, run.stderr

    def left_running(self) -> list[int]:
        return [
            process.pid
            for process in psutil.process_iter()
            if process.pid != os.getpid() and self._is_ours(process)
        ]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return bool(process.environ().get("MARK") == self._mark)
        except (psutil.Error, OSError):
            return False

    def stop(self) -> None:
        for pid in self.left_running():
            psutil.Process(pid).kill()


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    example = Example(tmp_path)
    yield example
    example.stop()


def jobs_told(out: str) -> dict[str, tuple[str, str]]:
    """Read the demo's last part: the state of each job, and the lines about it."""
    told = out.partition("What the server says of each job:\n")[2]
    found = re.findall(r"^(\w+ \S+)  ([A-Z]+)  [0-9a-f-]{36}\n((?:  .*\n)+)", told, re.MULTILINE)
    return {job: (status, lines) for job, status, lines in found}


def test_the_demo_prints_the_transitions_and_assets_of_each_job_and_cleans_up(example):
    code, out, err = example.run("demo.py")
    assert (code, err) == (0, "")
    jobs = jobs_told(out)
    states = sorted(status for status, _ in jobs.values())
    assert states == ["COMPLETED"] * 4 + ["FAILED", "PARTIAL"]
    for job, (status, lines) in jobs.items():
        assert re.search(r"QUEUED +-> PROCESSING +version 2 +by packer", lines)
        assert re.search(rf"PROCESSING -> {status} +version \d+ +by packer", lines)
        assert lines.count("  asset  ") == (2 if job.startswith("pack") else 0)
    assert "FILES_MISSING: left out: docs/handbook.pdf" in jobs["pack papers.tar.gz"][1]
    assert "ARCHIVE_DAMAGED: Compressed file ended" in jobs["verify client-cut.tar.gz"][1]
    # If its output is not a terminal, it prints plain lines.
    assert re.search(r"^pack server.tar.gz +5\d %  server/", out, re.MULTILINE)
    for job, (status, _) in jobs.items():
        *_, last = re.findall(rf"^{re.escape(job)}  .*", out.partition("\nWhat")[0], re.MULTILINE)
        assert f"-> {status}" in last
    assert "\x1b" not in out
    assert example.left_running() == []
    assert list(example.temporary.iterdir()) == []


@pytest.mark.slow
def test_the_demo_draws_bars_on_a_terminal_and_writes_to_the_given_folder(example, tmp_path):
    output = tmp_path / "kept"
    ours, theirs = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "120"}
    process = example.start(
        "demo.py", "--output", str(output), environment=terminal, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    drawn = read_to_end(ours).decode()
    assert process.wait(30) == 0
    assert "\x1b[2K" in drawn  # Lines are drawn over.
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in drawn
    assert "RUNNING" in drawn
    assert re.search(r" [1-9]\d %", drawn)
    log = (output / "server.log").read_text().splitlines()
    assert json.loads(log[-1])["event"] == "stopped"
    assert (output / "jobledger.db").exists()
    assert list(example.temporary.iterdir()) == []
    assert check_with_sha256sum(output / "files", "server", tmp_path / "unpacked") > 20


def check_with_sha256sum(files: Path, name: str, unpacked: Path) -> int:
    """Run the command that the demo shows at its end; return how many files are right."""
    unpacked.mkdir()
    subprocess.run(["tar", "-xzf", files / f"{name}.tar.gz"], cwd=unpacked, check=True)
    command = ["sha256sum", "-c", str(files / f"{name}.sha256")]
    run = subprocess.run(command, cwd=unpacked, check=True, capture_output=True, text=True)
    assert all(line.endswith(": OK") for line in run.stdout.splitlines())
    return len(run.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(example, number):
    process = example.start("demo.py")
    while " %  " not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert example.left_running() == []
    assert list(example.temporary.iterdir()) == []


def test_the_demo_does_not_write_into_a_folder_in_use(example, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    code, out, err = example.forked("demo.py", "--output", str(tmp_path / "used"))
    assert (code, out) == (2, "")
    assert "used exists already" in err


def test_the_worker_and_watcher_work_on_a_running_server(example, own_server):
    code, out, err = example.forked("worker_and_watcher.py", JOBLEDGER_SERVER=own_server.target)
    assert (code, err) == (0, "")
    with Client(own_server.target, user_id="ada") as client:
        (job,) = client.list_jobs()
        (asset,) = client.list_assets(job.id)
    assert out.splitlines()[-1] == "COMPLETED 100 % page 4"
    assert "PROCESSING 50 % page 2" in out.splitlines()
    assert job.status == JobStatus.COMPLETED
    assert asset.url == f"https://reports.example/{job.id}"


def test_the_first_worker_and_the_first_client_meet_at_a_server(own_server):
    def program(name: str) -> str:
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        beside = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})\n"  # as for `python FILE`
        quick = text.replace("time.sleep(2)", "time.sleep(0.4)")
        return beside + quick.replace("127.0.0.1:50051", own_server.target)

    worker = forked.Piped("python", [program("hello_worker.py")], env=os.environ)
    try:
        client = forked.run("python", program("hello_client.py"), env=os.environ)
    finally:
        worker.send_signal(signal.SIGINT)
        _, said = worker.communicate(20)
    assert client.returncode == 0, client.stderr
    assert worker.returncode == 0, said
    *seen, last, result = client.stdout.splitlines()
    assert seen[0] in {"QUEUED 0 ", "PROCESSING 0 "}  # the worker may be first
    assert "PROCESSING 40 step 2 of 5" in seen
    assert last == "COMPLETED 100 step 5 of 5"
    assert result == "Hello Ada"


def test_packing_takes_links_for_the_files_they_lead_to_and_nothing_from_around_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packing = runpy.run_path(str(EXAMPLES / "packing.py"))
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.write_text("secret")
    root.mkdir()
    (root / "a").write_text("a")
    os.link(root / "a", root / "b")
    (root / "c").symlink_to("a")
    (root / "d").symlink_to(outside)
    os.mkfifo(root / "e")
    monkeypatch.chdir(tmp_path)
    files, missing = packing["find_files"](Path("root"), ["."])
    assert ([file.name for file in files], missing) == (["a", "b", "c"], ["d", "e"])
    archive, manifest = tmp_path / "all.tar.gz", tmp_path / "all.sha256"
    list(packing["pack"](Path("root"), files, archive, manifest))
    assert [step.file for step in packing["verify"](archive, manifest)] == ["a", "b", "c"]
