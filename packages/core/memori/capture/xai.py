"""xAI's SDK (xai-sdk): an adapter for its clients, and a reader for Grok's completions.

Every chat of a client speaks through one gRPC stub, whose two methods that complete a conversation are replaced on this
one stub: ``sample``, ``stream``, ``parse`` and their batches all come by there, and ``chat.messages`` never sees what
was injected. What goes elsewhere passes untouched: ``defer``, stored completions, compaction and batches.
"""

from __future__ import annotations

import binascii
import threading
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from memori.capture.reading import called, data_reference, reference, said
from memori.capture.wrapping import Shape, Streamed, Whole, acall, call, override
from memori.errors import ConfigurationError
from memori.types import Message, Reply

if TYPE_CHECKING:
    from memori.protocols import CallHooks, ReplyFold

__all__ = ["CompletionReader", "XAIAdapter", "adapter"]

_REGISTRATION = "_memori"
# Only guards the few lines that change what a client has registered.
_registering = threading.Lock()

# The numbers of xai_api.MessageRole, which are part of the protocol.
_USER, _ASSISTANT, _SYSTEM, _FUNCTION, _TOOL, _DEVELOPER = range(1, 7)
_CLIENT_SIDE_TOOL = 1  # xai_api.ToolCallType; 0, none said, is the client's, too.


class XAIAdapter:
    """Listens to ``xai_sdk.Client`` and ``xai_sdk.AsyncClient``."""

    def register(self, client: Any, hooks: CallHooks) -> None:
        """Let *hooks* take part in every conversation of *client*, chats that exist already included.

        Raises:
            ConfigurationError: *client* is something else of that SDK.
        """
        stub, asynchronous = _stub(client)
        if stub is None:
            raise ConfigurationError(
                f"got {type(client).__module__}.{type(client).__qualname__}: pass the client itself, "
                "an xai_sdk.Client or xai_sdk.AsyncClient"
            )
        with _registering:
            registration = vars(stub).get(_REGISTRATION) or _Registration(stub, asynchronous)
            if not any(known is hooks for known in registration.hooks):
                registration.hooks = (*registration.hooks, hooks)

    def unregister(self, client: Any, hooks: CallHooks) -> bool:
        """Undo `register`; return whether there was anything to undo."""
        stub, _ = _stub(client)
        with _registering:
            registration = None if stub is None else vars(stub).get(_REGISTRATION)
            if registration is None or not any(known is hooks for known in registration.hooks):
                return False
            registration.hooks = tuple(known for known in registration.hooks if known is not hooks)
            if not registration.hooks:
                registration.undo()
            return True


adapter = XAIAdapter()


def _stub(client: Any) -> tuple[Any, bool]:
    """Return what *client*'s chats speak through, and whether it is asynchronous; None for what is no client."""
    import xai_sdk

    asynchronous = isinstance(client, xai_sdk.AsyncClient)
    return (client.chat._stub if asynchronous or isinstance(client, xai_sdk.Client) else None), asynchronous


class _Registration:
    """What one stub has on it as long as anyone listens.

    Attributes:
        hooks: Who listens, in the order they came. Without any, calls pass as if this were not there.
    """

    def __init__(self, stub: Any, asynchronous: bool) -> None:
        self.hooks: tuple[CallHooks, ...] = ()
        complete, stream = (self._acomplete, self._astream) if asynchronous else (self._complete, self._stream)
        self._undo = [
            override(stub, _REGISTRATION, self),
            override(stub, "GetCompletion", _Method(stub.GetCompletion, complete)),
            override(stub, "GetCompletionChunk", _Method(stub.GetCompletionChunk, stream)),
        ]

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _complete(self, send: Callable[..., Any], request: Any, **how: Any) -> Any:
        return call(self.hooks, CompletionReader(), request, lambda request: send(request, **how), Whole)

    async def _acomplete(self, send: Callable[..., Any], request: Any, **how: Any) -> Any:
        return await acall(self.hooks, CompletionReader(), request, lambda request: send(request, **how), Whole)

    def _stream(self, send: Callable[..., Any], request: Any, **how: Any) -> Any:
        return call(self.hooks, CompletionReader(), request, lambda request: _Stream(send(request, **how)), _shape)

    def _astream(self, send: Callable[..., Any], request: Any, **how: Any) -> Any:
        hooks = self.hooks

        async def ask(request: Any) -> _Stream:
            return _Stream(send(request, **how))

        # The SDK has to be given a call without waiting for anything; memories are waited for with the first chunk.
        return _AsyncStream(lambda: acall(hooks, CompletionReader(), request, ask, _shape))


class _Method:
    """A method of a stub. What is not a call of it is the method's own."""

    def __init__(self, method: Any, listening: Callable[..., Any]) -> None:
        self._method = method
        self._listening = listening

    def __call__(self, request: Any, **how: Any) -> Any:
        return self._listening(self._method, request, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)


