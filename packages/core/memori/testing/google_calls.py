"""Every way to ask google-genai, as data: what it is called, how its reply is read, and the text its caller sees."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from memori.testing.calls import ANSWER, CITY_ANSWER, City, ProviderCall
from memori.testing.ways import WaysOf

__all__ = ["GOOGLE_CALLS"]

MODEL = "gemini-2.5-flash"
_WHOLE = f"/models/{MODEL}:generateContent"
_STREAMED = f"/models/{MODEL}:streamGenerateContent"


_WAYS = WaysOf(lambda thing: thing.text or "")


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


def _models(method: str, **arguments: Any) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        return getattr(client.models, method)(model=MODEL, contents=question, **arguments)

    return ask


def _chats(method: str, **arguments: Any) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        return getattr(client.chats.create(model=MODEL), method)(question, **arguments)

    return ask


def _calls() -> Iterator[ProviderCall]:
    whole: dict[str, Any] = {"path": _WHOLE, "ways": _WAYS.reply, "answer": ANSWER}
    flow: dict[str, Any] = {"path": _STREAMED, "streams": True, "answer": ANSWER}
    generate, generate_stream = "models.generate_content", "models.generate_content_stream"
    yield ProviderCall(id=f"{generate}()", shape="plain", ask=_models("generate_content"), **whole)
    yield ProviderCall(id="chats.send_message()", shape="plain", ask=_chats("send_message"), **whole)
    for suffix, ways in (
        ("", _WAYS.chunks),
        (", close()", _WAYS.closed),
        (", next()", _WAYS.by_next),
    ):
        streamed = _models("generate_content_stream")
        yield ProviderCall(id=f"{generate_stream}(){suffix}", shape="stream", ask=streamed, ways=ways, **flow)
        sent = _chats("send_message_stream")
        yield ProviderCall(
            id=f"chats.send_message_stream(){suffix}", shape="stream helper", ask=sent, ways=ways, **flow
        )
    structured = {"response_mime_type": "application/json", "response_schema": City}
    parsed: dict[str, Any] = {**whole, "ways": (_parsed, _aparsed), "answer": CITY_ANSWER}
    ask = _models("generate_content", config=structured)
    yield ProviderCall(id=f"{generate}(response_schema=…)", shape="structured", ask=ask, **parsed)
    ask = _chats("send_message", config=structured)
    yield ProviderCall(id="chats.send_message(response_schema=…)", shape="structured", ask=ask, **parsed)
    raw: dict[str, Any] = {**whole, "ways": (_raw, _araw)}
    ask = _models("generate_content", config={"should_return_http_response": True})
    yield ProviderCall(id=f"{generate}(should_return_http_response=True)", shape="raw", ask=ask, **raw)


GOOGLE_CALLS: tuple[ProviderCall, ...] = tuple(_calls())
