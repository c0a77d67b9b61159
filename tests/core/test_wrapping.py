"""The four shapes of a call, around a provider that is as small as one can be: a list of words in, words out."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import pytest
from blockbuster import blockbuster_ctx

from memori.capture.wrapping import Shape, Streamed, Unread, Whole, acall, call, override
from memori.types import Message, Reply

Request: TypeAlias = tuple[str, ...]


class ReaderError(Exception):
    """What a reader of ours may raise."""


class ProviderError(Exception):
    """What the provider raises."""


class Reader:
    """Reads requests that are words; raises at the places it is told to."""

    provider = "words"

    def __init__(self, *broken: str) -> None:
        self.broken = broken

    def _check(self, place: str) -> None:
        if place in self.broken:
            raise ReaderError(place)

    def sent(self, request: Request) -> tuple[Message, ...]:
        self._check("sent")
        return tuple(Message(role="user", content=word) for word in request)

    def with_memory(self, request: Request, block: str, *, role: Literal["user", "system"]) -> Request:
        self._check("with_memory")
        return (block, *request)

    def reply(self, response: Any) -> Reply:
        self._check("reply")
        return Reply(messages=(Message(role="assistant", content=response),), model="m")

    def fold(self) -> Fold:
        self._check("fold")
        return Fold(self)


class Fold:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._words: list[str] = []

    def add(self, chunk: Any) -> None:
        self._reader._check("add")
        self._words.append(chunk)

    def reply(self, *, ended: bool) -> Reply:
        self._reader._check("fold.reply")
        said = Message(role="assistant", content=" ".join(self._words))
        return Reply(messages=(said,) if self._words else (), model="m", partial=not ended)


class Turn:
    def __init__(self, block: str | None, error: Exception | None) -> None:
        self.block = block
        self.role: Literal["user", "system"] = "user"
        self.finished: list[tuple[str, bool, bool]] = []
        self._error = error

    def finish(self, reply: Sequence[Message], *, model: str | None, partial: bool = False, wait: bool = True) -> None:
        if wait:
            time.sleep(0.001)  # In an event loop, the guard of these tests raises here.
        self.finished.append((" ".join(message.content for message in reply), partial, wait))
        if self._error is not None:
            raise self._error


class Hooks:
    """Notes its turns. With *strict*, raises what failed, as ``on_error="raise"`` does."""

    def __init__(self, block: str | None = "block", *, strict: bool = False) -> None:
        self.block = block
        self.strict = strict
        self.turns: list[Turn] = []
        self.failures: list[Exception] = []
        self.error: Exception | None = None
        self.begin_error: Exception | None = None

    def begin(self, sent: Sequence[Message], *, provider: str) -> Turn | None:
        time.sleep(0.001)
        if self.begin_error is not None:
            raise self.begin_error
        turn = Turn(self.block, self.error)
        self.turns.append(turn)
        return turn

    def failed(self, error: Exception) -> None:
        self.failures.append(error)
        if self.strict:
            raise error

    @property
    def finished(self) -> list[tuple[str, bool, bool]]:
        """What the only turn was finished with: reply, whether partial, whether waited for."""
        (turn,) = self.turns
        return turn.finished


class Connection:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Stream:
    """A provider's stream of words; closes its connection at its end by itself, as SDKs do."""

    def __init__(self, words: Sequence[str], *, error: BaseException | None = None) -> None:
        self.connection = Connection()
        self.iterator: Any = self._read(words, error, self.connection)

    @staticmethod
    def _read(words: Sequence[str], error: BaseException | None, connection: Connection) -> Any:
        yield from words
        connection.close()
        if error is not None:
            raise error

    def __iter__(self) -> Any:
        return iter(self.iterator)


class AsyncStream:
    def __init__(self, words: Sequence[str], *, error: BaseException | None = None) -> None:
        self.connection = Connection()
        self.iterator: Any = self._read(words, error, self.connection)

    @staticmethod
    async def _read(words: Sequence[str], error: BaseException | None, connection: Connection) -> Any:
        for word in words:
            yield word
        await connection.aclose()
        if error is not None:
            raise error

    def __aiter__(self) -> Any:
        return self.iterator


class Response:
    """A provider's response whose caller reads it when it likes."""

    def __init__(self, parsed: Any, *, error: Exception | None = None) -> None:
        self.parsed = parsed
        self.body: str | None = None
        self.error = error

    def parse(self) -> Any:
        if self.error is not None:
            raise self.error
        if isinstance(self.parsed, str):
            self.body = self.parsed
        return self.parsed

    def close(self) -> None:
        if self.error is not None:
            raise self.error


