"""Anthropic's SDK: an adapter for its clients, on Anthropic's own platform and on others', and a reader of messages."""

from __future__ import annotations

import binascii
import copy
import itertools
import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from memori.capture.client import Body, RequestAdapter
from memori.capture.reading import called, data_reference, get, reference, said, sequence, text_of
from memori.errors import ConfigurationError
from memori.types import Message, Reply

if TYPE_CHECKING:
    from memori.protocols import Reader, ReplyFold

__all__ = ["AnthropicAdapter", "MessagesReader", "adapter", "provider_of"]


class AnthropicAdapter(RequestAdapter):
    """Listens to ``Anthropic``, ``AsyncAnthropic``, their twins for Bedrock, Vertex AI and others, and subclasses.

    Not by the SDK's own middleware, which sees each try of a request: a call that is retried is one exchange.
    """

    def asynchronous(self, client: Any) -> bool:
        from anthropic import _base_client

        if not isinstance(client, _base_client.SyncAPIClient | _base_client.AsyncAPIClient):
            raise ConfigurationError(
                f"got {type(client).__module__}.{type(client).__qualname__}: pass the client itself, "
                "an anthropic.Anthropic or AsyncAnthropic, or one for Bedrock or Vertex AI"
            )
        return isinstance(client, _base_client.AsyncAPIClient)

    def reader(self, client: Any, path: str, body: Body) -> Reader[Body] | None:
        # Those of other platforms get their own path and body on their way out.
        return MessagesReader(provider_of(str(client.base_url))) if path.endswith("/v1/messages") else None

    def streams(self) -> tuple[type[Any], ...]:
        import anthropic

        return anthropic.Stream, anthropic.AsyncStream

    def settled(self, options: Any) -> Any:
        """Return *options*, or a copy that has lists where the SDK takes any iterable, which may be read only once."""
        settled = copy.copy(options)
        for name in ("json_data", "extra_json"):
            body = _settled(getattr(options, name, None), ("messages", "content", "content"))
            setattr(settled, name, _settled(body, ("system",)))
        return settled


adapter = AnthropicAdapter()


class MessagesReader:
    """How the bodies of ``/v1/messages`` read, and what answers them.

    Of a conversation that the provider keeps (a message thread) only what is new is there.
    """

    def __init__(self, provider: str) -> None:
        self.provider = provider

    def sent(self, request: Body) -> tuple[Message, ...]:
        """Return what the user, the assistant and the tools said, oldest first; no thoughts."""
        return tuple(_messages(sequence(request.get("messages"))))

    def with_memory(self, request: Body, block: str, *, role: Literal["user", "system"]) -> Body:
        """Return a copy of *request* with *block* as a content block; *request* itself where the user says nothing.

        It goes into the last message in which the user says something, for not every platform takes two messages of the
        user's in a row: before the user's own blocks, but behind the results of tools, which must follow their calls at
        once. Where messages have cache breakpoints, it goes behind all blocks: what is cached up to a breakpoint is
        then the conversation as the next request repeats it, without this block.

        Args:
            role: ``system`` puts it at the end of the system prompt. It counts as ``user`` for what continues a message
                thread, whose system prompt is fixed.
        """
        messages = sequence(request.get("messages"))
        place = max((place for place, message in enumerate(messages) if _is_users(message)), default=-1)
        if place < 0:
            return request
        added = _Memory(type="text", text=block)
        if role == "system" and get(request.get("thread"), "type") != "continue":
            return {**request, "system": _with_system(request.get("system"), added)}
        blocks = _blocks(messages[place])
        at = max((at for at, found in enumerate(blocks, start=1) if _leads(found)), default=0)
        if any(_is_breakpoint(found) for message in messages for found in _blocks(message)):
            at = len(blocks)
        enriched = {**messages[place], "content": [*blocks[:at], added, *blocks[at:]]}
        return {**request, "messages": [*messages[:place], enriched, *messages[place + 1 :]]}

    def reply(self, response: Any) -> Reply:
        """Return what a message says; one that ends at the caller's own limits is whole."""
        return Reply(messages=tuple(_assistant(_blocks(response), {})), model=text_of(response, "model") or None)

    def fold(self) -> ReplyFold:
        return _Fold()


