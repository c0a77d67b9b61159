"""Every way to ask Anthropic's SDK, as data: what it is called, how its reply is read, and the text its caller sees."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from memori.testing.calls import ANSWER, CITY_ANSWER, City, ProviderCall, Shape, Ways
from memori.testing.ways import WaysOf

__all__ = ["ANTHROPIC_CALLS", "ANTHROPIC_MODEL"]

ANTHROPIC_MODEL = "claude-local"  # No model of its own, of which the SDK says one day that it is deprecated.


def _said(thing: Any) -> str:
    """Return the text in a message or in an event, given as an object or as JSON."""
    if isinstance(thing, Mapping):
        if "content" in thing:
            return "".join(block.get("text", "") for block in thing["content"])
        return str(thing.get("delta", {}).get("text", ""))
    if hasattr(thing, "content"):
        return "".join(getattr(block, "text", "") for block in thing.content)
    return getattr(thing.delta, "text", "") if thing.type == "content_block_delta" else ""


_WAYS = WaysOf(_said)


def _parsed(result: Any) -> Iterator[str]:
    assert isinstance(result.parsed_output, City)
    yield _said(result)


async def _aparsed(result: Any) -> AsyncIterator[str]:
    yield next(_parsed(result))


def _text_stream(result: Any) -> Iterator[str]:
    with result as stream:
        yield from stream.text_stream


async def _atext_stream(result: Any) -> AsyncIterator[str]:
    async with result as stream:
        async for text in stream.text_stream:
            yield text


def _final_message(result: Any) -> Iterator[str]:
    with result as stream:
        yield _said(stream.get_final_message())


async def _afinal_message(result: Any) -> AsyncIterator[str]:
    async with result as stream:
        yield _said(await stream.get_final_message())


def _final_text(result: Any) -> Iterator[str]:
    with result as stream:
        yield stream.get_final_text()


async def _afinal_text(result: Any) -> AsyncIterator[str]:
    async with result as stream:
        yield await stream.get_final_text()


def _until_done(result: Any) -> Iterator[str]:
    with result as stream:
        stream.until_done()
        yield _said(stream.current_message_snapshot)


async def _auntil_done(result: Any) -> AsyncIterator[str]:
    async with result as stream:
        await stream.until_done()
        yield _said(stream.current_message_snapshot)


def _raw(result: Any) -> Iterator[str]:
    yield _said(result.parse())


async def _araw(result: Any) -> AsyncIterator[str]:
    yield _said(await result.parse())


def _raw_text(result: Any) -> Iterator[str]:
    yield _said(json.loads(result.text()))


async def _araw_text(result: Any) -> AsyncIterator[str]:
    yield _said(json.loads(await result.text()))


def _raw_events(result: Any) -> Iterator[str]:
    yield from _WAYS.in_with[0](result.parse())


async def _araw_events(result: Any) -> AsyncIterator[str]:
    async with await result.parse() as stream:
        async for event in stream:
            if text := _said(event):
                yield text


def _unread_lines(result: Any) -> Iterator[str]:
    with result as response:
        for line in response.iter_lines():
            if line.startswith("data: ") and (text := _said(json.loads(line.removeprefix("data: ")))):
                yield text


async def _aunread_lines(result: Any) -> AsyncIterator[str]:
    async with result as response:
        async for line in response.iter_lines():
            if line.startswith("data: ") and (text := _said(json.loads(line.removeprefix("data: ")))):
                yield text


def _arguments(question: str) -> dict[str, Any]:
    return {"model": ANTHROPIC_MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": question}]}


def _messages(resource: Callable[[Any], Any], method: str = "create", **arguments: Any) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        return getattr(resource(client), method)(**_arguments(question), **arguments)

    return ask


def _post(client: Any, question: str) -> Any:
    return client.post("/v1/messages", cast_to=object, body=_arguments(question))


def _thread(method: str) -> Callable[[Any, str], Any]:
    def ask(client: Any, question: str) -> Any:
        thread = client.beta.messages.thread(model=ANTHROPIC_MODEL, max_tokens=100)
        return getattr(thread, method)({"role": "user", "content": question})

    return ask


def _runner(client: Any, question: str) -> Any:
    return client.beta.messages.tool_runner(**_arguments(question), tools=[]).until_done()


def _row(name: str, shape: Shape, ask: Callable[[Any, str], Any], ways: Ways, **more: Any) -> ProviderCall:
    return ProviderCall(id=name, shape=shape, path="/v1/messages", ask=ask, ways=ways, **{"answer": ANSWER, **more})


def _both(name: str, resource: Callable[[Any], Any]) -> Iterator[ProviderCall]:
    """Yield what both resources offer, the one that is out of beta and the one in it."""

    def raw(client: Any) -> Any:
        return resource(client).with_raw_response

    def unread(client: Any) -> Any:
        return resource(client).with_streaming_response

    def row(suffix: str, shape: Shape, ask: Callable[[Any, str], Any], ways: Ways, **more: Any) -> ProviderCall:
        return _row(f"{name}.{suffix}", shape, ask, ways, **more)

    plain, flow, city = _WAYS.reply, {"streams": True}, {"output_format": City}
    created, streamed = _messages(resource), _messages(resource, stream=True)
    helped = _messages(resource, "stream")
    yield row("create()", "plain", created, plain)
    yield row("create(stream=False)", "plain", _messages(resource, stream=False), plain)
    yield row("create(stream=True)", "stream", streamed, _WAYS.chunks, **flow)
    yield row("create(stream=True), with", "stream", streamed, _WAYS.in_with, **flow)
    yield row("create(stream=True), close()", "stream", streamed, _WAYS.closed, **flow)
    yield row("create(stream=True), next()", "stream", streamed, _WAYS.by_next, **flow)
    yield row("stream()", "stream helper", helped, _WAYS.in_with, **flow)
    yield row("stream(), text_stream", "stream helper", helped, (_text_stream, _atext_stream), **flow)
    yield row("stream(), get_final_message()", "stream helper", helped, (_final_message, _afinal_message))
    yield row("stream(), get_final_text()", "stream helper", helped, (_final_text, _afinal_text))
    yield row("stream(), until_done()", "stream helper", helped, (_until_done, _auntil_done))
    structured = _messages(resource, "parse", **city)
    yield row("parse()", "structured", structured, (_parsed, _aparsed), answer=CITY_ANSWER)
    structured = _messages(resource, "stream", **city)
    ways = (_final_message, _afinal_message)
    yield row("stream(output_format=…)", "structured", structured, ways, answer=CITY_ANSWER)
    yield row("with_raw_response.create()", "raw", _messages(raw), (_raw, _araw))
    yield row("with_raw_response.create(), text()", "raw", _messages(raw), (_raw_text, _araw_text))
    ask = _messages(raw, stream=True)
    yield row("with_raw_response.create(stream=True)", "raw", ask, (_raw_events, _araw_events), **flow)
    name_ = "with_streaming_response.create()"
    yield row(f"{name_}, parse()", "raw", _messages(unread), _WAYS.unread)
    yield row(f"{name_}, json()", "raw", _messages(unread), _WAYS.unread_json)
    yield row(f"{name_}, bytes", "raw", _messages(unread), _WAYS.unread_bytes, heard=False)
    name_, ask = "with_streaming_response.create(stream=True)", _messages(unread, stream=True)
    yield row(f"{name_}, parse()", "raw", ask, _WAYS.unread_chunks, **flow)
    yield row(f"{name_}, lines", "raw", ask, (_unread_lines, _aunread_lines), heard=False, **flow)


def _calls() -> Iterator[ProviderCall]:
    yield from _both("messages", lambda client: client.messages)
    yield from _both("beta.messages", lambda client: client.beta.messages)
    for stream in (False, True):
        shape: Shape = "stream" if stream else "plain"
        more: dict[str, Any] = {"ways": _WAYS.chunks if stream else _WAYS.reply, "streams": stream}
        flag = f"(stream={stream})"
        ask = _messages(lambda client: client.with_options(timeout=30).messages, stream=stream)
        yield _row(f"with_options().messages.create{flag}", shape, ask, **more)
        ask = _messages(lambda client: client.copy().messages, stream=stream)
        yield _row(f"copy().messages.create{flag}", shape, ask, **more)
    yield _row("post()", "plain", _post, _WAYS.reply)
    yield _row("beta.messages.tool_runner().until_done()", "plain", _runner, _WAYS.reply)
    thread, since = "beta.messages.thread()", {"since": (2, 12)}
    yield _row(f"{thread}.send()", "plain", _thread("send"), _WAYS.reply, **since)
    ways = (_text_stream, _atext_stream)
    yield _row(f"{thread}.stream()", "stream helper", _thread("stream"), ways, streams=True, **since)


ANTHROPIC_CALLS: tuple[ProviderCall, ...] = tuple(_calls())