def shape(response: Any) -> Shape:
    if isinstance(response, Response):
        return Unread(response, lambda: response.body)
    if isinstance(response, Stream | AsyncStream):
        return Streamed(response, "iterator", lambda: response.iterator, response.connection)
    return Whole(response)


def send(response: Any) -> Callable[[Request], Any]:
    return lambda request: response


def run(program: Any) -> Any:
    async def main() -> Any:
        await asyncio.sleep(0)
        with blockbuster_ctx("memori"):
            return await program

    return asyncio.run(main())


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


class TestFailuresOfOurs:
    @pytest.mark.parametrize(
        ("place", "request_sent", "finished"),
        [
            ("sent", ("hello",), []),
            ("with_memory", ("hello",), [("answer", False, True)]),
            ("reply", ("block", "hello"), [("", True, True)]),
        ],
    )
    def test_in_a_whole_reply_do_no_harm(
        self, place: str, request_sent: Request, finished: list[Any], hooks: Hooks
    ) -> None:
        """Fails when a reader that cannot read raises into the call, changes its answer, or loses the question."""
        seen: list[Request] = []

        def sends(request: Request) -> str:
            seen.append(request)
            return "answer"

        async def asends(request: Request) -> str:
            return sends(request)

        assert call([hooks], Reader(place), ("hello",), sends, shape) == "answer"
        other = Hooks()
        assert run(acall([other], Reader(place), ("hello",), asends, shape)) == "answer"
        assert seen == [request_sent] * 2
        for one in (hooks, other):
            assert [str(error) for error in one.failures] == [place]
            assert [turn.finished for turn in one.turns] == ([finished] if finished else [])

    @pytest.mark.parametrize(
        ("place", "finished"),
        [("fold", ("", True, True)), ("add", ("", True, True)), ("fold.reply", ("", True, True))],
    )
    def test_in_a_stream_do_no_harm(self, place: str, finished: tuple[str, bool, bool], hooks: Hooks) -> None:
        """Fails when a reader that cannot read chunks takes them from the caller, or says so for every one of them."""
        stream = Stream(["one", "two", "three"])
        assert list(call([hooks], Reader(place), ("hello",), send(stream), shape)) == ["one", "two", "three"]
        gc.collect()
        assert [str(error) for error in hooks.failures] == [place]
        assert hooks.finished == [finished]

    def test_in_saying_what_came_do_no_harm(self, hooks: Hooks) -> None:
        """Fails when a shape that cannot be told raises, or loses the question."""

        def unsure(response: Any) -> Shape:
            raise ReaderError("shape")

        assert call([hooks], Reader(), ("hello",), send("answer"), unsure) == "answer"
        assert [str(error) for error in hooks.failures] == ["shape"]
        assert hooks.finished == [("", True, True)]

    @pytest.mark.parametrize("place", ["sent", "with_memory", "reply"])
    def test_are_raised_to_those_who_want_it(self, place: str) -> None:
        """Fails when on_error="raise" is not heard where a reader fails."""
        with pytest.raises(ReaderError, match=place):
            call([Hooks(strict=True)], Reader(place), ("hello",), send("answer"), shape)

    def test_in_recording_are_raised_when_every_turn_has_its_reply(self) -> None:
        """Fails when one instance with on_error="raise" keeps another from recording, or is not heard."""
        strict, other = Hooks(), Hooks()
        strict.error = ReaderError("recording")
        with pytest.raises(ReaderError, match="recording"):
            call([strict, other], Reader(), ("hello",), send("answer"), shape)
        stream = call([strict, other], Reader(), ("hello",), send(Stream(["one"])), shape)
        with pytest.raises(ReaderError, match="recording"):
            list(stream)
        assert [turn.finished for turn in other.turns] == [[("answer", False, True)], [("one", False, True)]]

    def test_in_beginning_are_raised_before_anything_is_sent(self) -> None:
        """Fails when on_error="raise" is not heard where recall fails, or the call is made all the same."""
        strict = Hooks()
        strict.begin_error = ReaderError("recall")
        sent: list[Request] = []
        with pytest.raises(ReaderError, match="recall"):
            call([strict], Reader(), ("hello",), sent.append, shape)
        assert sent == []

    def test_never_take_the_place_of_the_providers(self, caplog: pytest.LogCaptureFixture) -> None:
        """Fails when a failure to record hides the error that the provider raised in mid-stream."""
        strict = Hooks(strict=True)
        strict.error = ReaderError("recording")
        broken = Stream(["one"], error=ProviderError("overloaded"))
        with pytest.raises(ProviderError, match="overloaded"):
            list(call([strict], Reader(), ("hello",), send(broken), shape))

        async def program() -> None:
            async def asends(request: Request) -> AsyncStream:
                return AsyncStream(["one"], error=ProviderError("overloaded"))

            stream = await acall([strict], Reader(), ("hello",), asends, shape)
            with pytest.raises(ProviderError, match="overloaded"):
                _ = [word async for word in stream]

        run(program())
        assert [record.message for record in caplog.records] == ["an interrupted reply could not be recorded"] * 2
        assert all(record.exc_info for record in caplog.records)

    def test_where_nobody_listens_are_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """Fails when a stream that is dropped raises from within the garbage collector."""
        strict = Hooks()
        strict.error = ReaderError("recording")
        stream = call([strict], Reader(), ("hello",), send(Stream(["one"])), shape)
        del stream
        gc.collect()
        assert strict.finished == [("", True, False)]
        assert [record.message for record in caplog.records] == ["an interrupted reply could not be recorded"]


