"""Every way to ask google-genai, as data: what it is called, how its reply is read, and the text its caller sees."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from pydantic import BaseModel

from memori.testing.calls import ProviderCall

__all__ = ["GOOGLE_CALLS", "City"]

MODEL = "gemini-2.5-flash"
ANSWER = "Blue is the one you told me about."
_CITY_ANSWER = '{"city": "Oslo"}'
_WHOLE = f"/models/{MODEL}:generateContent"
_STREAMED = f"/models/{MODEL}:streamGenerateContent"


class City(BaseModel):
    """What the rows that ask for structured output ask for."""

    city: str


def _reply(result: Any) -> Iterator[str]:
    yield result.text


async def _areply(result: Any) -> AsyncIterator[str]:
    yield result.text


def _parsed(result: Any) -> Iterator[str]:
    assert isinstance(result.parsed, City)
    yield result.text


async def _aparsed(result: Any) -> AsyncIterator[str]:
    assert isinstance(result.parsed, City)
    yield result.text


def _raw(result: Any) -> Iterator[str]:
    yield json.loads(result.sdk_http_response.body)["candidates"][0]["content"]["parts"][0]["text"]


async def _araw(result: Any) -> AsyncIterator[str]:
    yield next(_raw(result))


def _chunks(result: Any) -> Iterator[str]:
    for chunk in result:
        if chunk.text:
            yield chunk.text


async def _achunks(result: Any) -> AsyncIterator[str]:
    async for chunk in result:
        if chunk.text:
            yield chunk.text


def _chunks_closed(result: Any) -> Iterator[str]:
    try:
        yield from _chunks(result)
    finally:
        result.close()


async def _achunks_closed(result: Any) -> AsyncIterator[str]:
    try:
        async for chunk in result:
            if chunk.text:
                yield chunk.text
    finally:
        await result.aclose()


def _chunks_by_next(result: Any) -> Iterator[str]:
    while (chunk := next(result, None)) is not None:
        if chunk.text:
            yield chunk.text


async def _achunks_by_next(result: Any) -> AsyncIterator[str]:
    while (chunk := await anext(result, None)) is not None:
        if chunk.text:
            yield chunk.text


def _models(method: str, **arguments: Any) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        return getattr(client.models, method)(model=MODEL, contents=question, **arguments)

    return ask


def _chats(method: str, **arguments: Any) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        return getattr(client.chats.create(model=MODEL), method)(question, **arguments)

    return ask


def _calls() -> Iterator[ProviderCall]:
    whole: dict[str, Any] = {"path": _WHOLE, "ways": (_reply, _areply), "answer": ANSWER}
    flow: dict[str, Any] = {"path": _STREAMED, "streams": True, "answer": ANSWER}
    generate, generate_stream = "models.generate_content", "models.generate_content_stream"
    yield ProviderCall(id=f"{generate}()", shape="plain", ask=_models("generate_content"), **whole)
    yield ProviderCall(id="chats.send_message()", shape="plain", ask=_chats("send_message"), **whole)
    for suffix, ways in (
        ("", (_chunks, _achunks)),
        (", close()", (_chunks_closed, _achunks_closed)),
        (", next()", (_chunks_by_next, _achunks_by_next)),
    ):
        streamed = _models("generate_content_stream")
        yield ProviderCall(id=f"{generate_stream}(){suffix}", shape="stream", ask=streamed, ways=ways, **flow)
        sent = _chats("send_message_stream")
        yield ProviderCall(
            id=f"chats.send_message_stream(){suffix}", shape="stream helper", ask=sent, ways=ways, **flow
        )
    structured = {"response_mime_type": "application/json", "response_schema": City}
    parsed: dict[str, Any] = {**whole, "ways": (_parsed, _aparsed), "answer": _CITY_ANSWER}
    ask = _models("generate_content", config=structured)
    yield ProviderCall(id=f"{generate}(response_schema=…)", shape="structured", ask=ask, **parsed)
    ask = _chats("send_message", config=structured)
    yield ProviderCall(id="chats.send_message(response_schema=…)", shape="structured", ask=ask, **parsed)
    raw: dict[str, Any] = {**whole, "ways": (_raw, _araw)}
    ask = _models("generate_content", config={"should_return_http_response": True})
    yield ProviderCall(id=f"{generate}(should_return_http_response=True)", shape="raw", ask=ask, **raw)


GOOGLE_CALLS: tuple[ProviderCall, ...] = tuple(_calls())
