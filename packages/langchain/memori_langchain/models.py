"""Chat models whose calls are remembered: each gets a subclass of its own class, made for those that listen to it.

All that LangChain does to a model (bind, copy, configure, compose) keeps its class, so it keeps memory, too. The class
has the name, the fields and the behaviour of the original; equality, pickles and serialisation do not know it.
"""

from __future__ import annotations

import copyreg
import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self, SupportsIndex
from weakref import WeakValueDictionary

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables.config import ensure_config

from memori import Memori, Message, Turn
from memori_langchain.messages import model_name, reply, sent, takes_parts, with_block
from memori_langchain.turn import is_under_way, under_way

__all__ = ["listen", "listeners"]

log = logging.getLogger("memori")

_LISTENING = "__memori__"
# Calls that LangChain's own middleware makes for itself, of the model that it shares with the agent.
_INTERNAL = ("lc_source", "lc_internal_call")
_call: ContextVar[_Call | None] = ContextVar("memori_langchain_call", default=None)
_classes: WeakValueDictionary[tuple[type, tuple[int, ...]], type[BaseChatModel]] = WeakValueDictionary()
_making = threading.Lock()


@dataclass(frozen=True)
class _Listening:
    """Who listens to the models of one class, and the class that they had before."""

    memories: tuple[Memori, ...]
    original: type[BaseChatModel]


def listeners(model: BaseChatModel) -> tuple[Memori, ...]:
    """Return who listens to *model*, in the order they came."""
    listening = _listening(model)
    return () if listening is None else listening.memories


def listen(model: BaseChatModel, memories: Sequence[Memori]) -> BaseChatModel:
    """Let *memories*, and nobody else, take part in the model's calls, and return it; by none it is as it was."""
    listening = _listening(model)
    cls = type(model) if listening is None else listening.original
    # Past what pydantic has put in the way of setting attributes.
    object.__setattr__(model, "__class__", _listening_class(cls, tuple(memories)) if memories else cls)
    return model


def _listening(model: BaseChatModel) -> _Listening | None:
    found: _Listening | None = vars(type(model)).get(_LISTENING)
    return found


def _listening_class(cls: type[BaseChatModel], memories: tuple[Memori, ...]) -> type[BaseChatModel]:
    # The class keeps its Memoris, so that no id in a key here is ever another's.
    key = (cls, tuple(map(id, memories)))
    with _making:
        made = _classes.get(key)
        if made is None:
            metaclass: type = type(cls)
            made = _classes[key] = metaclass(cls.__name__, (cls,), _namespace(cls, memories))
        return made


def _namespace(cls: type[BaseChatModel], memories: tuple[Memori, ...]) -> dict[str, Any]:
    namespace: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__hash__": cls.__hash__,
        "__eq__": lambda self, other: cls.__eq__(_plain(self), _plain(other)),
        "__reduce_ex__": _reduced,
        _LISTENING: _Listening(memories, cls),
    }
    for name, listening in _LISTENED_TO.items():
        original = getattr(cls, name, None)
        if original is not None and (name in _ANYWAY or _overrides(cls, name)):
            namespace[name] = listening(original, memories)
    converse = getattr(cls, "_as_converse", None)
    if isinstance(converse, property) and converse.fget is not None:
        # ChatBedrock hands much of its work to a model that it makes for each call: its class is made only once.
        kept: list[type] = []

        def as_converse(self: Any) -> BaseChatModel:
            made = listen(converse.fget(self), memories)  # type: ignore[misc]
            kept[:] = [type(made)]
            return made

        namespace["_as_converse"] = property(as_converse)
    return namespace


def _overrides(cls: type[BaseChatModel], name: str) -> bool:
    # By what a class overrides LangChain tells what its models can do: nothing may be overridden that was not before.
    if getattr(cls, name) is not getattr(BaseChatModel, name, None):
        return True
    # One of the two will do for both.
    return name == "_astream" and cls._stream is not BaseChatModel._stream


