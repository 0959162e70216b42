"""The command line's front door: `jobledger`.

It needs nothing but the bare install, so that a missing extra is said in one
line. The commands are in _commands.py and its siblings, how they end in
_ending.py.
"""

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with one of the codes that `--help` lists."""
    # Otherwise grpc itself tells of lost connections on stderr. It reads this
    # when it is imported, hence the imports below.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from jobledger_client._commands import jobledger  # noqa: PLC0415
        from jobledger_client._ending import run  # noqa: PLC0415

        sys.exit(run(jobledger))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"click", "rich", "grpc_health"}:
            raise
        print("error: install 'jobledger[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
