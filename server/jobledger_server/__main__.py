"""`jobledger-server`: dev, serve, health, check-access, migrate, void-tokens."""

import os
import sys
from importlib import import_module

if sys.platform == "win32":  # before anything that needs the system's own modules
    sys.exit("jobledger-server runs on Linux and macOS; on Windows, use WSL or a container")

import click

# gRPC's core reads this on import. Its own log lines would be mixed with the JSON ones.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

_COMMANDS = {
    "dev": "dev",
    "serve": "serve",
    "health": "health",
    "check-access": "check_access",
    "migrate": "database_commands",
    "check": "database_commands",
    "void-tokens": "database_commands",
}
"""Each command, and its module in `cli`."""


class _Commands(click.Group):
    """Imports a command when it is called: `health` is called often, and needs little."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = import_module(f"jobledger_server.cli.{_COMMANDS[name]}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="jobledger")
def main() -> None:
    """Jobledger: a gRPC service that is the system of record for the state of jobs.

    `jobledger-server dev` starts a server for a developer, with a page at http://127.0.0.1:8080.
    `jobledger-server serve` starts one for production, by default on 127.0.0.1:50051 with its
    database in the file jobledger.db. Every option of `serve` can also be given as an environment
    variable.
    """


if __name__ == "__main__":
    main()
