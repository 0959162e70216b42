"""An owner and an operator who look at what there is, and make tokens for browsers."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1 import queue_service_pb2 as queues
from jobledger.v1 import webhook_service_pb2 as webhooks
from tests.checker.clients.asking import Replicas
from tests.checker.clients.board import USERS, Board, pause
from tests.checker.history import History, Snapshot

PAUSE_SECONDS = (0.05, 0.4)

OF_A_JOB: Sequence[tuple[str, Callable[..., Any]]] = (
    ("ExplainJob", queues.ExplainJobRequest),
    ("CreateWatchToken", jobs.CreateWatchTokenRequest),
)

OF_ALL: Sequence[tuple[str, Callable[[], Any]]] = (
    ("ListJobTypeStats", queues.ListJobTypeStatsRequest),
    ("ListJobTypes", queues.ListJobTypesRequest),
    ("ListConcurrencyLimits", queues.ListConcurrencyLimitsRequest),
    ("ListWebhooks", lambda: webhooks.ListWebhooksRequest(user_id=USERS[0])),
    ("RevokeWatchTokens", jobs.RevokeWatchTokensRequest),
)


async def look(replicas: Replicas, rng: random.Random, board: Board, history: History) -> None:
    """Look at one thing after the other, until there is no more load."""
    while not board.load.is_set():
        await pause(board.load, rng.uniform(*PAUSE_SECONDS))
        if board.fresh:
            await _look_at(rng.choice(board.fresh), replicas, rng, history)
        rpc, request = rng.choice(OF_ALL)
        await replicas.ask(rpc, request())


async def _look_at(job: Snapshot, replicas: Replicas, rng: random.Random, history: History) -> None:
    rpc, request = rng.choice(OF_A_JOB)
    answer = await replicas.ask(rpc, request(job_id=job.job_id, user_id=job.user_id))
    if rpc == "ExplainJob" and answer.response is not None:
        history.operations.append(answer.operation(rpc, job_id=job.job_id, told=answer.told))
