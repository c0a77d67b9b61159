"""What every client adapter must do, for every way to ask its SDK: the real SDK against a provider on this machine.

Subclass `CaptureSuite`, say which calls there are and how to make a client; see ``tests/core/test_capture_google.py``.
"""

from __future__ import annotations

import asyncio
import gc
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ClassVar, Literal, TypeAlias

import pytest

from memori.protocols import ClientAdapter
from memori.testing.calls import ProviderCall
from memori.testing.listening import BLOCK, ListeningHooks
from memori.testing.provider import ProviderServer
from memori.testing.wire import Reply
from memori.types import Message

__all__ = ["COLOURS", "QUESTION", "CaptureSuite", "Colour"]

Colour: TypeAlias = Literal["sync", "async"]
COLOURS: tuple[Colour, ...] = ("sync", "async")
QUESTION = "What is my favorite color?"
_USER = Message(role="user", content=QUESTION)


class CaptureSuite(ABC):
    """What memori promises of every call.

    Attributes:
        adapter: What is tried.
        calls: Every way to ask.
        sdk: The version at hand; calls of later ones are skipped.
        provider: The name that exchanges are stored under.
    """

    adapter: ClassVar[ClientAdapter]
    calls: ClassVar[Sequence[ProviderCall]]
    sdk: ClassVar[tuple[int, int]]
    provider: ClassVar[str]

    @abstractmethod
    def client(self, address: str) -> AbstractContextManager[Any]:
        """Return a synchronous client of what listens at *address*."""

    @abstractmethod
    def async_client(self, address: str) -> AbstractAsyncContextManager[Any]:
        """Return an asynchronous client of what listens at *address*."""

    @abstractmethod
    def touched(self, client: Any) -> list[Any]:
        """Return the objects of a client of either kind on which anything is replaced."""

    @pytest.fixture
    def server(self) -> Iterator[ProviderServer]:
        with ProviderServer() as running:
            yield running

    @pytest.fixture
    def address(self, server: ProviderServer) -> Iterator[str]:
        yield server.url  # noqa: PT022 - a server of another transport has to be closed

    @pytest.fixture
    def hooks(self) -> ListeningHooks:
        return ListeningHooks()

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "call" in metafunc.fixturenames:
            wanted = [call for call in self.calls if call.streams or "streamed" not in metafunc.function.__name__]
            rows = [
                pytest.param(
                    call, id=call.id, marks=pytest.mark.skipif(call.since > self.sdk, reason="this SDK has it not yet")
                )
                for call in wanted
            ]
            metafunc.parametrize("call", rows)
        if "colour" in metafunc.fixturenames:
            metafunc.parametrize("colour", COLOURS)

    def use(
        self,
        colour: Colour,
        address: str,
        program: Callable[[Any], Any],
        aprogram: Callable[[Any], Awaitable[Any]],
        *hooks: ListeningHooks,
    ) -> Any:
        """Return what the program of *colour* makes of a client to which *hooks* listen."""
        if colour == "sync":
            with self.client(address) as client:
                for listening in hooks:
                    self.adapter.register(client, listening)
                return program(client)

        async def main() -> Any:
            async with self.async_client(address) as client:
                for listening in hooks:
                    self.adapter.register(client, listening)
                return await aprogram(client)

        return asyncio.run(main())

    def ask(self, colour: Colour, call: ProviderCall, address: str, *hooks: ListeningHooks) -> str:
        """Return the text that the caller sees, all of it."""

        async def aprogram(client: Any) -> str:
            return "".join([piece async for piece in call.arun(client, QUESTION)])

        return str(self.use(colour, address, lambda client: "".join(call.run(client, QUESTION)), aprogram, *hooks))

    def leave(self, colour: Colour, call: ProviderCall, address: str, hooks: ListeningHooks) -> str:
        """Return the first piece of text that the caller sees, and leave the call there."""

        def program(client: Any) -> str:
            pieces = call.run(client, QUESTION)
            first = next(pieces)
            pieces.close()  # type: ignore[attr-defined]
            return first

        async def aprogram(client: Any) -> str:
            pieces = call.arun(client, QUESTION)
            first = await anext(pieces)
            await pieces.aclose()  # type: ignore[attr-defined]
            async with asyncio.timeout(5):
                while not hooks.turns[0].finishes:  # noqa: ASYNC110 - what is waited for is the loop itself
                    await asyncio.sleep(0.001)
            return first

        return str(self.use(colour, address, program, aprogram, hooks))

    def test_a_call_is_given_memories_and_recorded(
        self, call: ProviderCall, colour: Colour, server: ProviderServer, address: str, hooks: ListeningHooks
    ) -> None:
        """Fails when this way to call the SDK goes round memori, or is changed by it."""
        server.script(Reply(text=call.answer))
        assert self.ask(colour, call, address, hooks) == call.answer
        (request,) = server.requests
        assert request.path.endswith(call.path)
        assert [(turn.role, turn.text) for turn in request.turns] == [("user", BLOCK), ("user", QUESTION)]
        turn = hooks.turn
        assert turn.sent == (_USER,)
        assert turn.provider == self.provider
        assert turn.reply == ((Message(role="assistant", content=call.answer),) if call.heard else ())
        assert turn.partial is not call.heard
        assert turn.waited or not call.heard

    def test_a_streamed_call_left_in_the_middle_keeps_what_was_seen(
        self, call: ProviderCall, colour: Colour, server: ProviderServer, address: str, hooks: ListeningHooks
    ) -> None:
        """Fails when an early break, a closed stream or the end of a with block loses the turn or makes it whole."""
        server.script(Reply(text=call.answer, chunk_delay_s=0.02))
        first = self.leave(colour, call, address, hooks)
        turn = hooks.turn
        assert turn.sent == (_USER,)
        assert turn.partial is True
        assert turn.said == (first if call.heard else "")
        assert 0 < len(first) < len(call.answer)

    @pytest.mark.parametrize("fault", ["error_after", "cut_after"])
    def test_a_streamed_call_that_breaks_off_keeps_what_came_and_raises_the_same(
        self,
        fault: str,
        call: ProviderCall,
        colour: Colour,
        server: ProviderServer,
        address: str,
        hooks: ListeningHooks,
    ) -> None:
        """Fails when an error in mid-stream loses the turn, or is not the error that the SDK raises."""
        faults: dict[str, Any] = {fault: call.begun}
        server.script(*[Reply(text=call.answer, error_message="overloaded", **faults)] * 2)
        outcomes: list[type[BaseException] | str] = []
        for listening in ((), (hooks,)):
            try:
                outcomes.append(self.ask(colour, call, address, *listening))
            except Exception as error:  # noqa: BLE001 - which error it is differs by SDK
                outcomes.append(type(error))
        plain, ours = outcomes
        assert ours == plain
        if call.heard:
            assert 0 < len(hooks.turn.said) < len(call.answer)
            assert call.answer.startswith(hooks.turn.said)
        # Some older SDKs take an error in mid-stream for the end, and none sees it in what it hands out as bytes.
        assert hooks.turn.partial is not (call.heard and isinstance(plain, str))

    def test_a_call_that_the_provider_refuses_records_nothing(
        self, call: ProviderCall, colour: Colour, server: ProviderServer, address: str, hooks: ListeningHooks
    ) -> None:
        """Fails when the provider's own error is changed, or a call without an answer is recorded."""
        server.script(*[Reply(status=400, error_message="no such model")] * 2)
        with pytest.raises(Exception, match="no such model") as plain:
            self.ask(colour, call, address)
        with pytest.raises(type(plain.value), match="no such model"):
            self.ask(colour, call, address, hooks)
        gc.collect()
        assert [turn.finishes for turn in hooks.turns] == [0]
        assert hooks.failures == []

    def test_a_call_without_memories_goes_out_as_it_was_made(
        self, call: ProviderCall, colour: Colour, server: ProviderServer, address: str
    ) -> None:
        """Fails when listening alone changes what is sent."""
        server.script(*[Reply(text=call.answer)] * 2)
        hooks = ListeningHooks(block=None)
        assert self.ask(colour, call, address) == self.ask(colour, call, address, hooks) == call.answer
        plain, listened_to = server.requests
        assert listened_to.body == plain.body
        assert hooks.turn.sent == (_USER,)

    def test_a_call_passes_untouched_after_unregistering(
        self, call: ProviderCall, colour: Colour, server: ProviderServer, address: str, hooks: ListeningHooks
    ) -> None:
        """Fails when a client that was given back still takes part."""
        server.script(Reply(text=call.answer))

        def program(client: Any) -> str:
            assert self.adapter.unregister(client, hooks)
            return "".join(call.run(client, QUESTION))

        async def aprogram(client: Any) -> str:
            assert self.adapter.unregister(client, hooks)
            return "".join([piece async for piece in call.arun(client, QUESTION)])

        assert self.use(colour, address, program, aprogram, hooks) == call.answer
        assert [turn.text for turn in server.requests[0].turns] == [QUESTION]
        assert hooks.turns == []

    def test_a_client_is_what_it_was_when_nobody_listens_any_more(
        self, colour: Colour, address: str, hooks: ListeningHooks
    ) -> None:
        """Fails when registering changes a client's type, or unregistering leaves anything behind on it."""

        def program(client: Any) -> None:
            kind, touched = type(client), self.touched(client)
            before = [dict(vars(owner)) for owner in touched]
            other = ListeningHooks()
            self.adapter.register(client, hooks)
            self.adapter.register(client, other)
            assert type(client) is kind
            assert [dict(vars(owner)) for owner in touched] != before
            assert self.adapter.unregister(client, hooks)
            assert not self.adapter.unregister(client, hooks)
            assert self.adapter.unregister(client, other)
            assert [dict(vars(owner)) for owner in touched] == before

        async def aprogram(client: Any) -> None:
            program(client)

        self.use(colour, address, program, aprogram)

    def test_registering_twice_is_once(
        self, colour: Colour, server: ProviderServer, address: str, hooks: ListeningHooks
    ) -> None:
        """Fails when a second registration records and injects twice."""
        self.ask(colour, self.calls[0], address, hooks, hooks)
        assert hooks.turn.said == "Understood."
        assert server.requests[0].text.count(BLOCK) == 1

    def test_two_on_one_client_take_part_each_by_itself(
        self, colour: Colour, server: ProviderServer, address: str
    ) -> None:
        """Fails when two instances on one client see each other's memories, or one leaving disturbs the other."""
        both = (ListeningHooks("Recalled by the first."), ListeningHooks("Recalled by the second."))
        call = self.calls[0]

        def program(client: Any) -> None:
            list(call.run(client, QUESTION))
            self.adapter.unregister(client, both[0])
            list(call.run(client, QUESTION))

        async def aprogram(client: Any) -> None:
            assert [piece async for piece in call.arun(client, QUESTION)]
            self.adapter.unregister(client, both[0])
            assert [piece async for piece in call.arun(client, QUESTION)]

        self.use(colour, address, program, aprogram, *both)
        first, second = ([turn.text for turn in request.turns] for request in server.requests)
        assert first == ["Recalled by the first.", "Recalled by the second.", QUESTION]
        assert second == ["Recalled by the second.", QUESTION]
        assert both[0].turn.sent == (_USER,)
        assert [turn.sent for turn in both[1].turns] == [(_USER,), (_USER,)]

    def test_other_clients_are_left_alone(self, server: ProviderServer, address: str, hooks: ListeningHooks) -> None:
        """Fails when one client's registration reaches another's."""
        with self.client(address) as client, self.client(address) as stranger:
            self.adapter.register(client, hooks)
            list(self.calls[0].run(stranger, QUESTION))
        assert hooks.turns == []
        assert BLOCK not in server.requests[0].text
