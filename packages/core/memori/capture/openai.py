"""OpenAI's SDK: an adapter for its clients, and a reader for each of its two ways to hold a conversation."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote_to_bytes, urlsplit

from memori.capture.client import Body, RequestAdapter
from memori.capture.reading import called, data_reference, get, reference, said, sequence, text_of
from memori.errors import ConfigurationError
from memori.types import Message, Reply

if TYPE_CHECKING:
    from memori.protocols import Reader, ReplyFold

__all__ = ["ChatReader", "OpenAIAdapter", "ResponsesReader", "adapter", "provider_of"]


class OpenAIAdapter(RequestAdapter):
    """Listens to ``OpenAI``, ``AsyncOpenAI``, their Azure twins and every subclass of them, at any ``base_url``."""

    def asynchronous(self, client: Any) -> bool:
        import openai

        if not isinstance(client, openai.OpenAI | openai.AsyncOpenAI):
            raise ConfigurationError(
                f"got {type(client).__module__}.{type(client).__qualname__}: pass the client itself, "
                "an openai.OpenAI, AsyncOpenAI, AzureOpenAI or AsyncAzureOpenAI"
            )
        return isinstance(client, openai.AsyncOpenAI)

    def reader(self, client: Any, path: str, body: Body) -> Reader[Body] | None:
        if path.endswith("/chat/completions"):
            return ChatReader(provider_of(str(client.base_url)))
        return ResponsesReader(provider_of(str(client.base_url))) if path.endswith("/responses") else None

    def streams(self) -> tuple[type[Any], ...]:
        import openai

        return openai.Stream, openai.AsyncStream


adapter = OpenAIAdapter()


class ChatReader:
    """How the bodies of ``/chat/completions`` read, and what answers them."""

    def __init__(self, provider: str) -> None:
        self.provider = provider

    def sent(self, request: Body) -> tuple[Message, ...]:
        """Return what the user, the assistant and the tools said, oldest first."""
        return tuple(_chat_messages(sequence(request.get("messages"))))

    def with_memory(self, request: Body, block: str, *, role: Literal["user", "system"]) -> Body:
        """Return a copy of *request* with *block* as a message of its own; *request* itself without a user message."""
        messages = sequence(request.get("messages"))
        return {**request, "messages": _with_block(messages, block, role)} if _last_user(messages) >= 0 else request

    def reply(self, response: Any) -> Reply:
        """Return what the first choice of a completion says."""
        choice = next(iter(sequence(get(response, "choices"))), None)
        return Reply(
            messages=tuple(_chat_assistant(get(choice, "message"), {})), model=text_of(response, "model") or None
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
            messages=tuple(_item_messages(sequence(get(response, "output")))),
            model=text_of(response, "model") or None,
            # Incomplete is what was cut by the caller's own limits, as a finish_reason of "length" is.
            partial=get(response, "status") in ("queued", "in_progress", "cancelled", "failed"),
        )

    def fold(self) -> ReplyFold:
        return _ResponseFold(self)


class _ChatFold:
    """The first choice of a streamed completion."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._calls: list[_PartialCall] = []
        self._model: str | None = None
        self._finished = False

    def add(self, chunk: Any) -> None:
        self._model = text_of(chunk, "model") or self._model
        for choice in sequence(get(chunk, "choices")):
            if get(choice, "index"):
                continue
            self._finished = self._finished or get(choice, "finish_reason") is not None
            delta = get(choice, "delta")
            self._content.append(_content(get(delta, "content"), between="") or _transcript(delta))
            self._refusal.append(text_of(delta, "refusal"))
            for fragment in _calls(delta):
                self._add_call(fragment)

    def _add_call(self, fragment: Any) -> None:
        index, call_id = get(fragment, "index"), text_of(fragment, "id")
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
        kind, place = text_of(chunk, "type"), get(chunk, "output_index")
        if (response := get(chunk, "response")) is not None:
            self._model = text_of(response, "model") or self._model
            if kind in _FINAL:
                self._final = response
        if kind == "error":
            self._failed = True
        elif not isinstance(place, int):
            return
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self._items[place] = get(chunk, "item")
            if kind == "response.output_item.done":
                self._texts.pop(place, None)
        elif kind in _DELTAS:
            index = get(chunk, "content_index") or 0
            self._texts.setdefault(place, {}).setdefault(index, []).append(text_of(chunk, "delta"))

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
        kind = text_of(item, "type") or "message"
        return {
            "type": kind,
            "role": "assistant",
            "content": texts,
            "name": text_of(item, "name"),
            "call_id": text_of(item, "call_id"),
            "input" if kind == "custom_tool_call" else "arguments": "".join(texts),
        }


_FINAL = frozenset(f"response.{name}" for name in ("completed", "incomplete", "failed", "cancelled"))
_DELTAS = frozenset(
    f"response.{name}.delta" for name in ("output_text", "refusal", "function_call_arguments", "custom_tool_call_input")
)


