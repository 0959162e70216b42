"""One page of a list."""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class PageRequest(Protocol):
    """A request for one page."""

    page_token: str


class PageResponse(Protocol):
    """One page, as a message."""

    next_page_token: str


ItemT = TypeVar("ItemT")
PageRequestT = TypeVar("PageRequestT", bound=PageRequest)
PageResponseT = TypeVar("PageResponseT", bound=PageResponse)


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """One page of a list."""

    items: tuple[ItemT, ...]
    """May be empty even if more pages follow: the service bounds what a page may read."""
    next_page_token: str
    """Give it to the same call to go on after this page; empty after the last one."""
