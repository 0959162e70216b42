"""A handler whose module imports the type of its job for type checkers alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobledger import ClaimedJob
    from tests.unit.client.task_handlers import Picture


@dataclasses.dataclass
class Params:
    name: str


async def render(job: ClaimedJob, params: Params) -> dict[str, object]:
    return {"name": params.name}


async def returns_what_is_not_imported(job: ClaimedJob, params: Params) -> Picture:
    raise NotImplementedError