class _Stream:
    """A streamed call under way. What is not iteration (``cancel``, ``code``, metadata) is the call's own."""

    def __init__(self, under_way: Any) -> None:
        self.chunks = aiter(under_way) if hasattr(under_way, "__aiter__") else iter(under_way)
        self._call = under_way

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return next(self.chunks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class _AsyncStream:
    """A streamed call of an asynchronous client, made when it is asked for its first chunk."""

    def __init__(self, begin: Callable[[], Awaitable[_Stream]]) -> None:
        self._begin: Callable[[], Awaitable[_Stream]] | None = begin
        self._stream: _Stream | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._begin is not None:
            begin, self._begin = self._begin, None
            self._stream = await begin()
        if self._stream is None:
            raise StopAsyncIteration
        return await anext(self._stream.chunks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def cancel(self) -> bool:
        """Cancel the call, or see to it that none is made; return whether there was anything to cancel."""
        if self._stream is None:
            begun, self._begin = self._begin is None, None
            return not begun
        return bool(self._stream.cancel())


def _shape(stream: _Stream) -> Shape:
    """Return how the reply in a stream is to be had. Only the first chunk tells whether there is one."""
    chunks = stream.chunks
    return Streamed(stream, "chunks", lambda: chunks, connection=None, lazy=True)


class CompletionReader:
    """How one ``GetCompletionsRequest`` reads, and what answers it.

    Of a conversation that xAI keeps (``previous_response_id``) only what is new is there.
    """

    provider = "xai"

    def __init__(self) -> None:
        self._alternatives = False  # Several outputs are as many answers to choose from, unless tools made them.

    def sent(self, request: Any) -> tuple[Message, ...]:
        """Return what the user, the assistant and the tools said, oldest first."""
        self._alternatives = request.n > 1
        return tuple(_messages(request.messages))

    def with_memory(self, request: Any, block: str, *, role: Literal["user", "system"]) -> Any:
        """Return a copy of *request* with *block* as a message of its own; *request* itself without a user message."""
        messages = request.messages
        # A compacted conversation is a user's message without content; what comes before it is not read.
        place = max(
            (at for at, message in enumerate(messages) if message.role == _USER and message.content), default=-1
        )
        if place < 0:
            return request
        speaker = _USER
        if role == "system":
            place, speaker = 0, _SYSTEM
            while place < len(messages) and messages[place].role in (_SYSTEM, _DEVELOPER):
                speaker = messages[place].role
                place += 1
        enriched = type(request)()
        enriched.CopyFrom(request)
        del enriched.messages[place:]
        enriched.messages.add(role=speaker).content.add(text=block)
        enriched.messages.extend(messages[place:])
        return enriched

    def reply(self, response: Any) -> Reply:
        """Return what a completion says: its first output, or all that tools on xAI's side made of it."""
        outputs = [output.message for output in response.outputs if not (self._alternatives and output.index)]
        return Reply(messages=tuple(_messages(outputs)), model=response.model or None)

    def fold(self) -> ReplyFold:
        return _Fold(alternatives=self._alternatives)


class _Fold:
    """The outputs of a streamed completion."""

    def __init__(self, *, alternatives: bool) -> None:
        self._alternatives = alternatives
        self._outputs: dict[int, _Output] = {}
        self._model: str | None = None
        self._finished = False

    def add(self, chunk: Any) -> None:
        self._model = chunk.model or self._model
        for piece in chunk.outputs:
            if self._alternatives and piece.index:
                continue
            output = self._outputs.setdefault(piece.index, _Output())
            output.role = piece.delta.role or output.role
            output.pieces.append(piece.delta.content)
            output.tool_calls.extend(piece.delta.tool_calls)
            self._finished = piece.finish_reason != 0

    def reply(self, *, ended: bool) -> Reply:
        outputs = [output for _, output in sorted(self._outputs.items())]
        return Reply(messages=tuple(_messages(outputs)), model=self._model, partial=not (ended or self._finished))


@dataclass(slots=True)
class _Output:
    """One output as far as it has come; reads as a message does."""

    role: int = _ASSISTANT
    pieces: list[str] = field(default_factory=list)
    tool_calls: list[Any] = field(default_factory=list)

    @property
    def content(self) -> str:
        return "".join(self.pieces)


def _messages(messages: Iterable[Any]) -> Iterator[Message]:
    open_calls: dict[str, str] = {}  # Names by id.
    elsewhere: set[str] = set()
    for message in messages:
        if message.role == _USER:
            yield from said("user", _content(message), author=message.name)
        elif message.role == _ASSISTANT:
            yield from said("assistant", _content(message), author=getattr(message, "name", ""))
            for asked in message.tool_calls:
                if asked.type > _CLIENT_SIDE_TOOL:  # xAI runs it; neither call nor result is the conversation's.
                    elsewhere.add(asked.id)
                    continue
                open_calls[asked.id] = asked.function.name
                yield from called(asked.function.name, asked.function.arguments)
        elif message.role in (_TOOL, _FUNCTION):
            call_id = getattr(message, "tool_call_id", "")
            # Older SDKs do not say which call is answered: each in its turn.
            call_id = call_id or next(iter(open_calls), "")
            if call_id in elsewhere or not hasattr(message, "name"):
                continue
            author = message.name or open_calls.pop(call_id, None)
            yield from said("tool", _content(message), kind="tool_result", author=author)


def _content(message: Any) -> str:
    content = message.content
    return content if isinstance(content, str) else "\n".join(filter(None, map(_part, content)))


def _part(part: Any) -> str:
    """Return one part of a content as text: what is none, as a reference."""
    if part.HasField("image_url"):
        return _address("image", part.image_url.image_url)
    if part.HasField("file"):
        file = part.file
        if data := getattr(file, "data", b""):
            return data_reference("file", getattr(file, "mime_type", ""), data)
        return reference("file", getattr(file, "filename", "") or getattr(file, "url", "") or file.file_id)
    return str(part.text)


def _address(kind: str, target: str) -> str:
    """Return what stands for a picture, which is given by its address or as base64, with ``data:`` before it or not."""
    if not target.startswith("data:") and "://" in target[:10]:
        return reference(kind, target)
    head, _, data = target.rpartition(",")
    try:
        content = b64decode(data, validate=True)
    except binascii.Error:
        content = data.encode()
    return data_reference(kind, head.removeprefix("data:").partition(";")[0], content)
