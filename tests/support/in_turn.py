"""Rows of a table that share their test's fixtures."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import pytest

Test = Callable[..., Awaitable[None]]


def in_turn(names: str | tuple[str, ...], rows: Iterable[Any]) -> Callable[[Test], Test]:
    """Run a test for each row of a table, one after the other, on the same server and database.

    For rows that do not disturb each other. Written as `pytest.mark.parametrize`, which sets up a
    server and a database for each row. Each row that fails is reported, with its values.
    """
    table = [dict(_named(names, row)) for row in rows]

    def decorate(test: Test) -> Test:
        async def in_turn(subtests: pytest.Subtests, **fixtures: Any) -> None:
            for row in table:
                with subtests.test(**{name: repr(value)[:200] for name, value in row.items()}):
                    await test(**fixtures, **row)

        own = inspect.signature(test)
        fixtures = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in own.parameters.items()
            if name not in table[0]
        ]
        subtests = inspect.Parameter("subtests", inspect.Parameter.KEYWORD_ONLY)
        in_turn.__signature__ = own.replace(parameters=[*fixtures, subtests])
        in_turn.__name__, in_turn.__doc__ = test.__name__, test.__doc__
        in_turn.__module__, in_turn.__qualname__ = test.__module__, test.__qualname__
        in_turn.pytestmark = getattr(test, "pytestmark", [])
        return in_turn

    return decorate


def _named(names: str | tuple[str, ...], row: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(names, str):
        yield names, row
    else:
        yield from zip(names, row, strict=True)
