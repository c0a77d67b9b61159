"""Every way to ask OpenAI's SDK, as data: what it is called, how its reply is read, and the text its caller sees.

One table for whatever must hold however a program talks to OpenAI; each row works synchronously and asynchronously.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel

from memori.testing.calls import ProviderCall, Shape

__all__ = ["OPENAI_CALLS", "City"]

MODEL = "gpt-4o-mini"
ANSWER = "Blue is the one you told me about."
_CITY_ANSWER = '{"city": "Oslo"}'


class City(BaseModel):
    """What the rows that ask for structured output ask for."""

    city: str


_Hear: TypeAlias = Callable[[Any], Iterator[str]]
_AHear: TypeAlias = Callable[[Any], AsyncIterator[str]]
_Ways: TypeAlias = tuple[_Hear, _AHear]


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


def _reply(result: Any) -> Iterator[str]:
    yield _said(result)


async def _areply(result: Any) -> AsyncIterator[str]:
    yield _said(result)


def _chunks(result: Any) -> Iterator[str]:
    for chunk in result:
        if text := _said(chunk):
            yield text


async def _achunks(result: Any) -> AsyncIterator[str]:
    async for chunk in result:
        if text := _said(chunk):
            yield text


def _chunks_in_with(result: Any) -> Iterator[str]:
    with result as stream:
        yield from _chunks(stream)


async def _achunks_in_with(result: Any) -> AsyncIterator[str]:
    async with result as stream:
        async for chunk in stream:
            if text := _said(chunk):
                yield text


def _chunks_closed(result: Any) -> Iterator[str]:
    try:
        yield from _chunks(result)
    finally:
        result.close()


async def _achunks_closed(result: Any) -> AsyncIterator[str]:
    try:
        async for chunk in result:
            if text := _said(chunk):
                yield text
    finally:
        await result.close()


def _chunks_by_next(result: Any) -> Iterator[str]:
    while (chunk := next(result, None)) is not None:
        if text := _said(chunk):
            yield text


async def _achunks_by_next(result: Any) -> AsyncIterator[str]:
    while (chunk := await anext(result, None)) is not None:
        if text := _said(chunk):
            yield text


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
    yield from _chunks_in_with(result.parse())


async def _araw_chunks(result: Any) -> AsyncIterator[str]:
    async with result.parse() as stream:
        async for chunk in stream:
            if text := _said(chunk):
                yield text


def _unread(result: Any) -> Iterator[str]:
    with result as response:
        yield _said(response.parse())


async def _aunread(result: Any) -> AsyncIterator[str]:
    async with result as response:
        yield _said(await response.parse())


def _unread_json(result: Any) -> Iterator[str]:
    with result as response:
        yield _said(response.json())


async def _aunread_json(result: Any) -> AsyncIterator[str]:
    async with result as response:
        yield _said(await response.json())


def _unread_bytes(result: Any) -> Iterator[str]:
    with result as response:
        yield _said(json.loads(b"".join(response.iter_bytes())))


async def _aunread_bytes(result: Any) -> AsyncIterator[str]:
    async with result as response:
        yield _said(json.loads(b"".join([piece async for piece in response.iter_bytes()])))


def _unread_chunks(result: Any) -> Iterator[str]:
    with result as response:
        yield from _chunks(response.parse())


async def _aunread_chunks(result: Any) -> AsyncIterator[str]:
    async with result as response:
        async for chunk in await response.parse():
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

    def row(suffix: str, shape: Shape, asks: Callable[[Any, str], Any], ways: _Ways, **more: Any) -> ProviderCall:
        return _row(f"{name}.{suffix}", shape, path, asks, ways, **more)

    city, flow = {"answer": _CITY_ANSWER}, {"streams": True}
    created, streamed, helped = ask(resource), ask(resource, stream=True), ask(resource, "stream")
    yield row("create()", "plain", created, (_reply, _areply))
    yield row("create(stream=False)", "plain", ask(resource, stream=False), (_reply, _areply))
    yield row("create(stream=True)", "stream", streamed, (_chunks, _achunks), **flow)
    yield row("create(stream=True), with", "stream", streamed, (_chunks_in_with, _achunks_in_with), **flow)
    yield row("create(stream=True), close()", "stream", streamed, (_chunks_closed, _achunks_closed), **flow)
    yield row("create(stream=True), next()", "stream", streamed, (_chunks_by_next, _achunks_by_next), **flow)
    yield row("stream()", "stream helper", helped, (_chunks_in_with, _achunks_in_with), **flow)
    yield row("stream(), final", "stream helper", helped, (_final, _afinal))
    yield row("parse()", "structured", ask(resource, "parse", **{wanted: City}), (_reply, _areply), **city)
    yield row("with_raw_response.create()", "raw", ask(raw), (_raw, _araw))
    yield row("with_raw_response.create(), text", "raw", ask(raw), (_raw_text, _araw_text))
    yield row("with_raw_response.parse()", "raw", ask(raw, "parse", **{wanted: City}), (_raw, _araw), **city)
    yield row(
        "with_raw_response.create(stream=True)", "raw", ask(raw, stream=True), (_raw_chunks, _araw_chunks), **flow
    )
    unread, asked = "with_streaming_response.create()", ask(streaming)
    yield row(f"{unread}, parse()", "raw", asked, (_unread, _aunread))
    yield row(f"{unread}, json()", "raw", asked, (_unread_json, _aunread_json))
    yield row(f"{unread}, bytes", "raw", asked, (_unread_bytes, _aunread_bytes), heard=False)
    unread, asked = "with_streaming_response.create(stream=True)", ask(streaming, stream=True)
    yield row(f"{unread}, parse()", "raw", asked, (_unread_chunks, _aunread_chunks), **flow)
    yield row(f"{unread}, lines", "raw", asked, (_unread_lines, _aunread_lines), heard=False, **flow)


def _row(
    name: str, shape: Shape, path: str, ask: Callable[[Any, str], Any], ways: _Ways, answer: str = ANSWER, **more: Any
) -> ProviderCall:
    begun = 4 if path == "/chat/completions" else 7
    return ProviderCall(id=name, shape=shape, path=path, ask=ask, ways=ways, answer=answer, begun=begun, **more)


def _calls() -> Iterator[ProviderCall]:
    chat, responses = "/chat/completions", "/responses"
    yield from _both("chat.completions", chat, lambda client: client.chat.completions, _chat, "response_format")
    yield from _both("responses", responses, lambda client: client.responses, _responses, "text_format")
    plain = (_reply, _areply)
    ask = _chat(lambda client: client.beta.chat.completions, "parse", response_format=City)
    yield _row("beta.chat.completions.parse()", "structured", chat, ask, plain, answer=_CITY_ANSWER)
    for stream in (False, True):
        shape: Shape = "stream" if stream else "plain"
        ways = (_chunks, _achunks) if stream else plain
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
