"""The four shapes of a call, plain and streamed, synchronous and asynchronous: once, for every provider.

A provider's adapter brings a `Reader`, a ``send`` that makes the call, and a ``shape`` that says of what came back how
the reply in it is to be had. Here alone both colours meet: whatever may take time (recall, storing) is run in place for
a synchronous caller and in a worker thread for an asynchronous one.

The provider's errors, timeouts and cancellations pass through untouched. Ours are handed to `CallHooks.failed`.
"""

from __future__ import annotations

import functools
import inspect
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from memori.types import Message, Reply

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from anyio.lowlevel import RunVar

    from memori.protocols import CallHooks, CallTurn, Reader, ReplyFold

__all__ = ["Shape", "Streamed", "Unread", "Whole", "acall", "answering", "call", "in_thread", "override"]

log = logging.getLogger("memori")

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
ResultT = TypeVar("ResultT")

# Of our own, not anyio's default 40: an application whose worker threads are all busy must not make its calls wait.
_THREADS = 64
_MISSING = object()
_answering: ContextVar[tuple[CallHooks, ...]] = ContextVar("memori_answering", default=())


@dataclass(frozen=True, slots=True)
class Whole:
    """The reply is here: *body*, as `Reader.reply` takes it."""

    body: Any


@dataclass(frozen=True, slots=True)
class Streamed:
    """The reply comes in chunks.

    Attributes:
        stream: What the caller iterates over, by way of its attribute *iterator*.
        chunks: Returns the iterator to read from; best one that does not refer to the stream, so that a stream that is
            dropped is gone at once.
        connection: What is closed when the caller leaves early: by ``close()``, or ``aclose()`` of asynchronous chunks.
            None: a stream is only ever left by dropping it.
        lazy: Whether the request is made when the first chunk is asked for. Until one has come, nothing was answered,
            so nothing is recorded.
    """

    stream: Any
    iterator: str
    chunks: Callable[[], Any]
    connection: Any
    lazy: bool = False


@dataclass(frozen=True, slots=True)
class Unread:
    """The caller decides how the reply is read, by the response's ``parse()`` or otherwise, and may close it.

    Attributes:
        body: Returns the body, as `Reader.reply` takes it, once it has been read; None before.
    """

    response: Any
    body: Callable[[], Any]


Shape: TypeAlias = Whole | Streamed | Unread


def call(
    hooks: Sequence[CallHooks],
    reader: Reader[RequestT],
    request: RequestT,
    send: Callable[[RequestT], ResponseT],
    shape: Callable[[ResponseT], Shape],
) -> ResponseT:
    """Return ``send(request)``, the request enriched by memories and the reply recorded, for each of *hooks*.

    A reply that is whole is recorded before this returns, a streamed one when the stream ends or is left.
    """
    under_way = _Call(hooks, reader, shape)
    response = send(under_way.begin(request))
    if (read := under_way.receive(response)) is not None:
        under_way.finish(read)
    return response


async def acall(
    hooks: Sequence[CallHooks],
    reader: Reader[RequestT],
    request: RequestT,
    send: Callable[[RequestT], Awaitable[ResponseT]],
    shape: Callable[[ResponseT], Shape],
) -> ResponseT:
    """Do what `call` does, without blocking the event loop."""
    under_way = _Call(hooks, reader, shape)
    response = await send(await in_thread(functools.partial(under_way.begin, request)))
    if (read := under_way.receive(response)) is not None:
        await under_way.afinish(read)
    return response


@contextmanager
def answering(hooks: Sequence[CallHooks]) -> Iterator[None]:
    """Keep *hooks* out of any call made meanwhile: what an SDK asks of another one is the same conversation."""
    token = _answering.set((*_answering.get(), *hooks))
    try:
        yield
    finally:
        with suppress(ValueError):  # A generator that goes on in another context: nothing to restore.
            _answering.reset(token)


