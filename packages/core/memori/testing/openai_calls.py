"""Every way to ask OpenAI's SDK, as data: what it is called, how its reply is read, and the text its caller sees.

One table for whatever must hold however a program talks to OpenAI; each row works synchronously and asynchronously.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, TypeAlias

from memori.testing.calls import ANSWER, CITY_ANSWER, City, ProviderCall, Shape, Ways
from memori.testing.ways import WaysOf

__all__ = ["OPENAI_CALLS"]

MODEL = "gpt-4o-mini"


def _said(thing: Any) -> str:
    """Return the text in a reply, a chunk or an event of either API, given as an object or as JSON."""
    if isinstance(thing, Mapping):
        if "output" in thing:
            return "".join(part["text"] for item in thing["output"] for part in item["content"])
        return str(thing["choices"][0]["message"]["content"])
    kind = getattr(thing, "type", None)
    if kind in ("response.output_text.delta", "content.delta"):
        return str(thing.delta)
    if kind is not None:
        return ""
    if hasattr(thing, "output"):
        return "".join(part.text for item in thing.output for part in item.content)
    if not thing.choices:
        return ""
    choice = thing.choices[0]
    return (choice.delta if hasattr(choice, "delta") else choice.message).content or ""


_WAYS = WaysOf(_said)


def _final(result: Any) -> Iterator[str]:
    with result as stream:
        final = stream.get_final_completion if hasattr(stream, "get_final_completion") else stream.get_final_response
        yield _said(final())


async def _afinal(result: Any) -> AsyncIterator[str]:
    async with result as stream:
        final = stream.get_final_completion if hasattr(stream, "get_final_completion") else stream.get_final_response
        yield _said(await final())


def _raw(result: Any) -> Iterator[str]:
    yield _said(result.parse())


async def _araw(result: Any) -> AsyncIterator[str]:
    yield _said(result.parse())


def _raw_text(result: Any) -> Iterator[str]:
    yield _said(json.loads(result.text))


async def _araw_text(result: Any) -> AsyncIterator[str]:
    yield _said(json.loads(result.text))


def _raw_chunks(result: Any) -> Iterator[str]:
    yield from _WAYS.in_with[0](result.parse())


async def _araw_chunks(result: Any) -> AsyncIterator[str]:
    async with result.parse() as stream:
        async for chunk in stream:
            if text := _said(chunk):
                yield text


def _unread_lines(result: Any) -> Iterator[str]:
    with result as response:
        for line in response.iter_lines():
            yield from _line(line)


async def _aunread_lines(result: Any) -> AsyncIterator[str]:
    async with result as response:
        async for line in response.iter_lines():
            for text in _line(line):
                yield text


def _line(line: str) -> Iterator[str]:
    """Yield the text in one line of server-sent events."""
    if not line.startswith("data: {"):
        return
    event = json.loads(line.removeprefix("data: "))
    if event.get("type") == "response.output_text.delta":
        yield event["delta"]
    for choice in event.get("choices", ()):
        if text := choice["delta"].get("content"):
            yield text


def _chat(resource: Callable[[Any], Any], method: str = "create", **arguments: Any) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        messages = [{"role": "user", "content": question}]
        return getattr(resource(client), method)(model=MODEL, messages=messages, **arguments)

    return ask


def _responses(resource: Callable[[Any], Any], method: str = "create", **arguments: Any) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        return getattr(resource(client), method)(model=MODEL, input=question, **arguments)

    return ask


def _post(client: Any, question: str) -> Any:
    messages = [{"role": "user", "content": question}]
    return client.post("/chat/completions", cast_to=object, body={"model": MODEL, "messages": messages})


_Ask: TypeAlias = Callable[..., Callable[[Any, str], Any]]


def _both(name: str, path: str, resource: Callable[[Any], Any], ask: _Ask, wanted: str) -> Iterator[ProviderCall]:
    """Yield what both APIs offer in the same form; *wanted* is the argument that asks for structured output."""

    def raw(client: Any) -> Any:
        return resource(client).with_raw_response

    def streaming(client: Any) -> Any:
        return resource(client).with_streaming_response

    def row(suffix: str, shape: Shape, asks: Callable[[Any, str], Any], ways: Ways, **more: Any) -> ProviderCall:
        return _row(f"{name}.{suffix}", shape, path, asks, ways, **more)

    city, flow = {"answer": CITY_ANSWER}, {"streams": True}
    created, streamed, helped = ask(resource), ask(resource, stream=True), ask(resource, "stream")
    yield row("create()", "plain", created, _WAYS.reply)
    yield row("create(stream=False)", "plain", ask(resource, stream=False), _WAYS.reply)
    yield row("create(stream=True)", "stream", streamed, _WAYS.chunks, **flow)
    yield row("create(stream=True), with", "stream", streamed, _WAYS.in_with, **flow)
    yield row("create(stream=True), close()", "stream", streamed, _WAYS.closed, **flow)
    yield row("create(stream=True), next()", "stream", streamed, _WAYS.by_next, **flow)
    yield row("stream()", "stream helper", helped, _WAYS.in_with, **flow)
    yield row("stream(), final", "stream helper", helped, (_final, _afinal))
    yield row("parse()", "structured", ask(resource, "parse", **{wanted: City}), _WAYS.reply, **city)
    yield row("with_raw_response.create()", "raw", ask(raw), (_raw, _araw))
    yield row("with_raw_response.create(), text", "raw", ask(raw), (_raw_text, _araw_text))
    yield row("with_raw_response.parse()", "raw", ask(raw, "parse", **{wanted: City}), (_raw, _araw), **city)
    yield row(
        "with_raw_response.create(stream=True)", "raw", ask(raw, stream=True), (_raw_chunks, _araw_chunks), **flow
    )
    unread, asked = "with_streaming_response.create()", ask(streaming)
    yield row(f"{unread}, parse()", "raw", asked, _WAYS.unread)
    yield row(f"{unread}, json()", "raw", asked, _WAYS.unread_json)
    yield row(f"{unread}, bytes", "raw", asked, _WAYS.unread_bytes, heard=False)
    unread, asked = "with_streaming_response.create(stream=True)", ask(streaming, stream=True)
    yield row(f"{unread}, parse()", "raw", asked, _WAYS.unread_chunks, **flow)
    yield row(f"{unread}, lines", "raw", asked, (_unread_lines, _aunread_lines), heard=False, **flow)


def _row(
    name: str, shape: Shape, path: str, ask: Callable[[Any, str], Any], ways: Ways, answer: str = ANSWER, **more: Any
) -> ProviderCall:
    begun = 4 if path == "/chat/completions" else 7
    return ProviderCall(id=name, shape=shape, path=path, ask=ask, ways=ways, answer=answer, begun=begun, **more)


def _calls() -> Iterator[ProviderCall]:
    chat, responses = "/chat/completions", "/responses"
    yield from _both("chat.completions", chat, lambda client: client.chat.completions, _chat, "response_format")
    yield from _both("responses", responses, lambda client: client.responses, _responses, "text_format")
    plain = _WAYS.reply
    ask = _chat(lambda client: client.beta.chat.completions, "parse", response_format=City)
    yield _row("beta.chat.completions.parse()", "structured", chat, ask, plain, answer=CITY_ANSWER)
    for stream in (False, True):
        shape: Shape = "stream" if stream else "plain"
        ways = _WAYS.chunks if stream else plain
        flag = f"(stream={stream})"
        flow: dict[str, Any] = {"streams": stream}
        ask = _responses(lambda client: client.beta.responses, stream=stream)
        yield _row(f"beta.responses.create{flag}", shape, responses, ask, ways, since=(2, 45), **flow)
        ask = _chat(lambda client: client.with_options(timeout=30).chat.completions, stream=stream)
        yield _row(f"with_options().chat.completions.create{flag}", shape, chat, ask, ways, **flow)
        ask = _responses(lambda client: client.copy().responses, stream=stream)
        yield _row(f"copy().responses.create{flag}", shape, responses, ask, ways, **flow)
    yield _row("post()", "plain", chat, _post, plain)


OPENAI_CALLS: tuple[ProviderCall, ...] = tuple(_calls())
