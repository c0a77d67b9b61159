"""Capture of OpenAI's SDK: the real SDK, over real HTTP, against a provider on this machine."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Literal, cast

import openai
import pytest
from blockbuster import blockbuster_ctx
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI

from memori.capture.openai import adapter
from memori.errors import ConfigurationError
from memori.testing.calls import City, ProviderCall
from memori.testing.openai_calls import OPENAI_CALLS
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


def converse(colour: Colour, call: ProviderCall, server: ProviderServer, hooks: Hooks, *, leave: bool = False) -> str:
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


def rows(calls: Sequence[ProviderCall]) -> list[Any]:
    return [
        pytest.param(call, id=call.id, marks=pytest.mark.skipif(call.since > SDK, reason="this SDK has it not yet"))
        for call in calls
    ]


class TestEveryCall:
    @pytest.mark.parametrize("colour", COLOURS)
    @pytest.mark.parametrize("call", rows(OPENAI_CALLS))
    def test_is_given_memories_and_recorded(
        self, call: ProviderCall, colour: Colour, server: ProviderServer, hooks: Hooks
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
        self, call: ProviderCall, colour: Colour, server: ProviderServer, hooks: Hooks
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
        self, call: ProviderCall, colour: Colour, server: ProviderServer, hooks: Hooks
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
        self, call: ProviderCall, colour: Colour, server: ProviderServer, hooks: Hooks
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
        self, fault: str, call: ProviderCall, colour: Colour, server: ProviderServer, hooks: Hooks
    ) -> None:
        """Fails when an error in mid-stream loses the turn, or is not the error that the SDK raises."""
        faults: dict[str, Any] = {fault: call.begun}
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


class TestRegistration:
    def test_leaves_the_client_what_it_was(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when registering changes the client's type, or unregistering leaves anything behind on it."""
        client = OpenAI(api_key="key", base_url=server.url)
        before = dict(vars(client))
        adapter.register(client, hooks)
        assert type(client) is OpenAI
        assert adapter.unregister(client, hooks)
        assert vars(client) == before
        assert not adapter.unregister(client, hooks)
        client.close()

    def test_is_honoured_by_resources_used_before(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when a resource that was taken from the client earlier goes round memori."""
        with OpenAI(api_key="key", base_url=server.url) as client:
            completions = client.chat.completions
            adapter.register(client, hooks)
            completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": QUESTION}])
        assert hooks.turn.sent == (USER,)

    def test_twice_is_once(self, client: OpenAI, hooks: Hooks, server: ProviderServer) -> None:
        """Fails when a second registration records and injects twice."""
        adapter.register(client, hooks)
        ask(client)
        assert hooks.turn.said == "Understood."
        assert server.requests[0].text.count(BLOCK) == 1
        assert adapter.unregister(client, hooks)
        assert not adapter.unregister(client, hooks)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_of_two_on_one_client_ends_in_any_order(self, order: tuple[int, int], server: ProviderServer) -> None:
        """Fails when two instances on one client see each other's memories, or one leaving disturbs the other."""
        both = (Hooks("Recalled by the first."), Hooks("Recalled by the second."))
        with OpenAI(api_key="key", base_url=server.url) as client:
            before = dict(vars(client))
            for hooks in both:
                adapter.register(client, hooks)
            ask(client)
            assert [turn.text for turn in server.requests[0].turns] == [
                "Recalled by the first.",
                "Recalled by the second.",
                QUESTION,
            ]
            for hooks in both:
                assert hooks.turn.sent == (USER,)
                assert hooks.turn.said == "Understood."
            leaves, stays = (both[place] for place in order)
            assert adapter.unregister(client, leaves)
            ask(client)
            assert (len(leaves.turns), len(stays.turns)) == (1, 2)
            assert adapter.unregister(client, stays)
            ask(client)
            assert (len(leaves.turns), len(stays.turns)) == (1, 2)
            assert {name: value for name, value in vars(client).items() if name != "chat"} == before

    def test_of_several_clients_is_separate(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when one client's registration reaches, or ends, another's."""
        with (
            OpenAI(api_key="key", base_url=server.url) as first,
            OpenAI(api_key="key", base_url=server.url) as second,
            OpenAI(api_key="key", base_url=server.url) as stranger,
        ):
            adapter.register(first, hooks)
            adapter.register(second, hooks)
            adapter.unregister(first, hooks)
            for client in (first, second, stranger):
                ask(client)
        assert hooks.turn.sent == (USER,)

    def test_of_the_original_is_not_that_of_its_copies(self, client: OpenAI, hooks: Hooks) -> None:
        """Fails when a copy made by with_options() is lost once the original is unregistered, or cannot be itself."""
        copied = client.with_options(timeout=7)
        assert copied.timeout == 7
        assert adapter.unregister(client, hooks)
        ask(client)
        assert hooks.turns == []
        ask(copied)
        ask(copied.with_options(max_retries=0))
        assert len(hooks.turns) == 2
        assert adapter.unregister(copied, hooks)
        ask(copied)
        ask(copied.copy())
        assert len(hooks.turns) == 2

    def test_respects_who_else_wraps_the_client(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when unregistering tears out what another tool has put on the client, below or above memori."""
        seen: list[str] = []

        def listen(client: OpenAI, name: str) -> Any:
            inner = client.request

            def request(*args: Any, **kwargs: Any) -> Any:
                seen.append(name)
                return inner(*args, **kwargs)

            client.request = request  # type: ignore[method-assign]
            return request

        with OpenAI(api_key="key", base_url=server.url) as client:
            below = listen(client, "below")
            adapter.register(client, hooks)
            adapter.unregister(client, hooks)
            assert vars(client)["request"] is below
            adapter.register(client, hooks)
            above = listen(client, "above")
            ask(client)
            assert seen == ["above", "below"]
            adapter.unregister(client, hooks)
            assert vars(client)["request"] is above
            ask(client)
            assert seen == ["above", "below"] * 2
            assert len(hooks.turns) == 1
            adapter.register(client, hooks)
            ask(client)
            assert [turn.finishes for turn in hooks.turns] == [1, 1]

    def test_is_not_taken_along_by_copy_copy(self, client: OpenAI, hooks: Hooks, server: ProviderServer) -> None:
        """Fails when a shallow copy calls through the client it was copied from, under that one's key."""
        copied = copy.copy(client)
        copied.api_key = "another key"
        ask(copied)
        assert server.requests[0].headers["authorization"] == "Bearer another key"
        assert hooks.turns == []
        adapter.register(copied, hooks)
        ask(copied)
        assert server.requests[1].headers["authorization"] == "Bearer another key"
        assert hooks.turn.said == "Understood."
        adapter.unregister(copied, hooks)
        ask(client)
        assert len(hooks.turns) == 2

    def test_does_not_change_whether_a_client_can_be_pickled(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when a registered client pickles worse, or better, than it did."""

        def refusal(client: OpenAI) -> str:
            with pytest.raises(TypeError) as refused:
                pickle.dumps(client)
            return str(refused.value)

        with OpenAI(api_key="key", base_url=server.url) as client:
            before = refusal(client)
            adapter.register(client, hooks)
            assert refusal(client) == before

    @pytest.mark.parametrize("unregistered", [True, False])
    def test_keeps_nothing_alive_by_itself(self, unregistered: bool, server: ProviderServer) -> None:
        """Fails when something global holds the hooks after the client, or its registration, is gone."""
        hooks = Hooks()
        gone = weakref.ref(hooks)
        clients = [OpenAI(api_key="key", base_url=server.url)]
        adapter.register(clients[0], hooks)
        ask(clients[0])
        clients[0].close()
        if unregistered:
            adapter.unregister(clients[0], hooks)
        else:
            clients.clear()
        del hooks
        gc.collect()
        assert gone() is None

    def test_takes_subclasses(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when a client of one's own making is refused or not listened to."""

        class Ours(OpenAI):
            pass

        with Ours(api_key="key", base_url=server.url) as client:
            adapter.register(client, hooks)
            ask(client)
        assert hooks.turn.said == "Understood."

    def test_refuses_what_makes_no_calls(self, client: OpenAI, hooks: Hooks) -> None:
        """Fails when a part of a client, or nothing like one, is taken without a word."""
        with pytest.raises(ConfigurationError, match="Completions: pass the client itself"):
            adapter.register(client.chat.completions, hooks)
        assert not adapter.unregister(client.chat.completions, hooks)
        assert not adapter.unregister(None, hooks)

    @pytest.mark.parametrize("colour", COLOURS)
    def test_takes_azure(self, colour: Colour, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when Azure's clients, whose paths name the deployment, go round memori."""
        azure: dict[str, Any] = {"api_key": "key", "azure_endpoint": server.url, "api_version": "2024-10-21"}
        if colour == "sync":
            with AzureOpenAI(**azure) as client:
                adapter.register(client, hooks)
                ask(client)
                ask(client.with_options(timeout=5))
                client.responses.create(model="gpt-4o-mini", input=QUESTION)
        else:

            async def main() -> None:
                async with AsyncAzureOpenAI(**azure) as client:
                    adapter.register(client, hooks)
                    await aask(client)
                    await aask(client.with_options(timeout=5))
                    await client.responses.create(model="gpt-4o-mini", input=QUESTION)

            asyncio.run(main())
        assert [turn.said for turn in hooks.turns] == ["Understood."] * 3
        assert server.requests[0].path.endswith("/deployments/gpt-4o-mini/chat/completions")
        assert all(BLOCK in request.text for request in server.requests)


class TestRequests:
    def test_that_are_no_conversation_pass_untouched(
        self, client: OpenAI, hooks: Hooks, server: ProviderServer
    ) -> None:
        """Fails when embeddings, models or a conversation's own lookups are taken for a conversation."""
        client.embeddings.create(model="text-embedding-3-small", input=QUESTION)
        client.models.list()
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.update("chatcmpl-1", metadata={"a": "b"})
        with pytest.raises(openai.NotFoundError):
            client.responses.cancel("resp_1")
        assert hooks.turns == []
        assert BLOCK not in str([request.body for request in server.requests])

    def test_without_memories_go_out_as_they_were_made(self, server: ProviderServer) -> None:
        """Fails when a call for which nothing is recalled, or which is to pass untouched, is changed on the wire."""

        class Elsewhere(Hooks):
            def begin(self, sent: Sequence[Message], *, provider: str) -> Turn | None:
                return None

        with OpenAI(api_key="key", base_url=server.url) as client:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": QUESTION}], seed=7)
            for hooks in (Hooks(block=None), Elsewhere()):
                adapter.register(client, hooks)
                client.chat.completions.create(model="m", messages=[{"role": "user", "content": QUESTION}], seed=7)
                adapter.unregister(client, hooks)
        first, *others = [request.body for request in server.requests]
        assert others == [first, first]

    def test_that_are_retried_are_one_turn(self, client: OpenAI, hooks: Hooks, server: ProviderServer) -> None:
        """Fails when the SDK's own retry recalls, injects or records a second time."""
        server.script(Reply(status=500, error_message="try again"), Reply(text="At last."))
        ask(client)
        assert hooks.turn.said == "At last."
        assert [request.text.count(BLOCK) for request in server.requests] == [1, 1]

    def test_keep_the_callers_own_lists_as_they_are(self, client: OpenAI, server: ProviderServer) -> None:
        """Fails when the list or the messages that the application holds are changed."""
        messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
        items: Any = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
        before = copy.deepcopy((messages, items))
        client.chat.completions.create(model="m", messages=messages)
        client.responses.create(model="m", input=items)
        assert (messages, items) == before
        assert all(BLOCK in request.text for request in server.requests)

    def test_take_any_iterable_of_messages(self, client: OpenAI, hooks: Hooks, server: ProviderServer) -> None:
        """Fails when a generator of messages is used up before the SDK reads it."""
        messages: Any = ({"role": "user", "content": text} for text in ("Hello.", QUESTION))
        client.chat.completions.create(model="m", messages=messages)
        assert [turn.text for turn in server.requests[0].turns] == ["Hello.", BLOCK, QUESTION]
        assert [message.content for message in hooks.turn.sent] == ["Hello.", QUESTION]

    def test_keep_what_the_sdk_does_not_know(self, client: OpenAI, hooks: Hooks, server: ProviderServer) -> None:
        """Fails when extra fields, headers, query parameters or omitted values get lost or changed."""
        client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": QUESTION}],
            temperature=cast("Any", openai.NOT_GIVEN),
            extra_body={"top_k": 3, "provider": {"order": ["a"]}},
            extra_headers={"x-tenant": "blue"},
            extra_query={"trace": "1"},
        )
        (request,) = server.requests
        assert request.body == {
            "model": "m",
            "messages": [{"role": "user", "content": BLOCK}, {"role": "user", "content": QUESTION}],
            "top_k": 3,
            "provider": {"order": ["a"]},
        }
        assert request.headers["x-tenant"] == "blue"
        assert request.query == {"trace": "1"}

    def test_whose_extra_body_has_the_messages_count_as_what_goes_out(
        self, client: OpenAI, hooks: Hooks, server: ProviderServer
    ) -> None:
        """Fails when memori reads messages that the SDK replaces, or its block is replaced with them."""
        ask(client, "Replaced.", extra_body={"messages": [{"role": "user", "content": QUESTION}]})
        assert [turn.text for turn in server.requests[0].turns] == [BLOCK, QUESTION]
        assert hooks.turn.sent == (USER,)

    @pytest.mark.parametrize("leader", ["system", "developer"])
    def test_take_memories_in_the_system_role_after_the_applications_own(
        self, leader: str, client: OpenAI, hooks: Hooks, server: ProviderServer
    ) -> None:
        """Fails when injection_role="system" goes before the application's prompt, or mixes two system roles."""
        hooks.role = "system"
        opening: Any = {"role": leader, "content": [{"type": "text", "text": "Be brief."}]}
        client.chat.completions.create(model="m", messages=[opening, {"role": "user", "content": QUESTION}])
        client.responses.create(model="m", input=QUESTION, instructions="Be brief.")
        chat, responses = (request.turns for request in server.requests)
        assert [(turn.role, turn.text) for turn in chat] == [(leader, "Be brief."), (leader, BLOCK), ("user", QUESTION)]
        assert [(turn.role, turn.text) for turn in responses][1:] == [("system", BLOCK), ("user", QUESTION)]


class TestReplies:
    def test_keep_their_types_and_all_they_can_do(self, client: OpenAI, hooks: Hooks, server: ProviderServer) -> None:
        """Fails when what the caller gets is another object than the SDK's own."""
        server.script(*[Reply(text='{"city": "Oslo"}')] * 3)
        parsed = client.chat.completions.parse(
            model="m", messages=[{"role": "user", "content": QUESTION}], response_format=City
        )
        assert parsed.choices[0].message.parsed == City(city="Oslo")
        stream = ask(client, stream=True)
        assert type(stream) is openai.Stream
        assert stream.response.status_code == 200
        chunks = list(stream)
        assert chunks[0].object == "chat.completion.chunk"
        assert next(stream, None) is None
        raw = client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        assert raw.status_code == 200
        assert raw.headers["x-request-id"]
        first = raw.parse()
        assert raw.parse() is first
        assert "close" in vars(first.response)
        assert len(list(first)) > 1
        assert "close" not in vars(first.response)
        assert [turn.said for turn in hooks.turns] == ['{"city": "Oslo"}'] * 3

    @pytest.mark.parametrize("stream", [False, True])
    def test_of_a_tool_loop_are_the_conversation(
        self, stream: bool, client: OpenAI, hooks: Hooks, server: ProviderServer
    ) -> None:
        """Fails when OpenAI's own tool loop, the reply's object appended to the messages, breaks or is misread."""
        server.script(Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}, id="call_1"),)), Reply(text="Rain."))
        messages: Any = [{"role": "user", "content": "Weather in Oslo?"}]
        tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
        if stream:
            with client.chat.completions.stream(model="m", messages=messages, tools=tools) as events:
                message: Any = events.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0].message
        messages += [message, {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees, rain"}]
        client.chat.completions.create(model="m", messages=messages, tools=tools)
        asked, answered = hooks.turns
        call = Message(role="assistant", kind="tool_call", content='weather({"city": "Oslo"})')
        assert asked.reply == (call,)
        assert answered.sent == (
            Message(role="user", content="Weather in Oslo?"),
            call,
            Message(role="tool", kind="tool_result", content="12 degrees, rain", author="weather"),
        )
        assert answered.said == "Rain."
        assert [turn.text for turn in server.requests[1].turns][:2] == [BLOCK, "Weather in Oslo?"]
        assert len(messages) == 3

    @pytest.mark.parametrize("stream", [False, True])
    def test_of_a_tool_loop_of_responses_are_the_conversation(
        self, stream: bool, client: OpenAI, hooks: Hooks, server: ProviderServer
    ) -> None:
        """Fails when the output of a response, added to the next input as OpenAI's docs do, breaks or is misread."""
        server.script(Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}, id="call_1"),)), Reply(text="Rain."))
        items: Any = [{"role": "user", "content": "Weather in Oslo?"}]
        tools: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}]
        if stream:
            with client.responses.stream(model="m", input=items, tools=tools) as events:
                response: Any = events.get_final_response()
        else:
            response = client.responses.create(model="m", input=items, tools=tools)
        items += response.output
        items.append({"type": "function_call_output", "call_id": "call_1", "output": "12 degrees, rain"})
        client.responses.create(model="m", input=items, tools=tools)
        asked, answered = hooks.turns
        call = Message(role="assistant", kind="tool_call", content='weather({"city": "Oslo"})')
        assert asked.reply == (call,)
        assert answered.sent == (
            Message(role="user", content="Weather in Oslo?"),
            call,
            Message(role="tool", kind="tool_result", content="12 degrees, rain", author="weather"),
        )
        assert answered.said == "Rain."

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("path", ["chat", "responses"])
    def test_that_refuse_are_kept(
        self, path: str, stream: bool, client: OpenAI, hooks: Hooks, server: ProviderServer
    ) -> None:
        """Fails when a refusal is lost, or None is stored in its place."""
        server.script(Reply(refusal="I cannot help with that."))
        if path == "chat":
            answer = ask(client, stream=stream)
        else:
            answer = client.responses.create(model="m", input=QUESTION, stream=stream)
        if stream:
            list(answer)
        assert hooks.turn.said == "I cannot help with that."

    def test_with_usage_or_several_choices_are_read_once(
        self, client: OpenAI, hooks: Hooks, server: ProviderServer
    ) -> None:
        """Fails when a chunk without choices breaks the stream, or further choices are mixed into the first."""
        server.script(*[Reply(text="Blue it is.")] * 2)
        chunks = list(ask(client, stream=True, n=2, stream_options={"include_usage": True}))
        assert chunks[-1].choices == []
        ask(client, n=2)
        assert [turn.said for turn in hooks.turns] == ["Blue it is."] * 2