def _plain(model: Any) -> Any:
    """Return *model* as its original class has it, sharing all that it holds; anything else as it is."""
    listening = _listening(model)
    if listening is None:
        return model
    plain = listening.original.__new__(listening.original)
    for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        object.__setattr__(plain, name, getattr(model, name))
    return plain


def _reduced(model: BaseChatModel, protocol: SupportsIndex) -> Any:
    # A pickle is the plain model's: no database goes along, and it opens where memori is not installed.
    reduced = _plain(model).__reduce_ex__(protocol)
    if isinstance(reduced, tuple) and reduced[0] is copyreg.__newobj__:  # type: ignore[attr-defined]
        # What pickle would refuse to do for an object of another class.
        return object.__new__, *reduced[1:]
    return reduced


class _Call:
    """One call of a model under way. Colourless; recorded once when it was answered, and not when it was not.

    Args:
        watched: Whether it returns its reply whole, but someone is shown the chunks of it: they count if it breaks off.
    """

    def __init__(self, memories: Sequence[Memori], model: BaseChatModel, *, watched: bool) -> None:
        self._memories = memories
        self._model = model
        self._watched = watched
        self._turns: list[tuple[Memori, Turn]] = []
        self._seen: list[Any] = []
        self._delegated = False  # What a tool asks are not the user's words: it is given memories, and not kept.

    def begin(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        """Return the messages to send: with memories, or as they are."""
        enriched = messages
        for memori, said, options in self._asked(messages):
            enriched = self._given(memori, memori.turn(said, **options), enriched)
        return enriched

    async def abegin(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        """Do what `begin` does, without blocking the event loop."""
        enriched = messages
        for memori, said, options in self._asked(messages):
            enriched = self._given(memori, await memori.aturn(said, **options), enriched)
        return enriched

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Keep out whoever takes part in this call, while it is at work."""
        token = _call.set(self)
        try:
            with ExitStack() as stack:
                for memori in self._memories:
                    stack.enter_context(under_way(memori))
                yield
        finally:
            _call.reset(token)

    def watches(self, model: BaseChatModel) -> bool:
        """Return whether what *model* begins to stream is the reply to this call, on its way to someone."""
        if not self._watched or self._model is not model:
            return False
        self._watched = False  # What streams asynchronously may ask what streams synchronously for it.
        return True

    def add(self, chunk: Any) -> bool:
        """Take in a piece of the reply, a chunk or an event; return whether it says that the reply is whole."""
        self._seen.append(getattr(chunk, "message", chunk))  # LangChain may give the chunk another message later.
        return isinstance(chunk, dict) and chunk.get("event") == "message-finish"

    def finish(self, message: BaseMessage | None = None) -> None:
        """Record the reply: *message*, or else what was seen."""
        errors = []
        for memori, turn in self._ended():
            try:
                said, model = self._read(memori, message)
                turn.finish(said, model=model)
            except Exception as error:  # noqa: BLE001 - raised below, when every turn has had its reply
                errors.append(error)
        if errors:
            raise errors[0]

    async def afinish(self, message: BaseMessage | None = None) -> None:
        """Do what `finish` does, without blocking the event loop."""
        errors = []
        turns = self._ended()
        while turns:
            memori, turn = turns.pop(0)
            try:
                said, model = self._read(memori, message)
                await turn.afinish(said, model=model)
            except Exception as error:  # noqa: BLE001 - raised below, when every turn has had its reply
                errors.append(error)
            except BaseException:
                self._leave(turns, message, partial=False)
                raise
        if errors:
            raise errors[0]

    def interrupted(self) -> None:
        """Record what was seen, if anything, where an error is on its way to the caller, or nobody reads on."""
        if self._seen:
            self._leave(self._ended(), None, partial=True)

    def _leave(self, turns: Sequence[tuple[Memori, Turn]], message: BaseMessage | None, *, partial: bool) -> None:
        for memori, turn in turns:
            try:
                said, model = self._read(memori, message)
                if said or not partial:  # Chunks may come before any words do, and the call be tried again.
                    turn.finish(said, model=model, partial=partial, wait=False)
            except Exception:
                log.exception("an interrupted reply could not be recorded")

    def _asked(self, messages: Sequence[BaseMessage]) -> Iterator[tuple[Memori, Sequence[Message], dict[str, Any]]]:
        for memori in self._memories:
            try:
                said = sent(messages)
                thread, self._delegated = _place()
                options = {"provider": _provider(self._model), "session_id": thread}
            except Exception as error:  # noqa: BLE001 - memory never harms the call
                memori.failed(error)
                continue
            yield memori, said, options

    def _given(self, memori: Memori, turn: Turn | None, messages: list[BaseMessage]) -> list[BaseMessage]:
        if turn is None:
            return messages
        if not self._delegated:
            self._turns.append((memori, turn))
        if turn.block is None:
            return messages
        try:
            return with_block(messages, turn.block, role=turn.role, in_parts=takes_parts(self._model))
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            memori.failed(error)
            return messages

    def _read(self, memori: Memori, message: BaseMessage | None) -> tuple[Sequence[Message], str | None]:
        try:
            if message is None:
                if not self._seen:
                    return (), None
                message = _merged(self._seen)
            return reply(message), model_name(message)
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            memori.failed(error)
            return (), None

    def _ended(self) -> list[tuple[Memori, Turn]]:
        turns, self._turns = self._turns, []
        return turns


class _Chunks:
    """A reply that comes in pieces, each handed on the moment it comes."""

    def __init__(self, call: _Call, chunks: Callable[[], Iterator[Any]]) -> None:
        self._call = call
        self._open = chunks
        self._chunks: Iterator[Any] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            if self._chunks is None:
                self._chunks = self._open()
            with self._call.under_way():
                chunk = next(self._chunks)
        except StopIteration:
            self._call.finish()
            raise
        except BaseException:
            self._call.interrupted()
            raise
        if self._call.add(chunk):
            self._call.finish()
        return chunk

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._call.interrupted()

    def __del__(self) -> None:
        self._call.interrupted()


class _AsyncChunks:
    """The same, asynchronously."""

    def __init__(self, call: _Call, chunks: Callable[[], Any]) -> None:
        self._call = call
        self._open = chunks
        self._chunks: AsyncIterator[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            if self._chunks is None:
                self._chunks = await self._open()
            with self._call.under_way():
                chunk = await anext(self._chunks)
        except StopAsyncIteration:
            await self._call.afinish()
            raise
        except BaseException:
            self._call.interrupted()
            raise
        if self._call.add(chunk):
            await self._call.afinish()
        return chunk

    async def aclose(self) -> None:
        close = getattr(self._chunks, "aclose", None)
        try:
            if close is not None:
                await close()
        finally:
            self._call.interrupted()

    def __del__(self) -> None:
        self._call.interrupted()


def _whole(original: Callable[..., ChatResult], memories: tuple[Memori, ...]) -> Callable[..., ChatResult]:
    @functools.wraps(original)
    def generate(self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        call = _begun(self, memories, args, kwargs, streamed=False)
        if call is None:
            return original(self, messages, *args, **kwargs)
        enriched = call.begin(messages)
        try:
            with call.under_way():
                result = original(self, enriched, *args, **kwargs)
        except BaseException:
            call.interrupted()
            raise
        call.finish(_answer(result))
        return result

    return generate


def _awhole(original: Callable[..., Any], memories: tuple[Memori, ...]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def agenerate(self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        call = _begun(self, memories, args, kwargs, streamed=False)
        if call is None:
            result: ChatResult = await original(self, messages, *args, **kwargs)
            return result
        enriched = await call.abegin(messages)
        try:
            with call.under_way():
                result = await original(self, enriched, *args, **kwargs)
        except BaseException:
            call.interrupted()
            raise
        await call.afinish(_answer(result))
        return result

    return agenerate


def _streamed(original: Callable[..., Iterator[Any]], memories: tuple[Memori, ...]) -> Callable[..., Iterator[Any]]:
    @functools.wraps(original)
    def stream(self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[Any]:
        call = _begun(self, memories, args, kwargs, streamed=True)
        if call is not None:
            return _Chunks(call, lambda: iter(original(self, call.begin(messages), *args, **kwargs)))
        chunks = original(self, messages, *args, **kwargs)
        outer = _call.get()
        return chunks if outer is None or not outer.watches(self) else _watched(outer, chunks)

    return stream


def _astreamed(original: Callable[..., Any], memories: tuple[Memori, ...]) -> Callable[..., AsyncIterator[Any]]:
    @functools.wraps(original)
    def astream(self: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        call = _begun(self, memories, args, kwargs, streamed=True)
        if call is not None:

            async def chunks() -> AsyncIterator[Any]:
                return aiter(original(self, await call.abegin(messages), *args, **kwargs))

            return _AsyncChunks(call, chunks)
        outer = _call.get()
        inner: AsyncIterator[Any] = original(self, messages, *args, **kwargs)
        return inner if outer is None or not outer.watches(self) else _awatched(outer, inner)

    return astream


# Around the cache, whose key then is what is sent, memories included: no answer meant for one gets to another.
_ANYWAY = ("_generate_with_cache", "_agenerate_with_cache")
_LISTENED_TO: dict[str, Callable[..., Any]] = {
    "_generate_with_cache": _whole,
    "_agenerate_with_cache": _awhole,
    "_generate": _whole,
    "_agenerate": _awhole,
    "_stream": _streamed,
    "_astream": _astreamed,
    "_stream_chat_model_events": _streamed,
    "_astream_chat_model_events": _astreamed,
}


def _begun(
    model: BaseChatModel, memories: Sequence[Memori], args: Sequence[Any], kwargs: dict[str, Any], *, streamed: bool
) -> _Call | None:
    """Return the call for those who take part in it; None when nobody does."""
    taking_part = [memori for memori in memories if not is_under_way(memori)]
    run_manager = kwargs.get("run_manager") or next(iter(args[1:2]), None)
    metadata = getattr(run_manager, "metadata", None) or {}
    if not taking_part or any(name in metadata for name in _INTERNAL):
        return None
    return _Call(taking_part, model, watched=not streamed and _is_watched(run_manager))


def _is_watched(run_manager: Any) -> bool:
    """Return whether someone is shown the chunks of a call that returns its reply whole, as an agent's stream is."""
    return any(hasattr(handler, "tap_output_iter") for handler in getattr(run_manager, "handlers", ()))


def _watched(call: _Call, chunks: Iterator[Any]) -> Iterator[Any]:
    for chunk in chunks:
        call.add(chunk)
        yield chunk


async def _awatched(call: _Call, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for chunk in chunks:
        call.add(chunk)
        yield chunk


def _answer(result: ChatResult) -> BaseMessage | None:
    return result.generations[0].message if result.generations else None


def _merged(seen: Sequence[Any]) -> BaseMessage:
    first, *rest = seen
    if isinstance(first, BaseMessage):
        return first + rest if rest else first  # type: ignore[return-value]
    from langchain_core.language_models.chat_model_stream import ChatModelStream

    stream = ChatModelStream()
    for event in seen:
        stream.dispatch(event)
    if not stream.done:
        stream.dispatch({"event": "message-finish"})
    assert stream.output_message is not None  # noqa: S101 - it is done
    return stream.output_message


def _provider(model: BaseChatModel) -> str:
    return str(model._get_ls_params().get("ls_provider") or model._llm_type)


def _place() -> tuple[str | None, bool]:
    """Return the conversation's name, where a graph or a chain's configuration has one, and whether a tool asks."""
    config = ensure_config().get("configurable", {})
    thread = config.get("thread_id")
    # A namespace names the nodes that a run is inside of, each with the id of its task.
    nodes = [part.partition(":")[0] for part in str(config.get("checkpoint_ns") or "").split("|")]
    return None if thread is None else str(thread), "tools" in nodes
