"""A small fake model: it goes on with a text word by word, always with the same words."""

import asyncio
import re
from collections.abc import AsyncIterator

STORY = (
    " A lighthouse keeper wrote down every ship that passed: its name, its hour, its course."
    " One night the ink froze. “No matter,” she said, and counted the ships with pebbles on the"
    " sill. In the morning another keeper came, read the book, counted the pebbles, and wrote on."
    " No ship was missing, and none stood there twice. They drank a café crème and went to bed. ☕"
)


async def think() -> None:
    """Take as long as a word takes."""
    await asyncio.sleep(0.05)


async def answer(prompt: str, written: str) -> AsyncIterator[str]:
    """Yield the words of the answer to a prompt that come after those that are written."""
    text = f"You said “{prompt}”.{STORY}"
    for word in re.findall(r"\s*\S+", text[len(written) :]):
        await think()
        yield word