class TestProvidersErrors:
    @pytest.mark.parametrize("error", [ProviderError("no"), KeyboardInterrupt(), StopIteration()])
    def test_pass_as_they_are_and_nothing_is_recorded(self, error: BaseException, hooks: Hooks) -> None:
        """Fails when an error of the call itself is wrapped, or a call without an answer recorded."""

        def fails(request: Request) -> Any:
            raise error

        with pytest.raises(type(error)) as raised:
            call([hooks], Reader(), ("hello",), fails, shape)
        assert raised.value is error
        gc.collect()
        assert hooks.finished == []
        assert hooks.failures == []

    @pytest.mark.parametrize(("error", "waited"), [(ProviderError("no"), True), (KeyboardInterrupt(), False)])
    def test_in_mid_stream_keep_what_came(self, error: BaseException, waited: bool, hooks: Hooks) -> None:
        """Fails when an interrupted stream loses what came, or an interrupt of the user's has to wait."""
        stream = call([hooks], Reader(), ("hello",), send(Stream(["one", "two"], error=error)), shape)
        heard: list[str] = []
        with pytest.raises(type(error)) as raised:
            heard.extend(stream)
        assert raised.value is error
        assert heard == ["one", "two"]
        assert hooks.finished == [("one two", True, waited)]


class TestUnread:
    def test_is_recorded_when_parsed(self, hooks: Hooks) -> None:
        """Fails when a reply that the caller parses later is not seen."""
        response = call([hooks], Reader(), ("hello",), send(Response("answer")), shape)
        assert hooks.finished == []
        assert response.parse() == "answer"
        assert hooks.finished == [("answer", False, True)]
        response.close()
        response.parse()
        assert hooks.finished == [("answer", False, True)]
        assert set(vars(response)) == {"parsed", "body", "error"}

    def test_is_recorded_when_closed(self, hooks: Hooks) -> None:
        """Fails when a response that is closed before it was parsed leaves no trace."""
        response = call([hooks], Reader(), ("hello",), send(Response("answer")), shape)
        response.body = "read otherwise"
        response.close()
        assert hooks.finished == [("read otherwise", False, True)]

    def test_is_recorded_when_closing_fails(self, hooks: Hooks) -> None:
        """Fails when an error in closing is hidden, or loses the question."""
        response = call([hooks], Reader(), ("hello",), send(Response("a", error=ProviderError("closing"))), shape)
        with pytest.raises(ProviderError, match="closing"):
            response.close()
        assert hooks.finished == [("", True, True)]

    def test_may_be_parsed_again_after_an_error(self, hooks: Hooks) -> None:
        """Fails when a parse that raised is taken for a reply."""
        response = call([hooks], Reader(), ("hello",), send(Response("a", error=ProviderError("parsing"))), shape)
        with pytest.raises(ProviderError, match="parsing"):
            response.parse()
        assert hooks.finished == []
        response.error = None
        assert response.parse() == "a"
        assert hooks.finished == [("a", False, True)]

    def test_is_recorded_when_it_is_gone(self, hooks: Hooks) -> None:
        """Fails when a response that nobody reads or closes leaves no trace."""
        call([hooks], Reader(), ("hello",), send(Response("answer")), shape)
        gc.collect()
        assert hooks.finished == [("", True, False)]

    def test_may_turn_out_to_be_a_stream(self, hooks: Hooks) -> None:
        """Fails when the stream in a response is not watched, or is watched twice."""
        response = call([hooks], Reader(), ("hello",), send(Response(Stream(["one", "two"]))), shape)
        stream = response.parse()
        assert response.parse() is stream
        assert list(stream) == ["one", "two"]
        assert hooks.finished == [("one two", False, True)]