def override(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute of this one object; return what undoes it, unless someone has put theirs on top meanwhile.

    On the object itself, past what its class makes of setting attributes: LiteLLM's routers set them on another object.
    """
    attributes = vars(owner)
    before = attributes.get(name, _MISSING)
    attributes[name] = value

    def undo() -> None:
        if attributes.get(name) is not value:
            return
        if before is _MISSING:
            del attributes[name]
        else:
            attributes[name] = before

    return undo


class _Call(Generic[RequestT]):
    """One call under way. Colourless; recorded exactly once when it was answered, and not at all when it was not.

    Whoever may still see the reply holds it (the iterator in a stream, the methods of a response). When the last of
    them is gone, nobody will read on, and what was seen is recorded.
    """

    def __init__(self, hooks: Sequence[CallHooks], reader: Reader[RequestT], shape: Callable[[Any], Shape]) -> None:
        self.advancing = False  # Whether the SDK is at work on the next chunk: what it closes then, it closes itself.
        taking_part = _answering.get()
        self._hooks = tuple(found for found in hooks if not any(found is other for other in taking_part))
        self._reader = reader
        self._shape = shape
        self._turns: list[CallTurn] = []
        # Holds one item while the reply may be recorded. Popping it is atomic, so needs no lock: the garbage collector
        # may come here at any moment, in a thread that is here already.
        self._claim: list[None] = []
        self._awaited = False  # Whether the request is made only when the first chunk is asked for.
        self._undo: list[Callable[[], None]] = []
        self._fold: ReplyFold | None = None
        self._legible = True

    def begin(self, request: RequestT) -> RequestT:
        """Return the request to send: with memories, or as it is."""
        if not self._hooks:
            return request
        sent: tuple[Message, ...] | None = None
        with self._ours():
            sent = self._reader.sent(request)
        if sent is None:
            return request
        for hooks in self._hooks:
            turn = hooks.begin(sent, provider=self._reader.provider)
            if turn is None:
                continue
            self._turns.append(turn)
            if turn.block is not None:
                with self._ours(hooks):
                    request = self._reader.with_memory(request, turn.block, role=turn.role)
        return request

    def receive(self, response: Any) -> Callable[[], Reply] | None:
        """Return what reads the reply, when it can be recorded now; None when it is watched for, or none of ours."""
        if not self._turns:
            return None
        self._claim.append(None)
        with self._ours():
            match self._shape(response):
                case Whole(body):
                    return functools.partial(self._reader.reply, body)
                case Streamed() as streamed:
                    if streamed.lazy:
                        self._awaited = True
                        self._claim.clear()
                    self._watch_stream(streamed)
                    return None
                case Unread() as unread:
                    self._watch_response(unread)
                    return None
        return self.seen  # Nothing will be: what was sent is kept all the same.

    def answered(self) -> None:
        """Note that the provider answers: from now on there is something to record."""
        if self._awaited:
            self._awaited = False
            self._claim.append(None)

    def finish(self, read: Callable[[], Reply], *, wait: bool = True) -> None:
        """Record the reply, unless that was done."""
        try:
            self._claim.pop()
        except IndexError:
            return
        self.release()
        reply = Reply(partial=True)  # Should it be unreadable, what was sent is kept all the same.
        with self._ours():
            reply = read()
        errors = []
        for turn in self._turns:
            try:
                turn.finish(reply.messages, model=reply.model, partial=reply.partial, wait=wait)
            except Exception as error:  # noqa: BLE001 - raised below, when every turn has had its reply
                errors.append(error)
        if errors:
            raise errors[0]

    async def afinish(self, read: Callable[[], Reply]) -> None:
        """Record the reply in a worker thread; when cancelled, without waiting for it to be stored."""
        try:
            await in_thread(functools.partial(self.finish, read))
        except BaseException:
            self.finish(read, wait=False)
            raise

    def interrupted(self, *, wait: bool) -> None:
        """Record what was seen so far, where an error is on its way to the caller: ours must not take its place."""
        try:
            self.finish(self.seen, wait=wait)
        except Exception:
            log.exception("an interrupted reply could not be recorded")

    async def ainterrupted(self, *, wait: bool) -> None:
        """Do what `interrupted` does, without blocking the event loop."""
        if not wait:
            self.interrupted(wait=False)
            return
        try:
            await self.afinish(self.seen)
        except Exception:
            log.exception("an interrupted reply could not be recorded")

    def seen(self) -> Reply:
        """Return the reply as far as it was seen."""
        return Reply(partial=True) if self._fold is None else self._fold.reply(ended=False)

    def whole(self) -> Reply:
        """Return the reply of a stream that the provider ended."""
        return Reply(partial=True) if self._fold is None else self._fold.reply(ended=self._legible)

    def add(self, chunk: Any) -> None:
        """Take in the next chunk of the reply; once one could not be read, no more, so that it is said only once."""
        if self._claim and self._legible and self._fold is not None:
            self._legible = False
            with self._ours():
                self._fold.add(chunk)
                self._legible = True

    def release(self) -> None:
        """Give every object back the methods that were watched."""
        while self._undo:
            self._undo.pop()()

    def _watch_stream(self, streamed: Streamed) -> None:
        if self._fold is not None:  # Parsing a response twice gives the same stream.
            return
        self._fold = self._reader.fold()
        chunks = streamed.chunks()
        watched, closes = (_AsyncChunks, _closes_later) if hasattr(chunks, "__anext__") else (_Chunks, _closes)
        if streamed.connection is not None:
            self._undo.append(closes(streamed.connection, self))
        setattr(streamed.stream, streamed.iterator, watched(chunks, self))

    def _watch_response(self, unread: Unread) -> None:
        for name, watched in (("parse", self._parsed(unread)), ("close", self._closed(unread))):
            if watched is not None:
                self._undo.append(override(unread.response, name, watched))

    def _parsed(self, unread: Unread) -> Callable[..., Any] | None:
        parse = getattr(unread.response, "parse", None)
        if parse is None:
            return None

        def take(value: Any) -> Callable[[], Reply] | None:
            with self._ours():
                shape = self._shape(value)
                if isinstance(shape, Streamed):
                    self.release()
                    self._watch_stream(shape)
                    return None
            return functools.partial(self._read, unread)

        if inspect.iscoroutinefunction(parse):

            @functools.wraps(parse)
            async def aparsed(*args: Any, **kwargs: Any) -> Any:
                value = await parse(*args, **kwargs)
                if (read := take(value)) is not None:
                    await self.afinish(read)
                return value

            return aparsed

        @functools.wraps(parse)
        def parsed(*args: Any, **kwargs: Any) -> Any:
            value = parse(*args, **kwargs)
            if (read := take(value)) is not None:
                self.finish(read)
            return value

        return parsed

    def _closed(self, unread: Unread) -> Callable[[], Any] | None:
        close = getattr(unread.response, "close", None)
        if close is None:
            return None
        read = functools.partial(self._read, unread)
        if inspect.iscoroutinefunction(close):

            @functools.wraps(close)
            async def aclosed() -> None:
                try:
                    await close()
                except BaseException as error:
                    await self.ainterrupted(wait=isinstance(error, Exception))
                    raise
                await self.afinish(read)

            return aclosed

        @functools.wraps(close)
        def closed() -> None:
            try:
                close()
            except BaseException as error:
                self.interrupted(wait=isinstance(error, Exception))
                raise
            self.finish(read)

        return closed

    def _read(self, unread: Unread) -> Reply:
        body = unread.body()
        return Reply(partial=True) if body is None else self._reader.reply(body)

    @contextmanager
    def _ours(self, *affected: CallHooks) -> Iterator[None]:
        """Guard what we do ourselves: the only place that decides what becomes of a failure in it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a Reader may meet anything; `failed` logs it with its traceback
            for hooks in affected or self._hooks:
                hooks.failed(error)

    def __del__(self) -> None:
        if self._claim:
            self.interrupted(wait=False)


class _Chunks:
    """The chunks of a synchronous stream, each handed on the moment it comes."""

    def __init__(self, chunks: Iterator[Any], under_way: _Call[Any]) -> None:
        self._chunks = chunks
        self._call = under_way

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        self._call.advancing = True
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._call.answered()
            self._call.finish(self._call.whole)
            raise
        except BaseException as error:
            self._call.interrupted(wait=isinstance(error, Exception))
            raise
        finally:
            self._call.advancing = False
        self._call.answered()
        self._call.add(chunk)
        return chunk

    def __del__(self) -> None:
        # Before what the SDK does when its own iterator goes, which may be to close the connection.
        self._call.interrupted(wait=False)


class _AsyncChunks:
    """The chunks of an asynchronous stream, each handed on the moment it comes."""

    def __init__(self, chunks: AsyncIterator[Any], under_way: _Call[Any]) -> None:
        self._chunks = chunks
        self._call = under_way

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        self._call.advancing = True
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._call.answered()
            await self._call.afinish(self._call.whole)
            raise
        except BaseException as error:  # A cancelled task must not wait.
            await self._call.ainterrupted(wait=isinstance(error, Exception))
            raise
        finally:
            self._call.advancing = False
        self._call.answered()
        self._call.add(chunk)
        return chunk

    def __del__(self) -> None:
        # Before what the SDK does when its own iterator goes, which may be to close the connection.
        self._call.interrupted(wait=False)


def _closes(connection: Any, under_way: _Call[Any]) -> Callable[[], None]:
    """Record what was seen when *connection* is closed early; return what undoes that."""
    # Only weakly: the connection outlives a stream that is dropped, and a dropped stream is to be recorded at once.
    watching = weakref.ref(under_way)
    close = connection.close

    @functools.wraps(close)
    def closed() -> None:
        left = _left(watching)
        try:
            close()
        except BaseException as error:
            if left is not None:
                left.interrupted(wait=isinstance(error, Exception))
            raise
        if left is not None:
            left.finish(left.seen)

    return override(connection, "close", closed)


def _closes_later(connection: Any, under_way: _Call[Any]) -> Callable[[], None]:
    """Do what `_closes` does for an asynchronous connection."""
    watching = weakref.ref(under_way)
    close = connection.aclose

    @functools.wraps(close)
    async def closed() -> None:
        left = _left(watching)
        try:
            await close()
        except BaseException as error:
            if left is not None:
                await left.ainterrupted(wait=isinstance(error, Exception))
            raise
        if left is not None:
            await left.afinish(left.seen)

    return override(connection, "aclose", closed)


def _left(watching: weakref.ref[_Call[Any]]) -> _Call[Any] | None:
    """Return the call whose stream its caller leaves; None when it is the SDK that closes, at the end of a stream."""
    current = watching()
    return None if current is None or current.advancing else current


async def in_thread(function: Callable[[], ResultT]) -> ResultT:
    """Return what *function* returns, run in a worker thread that no other work of the application can take away."""
    from anyio import to_thread

    return await to_thread.run_sync(function, limiter=_limiter())


def _limiter() -> CapacityLimiter:
    from anyio import CapacityLimiter

    limiters = _limiters()
    try:
        return limiters.get()
    except LookupError:
        limiter = CapacityLimiter(_THREADS)
        limiters.set(limiter)
        return limiter


@functools.cache
def _limiters() -> RunVar[CapacityLimiter]:
    from anyio.lowlevel import RunVar

    return RunVar("memori_threads")
