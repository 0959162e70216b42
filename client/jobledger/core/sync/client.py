# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.
"""Client: the service, for blocking code."""

import os
from typing import Self

from jobledger.core.connection_options import from_environment
from jobledger.core.sync.admin import Admin
from jobledger.core.sync.bulk_calls import BulkCalls
from jobledger.core.sync.task_calls import TaskCalls
from jobledger.core.sync.webhook_calls import WebhookCalls
from jobledger.core.sync.worker_calls import WorkerCalls


class Client(
    TaskCalls,
    BulkCalls,
    WebhookCalls,
    WorkerCalls,
):
    """Calls one Jobledger service.

    Use it as `with Client("jobs.example:50051", user_id="ada") as client:`, or close it.
    It connects with its first call, and may be shared between threads.

    A call that finds no server (UNAVAILABLE) is repeated up to four times within about four
    seconds. Every call is safe to repeat, but for claim_jobs without `holding` and append_output
    without `number`, which are not repeated. A call that then fails raises a JobledgerError; see
    `jobledger.errors`. An argument that cannot be sent raises a TypeError or a ValueError that
    names it.

    Args:
        target: `host:port`, or any other gRPC name.
        user_id: the owner for calls that name none.
        tls: whether to use TLS, with the CA certificates that the system trusts. For others, or
            for a certificate of the client's own, give credentials instead.
        credentials: for TLS, for instance `grpc.ssl_channel_credentials()`; or a function that
            returns them, which is called often: when it returns others, connections are opened
            anew. Default: plain text.
        token: sent with each call as `authorization: Bearer ...`: a text, or a function, called
            for each call, that returns one. It is sent in plain text unless TLS is used.
            If the function raises OSError, the call raises Unavailable, and a watch or a worker
            tries again.
        timeout: seconds, or a timedelta, that one call may take, retries and the token function
            included; None: any time. Watches have none.
        connect_timeout: seconds, or a timedelta, until the first message of a watch; None: any
            time.
        metadata: sent with every call.
        interceptors: of grpc, around each call.
        channel: your own channel, in place of target, credentials and interceptors. It is not
            closed with the client, and has retries and keepalive only if it was made with
            CHANNEL_OPTIONS.
        tls_server_name: the name in the servers' certificates, if the address is not it: for a
            list of servers, as `ipv4:10.1.0.1:50051,10.1.0.2:50051`.
    """

    @classmethod
    def from_env(cls, *, user_id: str | None = None) -> Self:
        """Make a client by the environment variables of the command line.

        They are JOBLEDGER_SERVER, JOBLEDGER_USER, JOBLEDGER_TOKEN or JOBLEDGER_TOKEN_FILE,
        JOBLEDGER_TLS, JOBLEDGER_CA_FILE, JOBLEDGER_CERT, JOBLEDGER_KEY, JOBLEDGER_TLS_SERVER_NAME
        and JOBLEDGER_TIMEOUT. Profiles are for the command line alone.

        Args:
            user_id: the owner for calls that name none. Default: JOBLEDGER_USER.

        Raises:
            ValueError: a variable is wrong, they contradict each other, or a file cannot be used.
        """
        options = from_environment(os.environ)
        given = {} if user_id is None else {"user_id": user_id}
        return cls(options.server, **{**options.arguments(), **given})

    @property
    def admin(self) -> Admin:
        """The calls of operators: pauses, limits, counts."""
        return Admin(self._call, self._pages)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the calls under way and close the connections. May be repeated."""
        self._close()
