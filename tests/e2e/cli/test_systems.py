"""What runs on which system."""

import subprocess
import sys

import pytest

ON_WINDOWS = """
import sys
sys.platform = "win32"
from {module} import main
main()
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("jobledger.cli.main", "the command line"),
        ("jobledger_server.__main__", "jobledger-server"),
        ("jobledger_gateway.__main__", "jobledger-gateway"),
    ],
)
def test_what_cannot_run_on_windows_says_so_in_one_line(module: str, name: str) -> None:
    program = [sys.executable, "-c", ON_WINDOWS.format(module=module)]
    run = subprocess.run(program, capture_output=True, text=True, check=False)
    assert run.returncode
    (line,) = run.stderr.splitlines()
    assert f"{name} runs on Linux and macOS" in line


def test_the_simulated_world_says_on_windows_what_it_needs() -> None:
    lines = (
        "import sys, jobledger.testing",
        "jobledger.testing.run_handler",  # needs no server
        "sys.platform = 'win32'",
        "from jobledger.testing import World",
    )
    program = [sys.executable, "-c", "\n".join(lines)]
    run = subprocess.run(program, capture_output=True, text=True, check=False)
    assert run.returncode
    assert "ImportError: jobledger.testing.World runs on Linux and macOS" in run.stderr
