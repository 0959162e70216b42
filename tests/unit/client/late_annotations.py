"""A handler whose module imports the type of its job for type checkers alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobledger import ClaimedJob


@dataclasses.dataclass
class Params:
    name: str


async def render(job: ClaimedJob, params: Params) -> dict[str, object]:
    return {"name": params.name}
