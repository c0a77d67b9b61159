"""OpenAI's SDK: an adapter for its clients, and a reader for each of its two ways to hold a conversation.

Every request of a client passes through its ``request`` method, whatever it was called by, so that one attribute on
the instance sees them all; the class stays as it is, and so does everything the client can do.
"""

from __future__ import annotations

import binascii
import copy
import functools
import hashlib
import json
import threading
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

from memori.capture.wrapping import Shape, Streamed, Unread, Whole, acall, call, override
from memori.errors import ConfigurationError
from memori.injection import strip
from memori.types import Message, MessageKind, Reply, Role

if TYPE_CHECKING:
    from memori.protocols import CallHooks, Reader, ReplyFold

__all__ = ["ChatReader", "OpenAIAdapter", "ResponsesReader", "adapter", "provider_of"]

Body: TypeAlias = Mapping[str, Any]

_REGISTRATION = "_memori"
_OVERRIDDEN = (_REGISTRATION, "request", "copy", "with_options", "__getstate__")
# Only guards the few lines that change what a client has registered.
_registering = threading.Lock()


class OpenAIAdapter:
    """Listens to ``OpenAI``, ``AsyncOpenAI``, their Azure twins and every subclass of them, at any ``base_url``."""

    def register(self, client: Any, hooks: CallHooks) -> None:
        """Let *hooks* take part in every conversation of *client* and of the copies it makes.

        Raises:
            ConfigurationError: *client* is something else of that SDK.
        """
        import openai

        if not isinstance(client, openai.OpenAI | openai.AsyncOpenAI):
            raise ConfigurationError(
                f"got {type(client).__module__}.{type(client).__qualname__}: pass the client itself, "
                "an openai.OpenAI, AsyncOpenAI, AzureOpenAI or AsyncAzureOpenAI"
            )
        with _registering:
            registration = vars(client).get(_REGISTRATION) or _Registration(client)
            if not any(known is hooks for known in registration.hooks):
                registration.hooks = (*registration.hooks, hooks)

    def unregister(self, client: Any, hooks: CallHooks) -> bool:
        """Undo `register`; return whether there was anything to undo. Copies stay registered on their own."""
        with _registering:
            registration = getattr(client, "__dict__", {}).get(_REGISTRATION)
            if registration is None or not any(known is hooks for known in registration.hooks):
                return False
            registration.hooks = tuple(known for known in registration.hooks if known is not hooks)
            if not registration.hooks:
                registration.undo()
            return True


adapter = OpenAIAdapter()


