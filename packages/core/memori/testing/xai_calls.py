"""Every way to ask xai-sdk, as data: what it is called, how its reply is read, and the text its caller sees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from memori.testing.calls import ANSWER, CITY_ANSWER, City, NotOffered, ProviderCall

__all__ = ["XAI_CALLS", "XAI_NOT_OFFERED"]

MODEL = "grok-4"
_WHOLE, _STREAMED = "/GetCompletion", "/GetCompletionChunk"


def _reply(result: Any) -> Iterator[str]:
    yield result.content


async def _areply(result: Any) -> AsyncIterator[str]:
    yield result.content


def _first(result: Any) -> Iterator[str]:
    yield result[0].content


async def _afirst(result: Any) -> AsyncIterator[str]:
    yield result[0].content


def _parsed(result: Any) -> Iterator[str]:
    response, city = result
    assert isinstance(city, City)
    yield response.content


async def _aparsed(result: Any) -> AsyncIterator[str]:
    yield next(_parsed(result))


def _text(chunk: Any) -> str:
    """Return what a chunk, or the first of a batch, says."""
    return str((chunk[0] if isinstance(chunk, list) else chunk).content)


def _chunks(result: Any) -> Iterator[str]:
    for _, chunk in result:
        yield _text(chunk)


async def _achunks(result: Any) -> AsyncIterator[str]:
    async for _, chunk in result:
        yield _text(chunk)


def _chunks_closed(result: Any) -> Iterator[str]:
    try:
        yield from _chunks(result)
    finally:
        result.close()


async def _achunks_closed(result: Any) -> AsyncIterator[str]:
    try:
        async for _, chunk in result:
            yield _text(chunk)
    finally:
        await result.aclose()


def _chunks_by_next(result: Any) -> Iterator[str]:
    while (found := next(result, None)) is not None:
        yield _text(found[1])


async def _achunks_by_next(result: Any) -> AsyncIterator[str]:
    while (found := await anext(result, None)) is not None:
        yield _text(found[1])


def _chat(method: str, *arguments: Any) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        from xai_sdk.chat import user

        chat = client.chat.create(model=MODEL)
        chat.append(user(question))
        return getattr(chat, method)(*arguments)

    return ask


def _calls() -> Iterator[ProviderCall]:
    said: dict[str, Any] = {"answer": ANSWER}
    flow: dict[str, Any] = {"answer": ANSWER, "path": _STREAMED, "shape": "stream", "streams": True}
    ways: Any = (_reply, _areply)
    yield ProviderCall(id="chat.sample()", shape="plain", path=_WHOLE, ask=_chat("sample"), ways=ways, **said)
    ways = (_first, _afirst)
    ask = _chat("sample_batch", 2)
    yield ProviderCall(id="chat.sample_batch()", shape="plain", path=_WHOLE, ask=ask, ways=ways, **said)
    yield ProviderCall(id="chat.stream()", ask=_chat("stream"), ways=(_chunks, _achunks), **flow)
    ways = (_chunks_closed, _achunks_closed)
    yield ProviderCall(id="chat.stream(), close()", ask=_chat("stream"), ways=ways, **flow)
    ways = (_chunks_by_next, _achunks_by_next)
    yield ProviderCall(id="chat.stream(), next()", ask=_chat("stream"), ways=ways, **flow)
    yield ProviderCall(id="chat.stream_batch()", ask=_chat("stream_batch", 2), ways=(_chunks, _achunks), **flow)
    structured: dict[str, Any] = {"answer": CITY_ANSWER, "path": _WHOLE, "shape": "structured"}
    yield ProviderCall(id="chat.parse()", ask=_chat("parse", City), ways=(_parsed, _aparsed), **structured)


XAI_CALLS: tuple[ProviderCall, ...] = tuple(_calls())
XAI_NOT_OFFERED: tuple[NotOffered, ...] = (
    NotOffered("stream helper", "each chunk comes with the response so far"),
    NotOffered("raw", "replies are protocol buffers, at response.proto"),
)
