"""Every way to ask LiteLLM, as data: what it is called, how its reply is read, and the text its caller sees.

The module and a router have the same calls; a client of these rows is either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from memori.testing.calls import ANSWER, CITY_ANSWER, City, NotOffered, ProviderCall
from memori.testing.ways import WaysOf

__all__ = ["LITELLM_CALLS", "LITELLM_MODEL", "LITELLM_NOT_OFFERED"]

LITELLM_MODEL = "openai/gpt-4o-mini"


def _said(thing: Any) -> str:
    """Return the text in a reply, a chunk or an event of either API."""
    if hasattr(thing, "output"):
        return "".join(part.text for item in thing.output for part in item.content)
    if hasattr(thing, "choices"):
        choice = thing.choices[0]
        return (choice.delta if hasattr(choice, "delta") else choice.message).content or ""
    return str(thing.delta) if thing.type == "response.output_text.delta" else ""


_WAYS = WaysOf(_said)


async def _achunks_closed(result: Any) -> AsyncIterator[str]:
    try:
        async for chunk in result:
            if text := _said(chunk):
                yield text
    finally:
        if hasattr(result, "aclose"):  # Which synchronous streams never have, and older asynchronous ones neither.
            await result.aclose()


def _named(client: Any, name: str) -> Any:
    """Return the function for the caller's colour: they are of one client, and differ by a letter."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return getattr(client, name)
    return getattr(client, f"a{name}")


def _completion(**arguments: Any) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        messages = [{"role": "user", "content": question}]
        return _named(client, "completion")(model=LITELLM_MODEL, messages=messages, **arguments)

    return ask


def _by_position(client: Any, question: str) -> Any:
    return _named(client, "completion")(LITELLM_MODEL, [{"role": "user", "content": question}])


def _responses(**arguments: Any) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        return _named(client, "responses")(model=LITELLM_MODEL, input=question, **arguments)

    return ask


def _calls() -> Iterator[ProviderCall]:
    plain, chunks = _WAYS.reply, _WAYS.chunks
    chat: dict[str, Any] = {"path": "/chat/completions", "answer": ANSWER}
    flow: dict[str, Any] = {**chat, "shape": "stream", "streams": True}
    yield ProviderCall(id="completion()", shape="plain", ask=_completion(), ways=plain, **chat)
    yield ProviderCall(id="completion(), by position", shape="plain", ask=_by_position, ways=plain, **chat)
    yield ProviderCall(id="completion(stream=False)", shape="plain", ask=_completion(stream=False), ways=plain, **chat)
    streamed = _completion(stream=True)
    yield ProviderCall(id="completion(stream=True)", ask=streamed, ways=chunks, **flow)
    ways = _WAYS.by_next
    yield ProviderCall(id="completion(stream=True), next()", ask=streamed, ways=ways, **flow)
    ways = (chunks[0], _achunks_closed)
    yield ProviderCall(id="completion(stream=True), aclose()", ask=streamed, ways=ways, **flow)
    structured: dict[str, Any] = {**chat, "shape": "structured", "answer": CITY_ANSWER}
    ask = _completion(response_format=City)
    yield ProviderCall(id="completion(response_format=…)", ask=ask, ways=plain, **structured)
    response: dict[str, Any] = {"path": "/responses", "answer": ANSWER}
    yield ProviderCall(id="responses()", shape="plain", ask=_responses(), ways=plain, **response)
    ask = _responses(stream=True)
    more: dict[str, Any] = {**response, "shape": "stream", "streams": True, "begun": 7}
    yield ProviderCall(id="responses(stream=True)", ask=ask, ways=chunks, **more)


LITELLM_CALLS: tuple[ProviderCall, ...] = tuple(_calls())
LITELLM_NOT_OFFERED: tuple[NotOffered, ...] = (
    NotOffered("stream helper", "litellm.stream_chunk_builder() puts the chunks together afterwards"),
    NotOffered("raw", "the provider's headers are on the reply"),
)
