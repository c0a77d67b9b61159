"""LiteLLM: an adapter for the module itself and for its routers; what they are asked and answer is shaped as OpenAI's.

LiteLLM has no client. What is called are functions of the module, or methods of a ``Router``, of the same four names;
they are replaced on the module or on the router alone. A function that was imported from the module before, by
``from litellm import completion``, is not.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from memori.capture.openai import ChatReader, ResponsesReader, provider_of
from memori.capture.reading import text_of
from memori.capture.wrapping import Shape, Streamed, Whole, acall, answering, call, override
from memori.errors import ConfigurationError

if TYPE_CHECKING:
    from memori.protocols import CallHooks, Reader

__all__ = ["LiteLLMAdapter", "adapter"]

# The arguments of a call, by name.
Request: TypeAlias = Mapping[str, Any]

_REGISTRATION = "_memori"
_READERS: Mapping[str, Callable[[str], Reader[Any]]] = {
    "completion": ChatReader,
    "acompletion": ChatReader,
    "responses": ResponsesReader,
    "aresponses": ResponsesReader,
}
# Only guards the few lines that change what a client has registered.
_registering = threading.Lock()


class LiteLLMAdapter:
    """Listens to the module ``litellm``, or to one ``litellm.Router``."""

    def register(self, client: Any, hooks: CallHooks) -> None:
        """Let *hooks* take part in every conversation held by *client*.

        Raises:
            ConfigurationError: *client* is something else of LiteLLM's.
        """
        if not _makes_calls(client):
            named = getattr(client, "__name__", None) or f"{type(client).__module__}.{type(client).__qualname__}"
            raise ConfigurationError(f"got {named}: pass the module litellm itself, or a litellm.Router(...)")
        with _registering:
            registration = vars(client).get(_REGISTRATION) or _Registration(client)
            if not any(known is hooks for known in registration.hooks):
                registration.hooks = (*registration.hooks, hooks)

    def unregister(self, client: Any, hooks: CallHooks) -> bool:
        """Undo `register`; return whether there was anything to undo."""
        with _registering:
            registration = getattr(client, "__dict__", {}).get(_REGISTRATION)
            if registration is None or not any(known is hooks for known in registration.hooks):
                return False
            registration.hooks = tuple(known for known in registration.hooks if known is not hooks)
            if not registration.hooks:
                registration.undo()
            return True


adapter = LiteLLMAdapter()


def _makes_calls(client: Any) -> bool:
    litellm = sys.modules.get("litellm")
    return litellm is not None and (client is litellm or isinstance(client, litellm.Router))


class _Registration:
    """What the module, or one router, has on it as long as anyone listens.

    Attributes:
        hooks: Who listens, in the order they came. Without any, calls pass as if this were not there.
    """

    def __init__(self, client: Any) -> None:
        self.hooks: tuple[CallHooks, ...] = ()
        self._undo = [override(client, _REGISTRATION, self)]
        provider = _provider if inspect.ismodule(client) else _routers
        for name, reader in _READERS.items():
            wrap = self._asked if name.startswith("a") else self._ask
            send = getattr(client, name)
            self._undo.append(override(client, name, wrap(send, _names(name, send), reader, provider)))

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _ask(
        self,
        send: Callable[..., Any],
        names: Sequence[str],
        reader: Callable[[str], Reader[Any]],
        provider: Callable[[Request], str],
    ) -> Callable[..., Any]:
        @functools.wraps(send)
        def ask(*args: Any, **kwargs: Any) -> Any:
            hooks, request = self.hooks, _request(names, args, kwargs)
            if not hooks or request is None:
                return send(*args, **kwargs)

            def ask_once(request: Request) -> Any:
                with answering(hooks):
                    return _followed(send(**request), _Chunks)

            return call(hooks, reader(provider(request)), request, ask_once, _shape)

        return ask

    def _asked(
        self,
        send: Callable[..., Any],
        names: Sequence[str],
        reader: Callable[[str], Reader[Any]],
        provider: Callable[[Request], str],
    ) -> Callable[..., Any]:
        @functools.wraps(send)
        async def ask(*args: Any, **kwargs: Any) -> Any:
            hooks, request = self.hooks, _request(names, args, kwargs)
            if not hooks or request is None:
                return await send(*args, **kwargs)

            async def ask_once(request: Request) -> Any:
                with answering(hooks):
                    return _followed(await send(**request), _AsyncChunks)

            return await acall(hooks, reader(provider(request)), request, ask_once, _shape)

        return ask


def _names(name: str, function: Callable[..., Any]) -> Sequence[str]:
    """Return the names of what may be passed by position to the *function* called *name*, in order."""
    parameters = inspect.signature(function).parameters.values()
    if name.endswith("completion") and any(found.kind is found.VAR_POSITIONAL for found in parameters):
        return ("model", "messages")  # Routers from 1.110 on do not say so.
    return [found.name for found in parameters if found.kind is found.POSITIONAL_OR_KEYWORD]


def _request(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Request | None:
    """Return all arguments by name; None when they do not fit, which is the function's own to say."""
    named = dict(zip(names, args, strict=False))
    return None if len(args) > len(names) or named.keys() & kwargs.keys() else {**named, **kwargs}


