"""Clients whose every request passes through one method, ``request``: OpenAI's and Anthropic's, of one making.

One attribute on the instance sees them all, whatever they were called by and however often they are retried; the class
stays as it is, and so does everything the client can do.
"""

from __future__ import annotations

import copy
import functools
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from memori.capture.reading import mapping
from memori.capture.wrapping import Shape, Streamed, Unread, Whole, acall, call, override
from memori.types import Message

if TYPE_CHECKING:
    from memori.protocols import CallHooks, Reader

__all__ = ["Body", "RequestAdapter"]

# What is posted, and becomes JSON.
Body: TypeAlias = Mapping[str, Any]

_REGISTRATION = "_memori"
_OVERRIDDEN = (_REGISTRATION, "request", "copy", "with_options", "__getstate__")
# Only guards the few lines that change what a client has registered.
_registering = threading.Lock()


class RequestAdapter(ABC):
    """A `memori.protocols.ClientAdapter` for the clients of one such SDK; a subclass says what is its own."""

    @abstractmethod
    def asynchronous(self, client: Any) -> bool:
        """Return whether *client* is an asynchronous one.

        Raises:
            ConfigurationError: *client* is something else of that SDK.
        """

    @abstractmethod
    def reader(self, client: Any, path: str, body: Body) -> Reader[Body] | None:
        """Return what reads the *body* that *client* posts to *path*; None when it is no conversation."""

    @abstractmethod
    def streams(self) -> tuple[type[Any], ...]:
        """Return the classes of the SDK's streams."""

    def settled(self, options: Any) -> Any:
        """Return the SDK's request options, or a copy of them that may be read more than once."""
        return options

    def register(self, client: Any, hooks: CallHooks) -> None:
        """Let *hooks* take part in every conversation of *client* and of the copies it makes.

        Raises:
            ConfigurationError: *client* is something else of that SDK.
        """
        asynchronous = self.asynchronous(client)
        with _registering:
            registration = vars(client).get(_REGISTRATION) or _Registration(self, client, asynchronous)
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

    def request_reader(self, client: Any, options: Any) -> Reader[Any] | None:
        """Return what reads the SDK's request options; None when they are of no conversation."""
        if str(getattr(options, "method", "")).lower() != "post" or not (body := _body(options)):
            return None
        path = "/" + str(getattr(options, "url", "")).partition("?")[0].lstrip("/")
        reader = self.reader(client, path, body)
        return None if reader is None else _RequestReader(reader)

    def shape(self, response: Any) -> Shape:
        """Return how the reply in what the SDK returned is to be had."""
        if isinstance(response, self.streams()):
            return Streamed(response, "_iterator", functools.partial(self._chunks, response), response.response)
        http = getattr(response, "http_response", None)
        if http is None:
            return Whole(response)
        body = functools.partial(_read_body, http)
        # Under `with_raw_response` the body is here already, and many only look at its text.
        return Unread(response, body) if (read := body()) is None else Whole(read)

    def _chunks(self, stream: Any) -> Any:
        """Return the iterator of a stream that nobody has read from yet."""
        if type(stream) not in self.streams():
            return stream._iterator
        # The iterator that a stream has of itself may refer to the stream: left in the middle, the two would linger
        # until the garbage collector comes by. A twin's does not.
        twin = copy.copy(stream)
        vars(twin).pop("_iterator", None)
        return twin.__stream__()


class _Registration:
    """What one client has on it as long as anyone listens.

    Attributes:
        hooks: Who listens, in the order they came. Without any, calls pass as if this were not there.
    """

    def __init__(self, adapter: RequestAdapter, client: Any, asynchronous: bool) -> None:
        self.hooks: tuple[CallHooks, ...] = ()
        self._adapter = adapter
        wrapped = self._arequest if asynchronous else self._request
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
        send, adapter = client.request, self._adapter

        @functools.wraps(send)
        def request(cast_to: Any, options: Any, **how: Any) -> Any:
            hooks, reader = self.hooks, adapter.request_reader(client, options)
            if not hooks or reader is None:
                return send(cast_to, options, **how)
            settled = adapter.settled(options)
            return call(hooks, reader, settled, lambda options: send(cast_to, options, **how), adapter.shape)

        return request

    def _arequest(self, client: Any) -> Callable[..., Any]:
        send, adapter = client.request, self._adapter

        @functools.wraps(send)
        async def request(cast_to: Any, options: Any, **how: Any) -> Any:
            hooks, reader = self.hooks, adapter.request_reader(client, options)
            if not hooks or reader is None:
                return await send(cast_to, options, **how)
            settled = adapter.settled(options)
            return await acall(hooks, reader, settled, lambda options: send(cast_to, options, **how), adapter.shape)

        return request

    def _copied(self, make: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(make)
        def copied(*args: Any, **kwargs: Any) -> Any:
            made = make(*args, **kwargs)
            for hooks in self.hooks:
                self._adapter.register(made, hooks)
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


class _RequestReader:
    """Reads the SDK's request options as *reader* reads their body. ``extra_body`` counts as the body it becomes."""

    def __init__(self, reader: Reader[Body]) -> None:
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
        extra = mapping(request.extra_json)
        enriched = copy.copy(request)
        enriched.json_data = {**mapping(request.json_data), **changed}
        if any(name in extra for name in changed):
            enriched.extra_json = {**extra, **changed}
        return enriched


def _body(options: Any) -> dict[str, Any]:
    """Return the body that the SDK will send."""
    return {**mapping(getattr(options, "json_data", None)), **mapping(getattr(options, "extra_json", None))}


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
