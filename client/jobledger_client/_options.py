"""What commands have in common: where the service is, whose jobs, which of them, how to print."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import grpc

from jobledger_client import AsyncClient, Client

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Connection:
    """The global options: where the service is and who asks."""

    server: str
    user: str | None
    token: str | None
    tls: bool
    timeout: float

    def arguments(self) -> dict[str, Any]:
        if not self.user:
            raise click.UsageError("whose jobs? Give --user, or set JOBLEDGER_USER.")
        return {"user_id": self.user, **self.options()}

    def options(self) -> dict[str, Any]:
        return {
            "token": self.token or None,
            "credentials": self.credentials(),
            "timeout": self.timeout,
        }

    def credentials(self) -> grpc.ChannelCredentials | None:
        return grpc.ssl_channel_credentials() if self.tls else None

    def open(self) -> Client:
        return Client(self.server, **self.arguments())

    def open_async(self) -> AsyncClient:
        return AsyncClient(self.server, **self.arguments())

    def open_ownerless(self) -> AsyncClient:
        """Open a client that acts for no owner."""
        return AsyncClient(self.server, **self.options())


def as_json_option(command: Command) -> Command:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print proto3 JSON, one object per line."
    )(command)


def filter_options(command: Command) -> Command:
    """Add --type and --label: which jobs."""
    command = click.option(
        "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only with all of these."
    )(command)
    return click.option(
        "--type", "job_types", multiple=True, metavar="TYPE", help="Only these; may be repeated."
    )(command)


def read_labels(given: tuple[str, ...]) -> dict[str, str]:
    labels = {}
    for label in given:
        key, sign, value = label.partition("=")
        if not sign:
            raise click.UsageError(f"--label: {label!r} is not KEY=VALUE")
        labels[key] = value
    return labels
