"""Draws `docs/start/terminal.svg`: what `jobledger watch` and `jobledger top` show of real jobs.

It runs a server, creates jobs and reports on them, runs both commands in a terminal, and turns the
last thing that each has drawn into a picture.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from jobledger import Client
from jobledger.testing import local_server

PICTURE = Path(__file__).resolve().parents[1] / "docs/start/terminal.svg"
WIDTH, HEIGHT = 120, 14

# Of each job: its owner, type, progress (None: still queued), message, and how it finished.
JOBS = (
    ("ada", "render", 38, "frame 91 of 240", ""),
    ("ada", "render", 74, "frame 178 of 240", ""),
    ("ada", "transcode", 12, "pass 1 of 2", ""),
    ("grace", "export", 90, "writing orders.csv", ""),
    ("grace", "import", 100, "", "COMPLETED"),
    ("grace", "import", 40, "", "FAILED"),
    ("ada", "render", None, "", ""),
)


def drawn(command: list[str], target: str, job_ids: list[str]) -> str:
    """Run a command in a terminal until it has drawn these jobs; return all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "JOBLEDGER_SERVER": target}
    program = [sys.executable, "-m", "jobledger", *command]
    process = subprocess.Popen(program, stdin=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    written = b""
    while select.select([ours], [], [], 10)[0]:
        try:
            written += os.read(ours, 65536)
        except OSError:  # the command has exited
            break
        if all(job_id.encode() in written for job_id in job_ids):
            process.send_signal(signal.SIGINT)
    process.kill()
    process.wait()
    os.close(ours)
    return written.decode(errors="replace")


def last_frame(written: str) -> str:
    """Return what was drawn last, with its colors and without moves of the cursor."""
    frames = re.split(r"\x1b\[H|\r\x1b\[J", written)
    whole = max(reversed(frames[-3:]), key=lambda frame: frame.count("\n"))
    lines = re.sub(r"\x1b\[[^m]*?[A-HJKhl]", "", whole).replace("\r", "").split("\n")
    return "\n".join(line for line in lines if re.sub(r"\x1b\[[^m]*m", "", line).strip())


def main() -> None:
    """Draw the picture."""
    with tempfile.TemporaryDirectory() as folder, local_server(Path(folder)) as server:
        with Client(server.target, user_id="ada") as client:
            ids = []
            for owner, job_type, progress, message, outcome in JOBS:
                job = client.create_job(job_type, user_id=owner)
                ids.append(job.id)
                if progress is not None:
                    client.start_job(job, worker_id="farm-1")
                    client.update_progress(job, progress, progress_message=message, attempt=1)
                if outcome == "COMPLETED":
                    client.mark_completed(job, {"rows": 1200}, attempt=1)
                elif outcome == "FAILED":
                    client.mark_failed(job, "line 17 has 3 columns", reason="BAD_FILE", attempt=1)
        watched = last_frame(drawn(["--user", "ada", "watch", *ids[:3]], server.target, ids[:3]))
        active = [job_id for job_id, (*_, outcome) in zip(ids, JOBS, strict=True) if not outcome]
        top = last_frame(drawn(["top", "--all-users"], server.target, active))
    console = Console(
        record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    for command, frame in (
        ("jobledger watch $JOB1 $JOB2 $JOB3", watched),
        ("jobledger top --all-users", top),
    ):
        console.print(Text(f"$ {command}", style="bold"))
        console.print(Text.from_ansi(frame))
        console.print()
    PICTURE.write_text(
        console.export_svg(title="jobledger", unique_id="terminal"), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
