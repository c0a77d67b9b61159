"""How callers read what a provider's SDK returns: what the SDKs' tables of calls have in common.

Each way is there twice, for a synchronous and an asynchronous caller, and yields the text as that caller sees it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from memori.testing.calls import Ways

__all__ = ["WaysOf"]


class WaysOf:
    """The ways to read replies and streams of one SDK.

    Args:
        said: Returns the text in a reply, or in a chunk or event of a stream; "" where there is none.

    Attributes:
        reply: A whole reply.
        chunks: A stream, to its end.
        in_with: A stream in a ``with`` block.
        closed: A stream that is closed at the end, or where its caller leaves it.
        by_next: A stream, by ``next`` alone.
        unread: A response that was not read yet, parsed.
        unread_json: Its JSON.
        unread_bytes: Its bytes, put together.
        unread_chunks: Its stream.
    """

    def __init__(self, said: Callable[[Any], str]) -> None:
        self._said = said
        self.reply: Ways = (self._reply, self._areply)
        self.chunks: Ways = (self._chunks, self._achunks)
        self.in_with: Ways = (self._in_with, self._ain_with)
        self.closed: Ways = (self._closed, self._aclosed)
        self.by_next: Ways = (self._by_next, self._aby_next)
        self.unread: Ways = (self._unread, self._aunread)
        self.unread_json: Ways = (self._unread_json, self._aunread_json)
        self.unread_bytes: Ways = (self._unread_bytes, self._aunread_bytes)
        self.unread_chunks: Ways = (self._unread_chunks, self._aunread_chunks)

    def _reply(self, result: Any) -> Iterator[str]:
        yield self._said(result)

    async def _areply(self, result: Any) -> AsyncIterator[str]:
        yield self._said(result)

    def _chunks(self, result: Any) -> Iterator[str]:
        for chunk in result:
            if text := self._said(chunk):
                yield text

    # Written out in each: an asynchronous generator within another is not closed with it.
    async def _achunks(self, result: Any) -> AsyncIterator[str]:
        async for chunk in result:
            if text := self._said(chunk):
                yield text

    def _in_with(self, result: Any) -> Iterator[str]:
        with result as stream:
            yield from self._chunks(stream)

    async def _ain_with(self, result: Any) -> AsyncIterator[str]:
        async with result as stream:
            async for chunk in stream:
                if text := self._said(chunk):
                    yield text

    def _closed(self, result: Any) -> Iterator[str]:
        try:
            yield from self._chunks(result)
        finally:
            result.close()

    async def _aclosed(self, result: Any) -> AsyncIterator[str]:
        try:
            async for chunk in result:
                if text := self._said(chunk):
                    yield text
        finally:
            await (result.aclose if hasattr(result, "aclose") else result.close)()

    def _by_next(self, result: Any) -> Iterator[str]:
        while (chunk := next(result, None)) is not None:
            if text := self._said(chunk):
                yield text

    async def _aby_next(self, result: Any) -> AsyncIterator[str]:
        while (chunk := await anext(result, None)) is not None:
            if text := self._said(chunk):
                yield text

    def _unread(self, result: Any) -> Iterator[str]:
        with result as response:
            yield self._said(response.parse())

    async def _aunread(self, result: Any) -> AsyncIterator[str]:
        async with result as response:
            yield self._said(await response.parse())

    def _unread_json(self, result: Any) -> Iterator[str]:
        with result as response:
            yield self._said(response.json())

    async def _aunread_json(self, result: Any) -> AsyncIterator[str]:
        async with result as response:
            yield self._said(await response.json())

    def _unread_bytes(self, result: Any) -> Iterator[str]:
        with result as response:
            yield self._said(json.loads(b"".join(response.iter_bytes())))

    async def _aunread_bytes(self, result: Any) -> AsyncIterator[str]:
        async with result as response:
            yield self._said(json.loads(b"".join([piece async for piece in response.iter_bytes()])))

    def _unread_chunks(self, result: Any) -> Iterator[str]:
        with result as response:
            yield from self._chunks(response.parse())

    async def _aunread_chunks(self, result: Any) -> AsyncIterator[str]:
        async with result as response:
            async for chunk in await response.parse():
                if text := self._said(chunk):
                    yield text
