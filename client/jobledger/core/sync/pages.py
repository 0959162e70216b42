# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.
"""Lists that are read a page at a time."""

from collections.abc import Callable, Iterator
from typing import Generic

from jobledger.core.page import ItemT, Page


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
