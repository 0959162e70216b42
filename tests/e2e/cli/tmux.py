"""A real terminal: what tmux shows of a program, also after a resize, which rewraps its lines."""

import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

NOT_FOUND = "no terminal to test with: install Debian's `tmux`"


class Tmux:
    """Runs one program in a terminal of its own; `screen` is what a person sees.

    The screen stays when the program ends, with its exit code after it.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], width: int, height: int
    ) -> None:
        assert shutil.which("tmux"), NOT_FOUND
        self._folder = tempfile.TemporaryDirectory(prefix="jobledger-tmux-")
        script = Path(self._folder.name, "run")
        # The shell stays at Ctrl-C, which is for the program.
        lines = ("trap : INT", shlex.join(command), 'echo "[exit code $?]"', "exec cat")
        script.write_text("\n".join(lines), "utf-8")
        size = ("-x", str(width), "-y", str(height))
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, f"exec sh {script}", env=env)

    @property
    def screen(self) -> list[str]:
        """The lines that are shown, without empty ones at the end."""
        return self._tmux("capture-pane", "-p").rstrip("\n").split("\n")

    @property
    def history(self) -> list[str]:
        """The lines that are shown, and before them those that were scrolled out of sight."""
        return self._tmux("capture-pane", "-p", "-S", "-").rstrip("\n").split("\n")

    def until(self, reached: Callable[[list[str]], object]) -> list[str]:
        """Read the screen until it satisfies a condition; return it."""
        deadline = time.monotonic() + 30
        while not reached(screen := self.screen):
            assert time.monotonic() < deadline, "\n".join(screen)
            time.sleep(0.02)  # a look starts a process
        return screen

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def close(self) -> None:
        self._tmux("kill-server")
        self._folder.cleanup()

    def _tmux(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        command = ["tmux", "-u", "-S", f"{self._folder.name}/socket", *arguments]
        run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return run.stdout
