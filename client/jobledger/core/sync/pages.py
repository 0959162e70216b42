# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.
"""Lists that are read a page at a time."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic

from jobledger.core.calls import Method
from jobledger.core.channels import Connection
from jobledger.core.options import CallOptions
from jobledger.core.page import ItemT, Page, PageRequestT, PageResponseT
from jobledger.core.sync.base import Calls


class Pager(Generic[ItemT]):
    """A list: an iterator over its items. `pages()` iterates over its pages instead."""

    def __init__(self, read: Callable[[str], Page[ItemT]], page_token: str) -> None:
        self._read = read
        self._first = page_token
        self._items = self._iterate()

    def __iter__(self) -> Iterator[ItemT]:
        return self._items

    def __next__(self) -> ItemT:
        return next(self._items)

    def pages(self) -> Iterator[Page[ItemT]]:
        """Iterate over the pages, from the first. Raises what the call raises."""
        page = self._read(self._first)
        yield page
        while page.next_page_token:
            page = self._read(page.next_page_token)
            yield page

    def _iterate(self) -> Iterator[ItemT]:
        for page in self.pages():
            for item in page.items:
                yield item


class PagedCalls(Calls):
    """Makes calls that read a list."""

    def _pages(
        self,
        method: Callable[[Connection], Method[PageRequestT, PageResponseT]],
        request: PageRequestT,
        items_of: Callable[[PageResponseT], Iterable[ItemT]],
        page_token: str,
        options: CallOptions,
    ) -> Pager[ItemT]:
        """Return a list that makes the same call for each page."""
        options = self._checked(options)

        def read(token: str) -> Page[ItemT]:
            request.page_token = token
            answer = self._call(method, request, options)
            return Page(tuple(items_of(answer)), answer.next_page_token)

        return Pager(read, page_token)