class _Memory(dict[str, str]):
    """A content block of memories: told by its type alone, so that another `Memori`'s comes behind it."""


class _Fold:
    """The content blocks of a streamed message."""

    def __init__(self) -> None:
        self._blocks: dict[Any, Any] = {}
        self._texts: dict[Any, list[str]] = {}
        self._model: str | None = None
        self._finished = False

    def add(self, chunk: Any) -> None:
        index = get(chunk, "index")
        match get(chunk, "type"):
            case "message_start":
                self._model = text_of(get(chunk, "message"), "model") or None
            case "content_block_start":
                self._blocks[index] = get(chunk, "content_block")
            case "content_block_delta":
                delta = get(chunk, "delta")
                # Of a thought or a citation neither is there.
                piece = text_of(delta, "text") or text_of(delta, "partial_json")
                self._texts.setdefault(index, []).append(piece)
            case "message_delta":
                self._finished = self._finished or get(get(chunk, "delta"), "stop_reason") is not None
            case "message_stop":
                self._finished = True

    def reply(self, *, ended: bool) -> Reply:
        blocks = [self._block(index) for index in sorted(self._blocks)]
        return Reply(messages=tuple(_assistant(blocks, {})), model=self._model, partial=not (ended or self._finished))

    def _block(self, index: Any) -> Any:
        """Return the block as it stands, with what has come of its text or its input."""
        block, text = self._blocks[index], "".join(self._texts.get(index, ()))
        if _kind(block) == "text":
            return {"type": "text", "text": text_of(block, "text") + text}
        if _kind(block) != "tool_use" or not text:
            return block
        try:
            given: Any = json.loads(text)
        except ValueError:  # It was cut off.
            given = text
        return {"type": "tool_use", "name": get(block, "name"), "id": get(block, "id"), "input": given}


def provider_of(base_url: str) -> str:
    """Return who answers at *base_url*: ``anthropic``, ``bedrock``, ``vertex``, ``azure``, or the host's name."""
    host = urlsplit(base_url).hostname or ""
    if host.startswith("bedrock"):
        return "bedrock"
    if "aiplatform." in host:
        return "vertex"
    if ".azure." in host:
        return "azure"
    return "anthropic" if host.endswith(".anthropic.com") else host


def _settled(thing: Any, path: tuple[str, ...]) -> Any:
    """Return *thing* with lists in place of other iterables, down *path*; a copy only where it must be one."""
    name, *rest = path
    if not isinstance(thing, Mapping) or thing.get(name) is None:
        return thing
    given = thing[name]
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        return thing
    items = given if isinstance(given, list | tuple) else list(given)
    if rest:
        inner = [_settled(item, tuple(rest)) for item in items]
        if any(new is not old for new, old in zip(inner, items, strict=True)):
            items = inner
    return thing if items is given else {**thing, name: items}


def _messages(messages: Iterable[Any]) -> Iterator[Message]:
    names: dict[str, str] = {}
    for message in messages:
        if (role := get(message, "role")) == "user":
            yield from _user(_blocks(message), names)
        elif role == "assistant":
            yield from _assistant(_blocks(message), names)


def _user(blocks: Sequence[Any], names: dict[str, str]) -> Iterator[Message]:
    """Yield what the tools return and what the user says."""
    yield from _results((block for block in blocks if _kind(block) == "tool_result"), names)
    yield from said("user", "\n".join(filter(None, map(_part, blocks))))


