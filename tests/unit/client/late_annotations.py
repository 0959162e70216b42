"""A handler whose module imports the type of its job for type checkers alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal

    from jobledger import ClaimedJob
    from tests.unit.client.task_handlers import Picture


@dataclasses.dataclass
class Params:
    name: str


async def render(job: ClaimedJob, params: Params) -> dict[str, object]:
    return {"name": params.name}


async def returns_what_is_not_imported(job: ClaimedJob, params: Params) -> Picture:
    raise NotImplementedError


async def maybe(job: ClaimedJob, params: Params | None) -> dict[str, object]:
    return {"name": params and params.name}


async def by_keyword(job: ClaimedJob, *, params: Params | None = None) -> dict[str, object]:
    return {"name": params and params.name}


@dataclasses.dataclass
class Price:
    amount: Decimal


async def charge(job: ClaimedJob, price: Price) -> None: ...


async def convert(job: ClaimedJob, amount: Decimal) -> None: ...
