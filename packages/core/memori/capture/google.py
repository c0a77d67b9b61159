"""Google's Gen AI SDK (google-genai): an adapter for its clients, and a reader for what they generate.

Whatever generates content passes through four methods, two of ``client.models`` and two of ``client.aio.models``, which
chats call, too. They are replaced on these two objects alone. Automatic function calling goes on within one call of
them, and so is one exchange; since version 3 a chat calls its functions itself, by one call for each hop.
"""

from __future__ import annotations

import binascii
import functools
import itertools
import json
import sys
import threading
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from memori.capture.reading import called, data_reference, reference, said
from memori.capture.wrapping import Shape, Streamed, Whole, acall, call, override
from memori.errors import ConfigurationError
from memori.types import Message, Reply

if TYPE_CHECKING:
    from memori.protocols import CallHooks, ReplyFold

__all__ = ["GenerateReader", "GoogleAdapter", "adapter"]

# The arguments of ``generate_content``.
Request: TypeAlias = Mapping[str, Any]

_REGISTRATION = "_memori"
# Only guards the few lines that change what a client has registered.
_registering = threading.Lock()


class GoogleAdapter:
    """Listens to ``google.genai.Client``, Gemini's and Vertex AI's, or to its ``aio`` half alone."""

    def register(self, client: Any, hooks: CallHooks) -> None:
        """Let *hooks* take part in whatever *client* and its chats generate.

        Raises:
            ConfigurationError: *client* is something else of Google's.
        """
        halves = _halves(client)
        if not halves:
            raise ConfigurationError(
                f"got {type(client).__module__}.{type(client).__qualname__}: pass the client itself, "
                "a google.genai.Client (of Google's clients, memori knows no other)"
            )
        with _registering:
            for models, asynchronous in halves:
                registration = vars(models).get(_REGISTRATION) or _Registration(models, asynchronous)
                if not any(known is hooks for known in registration.hooks):
                    registration.hooks = (*registration.hooks, hooks)

    def unregister(self, client: Any, hooks: CallHooks) -> bool:
        """Undo `register`; return whether there was anything to undo."""
        undone = False
        with _registering:
            for models, _ in _halves(client):
                registration = vars(models).get(_REGISTRATION)
                if registration is None or not any(known is hooks for known in registration.hooks):
                    continue
                undone = True
                registration.hooks = tuple(known for known in registration.hooks if known is not hooks)
                if not registration.hooks:
                    registration.undo()
        return undone


adapter = GoogleAdapter()


def _halves(client: Any) -> list[tuple[Any, bool]]:
    """Return what generates for *client*, and whether it does so asynchronously; empty for what is no client."""
    genai = sys.modules.get("google.genai.client")
    if genai is None:
        return []
    if isinstance(client, genai.Client):
        return [(client.models, False), (client.aio.models, True)]
    return [(client.models, True)] if isinstance(client, genai.AsyncClient) else []


