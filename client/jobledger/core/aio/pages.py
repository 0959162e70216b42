"""Lists that are read a page at a time."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic

from jobledger.core.aio.base import AsyncCalls
from jobledger.core.calls import AsyncMethod
from jobledger.core.channels import AsyncConnection
from jobledger.core.options import CallOptions
from jobledger.core.page import ItemT, Page, PageRequestT, PageResponseT


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


class AsyncPagedCalls(AsyncCalls):
    """Makes calls that read a list."""

    def _pages(
        self,
        method: Callable[[AsyncConnection], AsyncMethod[PageRequestT, PageResponseT]],
        request: PageRequestT,
        items_of: Callable[[PageResponseT], Iterable[ItemT]],
        page_token: str,
        options: CallOptions,
    ) -> AsyncPager[ItemT]:
        """Return a list that makes the same call for each page."""
        options = self._checked(options)

        async def read(token: str) -> Page[ItemT]:
            request.page_token = token
            answer = await self._call(method, request, options)
            return Page(tuple(items_of(answer)), answer.next_page_token)

        return AsyncPager(read, page_token)
