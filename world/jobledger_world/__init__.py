"""A world in which real servers, workers and clients run, in simulated time and from a seed."""

import sys

if sys.platform == "win32":
    raise ImportError(
        "jobledger.testing.World runs on Linux and macOS, because it runs real servers;"
        " on Windows, use WSL"
    )
