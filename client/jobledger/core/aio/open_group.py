"""A group of jobs that a block fills, and seals at its end."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self, Unpack

from jobledger.core.aio.owner_writes import AsyncOwnerWrites
from jobledger.core.conversion import JsonObject
from jobledger.core.models import Job
from jobledger.core.new_job import JobOptions, NewJob
from jobledger.core.open_group import OpenGroup
from jobledger.errors import JobledgerError


class AsyncJobGroup(OpenGroup):
    """A group, and the calls that add jobs to it; see `client.group`."""

    def __init__(self, client: AsyncOwnerWrites, user_id: str | None, **creation: Any) -> None:
        super().__init__()
        self._client = client
        self._user_id = user_id
        self._creation = creation

    async def __aenter__(self) -> Self:
        self._job = await self._client.create_group(user_id=self._user_id, **self._creation)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._job = await self._client.seal_group(self.job, user_id=self._user_id)
            return
        with suppress(JobledgerError):  # what the block has raised says more
            why = f"its creator failed: {kind.__name__}"
            self._job = await self._client.cancel_job(self.job, why, user_id=self._user_id)

    async def create_job(
        self, job_type: str, parameters: JsonObject | None = None, **options: Unpack[JobOptions]
    ) -> Job:
        """Create a job that belongs to the group; see `client.create_job`."""
        options["group_id"] = self.job
        return await self._client.create_job(job_type, parameters, user_id=self._user_id, **options)

    async def create_jobs(self, jobs: Iterable[NewJob]) -> list[Job]:
        """Create jobs that belong to the group, in one transaction; see `client.create_jobs`."""
        return await self._client.create_jobs(jobs, group_id=self.job, user_id=self._user_id)
