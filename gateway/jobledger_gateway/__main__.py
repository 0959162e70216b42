"""The command `jobledger-gateway`."""

import os
import sys

# gRPC's core reads this on import, and would print lines of its own.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def main() -> None:
    """Run the gateway."""
    if sys.platform == "win32":
        sys.exit("jobledger-gateway runs on Linux and macOS; on Windows, use WSL or a container")
    from jobledger_gateway.command import gateway  # noqa: PLC0415

    gateway()


if __name__ == "__main__":
    main()
