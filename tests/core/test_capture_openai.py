"""Capture of OpenAI's SDK: the real SDK, over real HTTP, against a provider on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Literal

import openai
import pytest
from blockbuster import blockbuster_ctx
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI

from memori.capture.openai import adapter
from memori.errors import ConfigurationError
from memori.testing.openai_calls import OPENAI_CALLS, City, OpenAICall
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori.types import Message

SDK = tuple(int(part) for part in openai.__version__.split(".")[:2])
QUESTION = "What is my favorite color?"
BLOCK = "Recalled: the favorite color is blue."
USER = Message(role="user", content=QUESTION)
Colour = Literal["sync", "async"]
COLOURS: tuple[Colour, ...] = ("sync", "async")

who: ContextVar[str] = ContextVar("who", default="nobody")


class Turn:
    """A `CallTurn` that notes how it was finished."""

    def __init__(self, hooks: Hooks, sent: Sequence[Message], provider: str) -> None:
        self.block = hooks.block
        self.role = hooks.role
        self.sent = tuple(sent)
        self.provider = provider
        self.who = who.get()
        self.finishes = 0
        self.reply: tuple[Message, ...] = ()
        self.model: str | None = None
        self.partial: bool | None = None
        self.waited: bool | None = None
        self._hooks = hooks

    def finish(self, reply: Sequence[Message], *, model: str | None, partial: bool = False, wait: bool = True) -> None:
        if wait:
            time.sleep(0.001)  # In an event loop, the guard of these tests raises here.
        self.finishes += 1
        self.reply, self.model, self.partial, self.waited = tuple(reply), model, partial, wait
        if self._hooks.error is not None:
            raise self._hooks.error

    @property
    def said(self) -> str:
        return "".join(message.content for message in self.reply)


class Hooks:
    """`CallHooks` that remember nothing, and note everything."""

    def __init__(self, block: str | None = BLOCK, role: Literal["user", "system"] = "user") -> None:
        self.block = block
        self.role: Literal["user", "system"] = role
        self.turns: list[Turn] = []
        self.failures: list[Exception] = []
        self.error: Exception | None = None
        self.delay_s = 0.001

    def begin(self, sent: Sequence[Message], *, provider: str) -> Turn | None:
        time.sleep(self.delay_s)
        turn = Turn(self, sent, provider)
        self.turns.append(turn)
        return turn

    def failed(self, error: Exception) -> None:
        self.failures.append(error)

    @property
    def turn(self) -> Turn:
        """The only turn there was, finished once."""
        assert not self.failures
        assert [turn.finishes for turn in self.turns] == [1]
        return self.turns[0]


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def client(server: ProviderServer, hooks: Hooks) -> Iterator[OpenAI]:
    with OpenAI(api_key="key", base_url=f"{server.url}/v1", max_retries=1) as made:
        adapter.register(made, hooks)
        yield made


def ask(client: OpenAI, text: str = QUESTION, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": text}], **more)


async def aask(client: AsyncOpenAI, text: str = QUESTION, **more: Any) -> Any:
    return await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": text}], **more
    )


def arun(server: ProviderServer, hooks: Hooks, program: Callable[[AsyncOpenAI], Any], **options: Any) -> Any:
    """Return what the program returns; whatever of ours blocks its event loop raises."""

    async def main() -> Any:
        async with AsyncOpenAI(api_key="key", base_url=f"{server.url}/v1", max_retries=1, **options) as made:
            adapter.register(made, hooks)
            await asyncio.sleep(0)
            with blockbuster_ctx("memori"):
                return await program(made)

    return asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until *condition* holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is the loop itself
            await asyncio.sleep(0.001)


def converse(colour: Colour, call: OpenAICall, server: ProviderServer, hooks: Hooks, *, leave: bool = False) -> str:
    """Return the text that the caller saw: all of it, or the first piece when it is to leave in the middle."""
    if colour == "sync":
        with OpenAI(api_key="key", base_url=f"{server.url}/v1", max_retries=1) as client:
            adapter.register(client, hooks)
            pieces = call.run(client, QUESTION)
            if not leave:
                return "".join(pieces)
            first = next(pieces)
            pieces.close()  # type: ignore[attr-defined]
            return first

    async def program(client: AsyncOpenAI) -> str:
        pieces = call.arun(client, QUESTION)
        if not leave:
            return "".join([piece async for piece in pieces])
        first = await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
        await until(lambda: hooks.turns[0].finishes)
        return first

    return str(arun(server, hooks, program))


def rows(calls: Sequence[OpenAICall]) -> list[Any]:
    return [
        pytest.param(call, id=call.id, marks=pytest.mark.skipif(SDK < call.since, reason="this SDK has it not yet"))
        for call in calls
    ]


class TestEveryCall:
    @pytest.mark.parametrize("colour", COLOURS)
    @pytest.mark.parametrize("call", rows(OPENAI_CALLS))
    def test_is_given_memories_and_recorded(
        self, call: OpenAICall, colour: Colour, server: ProviderServer, hooks: Hooks
    ) -> None:
        """Fails when this way to call the SDK goes round memori, or is changed by it."""
        server.script(Reply(text=call.answer))
        assert converse(colour, call, server, hooks) == call.answer
        (request,) = server.requests
        assert request.path.endswith(call.path)
        assert [(turn.role, turn.text) for turn in request.turns] == [("user", BLOCK), ("user", QUESTION)]
        turn = hooks.turn
        assert turn.sent == (USER,)
        assert turn.provider == "127.0.0.1"
        if call.heard:
            assert turn.reply == (Message(role="assistant", content=call.answer),)
            assert turn.model == "gpt-4o-mini"
            assert turn.partial is False
            assert turn.waited is True
        else:
            assert turn.reply == ()
            assert turn.partial is True

    @pytest.mark.parametrize("colour", COLOURS)
    @pytest.mark.parametrize("call", rows([call for call in OPENAI_CALLS if call.streams]))
    def test_that_is_left_in_the_middle_keeps_what_was_seen(
        self, call: OpenAICall, colour: Colour, server: ProviderServer, hooks: Hooks
    ) -> None:
        """Fails when an early break, a closed stream or the end of a with block loses the turn or makes it whole."""
        server.script(Reply(text=call.answer, chunk_delay_s=0.02))
        first = converse(colour, call, server, hooks, leave=True)
        turn = hooks.turn
        assert turn.sent == (USER,)
        assert turn.partial is True
        assert turn.said == (first if call.heard else "")
        assert 0 < len(first) < len(call.answer)

    @pytest.mark.parametrize("colour", COLOURS)
    @pytest.mark.parametrize("call", rows(OPENAI_CALLS))
    def test_passes_untouched_after_unregistering(
        self, call: OpenAICall, colour: Colour, server: ProviderServer, hooks: Hooks
    ) -> None:
        """Fails when a client that was given back still takes part."""
        server.script(Reply(text=call.answer))
        if colour == "sync":
            with OpenAI(api_key="key", base_url=f"{server.url}/v1") as client:
                adapter.register(client, hooks)
                assert adapter.unregister(client, hooks)
                assert "".join(call.run(client, QUESTION)) == call.answer
        else:

            async def program(client: AsyncOpenAI) -> str:
                assert adapter.unregister(client, hooks)
                return "".join([piece async for piece in call.arun(client, QUESTION)])

            assert arun(server, hooks, program) == call.answer
        assert [turn.text for turn in server.requests[0].turns] == [QUESTION]
        assert hooks.turns == []

    @pytest.mark.parametrize("colour", COLOURS)
    @pytest.mark.parametrize("call", rows(OPENAI_CALLS))
    def test_that_the_provider_refuses_records_nothing(
        self, call: OpenAICall, colour: Colour, server: ProviderServer, hooks: Hooks
    ) -> None:
        """Fails when the provider's own error is changed, or a call without an answer is recorded."""
        server.script(Reply(status=400, error_message="no such model"))
        with pytest.raises(openai.BadRequestError, match="no such model"):
            converse(colour, call, server, hooks)
        gc.collect()
        assert [turn.finishes for turn in hooks.turns] == [0]
        assert hooks.failures == []

    @pytest.mark.parametrize("colour", COLOURS)
    @pytest.mark.parametrize("call", rows([call for call in OPENAI_CALLS if call.streams and call.heard]))
    @pytest.mark.parametrize("fault", ["error_after", "cut_after"])
    def test_that_breaks_off_keeps_what_came_and_raises_the_same(
        self, fault: str, call: OpenAICall, colour: Colour, server: ProviderServer, hooks: Hooks
    ) -> None:
        """Fails when an error in mid-stream loses the turn, or is not the error that the SDK raises."""
        place = 4 if call.path == "/chat/completions" else 7
        faults: dict[str, Any] = {fault: place}
        server.script(Reply(text=call.answer, error_message="overloaded", **faults))
        with pytest.raises(Exception) as plain:  # noqa: PT011 - which error it is differs by SDK; see below
            converse(colour, call, server, Hooks(block=None))
        server.script(Reply(text=call.answer, error_message="overloaded", **faults))
        with pytest.raises(type(plain.value)) as ours:
            converse(colour, call, server, hooks)
        assert str(ours.value) == str(plain.value)
        assert not isinstance(ours.value, AssertionError)
        turn = hooks.turn
        assert turn.partial is True
        assert 0 < len(turn.said) < len(call.answer)
        assert call.answer.startswith(turn.said)