class _Registration:
    """What one object that generates has on it as long as anyone listens.

    Attributes:
        hooks: Who listens, in the order they came. Without any, calls pass as if this were not there.
    """

    def __init__(self, models: Any, asynchronous: bool) -> None:
        self.hooks: tuple[CallHooks, ...] = ()
        wrapped = (self._agenerate, self._astream) if asynchronous else (self._generate, self._stream)
        self._undo = [
            override(models, _REGISTRATION, self),
            override(models, "generate_content", wrapped[0](models.generate_content)),
            override(models, "generate_content_stream", wrapped[1](models.generate_content_stream)),
        ]

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _generate(self, send: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(send)
        def generate_content(*args: Any, **arguments: Any) -> Any:
            hooks = self.hooks
            if not hooks or args:  # The SDK takes none by position, and says so.
                return send(*args, **arguments)
            reader = GenerateReader()
            return reader.restored(call(hooks, reader, arguments, lambda request: send(**request), Whole))

        return generate_content

    def _agenerate(self, send: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(send)
        async def generate_content(*args: Any, **arguments: Any) -> Any:
            hooks = self.hooks
            if not hooks or args:
                return await send(*args, **arguments)
            reader = GenerateReader()
            return reader.restored(await acall(hooks, reader, arguments, lambda request: send(**request), Whole))

        return generate_content

    def _stream(self, send: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(send)
        def generate_content_stream(*args: Any, **arguments: Any) -> Any:
            hooks = self.hooks
            if not hooks or args:
                return send(*args, **arguments)
            reader = GenerateReader()
            return _chunks(call(hooks, reader, arguments, lambda request: _Stream(send(**request)), _shape), reader)

        return generate_content_stream

    def _astream(self, send: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(send)
        async def generate_content_stream(*args: Any, **arguments: Any) -> Any:
            hooks = self.hooks
            if not hooks or args:
                return await send(*args, **arguments)
            reader = GenerateReader()

            async def ask(request: Request) -> _Stream:
                chunks = await send(**request)
                return _Stream(chunks, _Connection(chunks))

            return _achunks(await acall(hooks, reader, arguments, ask, _shape), reader)

        return generate_content_stream


class _Stream:
    """The chunks of one reply, where they can be watched: the SDK's own are a generator, which takes no attributes."""

    def __init__(self, chunks: Any, connection: _Connection | None = None) -> None:
        self.chunks = chunks
        self.connection = connection


class _Connection:
    """What is closed when an asynchronous stream is; no `_Stream` itself, so that a dropped one is gone at once."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    async def aclose(self) -> None:
        await self._chunks.aclose()


def _shape(stream: _Stream) -> Shape:
    """Return how the reply in a stream is to be had. The SDK makes the request when it is asked for the first chunk."""
    chunks = stream.chunks
    return Streamed(stream, "chunks", lambda: chunks, stream.connection, lazy=True)


def _chunks(stream: _Stream, reader: GenerateReader) -> Iterator[Any]:
    """Yield the chunks to the caller, by a generator as the SDK's own is."""
    for chunk in stream.chunks:
        yield reader.restored(chunk)


async def _achunks(stream: _Stream, reader: GenerateReader) -> AsyncIterator[Any]:
    try:
        async for chunk in stream.chunks:
            yield reader.restored(chunk)
    except GeneratorExit:
        if stream.connection is not None:
            await stream.connection.aclose()
        raise


class GenerateReader:
    """How the arguments of one ``generate_content`` read, and what answers them."""

    provider = "google"

    def __init__(self) -> None:
        self._asked = 0  # How many contents were sent; what the SDK adds to them by calling functions is the reply's.
        self._given: Any = None
        self._enriched: Any = None

    def sent(self, request: Request) -> tuple[Message, ...]:
        """Return what the user, the model and the functions said, oldest first."""
        contents = _contents(request)
        self._asked = len(contents)
        return tuple(_messages(contents))

    def with_memory(self, request: Request, block: str, *, role: Literal["user", "system"]) -> Request:
        """Return a copy of *request* with *block* as a part of its own; *request* itself without a user's content.

        The part leads the last content of the user's, for Gemini's models want user and model to alternate. One that
        carries a function's response is no such content: that must follow its call at once.

        Args:
            role: ``system`` counts as ``user`` where a cached content is used, which has its own system instruction.
        """
        contents = _contents(request)
        place = max((place for place, content in enumerate(contents) if _is_users(content)), default=-1)
        if place < 0:
            return request
        if role == "system" and not _get(request.get("config"), "cached_content"):
            return {**request, "config": _with_instruction(request.get("config"), block)}
        given = contents[place]
        enriched = _with_part(given, block, at=0 if self._enriched is None else len(_parts(given)) - self._own())
        if self._enriched is None:
            self._given = given
        self._enriched = enriched
        return {**request, "contents": [*contents[:place], enriched, *contents[place + 1 :]]}

    def restored(self, response: Any) -> Any:
        """Return *response*; what it says of the contents it answers is what the caller sent, without the block."""
        history = getattr(response, "automatic_function_calling_history", None)
        if self._enriched is not None and history:
            response.automatic_function_calling_history = [
                self._given if content == self._enriched else content for content in history
            ]
        return response

    def reply(self, response: Any) -> Reply:
        """Return what the functions and the first candidate say."""
        if (body := _get(_get(response, "sdk_http_response"), "body")) is not None:  # The caller wants it as it came.
            response = json.loads(body)
        loop = _sequence(_get(response, "automatic_function_calling_history"))[self._asked :]
        candidate = next(iter(_sequence(_get(response, "candidates"))), None)
        messages = _messages([*loop, {"role": "model", "parts": _parts(_get(candidate, "content"))}])
        return Reply(messages=tuple(messages), model=_text(response, "model_version") or None)

    def fold(self) -> ReplyFold:
        return _Fold(lambda history: history[self._asked :])

    def _own(self) -> int:
        """Return how many parts the caller's own content has, behind the blocks."""
        return len(_parts(self._given))


class _Fold:
    """The first candidate of a streamed reply.

    Args:
        called: Returns what the functions and the model said before this reply, of the history that a chunk has of it.
    """

    def __init__(self, called: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self._called = called
        self._loop: Sequence[Any] = ()
        self._parts: list[Any] = []
        self._model: str | None = None
        self._finished = False

    def add(self, chunk: Any) -> None:
        loop = self._called(_sequence(_get(chunk, "automatic_function_calling_history")))
        if len(loop) > len(self._loop):  # The next hop: what came by the last one is in the history.
            self._loop = tuple(loop)
            self._parts.clear()
            self._finished = False
        self._model = _text(chunk, "model_version") or self._model
        blocked = _get(_get(chunk, "prompt_feedback"), "block_reason") is not None
        candidate = next(iter(_sequence(_get(chunk, "candidates"))), None)
        self._finished = self._finished or blocked or _get(candidate, "finish_reason") is not None
        self._parts.extend(_parts(_get(candidate, "content")))

    def reply(self, *, ended: bool) -> Reply:
        messages = _messages([*self._loop, {"role": "model", "parts": self._parts}])
        return Reply(messages=tuple(messages), model=self._model, partial=not (ended or self._finished))


def _contents(request: Request) -> list[Any]:
    """Return the contents as the SDK will send them: it takes texts, parts, files and pictures in their place."""
    from google.genai import _transformers

    return _transformers.t_contents(request.get("contents"))


def _with_part(content: Any, block: str, *, at: int) -> Any:
    """Return a copy of *content* with *block* as its part number *at*."""
    from google.genai import types

    parts = _parts(content)
    return content.model_copy(update={"parts": [*parts[:at], types.Part(text=block), *parts[at:]]})


def _with_instruction(config: Any, block: str) -> Any:
    """Return a copy of *config* with *block* at the end of the system instruction."""
    from google.genai import _transformers, types

    name = "systemInstruction" if isinstance(config, Mapping) and "systemInstruction" in config else _INSTRUCTION
    given = _get(config, name)
    instruction = block if given is None else _transformers.t_content(given)
    if not isinstance(instruction, str):
        instruction = _with_part(instruction, block, at=len(_parts(instruction)))
    if config is None:
        return types.GenerateContentConfig(system_instruction=instruction)
    if isinstance(config, Mapping):
        return {**config, name: instruction}
    return config.model_copy(update={name: instruction})


_INSTRUCTION = "system_instruction"


def _is_users(content: Any) -> bool:
    return _role(content) == "user" and not any(_get(part, "function_response") for part in _parts(content))


def _role(content: Any) -> str:
    return _text(content, "role") or "user"


def _messages(contents: Iterable[Any]) -> Iterator[Message]:
    # A chat keeps a streamed reply as one content for each of its chunks.
    for role, together in itertools.groupby(contents, key=_role):
        if role == "model":
            yield from _models([part for content in together for part in _parts(content)])
        else:
            for content in together:
                yield from _users(_parts(content))


def _users(parts: Sequence[Any]) -> Iterator[Message]:
    """Yield what the functions return and what the user says."""
    for part in parts:
        if (response := _get(part, "function_response")) is not None:
            text = _result(_get(response, "response"))
            yield from said("tool", text, kind="tool_result", author=_text(response, "name"))
    yield from said("user", "\n".join(filter(None, map(_part, parts))))


def _models(parts: Sequence[Any]) -> Iterator[Message]:
    """Yield what the model says and calls, without its thoughts."""
    for calls, together in itertools.groupby(parts, key=lambda part: _get(part, "function_call") is not None):
        if calls:
            for part in together:
                asked = _get(part, "function_call")
                yield from called(_text(asked, "name"), _get(asked, "args") or {})
            continue
        runs = itertools.groupby(together, key=lambda part: bool(_text(part, "text")))
        texts = [("" if text else "\n").join(filter(None, map(_part, run))) for text, run in runs]
        yield from said("assistant", "\n".join(filter(None, texts)))


def _part(part: Any) -> str:
    """Return one part of a content as text: what is none, as a reference."""
    if _get(part, "thought"):
        return ""
    if (data := _get(part, "inline_data")) is not None:
        mime_type = _text(data, "mime_type")
        return data_reference(_kind(mime_type), mime_type, _bytes(_get(data, "data")))
    if (file := _get(part, "file_data")) is not None:
        return reference(_kind(_text(file, "mime_type")), _text(file, "file_uri"))
    return _text(part, "text")


def _kind(mime_type: str) -> str:
    kind = mime_type.partition("/")[0]
    return kind if kind in ("image", "audio", "video") else "file"


def _bytes(data: Any) -> bytes:
    """Return the bytes of a blob, which JSON has as base64 of either alphabet."""
    if isinstance(data, bytes):
        return data
    text = data if isinstance(data, str) else ""
    try:
        return b64decode(text, altchars=b"-_" if "-" in text or "_" in text else None)
    except binascii.Error:
        return text.encode()


def _result(response: Any) -> str:
    """Return what a function answered: a text of its own as it is, anything else as JSON."""
    if isinstance(response, Mapping) and len(response) == 1:
        (name,) = response
        if name in ("result", "output") and isinstance(response[name], str):
            return str(response[name])
    return "" if response is None else json.dumps(response, ensure_ascii=False, default=str)


def _parts(content: Any) -> Sequence[Any]:
    return _sequence(_get(content, "parts"))


def _get(thing: Any, name: str) -> Any:
    """Return a field of one of the SDK's objects, or of a mapping, where JSON has it in camel case."""
    if not isinstance(thing, Mapping):
        return getattr(thing, name, None)
    head, *rest = name.split("_")
    return thing.get(name, thing.get(head + "".join(map(str.title, rest))))


def _text(thing: Any, name: str) -> str:
    value = _get(thing, name)
    return value if isinstance(value, str) else ""


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
