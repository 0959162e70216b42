"""`make simulate`: see `command.py`, and `planting.py` for `--planted`.

Imports the server as late as it can: bugs are planted in processes that begin here, too.
"""

import importlib
import sys


def main() -> int:
    """Return the exit code."""
    planted = "--planted" in sys.argv[1:]
    command = importlib.import_module(f"tests.simulation.{'planting' if planted else 'command'}")
    return int(command.main())


if __name__ == "__main__":
    sys.exit(main())