# Whose hosts end like this; with a port, what listens at it on this machine unless told otherwise.
_KNOWN_HOSTS = {
    "api.openai.com": "openai",
    "azure.com": "azure",
    "azure.us": "azure",
    "azure.cn": "azure",
    "nebius.com": "nebius",
    "nebius.ai": "nebius",
    "deepseek.com": "deepseek",
    "api.nvidia.com": "nvidia",
    "openrouter.ai": "openrouter",
    "localhost:11434": "ollama",
    "localhost:1234": "lmstudio",
}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def provider_of(base_url: str) -> str:
    """Return who answers at *base_url*: ``openai``, ``azure``, … where the host tells, otherwise the host itself."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host in _LOOPBACK:
        return _KNOWN_HOSTS.get(f"localhost:{parts.port}", host)
    return next((name for known, name in _KNOWN_HOSTS.items() if f".{host}".endswith(f".{known}")), host)


def _chat_messages(messages: Iterable[Any]) -> Iterator[Message]:
    names: dict[str, str] = {}
    for message in messages:
        role = get(message, "role")
        if role == "user":
            yield from said("user", _content(get(message, "content")), author=text_of(message, "name"))
        elif role == "assistant":
            yield from _chat_assistant(message, names)
        elif role in ("tool", "function"):
            author = names.get(text_of(message, "tool_call_id")) or text_of(message, "name")
            yield from said("tool", _content(get(message, "content")), kind="tool_result", author=author)


def _chat_assistant(message: Any, names: dict[str, str]) -> Iterator[Message]:
    """Yield what an assistant's message says and calls; note the names of the tools it calls by the calls' ids."""
    text = _content(get(message, "content")) or text_of(message, "refusal") or _transcript(message)
    yield from said("assistant", text, author=text_of(message, "name"))
    for asked in _calls(message):
        name, arguments = _named(asked)
        names[text_of(asked, "id")] = name
        yield from called(name, arguments)


def _item_messages(items: Iterable[Any]) -> Iterator[Message]:
    names: dict[str, str] = {}
    for item in items:
        kind, role, call_id = get(item, "type"), get(item, "role"), text_of(item, "call_id")
        if kind in (None, "message") and role in ("user", "assistant"):
            yield from said(role, _content(get(item, "content")))
        elif kind in ("function_call", "custom_tool_call"):
            name, arguments = text_of(item, "name"), text_of(item, "arguments") or text_of(item, "input")
            names[call_id] = name
            yield from called(name, arguments)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            output = _content(get(item, "output"))
            yield from said("tool", output, kind="tool_result", author=names.get(call_id))


def _calls(message: Any) -> Iterator[Any]:
    """Yield the tool calls of a message, or their fragments in a delta."""
    yield from sequence(get(message, "tool_calls"))
    if (function := get(message, "function_call")) is not None:  # What there was before there were tools.
        yield {"index": 0, "function": function}


def _named(asked: Any) -> tuple[str, str]:
    """Return the name and the arguments of a tool call, of either kind."""
    target = get(asked, "function") or get(asked, "custom")
    return text_of(target, "name"), text_of(target, "arguments") or text_of(target, "input")


def _transcript(message: Any) -> str:
    return text_of(get(message, "audio"), "transcript")


def _content(content: Any, *, between: str = "\n") -> str:
    if isinstance(content, str):
        return content
    return between.join(text for part in sequence(content) if (text := _part(part)))


def _part(part: Any) -> str:
    """Return one part of a content as text: what is none, as a reference."""
    if isinstance(part, str):
        return part
    match get(part, "type"):
        case "text" | "input_text" | "output_text":
            return text_of(part, "text")
        case "refusal":
            return text_of(part, "refusal")
        case "image_url" | "input_image":
            image = get(part, "image_url")
            url = image if isinstance(image, str) else text_of(image, "url")
            return _file("image", url or text_of(part, "file_id"))
        case "input_audio":
            audio = get(part, "input_audio")
            return _file("audio", f"data:audio/{text_of(audio, 'format')};base64,{text_of(audio, 'data')}")
        case "file" | "input_file":
            file = get(part, "file") or part
            named = text_of(file, "filename") or text_of(file, "file_url") or text_of(file, "file_id")
            data = text_of(file, "file_data")
            return _file("file", named or (f"data:;base64,{data}" if data and ":" not in data else data))
    return ""


def _file(kind: str, target: str) -> str:
    """Return what stands for a file in the text: its address, or of data its type and digest, never the bytes."""
    if not target.startswith("data:"):
        return reference(kind, target)
    head, _, data = target.removeprefix("data:").partition(",")
    try:
        content = b64decode(data) if head.endswith(";base64") else unquote_to_bytes(data)
    except binascii.Error:
        content = data.encode()
    return data_reference(kind, head.partition(";")[0], content)


def _input_items(body: Body) -> Sequence[Any]:
    given = body.get("input")
    return [{"role": "user", "content": given}] if isinstance(given, str) else sequence(given)


def _with_block(messages: Sequence[Any], block: str, role: Literal["user", "system"]) -> list[Any]:
    """Return a new list with the block's message in it. There must be a user message."""
    place = last = _last_user(messages)
    speaker: str = role
    if role == "system":
        place = 0
        while place < len(messages) and (found := get(messages[place], "role")) in ("system", "developer"):
            # OpenAI takes only one of the two in one request.
            speaker = found
            place += 1
    block_message = {"role": speaker, "content": block}
    if get(messages[last], "type") is not None:
        block_message = {"type": "message", **block_message}
    return [*messages[:place], block_message, *messages[place:]]


def _last_user(messages: Sequence[Any]) -> int:
    """Return where the last user message is; -1 when there is none."""
    return max((place for place, message in enumerate(messages) if get(message, "role") == "user"), default=-1)