class TestClosing:
    def test_by_the_sdk_itself_is_no_early_end(self, hooks: Hooks) -> None:
        """Fails when a stream whose SDK closes the connection at its end passes for one that was left."""
        stream = call([hooks], Reader(), ("hello",), send(Stream(["one"])), shape)
        assert list(stream) == ["one"]
        assert stream.connection.closed == 1
        assert hooks.finished == [("one", False, True)]
        stream.connection.close()
        assert stream.connection.closed == 2
        assert vars(stream.connection) == {"closed": 2}

    def test_early_is_recorded_once(self, hooks: Hooks) -> None:
        """Fails when a stream that is closed, then closed again and dropped, is recorded more than once."""
        stream = call([hooks], Reader(), ("hello",), send(Stream(["one", "two"])), shape)
        assert next(iter(stream)) == "one"
        stream.connection.close()
        stream.connection.close()
        assert stream.connection.closed == 2
        del stream
        gc.collect()
        assert hooks.finished == [("one", True, True)]

    def test_while_cancelled_does_not_wait(self, hooks: Hooks) -> None:
        """Fails when a cancelled task has to wait for the recording of what it closes."""

        class Stuck(Connection):
            async def aclose(self) -> None:
                await asyncio.Event().wait()

        async def program() -> None:
            source = AsyncStream(["one", "two"])
            source.connection = Stuck()

            async def asends(request: Request) -> AsyncStream:
                return source

            stream = await acall([hooks], Reader(), ("hello",), asends, shape)
            assert await anext(stream.iterator) == "one"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await stream.connection.aclose()

        run(program())
        assert hooks.finished == [("one", True, False)]


class TestAsync:
    def test_streams_are_recorded_before_their_end_is_seen(self, hooks: Hooks) -> None:
        """Fails when an asynchronous caller can outrun the recording, or its loop is blocked by it."""

        async def program() -> None:
            async def asends(request: Request) -> AsyncStream:
                assert request == ("block", "hello")
                return AsyncStream(["one", "two"])

            stream = await acall([hooks], Reader(), ("hello",), asends, shape)
            heard = [(word, list(hooks.finished)) async for word in stream]
            assert heard == [("one", []), ("two", [])]
            assert hooks.finished == [("one two", False, True)]

        run(program())

    def test_cancelled_the_moment_the_answer_is_there_is_recorded(self, hooks: Hooks) -> None:
        """Fails when a reply is lost whose task was cancelled before the thread that records it could begin."""

        async def asends(request: Request) -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return "answer"

        async def program() -> None:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.create_task(acall([hooks], Reader(), ("hello",), asends, shape))

        run(program())
        assert hooks.finished == [("answer", False, False)]

    def test_streams_cancelled_at_their_end_are_whole(self, hooks: Hooks) -> None:
        """Fails when a task that is cancelled while its reply is being stored loses it."""

        class Slow(Hooks):
            def begin(self, sent: Sequence[Message], *, provider: str) -> Turn | None:
                turn = super().begin(sent, provider=provider)
                assert turn is not None
                finish = turn.finish

                def slowly(*args: Any, **kwargs: Any) -> None:
                    time.sleep(0.1)
                    finish(*args, **kwargs)

                turn.finish = slowly  # type: ignore[method-assign]
                return turn

        slow = Slow()

        async def program() -> None:
            async def asends(request: Request) -> AsyncStream:
                return AsyncStream(["one"])

            stream = await acall([slow], Reader(), ("hello",), asends, shape)
            assert await anext(stream.iterator) == "one"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream.iterator), 0.03)
            await asyncio.sleep(0.2)

        run(program())
        assert slow.finished == [("one", False, True)]


class TestOverride:
    def test_puts_back_what_was_there(self) -> None:
        """Fails when undoing leaves something behind, or loses what the object had of its own."""
        thing = Connection()
        undo = override(thing, "close", print)
        assert thing.close is print
        undo()
        undo()
        assert vars(thing) == {"closed": 0}
        thing.closed = 5
        undo = override(thing, "closed", 7)
        undo()
        assert thing.closed == 5

    def test_leaves_what_others_put_on_top(self) -> None:
        """Fails when undoing tears out what somebody else has put on the object since."""
        thing = Connection()
        undo = override(thing, "closed", 7)
        thing.closed = 9
        undo()
        assert thing.closed == 9
