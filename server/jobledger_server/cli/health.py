"""`jobledger-server health`: for supervisors that run a command, such as Docker."""

import sys
from typing import Any

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from jobledger_server.cli.options import address_options
from jobledger_server.runtime.tls import BadCertificate, check_certificate, tls_files
from jobledger_server.settings import Settings

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104


@click.command()
@address_options
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer.",
)
def health(timeout: float, **options: Any) -> None:
    """Print the server's health; exit with 0 if it is SERVING.

    It connects on this machine, trusts the server's own certificate, and presents it if the
    server requires a client certificate.
    """
    settings = Settings(**options)
    try:
        with _channel(settings) as channel:
            request = health_pb2.HealthCheckRequest()
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
    except BadCertificate as error:
        raise click.ClickException(str(error)) from None
    except grpc.RpcError as error:
        raise click.ClickException(f"{error.code().name}: {error.details()}") from None
    click.echo(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    sys.exit(0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1)


def _channel(settings: Settings) -> grpc.Channel:
    host, _, port = settings.listen.rpartition(":")
    target = f"{_EVERY_ADDRESS.get(host, host)}:{port}"
    # A proxy for other machines, which the environment may name, cannot reach this one.
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    files = tls_files(settings)
    if files is None:
        return grpc.insecure_channel(target, options)
    name = check_certificate(files.cert, files.key)
    certificate = files.cert.read_bytes()
    own = () if files.client_ca is None else (files.key.read_bytes(), certificate)
    credentials = grpc.ssl_channel_credentials(certificate, *own)
    # A client on this machine connects by an address that the certificate need not have.
    options.append(("grpc.ssl_target_name_override", name))
    return grpc.secure_channel(target, credentials, options)