def _provider(request: Request) -> str:
    """Return who is asked: by the host where one is named for OpenAI's protocol, else by LiteLLM's name for it."""
    litellm = sys.modules["litellm"]
    prefix, _, model = text_of(request, "model").rpartition("/")
    known = text_of(litellm.model_cost.get(model), "litellm_provider")
    provider = text_of(request, "custom_llm_provider") or prefix.partition("/")[0] or known or "litellm"
    address = text_of(request, "api_base") or text_of(request, "base_url") or text_of(litellm, "api_base")
    return provider_of(address) if address and provider in ("openai", "litellm") else provider


def _routers(request: Request) -> str:
    # A router's model is an alias, and which of the deployments behind it answers is decided later.
    return "litellm"


class _Chunks:
    """The chunks of a synchronous stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __next__(self) -> Any:
        return next(self._stream)


class _AsyncChunks:
    """The chunks of an asynchronous stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __anext__(self) -> Any:
        return self._stream.__anext__()


class _Connection:
    """What is closed when an asynchronous stream is."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def aclose(self) -> None:
        await self._stream.aclose()


def _followed(response: Any, chunks: type[_Chunks] | type[_AsyncChunks]) -> Any:
    """Return a stream's twin, which hands out what its attribute ``_memori_chunks`` yields; any other response itself.

    The stream itself cannot be followed: LiteLLM keeps it, so that nothing tells when its caller drops it, and a loop
    asks its class for the next chunk, never the stream. The twin is of a class derived from the stream's, and shares
    all attributes with it.
    """
    kind = type(response)
    advance = "__next__" if chunks is _Chunks else "__anext__"
    if not hasattr(kind, advance) or not hasattr(response, "__dict__"):
        return response
    attributes: dict[str, Any] = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        # Not among the attributes that the two share.
        "__slots__": ("_memori_chunks", "_memori_connection"),
        advance: lambda self: getattr(self._memori_chunks, advance)(),
    }
    closes = chunks is _AsyncChunks and hasattr(kind, "aclose")
    if closes:
        attributes["aclose"] = lambda self: self._memori_connection.aclose()
    twin: Any = object.__new__(type(kind.__name__, (kind,), attributes))
    twin.__dict__ = response.__dict__
    twin._memori_chunks = chunks(response)
    twin._memori_connection = _Connection(response) if closes else None
    return twin


def _shape(response: Any) -> Shape:
    """Return how the reply in what was returned is to be had."""
    chunks = getattr(response, "_memori_chunks", None)
    if chunks is None:
        return Whole(response)
    # Of some providers, the request is made when the first chunk is asked for.
    lazy = getattr(response, "completion_stream", response) is None
    return Streamed(response, "_memori_chunks", lambda: chunks, response._memori_connection, lazy=lazy)
