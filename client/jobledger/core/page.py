"""One page of a list."""

from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """One page of a list."""

    items: tuple[ItemT, ...]
    """May be empty even if more pages follow: the service bounds what a page may read."""
    next_page_token: str
    """Give it to the same call to go on after this page; empty after the last one."""
