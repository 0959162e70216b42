"""The entry point of the command line: `jobledger`.

It needs nothing but the bare install, so that a missing extra is one line. The commands are in
commands.py and its siblings, how they exit in exit_codes.py.
"""

import os
import signal
import sys

TYPE_CHECKING = False  # `typing` takes longer to load than all this
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Run the command line and exit with one of the codes that `--help` lists."""
    if sys.platform == "win32":
        words = "the command line runs on Linux and macOS; on Windows, use WSL or the Python client"
        print(f"error: {words}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    # Ctrl-C exits at once: an exception could be raised anywhere, in an import (most of a short
    # command's time) or while an event loop starts, and be printed. Commands with something to
    # clean up handle the signal themselves. A shell ignores SIGINT for what runs in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    # A stream that the caller has closed is None, and the next socket would get its descriptor.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    if sys.argv[1:] == ["--version"]:
        _print_version()
    # Otherwise gRPC prints lines of its own when it cannot connect. It reads this when it is
    # imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from jobledger.cli.commands import jobledger  # noqa: PLC0415
        from jobledger.cli.exit_codes import run  # noqa: PLC0415

        sys.exit(run(jobledger))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"click", "rich", "grpc_health"}:
            raise
        print("error: install 'jobledger[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _print_version() -> "NoReturn":
    """Print what the option of the same name prints, without loading gRPC and all commands."""
    from jobledger.version import __version__  # noqa: PLC0415

    try:
        os.write(sys.stdout.fileno(), f"jobledger, version {__version__}\n".encode())
    except BrokenPipeError:
        sys.exit(141)
    sys.exit(0)