class TestStreams:
    def test_are_recorded_before_the_caller_sees_the_end(self, client: OpenAI, hooks: Hooks) -> None:
        """Fails when a program that stops right after the last chunk can outrun the recording."""
        stream = ask(client, stream=True)
        while next(stream, None) is not None:
            assert hooks.turns[0].finishes == 0
        assert hooks.turn.partial is False
        assert hooks.turn.waited is True

    def test_are_handed_on_chunk_by_chunk(self, client: OpenAI, hooks: Hooks, server: ProviderServer) -> None:
        """Fails when chunks are gathered before the caller has them."""
        server.script(Reply(text="one two three four five", chunk_delay_s=0.1))
        began = time.monotonic()
        stream = ask(client, stream=True)
        next(stream)
        assert time.monotonic() - began < 0.3
        assert len(list(stream)) > 4
        assert hooks.turn.said == "one two three four five"

    @pytest.mark.parametrize("colour", COLOURS)
    def test_closed_unread_keep_what_was_asked(self, colour: Colour, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when a stream of which nothing was read leaves no trace of the question."""
        if colour == "sync":
            with OpenAI(api_key="key", base_url=server.url) as client:
                adapter.register(client, hooks)
                stream = ask(client, stream=True)
                stream.close()
                stream.close()
        else:

            async def program(client: AsyncOpenAI) -> None:
                stream = await aask(client, stream=True)
                await stream.close()
                await stream.close()

            arun(server, hooks, program)
        assert hooks.turn.sent == (USER,)
        assert hooks.turn.reply == ()
        assert hooks.turn.partial is True
        assert hooks.turn.waited is True

    def test_left_after_their_last_word_are_whole(self, client: OpenAI, hooks: Hooks) -> None:
        """Fails when a caller that leaves at the finish reason makes the reply a partial one."""
        with ask(client, stream=True) as stream:
            for chunk in stream:
                if chunk.choices[0].finish_reason:
                    break
        assert hooks.turn.said == "Understood."
        assert hooks.turn.partial is False

    def test_may_be_peeked_into_and_read_on(self, client: OpenAI, hooks: Hooks, server: ProviderServer) -> None:
        """Fails when the end of one loop over a stream is taken for the end of the stream."""
        server.script(Reply(text="one two three"))
        stream = ask(client, stream=True)
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        assert hooks.turns[0].finishes == 0
        rest = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(rest) == " two three"
        assert hooks.turn.said == "one two three"

    def test_that_are_dropped_are_recorded_at_once(self, client: OpenAI, hooks: Hooks) -> None:
        """Fails when a stream left by a break has to wait for the garbage collector, and so may miss the exit."""
        gc.disable()
        try:
            for _ in ask(client, stream=True):
                break
            assert hooks.turn.partial is True
            assert hooks.turn.waited is False
        finally:
            gc.enable()

    def test_that_are_never_parsed_are_recorded_when_they_are_gone(self, client: OpenAI, hooks: Hooks) -> None:
        """Fails when a raw response whose stream nobody reads leaves no trace of the question."""
        raw = client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        raw.http_response.close()
        del raw
        gc.collect()
        assert hooks.turn.sent == (USER,)
        assert hooks.turn.partial is True

    def test_end_well_when_the_client_is_unregistered_meanwhile(self, client: OpenAI, hooks: Hooks) -> None:
        """Fails when unregistering loses the calls that are under way."""
        stream = ask(client, stream=True)
        next(stream)
        adapter.unregister(client, hooks)
        list(stream)
        assert hooks.turn.said == "Understood."

    def test_left_by_an_error_of_the_caller_raise_that_error(self, client: OpenAI, hooks: Hooks) -> None:
        """Fails when what goes wrong in the caller's own loop is replaced, or loses the turn."""

        def listen() -> None:
            with ask(client, stream=True) as stream:
                for _ in stream:
                    raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            listen()
        assert hooks.turn.partial is True


class TestAsync:
    def test_cancelled_in_mid_stream_keeps_what_came(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when a cancelled task loses its turn, waits for it, or is not cancelled."""
        server.script(Reply(text="one two three four five", chunk_delay_s=0.05))

        async def program(client: AsyncOpenAI) -> None:
            heard: list[Any] = []

            async def listen() -> None:
                heard.extend([chunk async for chunk in watched(await aask(client, stream=True))])

            async def watched(stream: Any) -> Any:
                async for chunk in stream:
                    heard.append(chunk)
                    yield chunk

            task = asyncio.create_task(listen())
            await until(lambda: len(heard) > 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert hooks.turn.waited is False

        arun(server, hooks, program)
        assert hooks.turn.partial is True
        assert "one two three four five".startswith(hooks.turn.said)
        assert hooks.turn.said

    def test_that_times_out_raises_that_and_records_nothing(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when a timeout of the caller's is swallowed, or an unanswered call is recorded."""
        server.script(Reply(text="Too late.", delay_s=5))

        async def program(client: AsyncOpenAI) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await aask(client)

        arun(server, hooks, program)
        assert [turn.finishes for turn in hooks.turns] == [0]

    def test_cancelled_while_recording_is_recorded(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when a reply that came is lost because its task was cancelled a moment later."""
        began = threading.Event()

        class Slow(Turn):
            def finish(self, *args: Any, **kwargs: Any) -> None:
                began.set()
                time.sleep(0.2)
                super().finish(*args, **kwargs)

        class Patient(Hooks):
            def begin(self, sent: Sequence[Message], *, provider: str) -> Turn:
                turn = Slow(self, sent, provider)
                self.turns.append(turn)
                return turn

        patient = Patient()

        async def program(client: AsyncOpenAI) -> None:
            task = asyncio.create_task(aask(client))
            await until(began.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: patient.turns[0].finishes)

        arun(server, patient, program)
        assert patient.turn.said == "Understood."

    def test_does_not_stall_the_loop_while_memories_are_slow(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when other tasks have to wait for a slow recall."""
        hooks.delay_s = 0.3

        async def program(client: AsyncOpenAI) -> None:
            task = asyncio.create_task(aask(client))
            longest = 0.0
            while not task.done():
                before = time.monotonic()
                await asyncio.sleep(0.005)
                longest = max(longest, time.monotonic() - before)
            await task
            assert longest < 0.2

        arun(server, hooks, program)
        assert hooks.turn.said == "Understood."

    def test_does_not_wait_for_the_applications_worker_threads(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when a call stands behind the application's own blocking work in anyio's default worker threads."""
        from anyio import to_thread

        release = threading.Event()

        async def program(client: AsyncOpenAI) -> None:
            limiter = to_thread.current_default_thread_limiter()
            limiter.total_tokens = 2
            busy = [asyncio.create_task(to_thread.run_sync(release.wait)) for _ in range(4)]
            try:
                async with asyncio.timeout(5):
                    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": QUESTION}])
            finally:
                release.set()
                await asyncio.gather(*busy)

        async def ready(client: AsyncOpenAI) -> None:
            await client.models.list()  # The SDK looks up its platform in a default worker thread, once.
            await program(client)

        arun(server, hooks, ready)
        assert hooks.turn.said == "Understood."


class TestIdentity:
    def test_of_threads_is_their_own(self, client: OpenAI, hooks: Hooks, server: ProviderServer) -> None:
        """Fails when a call is begun under another thread's context, or calls get each other's turns."""
        errors: list[BaseException] = []

        def talk(name: str) -> None:
            try:
                who.set(name)
                for number in range(5):
                    if number % 2:
                        list(ask(client, f"I am {name}, {number}.", stream=True))
                    else:
                        ask(client, f"I am {name}, {number}.")
            except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
                errors.append(error)

        threads = [threading.Thread(target=talk, args=(f"user {number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(hooks.turns) == len(server.requests) == 40
        assert all(turn.finishes == 1 and turn.sent[0].content.startswith(f"I am {turn.who},") for turn in hooks.turns)

    def test_of_tasks_is_their_own(self, server: ProviderServer, hooks: Hooks) -> None:
        """Fails when a context variable does not reach the worker thread in which a task's call is begun."""

        async def talk(client: AsyncOpenAI, name: str) -> None:
            who.set(name)
            for number in range(5):
                answer = await aask(client, f"I am {name}, {number}.", stream=bool(number % 2))
                if number % 2:
                    assert [chunk async for chunk in answer]

        async def program(client: AsyncOpenAI) -> None:
            await asyncio.gather(*(talk(client, f"user {number}") for number in range(8)))

        arun(server, hooks, program)
        assert len(hooks.turns) == 40
        assert all(turn.finishes == 1 and turn.sent[0].content.startswith(f"I am {turn.who},") for turn in hooks.turns)
