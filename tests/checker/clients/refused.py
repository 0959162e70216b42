"""A client whose creations must be refused: of none is anything kept, or in another's way."""

import asyncio
import itertools
import random

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.domain.limits import MAX_STRUCT_BYTES
from tests.checker.clients.asking import Replicas
from tests.checker.clients.board import TYPES, USERS, Board, pause
from tests.checker.clients.writers import create_job, marked
from tests.checker.history import History, Outcome

NAME = "refused"

PAUSE_SECONDS = (0.1, 0.8)

TOO_LARGE = 0.1
"""How many of the calls are refused for their bytes. The others are refused for a unique key."""


async def create_in_vain(
    replicas: Replicas, rng: random.Random, board: Board, history: History
) -> None:
    """Ask for one thing after the other that must be refused, until there is no more load."""
    for number in itertools.count():
        await pause(board.load, rng.uniform(*PAUSE_SECONDS))
        if board.load.is_set():
            return
        marks = f"{NAME}-{number}-first", f"{NAME}-{number}-second"
        user_id, job_type = rng.choice(USERS), rng.choice(TYPES)
        batch = pb.BatchCreateJobsRequest(user_id=user_id)
        batch.requests.extend(_creation(mark, job_type) for mark in marks)
        if rng.random() < TOO_LARGE:
            large = marked(marks[1], size=MAX_STRUCT_BYTES)
            batch.requests[1].parameters.CopyFrom(large)
            # Once: on a slow network so much takes longer than anyone waits for it.
            await _create_all(batch, replicas, history, patience=0)
            continue
        key = f"{NAME}-{number}"
        for creation in batch.requests:
            creation.unique_key = key
        # The batch is refused whether it comes before the creation or after it: the key is free
        # for the one, and not for two.
        await asyncio.gather(
            _create_all(batch, replicas, history),
            create_job(
                f"{key}-alone",
                replicas,
                rng,
                board,
                history,
                [job_type],
                users=[user_id],
                free_key=key,
            ),
        )


def _creation(mark: str, job_type: str) -> pb.CreateJobRequest:
    return pb.CreateJobRequest(
        job_type=job_type,
        parameters=marked(mark),
        labels={"mark": mark},
        request_id=mark,
    )


async def _create_all(
    batch: pb.BatchCreateJobsRequest, replicas: Replicas, history: History, patience: float = 30.0
) -> None:
    answer = await replicas.ask("BatchCreateJobs", batch, patience=patience)
    history.operations += [
        answer.operation(
            "CreateInVain",
            user_id=batch.user_id,
            mark=creation.request_id,
            owed=Outcome.REFUSED,
        )
        for creation in batch.requests
    ]
