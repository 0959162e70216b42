"""`jobledger-server`: serve, migrate, void-tokens."""

import os
import sys

# gRPC's core reads this on import. Its own log lines would be mixed with the JSON ones.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

try:
    import click
    import grpc_health  # noqa: F401
    import sqlalchemy  # noqa: F401
except ImportError:  # the extra `cli` installs click alone
    sys.exit("jobledger-server is not installed: pip install 'jobledger[server]'")

from jobledger_server.cli.database_commands import migrate, void_tokens
from jobledger_server.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="jobledger")
def main() -> None:
    """Jobledger: a gRPC service that is the system of record for the state of jobs.

    `jobledger-server serve` starts a server on 127.0.0.1:50051 with its database in the file
    jobledger.db. Every option of `serve` can also be given as an environment variable.
    """


for command in (serve, migrate, void_tokens):
    main.add_command(command)


if __name__ == "__main__":
    main()
