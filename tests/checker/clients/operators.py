"""An operator who changes limits and defaults, pauses types and keys, and ends all that at last."""

import random
import time

from jobledger.v1 import queue_service_pb2 as pb
from tests.checker.clients.asking import Replicas
from tests.checker.clients.board import (
    BRIEF,
    DEFAULT_PRIORITY,
    DEFAULTED,
    KEYS,
    ONE_AT_A_TIME,
    TYPES,
    Board,
    pause,
)
from tests.checker.history import History, Outcome

NAMES = sorted({*KEYS, *(key.partition(":")[0] for key in KEYS)} - {ONE_AT_A_TIME})
"""Keys and the names of several."""

PAUSE_SECONDS = (0.1, 0.8)
"""How long jobs are paused, and how long the operator waits before the next change."""

CHANGES = ("limit", "limit", "limit", "key", "type", "defaults")
"""What the operator changes, each as often as it stands here before all begin again: a limit, the
pause of a key or a type, or the defaults of a type."""

PATIENCE = 60.0


async def operate(replicas: Replicas, rng: random.Random, board: Board, history: History) -> None:
    """Change one thing after the other until stopped.

    One key has a limit of one throughout, and one type the same default priority.
    """

    async def ask(rpc: str, request: object) -> bool:
        answer = await replicas.ask(rpc, request, patience=PATIENCE)
        history.settings += 1
        return answer.outcome is Outcome.ACKNOWLEDGED

    if await ask("SetJobTypeDefaults", _defaults(DEFAULTED, DEFAULT_PRIORITY)):
        history.defaulted_from = time.monotonic()
    await ask("SetConcurrencyLimit", _limit(ONE_AT_A_TIME, 1))
    left: list[str] = []
    while not board.load.is_set():
        await pause(board.load, rng.uniform(*PAUSE_SECONDS))
        left = left or rng.sample(CHANGES, len(CHANGES))
        name, job_type = rng.choice(NAMES), rng.choice((*TYPES, BRIEF))
        change = left.pop()
        if change == "limit":
            await ask("SetConcurrencyLimit", _limit(name, rng.choice((None, 0, 1, 2, 4, 8, 8))))
        elif change == "defaults":
            others = sorted({*TYPES, BRIEF} - {DEFAULTED})
            await ask("SetJobTypeDefaults", _defaults(rng.choice(others), rng.choice((None, 1, 8))))
        elif change == "key":
            await ask("PauseConcurrencyKey", pb.PauseConcurrencyKeyRequest(name=name))
            await pause(board.load, rng.uniform(*PAUSE_SECONDS))
            await ask("ResumeConcurrencyKey", pb.ResumeConcurrencyKeyRequest(name=name))
        else:
            await ask("PauseJobType", pb.PauseJobTypeRequest(job_type=job_type))
            await pause(board.load, rng.uniform(*PAUSE_SECONDS))
            await ask("ResumeJobType", pb.ResumeJobTypeRequest(job_type=job_type))
    for name in NAMES:
        await ask("SetConcurrencyLimit", _limit(name, None))


def _defaults(job_type: str, priority: int | None) -> pb.SetJobTypeDefaultsRequest:
    return pb.SetJobTypeDefaultsRequest(
        job_type=job_type, defaults=pb.JobTypeDefaults(priority=priority)
    )


def _limit(name: str, most: int | None) -> pb.SetConcurrencyLimitRequest:
    return pb.SetConcurrencyLimitRequest(name=name, max_running=most)
