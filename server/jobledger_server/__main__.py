"""`jobledger-server`: serve, migrate, void-tokens."""

import os
import sys

# gRPC's core reads this when it is imported. Its log lines would stand among the JSON ones.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

try:
    import click
    import grpc_health  # noqa: F401
    import sqlalchemy  # noqa: F401
except ImportError:  # click alone comes with the extra `cli` too
    sys.exit("jobledger-server is not installed: pip install 'jobledger[server]'")

from jobledger_server.cli.database import migrate, void_tokens
from jobledger_server.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="jobledger")
def main() -> None:
    """Jobledger: the one place that knows where each job stands.

    `jobledger-server serve` starts a server on 127.0.0.1:50051 that keeps its
    jobs in the file jobledger.db. Every option of `serve` can be given as an
    environment variable too.
    """


for command in (serve, migrate, void_tokens):
    main.add_command(command)


if __name__ == "__main__":
    main()
