"""Lists that are read a page at a time."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic

from jobledger.core.page import ItemT, Page


class AsyncPager(Generic[ItemT]):
    """A list: an iterator over its items. `pages()` iterates over its pages instead."""

    def __init__(self, read: Callable[[str], Awaitable[Page[ItemT]]], page_token: str) -> None:
        self._read = read
        self._first = page_token
        self._items = self._iterate()

    def __aiter__(self) -> AsyncIterator[ItemT]:
        return self._items

    async def __anext__(self) -> ItemT:
        return await anext(self._items)

    async def pages(self) -> AsyncIterator[Page[ItemT]]:
        """Iterate over the pages, from the first. Raises what the call raises."""
        page = await self._read(self._first)
        yield page
        while page.next_page_token:
            page = await self._read(page.next_page_token)
            yield page

    async def _iterate(self) -> AsyncIterator[ItemT]:
        async for page in self.pages():
            for item in page.items:
                yield item
