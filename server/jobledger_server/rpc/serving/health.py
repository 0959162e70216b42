"""What the health service says, of the whole server and of each of its services."""

import asyncio
from collections.abc import Callable, Sequence

from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

DATABASE_SECONDS = 5.0
"""After this long without an answer the database is unavailable. It is asked twice a second."""

HEALTH_CHECK_SECONDS = 0.25


async def report_serving(
    health: aio.HealthServicer, services: Sequence[str], *, serving: bool
) -> None:
    """Report whether the server and all of its services serve."""
    status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
    for service in ("", *services):
        await health.set(service, status)


async def follow_database(
    health: aio.HealthServicer, services: Sequence[str], since_answer: Callable[[], float]
) -> None:
    """Report NOT_SERVING while the database does not answer, until cancelled.

    Args:
        health: The service. Once it drains, it ignores what is reported.
        services: The names of the services.
        since_answer: Returns the seconds since the database last answered.
    """
    serving = True
    while True:
        answers = since_answer() < DATABASE_SECONDS
        if answers is not serving:
            serving = answers
            await report_serving(health, services, serving=serving)
        await asyncio.sleep(HEALTH_CHECK_SECONDS)