class _Registration:
    """What one client has on it as long as anyone listens.

    Attributes:
        hooks: Who listens, in the order they came. Without any, calls pass as if this were not there.
    """

    def __init__(self, client: Any) -> None:
        import openai

        self.hooks: tuple[CallHooks, ...] = ()
        wrapped = self._arequest if isinstance(client, openai.AsyncOpenAI) else self._request
        self._undo = [
            override(client, _REGISTRATION, self),
            override(client, "request", wrapped(client)),
            override(client, "copy", self._copied(client.copy)),
            override(client, "with_options", self._copied(client.with_options)),
            # Pickle and copy.copy ask the instance for it: what they make must not call through this client.
            override(client, "__getstate__", self._state(client)),
        ]

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _request(self, client: Any) -> Callable[..., Any]:
        send = client.request

        @functools.wraps(send)
        def request(cast_to: Any, options: Any, **how: Any) -> Any:
            hooks, reader = self.hooks, _reader(client, options)
            if not hooks or reader is None:
                return send(cast_to, options, **how)
            return call(hooks, reader, options, lambda options: send(cast_to, options, **how), _shape)

        return request

    def _arequest(self, client: Any) -> Callable[..., Any]:
        send = client.request

        @functools.wraps(send)
        async def request(cast_to: Any, options: Any, **how: Any) -> Any:
            hooks, reader = self.hooks, _reader(client, options)
            if not hooks or reader is None:
                return await send(cast_to, options, **how)
            return await acall(hooks, reader, options, lambda options: send(cast_to, options, **how), _shape)

        return request

    def _copied(self, make: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(make)
        def copied(*args: Any, **kwargs: Any) -> Any:
            made = make(*args, **kwargs)
            for hooks in self.hooks:
                adapter.register(made, hooks)
            return made

        return copied

    def _state(self, client: Any) -> Callable[[], Any]:
        default = client.__getstate__

        def state() -> Any:
            found = default()
            if not isinstance(found, dict):
                return found
            return {name: value for name, value in found.items() if name not in _OVERRIDDEN}

        return state


class ChatReader:
    """How the bodies of ``/chat/completions`` read, and what answers them."""

    def __init__(self, provider: str) -> None:
        self.provider = provider

    def sent(self, request: Body) -> tuple[Message, ...]:
        """Return what the user, the assistant and the tools said, oldest first."""
        return tuple(_chat_messages(_sequence(request.get("messages"))))

    def with_memory(self, request: Body, block: str, *, role: Literal["user", "system"]) -> Body:
        """Return a copy of *request* with *block* as a message of its own; *request* itself without a user message."""
        messages = _sequence(request.get("messages"))
        return {**request, "messages": _with_block(messages, block, role)} if _last_user(messages) >= 0 else request

    def reply(self, response: Any) -> Reply:
        """Return what the first choice of a completion says."""
        choice = next(iter(_sequence(_get(response, "choices"))), None)
        return Reply(
            messages=tuple(_chat_assistant(_get(choice, "message"), {})), model=_text(response, "model") or None
        )

    def fold(self) -> ReplyFold:
        return _ChatFold()


class ResponsesReader:
    """How the bodies of ``/responses`` read, and what answers them.

    Of a conversation that the provider keeps (``previous_response_id``, ``conversation``) only what is new is there.
    """

    def __init__(self, provider: str) -> None:
        self.provider = provider

    def sent(self, request: Body) -> tuple[Message, ...]:
        """Return what the user, the assistant and the tools said, oldest first."""
        return tuple(_item_messages(_input_items(request)))

    def with_memory(self, request: Body, block: str, *, role: Literal["user", "system"]) -> Body:
        """Return a copy of *request* with *block* as an item of its own; *request* itself without a user message."""
        items = _input_items(request)
        return {**request, "input": _with_block(items, block, role)} if _last_user(items) >= 0 else request

    def reply(self, response: Any) -> Reply:
        """Return what a response says; of one that is still being made, or that failed, what there is of it."""
        return Reply(
            messages=tuple(_item_messages(_sequence(_get(response, "output")))),
            model=_text(response, "model") or None,
            # Incomplete is what was cut by the caller's own limits, as a finish_reason of "length" is.
            partial=_get(response, "status") in ("queued", "in_progress", "cancelled", "failed"),
        )

    def fold(self) -> ReplyFold:
        return _ResponseFold(self)


class _RequestReader:
    """Reads the SDK's request options as *reader* reads their body. ``extra_body`` counts as the body it becomes."""

    def __init__(self, reader: ChatReader | ResponsesReader) -> None:
        self._reader = reader
        self.provider = reader.provider
        self.reply = reader.reply
        self.fold = reader.fold

    def sent(self, request: Any) -> tuple[Message, ...]:
        return self._reader.sent(_body(request))

    def with_memory(self, request: Any, block: str, *, role: Literal["user", "system"]) -> Any:
        body = _body(request)
        changed = {
            name: value
            for name, value in self._reader.with_memory(body, block, role=role).items()
            if value is not body.get(name)
        }
        extra = _mapping(request.extra_json)
        enriched = copy.copy(request)
        enriched.json_data = {**_mapping(request.json_data), **changed}
        if any(name in extra for name in changed):
            enriched.extra_json = {**extra, **changed}
        return enriched


class _ChatFold:
    """The first choice of a streamed completion."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._calls: list[_PartialCall] = []
        self._model: str | None = None
        self._finished = False

    def add(self, chunk: Any) -> None:
        self._model = _text(chunk, "model") or self._model
        for choice in _sequence(_get(chunk, "choices")):
            if _get(choice, "index"):
                continue
            self._finished = self._finished or _get(choice, "finish_reason") is not None
            delta = _get(choice, "delta")
            self._content.append(_content(_get(delta, "content"), between="") or _transcript(delta))
            self._refusal.append(_text(delta, "refusal"))
            for fragment in _calls(delta):
                self._add_call(fragment)

    def _add_call(self, fragment: Any) -> None:
        index, call_id = _get(fragment, "index"), _text(fragment, "id")
        under_way = next((found for found in reversed(self._calls) if found.index == index), None)
        # Some compatible servers number every call 0.
        if under_way is None or (call_id and under_way.id and call_id != under_way.id):
            under_way = _PartialCall(index)
            self._calls.append(under_way)
        under_way.id = under_way.id or call_id
        name, arguments = _named(fragment)
        under_way.name += name
        under_way.arguments.append(arguments)

    def reply(self, *, ended: bool) -> Reply:
        calls = [{"function": {"name": found.name, "arguments": "".join(found.arguments)}} for found in self._calls]
        message = {"content": "".join(self._content), "refusal": "".join(self._refusal), "tool_calls": calls}
        return Reply(
            messages=tuple(_chat_assistant(message, {})), model=self._model, partial=not (ended or self._finished)
        )


@dataclass(slots=True)
class _PartialCall:
    index: Any
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class _ResponseFold:
    """The items of a streamed response."""

    def __init__(self, reader: ResponsesReader) -> None:
        self._reader = reader
        self._items: dict[int, Any] = {}
        self._texts: dict[int, dict[int, list[str]]] = {}  # By output index, then by content index.
        self._model: str | None = None
        self._final: Any = None
        self._failed = False

    def add(self, chunk: Any) -> None:
        kind, place = _text(chunk, "type"), _get(chunk, "output_index")
        if (response := _get(chunk, "response")) is not None:
            self._model = _text(response, "model") or self._model
            if kind in _FINAL:
                self._final = response
        if kind == "error":
            self._failed = True
        elif not isinstance(place, int):
            return
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self._items[place] = _get(chunk, "item")
            if kind == "response.output_item.done":
                self._texts.pop(place, None)
        elif kind in _DELTAS:
            index = _get(chunk, "content_index") or 0
            self._texts.setdefault(place, {}).setdefault(index, []).append(_text(chunk, "delta"))

    def reply(self, *, ended: bool) -> Reply:
        partial = self._failed or not ended
        if self._final is not None:
            final = self._reader.reply(self._final)
            if final.messages:
                return final
            # Some compatible servers end with a response whose output is empty.
            partial = final.partial
        places = sorted(self._items.keys() | self._texts.keys())
        messages = tuple(_item_messages([self._item(place) for place in places]))
        return Reply(messages=messages, model=self._model, partial=partial)

    def _item(self, place: int) -> Any:
        """Return the item as it stands: whole once it is done, before that with what has come of its text."""
        item = self._items.get(place)
        if place not in self._texts:
            return item
        texts = ["".join(pieces) for _, pieces in sorted(self._texts[place].items())]
        kind = _text(item, "type") or "message"
        return {
            "type": kind,
            "role": "assistant",
            "content": texts,
            "name": _text(item, "name"),
            "call_id": _text(item, "call_id"),
            "input" if kind == "custom_tool_call" else "arguments": "".join(texts),
        }


_FINAL = frozenset(f"response.{name}" for name in ("completed", "incomplete", "failed", "cancelled"))
_DELTAS = frozenset(
    f"response.{name}.delta" for name in ("output_text", "refusal", "function_call_arguments", "custom_tool_call_input")
)


def provider_of(base_url: str) -> str:
    """Return who answers at *base_url*: ``openai``, ``azure``, otherwise the host's name."""
    host = urlsplit(base_url).hostname or ""
    if ".azure." in host:
        return "azure"
    return "openai" if host.endswith(".openai.com") else host


def _reader(client: Any, options: Any) -> Reader[Any] | None:
    """Return what reads this request; None when it is no conversation."""
    if str(getattr(options, "method", "")).lower() != "post" or not _body(options):
        return None
    path = "/" + str(getattr(options, "url", "")).partition("?")[0].lstrip("/")
    if path.endswith("/chat/completions"):
        return _RequestReader(ChatReader(provider_of(str(client.base_url))))
    if path.endswith("/responses"):
        return _RequestReader(ResponsesReader(provider_of(str(client.base_url))))
    return None


def _body(options: Any) -> dict[str, Any]:
    """Return the body that the SDK will send."""
    return {**_mapping(getattr(options, "json_data", None)), **_mapping(getattr(options, "extra_json", None))}


def _shape(response: Any) -> Shape:
    """Return how the reply in what the SDK returned is to be had."""
    import openai

    if isinstance(response, openai.Stream | openai.AsyncStream):
        return Streamed(response, "_iterator", functools.partial(_chunks, response), response.response)
    http = getattr(response, "http_response", None)
    if http is None:
        return Whole(response)
    body = functools.partial(_read_body, http)
    # Under `with_raw_response` the body is here already, and many only look at its text.
    return Unread(response, body) if (read := body()) is None else Whole(read)


def _chunks(stream: Any) -> Any:
    """Return the iterator of a stream that nobody has read from yet."""
    import openai

    if type(stream) not in (openai.Stream, openai.AsyncStream):
        return stream._iterator
    # The iterator that a stream is born with refers to the stream: left in the middle, the two would linger until the
    # garbage collector comes by. A twin's does not.
    twin = copy.copy(stream)
    del twin._iterator
    return twin.__stream__()


def _read_body(http: Any) -> Any:
    """Return the JSON of a response whose body was read; None when it was not."""
    try:
        content = http.content
    except RuntimeError:  # httpx and httpx2 each have a ResponseNotRead of their own.
        return None
    try:
        return json.loads(content)
    except ValueError:
        return {}


def _chat_messages(messages: Iterable[Any]) -> Iterator[Message]:
    names: dict[str, str] = {}
    for message in messages:
        role = _get(message, "role")
        if role == "user":
            yield from _said("user", _content(_get(message, "content")), author=_text(message, "name"))
        elif role == "assistant":
            yield from _chat_assistant(message, names)
        elif role in ("tool", "function"):
            author = names.get(_text(message, "tool_call_id")) or _text(message, "name")
            yield from _said("tool", _content(_get(message, "content")), kind="tool_result", author=author)


def _chat_assistant(message: Any, names: dict[str, str]) -> Iterator[Message]:
    """Yield what an assistant's message says and calls; note the names of the tools it calls by the calls' ids."""
    text = _content(_get(message, "content")) or _text(message, "refusal") or _transcript(message)
    yield from _said("assistant", text, author=_text(message, "name"))
    for asked in _calls(message):
        name, arguments = _named(asked)
        names[_text(asked, "id")] = name
        yield from _called(name, arguments)


def _item_messages(items: Iterable[Any]) -> Iterator[Message]:
    names: dict[str, str] = {}
    for item in items:
        kind, role, call_id = _get(item, "type"), _get(item, "role"), _text(item, "call_id")
        if kind in (None, "message") and role in ("user", "assistant"):
            yield from _said(role, _content(_get(item, "content")))
        elif kind in ("function_call", "custom_tool_call"):
            name, arguments = _text(item, "name"), _text(item, "arguments") or _text(item, "input")
            names[call_id] = name
            yield from _called(name, arguments)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            output = _content(_get(item, "output"))
            yield from _said("tool", output, kind="tool_result", author=names.get(call_id))


def _said(role: Role, text: str, *, kind: MessageKind = "text", author: str | None = None) -> Iterator[Message]:
    """Yield the message, unless nothing is left of it without memori's own block."""
    own = strip(text)
    if own.strip():
        yield Message(role=role, content=own, kind=kind, author=author or None)


def _called(name: str, arguments: str) -> Iterator[Message]:
    if name:
        yield from _said("assistant", f"{name}({arguments})", kind="tool_call")


def _calls(message: Any) -> Iterator[Any]:
    """Yield the tool calls of a message, or their fragments in a delta."""
    yield from _sequence(_get(message, "tool_calls"))
    if (function := _get(message, "function_call")) is not None:  # What there was before there were tools.
        yield {"index": 0, "function": function}


def _named(asked: Any) -> tuple[str, str]:
    """Return the name and the arguments of a tool call, of either kind."""
    target = _get(asked, "function") or _get(asked, "custom")
    return _text(target, "name"), _text(target, "arguments") or _text(target, "input")


def _transcript(message: Any) -> str:
    return _text(_get(message, "audio"), "transcript")


def _content(content: Any, *, between: str = "\n") -> str:
    if isinstance(content, str):
        return content
    return between.join(text for part in _sequence(content) if (text := _part(part)))


def _part(part: Any) -> str:
    """Return one part of a content as text: what is none, as a reference."""
    if isinstance(part, str):
        return part
    match _get(part, "type"):
        case "text" | "input_text" | "output_text":
            return _text(part, "text")
        case "refusal":
            return _text(part, "refusal")
        case "image_url" | "input_image":
            image = _get(part, "image_url")
            url = image if isinstance(image, str) else _text(image, "url")
            return _reference("image", url or _text(part, "file_id"))
        case "input_audio":
            audio = _get(part, "input_audio")
            return _reference("audio", f"data:audio/{_text(audio, 'format')};base64,{_text(audio, 'data')}")
        case "file" | "input_file":
            file = _get(part, "file") or part
            named = _text(file, "filename") or _text(file, "file_url") or _text(file, "file_id")
            data = _text(file, "file_data")
            return _reference("file", named or (f"data:;base64,{data}" if data and ":" not in data else data))
    return ""


def _reference(kind: str, target: str) -> str:
    """Return what stands for a file in the text: its address, or of data its type and digest, never the bytes."""
    if not target.startswith("data:"):
        return f"[{kind}: {target}]" if target else ""
    head, _, data = target.removeprefix("data:").partition(",")
    try:
        content = b64decode(data) if head.endswith(";base64") else unquote_to_bytes(data)
    except binascii.Error:
        content = data.encode()
    return f"[{kind}: {head.partition(';')[0] or kind}, sha256 {hashlib.sha256(content).hexdigest()[:16]}]"


def _input_items(body: Body) -> Sequence[Any]:
    given = body.get("input")
    return [{"role": "user", "content": given}] if isinstance(given, str) else _sequence(given)


def _with_block(messages: Sequence[Any], block: str, role: Literal["user", "system"]) -> list[Any]:
    """Return a new list with the block's message in it. There must be a user message."""
    place = last = _last_user(messages)
    speaker: str = role
    if role == "system":
        place = 0
        while place < len(messages) and (found := _get(messages[place], "role")) in ("system", "developer"):
            # OpenAI takes only one of the two in one request.
            speaker = found
            place += 1
    block_message = {"role": speaker, "content": block}
    if _get(messages[last], "type") is not None:
        block_message = {"type": "message", **block_message}
    return [*messages[:place], block_message, *messages[place:]]


def _last_user(messages: Sequence[Any]) -> int:
    """Return where the last user message is; -1 when there is none."""
    return max((place for place, message in enumerate(messages) if _get(message, "role") == "user"), default=-1)


def _get(thing: Any, name: str) -> Any:
    """Return a field of a dict or of one of the SDK's objects; None when there is none."""
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def _text(thing: Any, name: str) -> str:
    value = _get(thing, name)
    return value if isinstance(value, str) else ""


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
