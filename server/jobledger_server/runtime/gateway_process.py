"""The gateway as a child process that ends with this one.

A socket pair connects the two; the child has its end as standard input. It writes its port when it
serves, and ends when this process has ended for any reason.
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec


class GatewayFailed(Exception):
    """The gateway has ended before it served."""


def is_gateway_installed() -> bool:
    """Return whether there is a gateway to start."""
    return find_spec("jobledger_gateway") is not None


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that serves."""

    port: int
    process: asyncio.subprocess.Process


@asynccontextmanager
async def running_gateway(
    target: str, listen: str, origins: Sequence[str] = ()
) -> AsyncIterator[Gateway]:
    """Run a gateway for a service during the block.

    Args:
        target: HOST:PORT of the service.
        listen: HOST:PORT of the gateway. With port 0 it chooses one.
        origins: Other origins whose pages may call it.

    Raises:
        GatewayFailed: It does not serve; it has said why on standard error.
    """
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)  # noqa: FBT003
        with theirs:
            # In a session of its own: Ctrl-C on a terminal is for this process.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "jobledger_gateway"),
                *("--target", target, "--listen", listen, "--child", "--webhooks"),
                # A developer's receiver is on the same machine.
                *("--webhook-allow-network", "127.0.0.0/8", "--webhook-allow-network", "::1/128"),
                *(word for origin in origins for word in ("--cors-origin", origin)),
                stdin=theirs.fileno(),
                # For gRPC. A proxy for other machines, which the environment may name, cannot reach
                # this one.
                env={**os.environ, "no_grpc_proxy": target.rpartition(":")[0]},
                start_new_session=True,
            )
        try:
            port = await asyncio.get_running_loop().sock_recv(ours, 8)
            if not port:
                code = await process.wait()
                raise GatewayFailed(f"jobledger-gateway ended with the exit code {code}")
            yield Gateway(int(port), process)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
