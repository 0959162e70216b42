"""What the clients of a run do where the service does not answer."""

import random
from typing import Any

from jobledger.v1 import job_pb2
from jobledger.v1 import job_service_pb2 as pb
from tests.checker.clients.asking import Answer
from tests.checker.clients.board import Board
from tests.checker.clients.writers import create_job, delete_jobs
from tests.checker.history import History, Outcome
from tests.unit.checker.histories import A5


class Silent:
    """Answers for one job, then says no more; ends the work when it is asked again."""

    def __init__(self, board: Board) -> None:
        self._board = board

    async def ask(self, rpc: str, request: Any, **_: Any) -> Answer:
        if rpc == "GetJob":
            return Answer(0, 1, Outcome.ACKNOWLEDGED, pb.GetJobResponse())
        self._board.work.set()
        return Answer(0, 31, Outcome.UNKNOWN)


async def test_a_job_that_cannot_be_read_while_something_is_broken_is_not_deleted() -> None:
    board, history = Board(), History()
    board.ended.append(A5)
    await delete_jobs(Silent(board), random.Random(1), board, history, share=1.0)
    assert history == History()


class Existing:
    """Answers each creation with a rerun of the job that it once made, which is deleted."""

    token = ""

    async def ask(self, rpc: str, request: Any, **_: Any) -> Answer:
        creation = request if rpc == "CreateJob" else request.requests[0]
        job = job_pb2.Job(id="b", version=1, origin_job_id="a", labels=creation.labels)
        if rpc == "CreateJob":
            response = pb.CreateJobResponse(job=job, existing=True)
            return Answer(0, 1, Outcome.ACKNOWLEDGED, response)
        return Answer(
            0, 1, Outcome.ACKNOWLEDGED, pb.BatchCreateJobsResponse(jobs=[job], existing=[True])
        )


async def test_a_rerun_that_has_the_unique_key_is_not_taken_for_the_job_that_was_asked_for() -> (
    None
):
    board, history = Board(), History()
    for seed in range(50):
        await create_job("m", Existing(), random.Random(seed), board, history, free_key="k")
    found = {operation.rpc for operation in history.operations}
    assert "ReturnExisting" in found
    assert not any(each.misdated for each in history.operations)