def _assistant(blocks: Sequence[Any], names: dict[str, str]) -> Iterator[Message]:
    """Yield what the model says and calls and what Anthropic's own tools return, in order, without thoughts.

    Notes the names of the tools it calls by the calls' ids.
    """
    for kind, together in itertools.groupby(blocks, key=_kind):
        if kind == "text":
            # With citations one text comes in several blocks.
            yield from said("assistant", "".join(map(_part, together)))
        elif kind == "tool_use":
            for block in together:
                names[text_of(block, "id")] = text_of(block, "name")
                arguments = get(block, "input")
                yield from called(text_of(block, "name"), {} if arguments is None else arguments)
        elif kind == "tool_result":
            yield from _results(together, names)


def _results(blocks: Iterable[Any], names: dict[str, str]) -> Iterator[Message]:
    for block in blocks:
        content = get(block, "content")
        parts = [content] if get(content, "type") is not None else sequence(content)
        text = content if isinstance(content, str) else "\n".join(filter(None, map(_part, parts)))
        author = names.get(text_of(block, "tool_use_id")) or text_of(block, "type").removesuffix("tool_result")
        yield from said("tool", text, kind="tool_result", author=author.rstrip("_"))


def _kind(block: Any) -> str:
    """Return what a block is to a conversation: text, tool_use, tool_result; empty for anything else.

    Anthropic's own tools and those of MCP servers have blocks of their own kinds, which end alike.
    """
    kind = text_of(block, "type")
    return "text" if kind == "text" else next((end for end in ("tool_use", "tool_result") if kind.endswith(end)), "")


def _part(block: Any) -> str:
    """Return one block of a content as text: what is none, as a reference."""
    match kind := text_of(block, "type"):
        case "text":
            return text_of(block, "text")
        case "image":
            return _file(kind, get(block, "source"))
        case "document":
            return reference(kind, text_of(block, "title")) or _file(kind, get(block, "source"))
        case "container_upload":
            return reference("file", text_of(block, "file_id"))
        case "search_result":
            return reference("search result", text_of(block, "source"))
        case "web_search_result" | "web_fetch_result":
            return reference(kind.removesuffix("_result").replace("_", " "), text_of(block, "url"))
    output = text_of(block, "stdout") + text_of(block, "stderr")
    return output or reference("error", text_of(block, "error_code"))


def _file(kind: str, source: Any) -> str:
    """Return what stands for a file in the text: its address, or of data its type and digest, never the bytes."""
    data, mime_type = get(source, "data"), text_of(source, "media_type")
    match text_of(source, "type"):
        case "url":
            return reference(kind, text_of(source, "url"))
        case "file":
            return reference(kind, text_of(source, "file_id"))
        case "text":
            return data_reference(kind, mime_type, text_of(source, "data").encode())
        case "content":
            content = get(source, "content")
            text = content if isinstance(content, str) else "\n".join(map(_part, sequence(content)))
            return data_reference(kind, mime_type, text.encode())
    if not isinstance(data, str):  # A file that the SDK has yet to read.
        return reference(kind, mime_type)
    try:
        content = b64decode(data)
    except binascii.Error:
        content = data.encode()
    return data_reference(kind, mime_type, content)


def _blocks(message: Any) -> Sequence[Any]:
    """Return the blocks of a message's content, which may be a mere text."""
    content = get(message, "content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else sequence(content)


def _is_users(message: Any) -> bool:
    """Return whether the user says something in *message*; what only carries tools' results is none."""
    is_users = isinstance(message, Mapping) and message.get("role") == "user"
    return is_users and any(_kind(block) != "tool_result" for block in _blocks(message))


def _leads(block: Any) -> bool:
    """Return whether *block* has its place before memories."""
    return _kind(block) == "tool_result" or isinstance(block, _Memory)


def _is_breakpoint(block: Any) -> bool:
    marked = isinstance(get(block, "cache_control"), Mapping)
    return marked or any(isinstance(get(part, "cache_control"), Mapping) for part in sequence(get(block, "content")))


def _with_system(given: Any, added: Mapping[str, str]) -> Any:
    """Return the system prompt with a block at its end, in the form it was given."""
    if isinstance(given, list | tuple):
        return [*given, added]
    return f"{given}\n\n{added['text']}" if isinstance(given, str) and given else added["text"]
