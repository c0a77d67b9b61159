"""Capture of Anthropic's SDK: the real SDK, over real HTTP, against a provider on this machine."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import (
    Anthropic,
    AnthropicBedrock,
    AnthropicFoundry,
    AnthropicVertex,
    AsyncAnthropic,
    AsyncAnthropicBedrock,
    AsyncAnthropicFoundry,
    AsyncAnthropicVertex,
    DefaultAsyncHttpxClient,
    DefaultHttpxClient,
    beta_tool,
)
from blockbuster import blockbuster_ctx

from memori.capture.anthropic import adapter
from memori.capture.registry import client_adapter
from memori.errors import ConfigurationError
from memori.testing.anthropic_calls import ANTHROPIC_CALLS, ANTHROPIC_MODEL
from memori.testing.calls import City
from memori.testing.capture import COLOURS, QUESTION, CaptureSuite, Colour
from memori.testing.listening import BLOCK, ListeningHooks
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori.types import Message

SDK = tuple(int(part) for part in anthropic.__version__.split(".")[:2])
USER = Message(role="user", content=QUESTION)
CALL = Message(role="assistant", kind="tool_call", content='weather({"city": "Oslo"})')
RESULT = Message(role="tool", kind="tool_result", content="12 degrees, rain", author="weather")
TOOLS: Any = [{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
CACHED: Any = {"type": "ephemeral"}


class TestEveryCall(CaptureSuite):
    adapter = adapter
    calls = ANTHROPIC_CALLS
    sdk = SDK  # type: ignore[assignment]
    provider = "127.0.0.1"

    def client(self, address: str) -> AbstractContextManager[Anthropic]:
        # Without verify=False each client reads the certificates of all authorities first: 100 ms.
        http = DefaultHttpxClient(verify=False)
        return Anthropic(api_key="key", base_url=address, max_retries=0, http_client=http)

    def async_client(self, address: str) -> AbstractAsyncContextManager[AsyncAnthropic]:
        http = DefaultAsyncHttpxClient(verify=False)
        return guarded(AsyncAnthropic(api_key="key", base_url=address, max_retries=0, http_client=http))

    def touched(self, client: Any) -> list[Any]:
        return [client]


@asynccontextmanager
async def guarded(client: Any) -> AsyncIterator[Any]:
    """The client, in an event loop in which whatever of ours blocks it raises."""
    async with client:
        await asyncio.sleep(0)
        with blockbuster_ctx("memori"):
            yield client


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def hooks() -> ListeningHooks:
    return ListeningHooks()


@pytest.fixture
def client(server: ProviderServer, hooks: ListeningHooks) -> Iterator[Anthropic]:
    with Anthropic(api_key="key", base_url=server.url, max_retries=1) as made:
        adapter.register(made, hooks)
        yield made


def ask(client: Any, content: Any = QUESTION, **more: Any) -> Any:
    return say(client, [{"role": "user", "content": content}], **more)


def say(client: Any, messages: Any, **more: Any) -> Any:
    return client.messages.create(model=ANTHROPIC_MODEL, max_tokens=100, messages=messages, **more)


def arun(server: ProviderServer, hooks: ListeningHooks, program: Callable[[AsyncAnthropic], Any]) -> Any:
    """Return what the program returns; whatever of ours blocks its event loop raises."""

    async def main() -> Any:
        async with guarded(AsyncAnthropic(api_key="key", base_url=server.url, max_retries=1)) as made:
            adapter.register(made, hooks)
            return await program(made)

    return asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until *condition* holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is the loop itself
            await asyncio.sleep(0.001)


def platforms(address: str) -> dict[str, tuple[Any, Any]]:
    """Return the clients of other platforms, synchronous and asynchronous, made when they are called."""
    bedrock: Any = {"aws_region": "us-east-1", "aws_access_key": "a", "aws_secret_key": "b", "base_url": address}
    vertex: Any = {"region": "us-east5", "project_id": "p", "access_token": "t", "base_url": address}
    foundry: Any = {"api_key": "key", "base_url": address}
    return {
        "bedrock": (lambda: AnthropicBedrock(**bedrock), lambda: AsyncAnthropicBedrock(**bedrock)),
        "vertex": (lambda: AnthropicVertex(**vertex), lambda: AsyncAnthropicVertex(**vertex)),
        "foundry": (lambda: AnthropicFoundry(**foundry), lambda: AsyncAnthropicFoundry(**foundry)),
    }


PATHS = {
    "bedrock": f"/model/{ANTHROPIC_MODEL}/invoke",
    "vertex": f"/projects/p/locations/us-east5/publishers/anthropic/models/{ANTHROPIC_MODEL}:rawPredict",
    "foundry": "/v1/messages",
}
STREAM_PATHS = {
    "bedrock": f"/model/{ANTHROPIC_MODEL}/invoke-with-response-stream",
    "vertex": PATHS["vertex"].replace("rawPredict", "streamRawPredict"),
    "foundry": "/v1/messages",
}


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("platform", PATHS)
class TestPlatforms:
    """Clients for Anthropic's models elsewhere: other paths, other frames, the same messages."""

    def use(self, platform: str, colour: Colour, server: ProviderServer, hooks: ListeningHooks, program: Any) -> None:
        """Run an asynchronous *program* with a client of either colour, of which it awaits nothing but by `settle`."""
        made = platforms(server.url)[platform][COLOURS.index(colour)]()
        kind, before = type(made), dict(vars(made))
        client_adapter(made).register(made, hooks)
        assert type(made) is kind
        assert adapter.unregister(made, hooks)
        assert vars(made) == before
        adapter.register(made, hooks)

        async def main() -> None:
            try:
                await program(made)
            finally:
                await settle(made.close())

        asyncio.run(main()) if colour == "async" else drive(main())

    def test_are_given_memories_and_recorded(
        self, platform: str, colour: Colour, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a client for another platform goes round memori, or is sent what that platform refuses."""
        server.script(*[Reply(text="Blue it is.")] * 4)

        async def program(client: Any) -> None:
            messages: Any = [
                {"role": "user", "content": "Hello."},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": QUESTION},
            ]
            whole = await settle(say(client, messages))
            assert whole.content[0].text == "Blue it is."
            await settle(client.beta.messages.create(model=ANTHROPIC_MODEL, max_tokens=9, messages=messages))
            manager = client.messages.stream(model=ANTHROPIC_MODEL, max_tokens=9, messages=messages)
            if colour == "async":
                async with manager as helped:
                    assert await helped.get_final_text() == "Blue it is."
            else:
                with manager as helped:
                    assert helped.get_final_text() == "Blue it is."
            copied = client.with_options(timeout=9)
            stream = await settle(say(copied, messages, stream=True))
            assert [event.type for event in await listed(stream)][-1] == "message_stop"
            await settle(copied.close())  # Older SDKs give some copies a connection pool of their own.

        self.use(platform, colour, server, hooks, program)
        assert [turn.said for turn in hooks.turns] == ["Blue it is."] * 4
        assert [turn.partial for turn in hooks.turns] == [False] * 4
        assert {turn.model for turn in hooks.turns} == {ANTHROPIC_MODEL}
        whole, streamed = PATHS[platform], STREAM_PATHS[platform]
        assert [request.path for request in server.requests] == [whole, whole, streamed, streamed]
        for request in server.requests:
            assert [(turn.role, turn.text) for turn in request.turns] == [
                ("user", "Hello."),
                ("assistant", "Hello."),
                ("user", BLOCK),
                ("user", QUESTION),
            ]

    def test_that_break_off_keep_what_came(
        self, platform: str, colour: Colour, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when an error in mid-stream, which each platform frames in its own way, loses the turn."""
        server.script(Reply(text="Blue it is.", error_after=4, error_message="overloaded"))

        async def program(client: Any) -> None:
            with pytest.raises(
                (anthropic.APIStatusError, ValueError), match="overloaded"
            ):  # The latter once on Bedrock.
                await listed(await settle(ask(client, stream=True)))

        self.use(platform, colour, server, hooks, program)
        assert hooks.turn.said == "Blue"
        assert hooks.turn.partial is True

    def test_left_in_the_middle_keep_what_was_seen(
        self, platform: str, colour: Colour, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a stream that is closed early loses its turn."""
        server.script(Reply(text="Blue it is.", chunk_delay_s=0.02))

        async def program(client: Any) -> None:
            stream = await settle(ask(client, stream=True))
            for _ in range(3):
                await (anext(stream) if colour == "async" else settle(next(stream)))
            await settle(stream.close())

        self.use(platform, colour, server, hooks, program)
        assert hooks.turn.said == "Blue"
        assert hooks.turn.partial is True


async def settle(value: Any) -> Any:
    """Return *value*, awaited if it has to be."""
    return await value if hasattr(value, "__await__") else value


async def listed(stream: Any) -> list[Any]:
    return [event async for event in stream] if hasattr(stream, "__aiter__") else list(stream)


def drive(program: Any) -> None:
    """Run a coroutine that never waits, without an event loop."""
    with pytest.raises(StopIteration):
        program.send(None)


class TestRegistration:
    def test_is_honoured_by_resources_used_before(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when a resource that was taken from the client earlier goes round memori."""
        with Anthropic(api_key="key", base_url=server.url) as client:
            messages = client.messages
            adapter.register(client, hooks)
            messages.create(model=ANTHROPIC_MODEL, max_tokens=9, messages=[{"role": "user", "content": QUESTION}])
        assert hooks.turn.sent == (USER,)

    def test_of_the_original_is_not_that_of_its_copies(self, client: Anthropic, hooks: ListeningHooks) -> None:
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
        assert len(hooks.turns) == 2

    def test_goes_with_the_applications_own_middleware(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when the application's own middleware does not see what goes out, or undoes memori's part."""
        seen: list[Any] = []

        def listen(request: Any, call_next: Any) -> Any:
            seen.append(request.json)
            return call_next(request)

        server.script(Reply(status=529, error_message="overloaded"), Reply(text="At last."))
        ask(client.with_middleware(listen))
        assert [BLOCK in str(body) for body in seen] == [True, True]
        assert hooks.turn.said == "At last."

    def test_respects_who_else_wraps_the_client(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when unregistering tears out what another tool has put on the client above memori."""
        with Anthropic(api_key="key", base_url=server.url) as client:
            adapter.register(client, hooks)
            inner = client.request
            above = lambda *args, **kwargs: inner(*args, **kwargs)  # noqa: E731 - an attribute, not a name
            client.request = above  # type: ignore[method-assign]
            ask(client)
            adapter.unregister(client, hooks)
            assert vars(client)["request"] is above
            ask(client)
            assert len(hooks.turns) == 1

    def test_is_not_taken_along_by_copy_copy(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a shallow copy calls through the client it was copied from, under that one's key."""
        copied = copy.copy(client)
        copied.api_key = "another key"
        ask(copied)
        headers = server.requests[0].headers
        assert headers.get("x-api-key", headers.get("authorization", "")).endswith("another key")
        assert hooks.turns == []

    def test_does_not_change_whether_a_client_can_be_pickled(
        self, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a registered client pickles worse, or better, than it did."""

        def refusal(client: Anthropic) -> str:
            with pytest.raises(Exception) as refused:  # noqa: PT011 - which error it is differs by SDK
                pickle.dumps(client)
            return str(refused.value)

        with Anthropic(api_key="key", base_url=server.url) as client:
            before = refusal(client)
            adapter.register(client, hooks)
            assert refusal(client) == before

    def test_keeps_nothing_alive_by_itself(self, server: ProviderServer) -> None:
        """Fails when something global holds the hooks after the client is gone."""
        hooks = ListeningHooks()
        gone = weakref.ref(hooks)
        client = Anthropic(api_key="key", base_url=server.url)
        adapter.register(client, hooks)
        ask(client)
        client.close()
        del client, hooks
        gc.collect()
        assert gone() is None

    def test_takes_subclasses(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when a client of one's own making is refused or not listened to."""

        class Ours(Anthropic):
            pass

        with Ours(api_key="key", base_url=server.url) as client:
            client_adapter(client).register(client, hooks)
            ask(client)
        assert hooks.turn.said == "Understood."

    def test_refuses_what_makes_no_calls(self, client: Anthropic, hooks: ListeningHooks) -> None:
        """Fails when a part of a client is taken without a word."""
        with pytest.raises(ConfigurationError, match="Messages: pass the client itself"):
            adapter.register(client.messages, hooks)
        assert not adapter.unregister(client.messages, hooks)
        assert not adapter.unregister(None, hooks)


PNG: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}}
USED: Any = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
RETURNED: Any = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "12 degrees, rain"}
THOUGHT: Any = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
HIDDEN: Any = {"type": "redacted_thinking", "data": "b3BhcXVl"}

# The messages, the place of the message with the block, and the block's place in it.
CONVERSATIONS: dict[str, tuple[list[Any], int, int]] = {
    "a text": ([{"role": "user", "content": QUESTION}], 0, 0),
    "100k characters": ([{"role": "user", "content": "word " * 20_000}], 0, 0),
    "blocks": ([{"role": "user", "content": [PNG, {"type": "text", "text": QUESTION}]}], 0, 0),
    "two messages of the user's in a row": (
        [{"role": "user", "content": "Hello."}, {"role": "user", "content": QUESTION}],
        1,
        0,
    ),
    "the beginning of the answer": (
        [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "It is"}],
        0,
        0,
    ),
    "a tool loop with thoughts": (
        [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": [THOUGHT, HIDDEN, USED]},
            {"role": "user", "content": [RETURNED]},
        ],
        0,
        0,
    ),
    "a question behind a tool's result": (
        [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [USED]},
            {"role": "user", "content": [RETURNED, {"type": "text", "text": QUESTION}]},
        ],
        2,
        1,
    ),
    "a cached question": (
        [{"role": "user", "content": [{"type": "text", "text": QUESTION, "cache_control": CACHED}]}],
        0,
        1,
    ),
    "a cached beginning": (
        [
            {"role": "user", "content": [{"type": "text", "text": "A whole book.", "cache_control": CACHED}]},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": QUESTION},
        ],
        2,
        1,
    ),
}


class TestRequests:
    @pytest.mark.parametrize("case", CONVERSATIONS)
    @pytest.mark.parametrize(
        "system", [None, "Be brief.", [{"type": "text", "text": "Be brief.", "cache_control": CACHED}]]
    )
    def test_carry_the_block_and_what_they_carried(
        self, case: str, system: Any, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a request is more, or less, than the original and the block, or the caller's objects change."""
        messages, place, at = CONVERSATIONS[case]
        given: dict[str, Any] = {"tools": TOOLS, "thinking": {"type": "enabled", "budget_tokens": 1024}}
        if system is not None:
            given["system"] = system
        before = copy.deepcopy((messages, given))
        with Anthropic(api_key="key", base_url=server.url) as client:
            say(client, messages, **given)
            adapter.register(client, hooks)
            say(client, messages, **given)
            hooks.role = "system"
            say(client, messages, **given)
        plain, enriched, told = (copy.deepcopy(dict(request.body)) for request in server.requests)
        message = plain["messages"][place]
        original = message["content"]
        block = {"type": "text", "text": BLOCK}
        message["content"] = [{"type": "text", "text": original}] if isinstance(original, str) else list(original)
        message["content"].insert(at, block)
        assert enriched == plain
        message["content"] = original
        if system is None:
            plain["system"] = BLOCK
        else:
            plain["system"] = f"{system}\n\n{BLOCK}" if isinstance(system, str) else [*system, block]
        assert told == plain
        assert (messages, given) == before
        assert [turn.finishes for turn in hooks.turns] == [1, 1]

    def test_keep_the_prompt_cache_over_ten_turns(self, client: Anthropic, server: ProviderServer) -> None:
        """Fails when anything up to the breakpoint differs from what it would be without memori."""
        messages: Any = []
        for number in range(10):
            content = [{"type": "text", "text": f"Question {number}?", "cache_control": CACHED}]
            reply = say(client, [*messages, {"role": "user", "content": content}], system="Be brief.")
            body = server.requests[-1].body
            *earlier, last = body["messages"]
            assert (body["system"], earlier) == ("Be brief.", messages)
            assert last["content"] == [*content, {"type": "text", "text": BLOCK}]
            said = [{"type": "text", "text": reply.content[0].text}]
            messages += [
                {"role": "user", "content": [{"type": "text", "text": f"Question {number}?"}]},
                {"role": "assistant", "content": said},
            ]

    def test_that_are_no_conversation_pass_untouched(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when counting tokens or a batch is taken for a conversation."""
        messages: Any = [{"role": "user", "content": QUESTION}]
        counted = client.messages.count_tokens(model=ANTHROPIC_MODEL, messages=messages)
        assert counted.input_tokens == len(QUESTION.split())
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.create(
                requests=[
                    {"custom_id": "1", "params": {"model": ANTHROPIC_MODEL, "max_tokens": 9, "messages": messages}}
                ]
            )
        assert hooks.turns == []
        assert BLOCK not in str([request.body for request in server.requests])

    def test_that_are_retried_are_one_turn(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when the SDK's own retry recalls, injects or records a second time."""
        server.script(Reply(status=529, error_message="overloaded"), Reply(text="At last."))
        ask(client)
        assert hooks.turn.said == "At last."
        assert [request.text.count(BLOCK) for request in server.requests] == [1, 1]

    @pytest.mark.parametrize("colour", COLOURS)
    def test_take_any_iterable(self, colour: Colour, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when a generator of messages, or of blocks, is used up before the SDK reads it."""

        def messages() -> Any:
            yield {"role": "user", "content": (block for block in [{"type": "text", "text": "Weather?"}])}
            yield {"role": "assistant", "content": iter([USED])}
            returned = {**RETURNED, "content": (block for block in [{"type": "text", "text": "12 degrees, rain"}])}
            yield {"role": "user", "content": iter([returned, {"type": "text", "text": QUESTION}])}

        system = ({"type": "text", "text": text} for text in ["Be brief."])
        if colour == "sync":
            with Anthropic(api_key="key", base_url=server.url) as client:
                adapter.register(client, hooks)
                say(client, messages(), system=system)
        else:
            arun(server, hooks, lambda client: say(client, messages(), system=system))
        assert [turn.text for turn in server.requests[0].turns] == [
            "Be brief.",
            "Weather?",
            'weather({"city": "Oslo"})',
            "12 degrees, rain",
            BLOCK,
            QUESTION,
        ]
        assert hooks.turn.sent == (Message(role="user", content="Weather?"), CALL, RESULT, USER)

    def test_leave_files_to_the_sdk(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer, tmp_path: Path
    ) -> None:
        """Fails when a file that the SDK is to read is read by memori, or kept as text."""
        (tmp_path / "cat.png").write_bytes(b"png")
        opened = (tmp_path / "cat.png").open("rb")
        with opened:
            for data in (tmp_path / "cat.png", opened):
                source = {"type": "base64", "media_type": "image/png", "data": data}
                ask(client, [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}])
        for request in server.requests:
            assert request.body["messages"][0]["content"][1]["source"]["data"] == "cG5n"
        assert {turn.sent[0].content.partition("\n")[2] for turn in hooks.turns} == {QUESTION}
        assert not any("cG5n" in turn.sent[0].content for turn in hooks.turns)

    def test_keep_what_the_sdk_does_not_know(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when extra fields, headers, query parameters or omitted values get lost or changed."""
        ask(
            client,
            stop_sequences=anthropic.NOT_GIVEN,
            system=anthropic.NOT_GIVEN,
            extra_body={"top_k": 3},
            extra_headers={"x-tenant": "blue"},
            extra_query={"trace": "1"},
        )
        (request,) = server.requests
        content = [{"type": "text", "text": BLOCK}, {"type": "text", "text": QUESTION}]
        assert request.body == {
            "model": ANTHROPIC_MODEL,
            "max_tokens": 100,
            "messages": [{"role": "user", "content": content}],
            "top_k": 3,
        }
        assert request.headers["x-tenant"] == "blue"
        assert request.query == {"trace": "1"}

    def test_whose_extra_body_has_the_messages_count_as_what_goes_out(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when memori reads messages that the SDK replaces, or its block is replaced with them."""
        ask(client, "Replaced.", extra_body={"messages": iter([{"role": "user", "content": QUESTION}])})
        assert [turn.text for turn in server.requests[0].turns] == [BLOCK, QUESTION]
        assert hooks.turn.sent == (USER,)

    def test_that_the_sdk_refuses_raise_its_own_error(self, client: Anthropic, hooks: ListeningHooks) -> None:
        """Fails when a mistake in a call is answered by another error than the SDK's."""
        with pytest.raises(anthropic.BadRequestError, match="messages: at least one"):
            say(client, [])
        with pytest.raises(TypeError):
            client.messages.create(model=ANTHROPIC_MODEL)  # type: ignore[call-overload]
        assert [turn.finishes for turn in hooks.turns] == [0]


@beta_tool
def weather(city: str) -> str:
    """Return the weather.

    Args:
        city: Where.
    """
    return "12 degrees, rain"


class TestReplies:
    def test_keep_their_types_and_all_they_can_do(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when what the caller gets is another object than the SDK's own."""
        server.script(*[Reply(text='{"city": "Oslo"}')] * 4)
        parsed = client.messages.parse(
            model=ANTHROPIC_MODEL, max_tokens=9, messages=[{"role": "user", "content": QUESTION}], output_format=City
        )
        assert parsed.parsed_output == City(city="Oslo")
        stream = ask(client, stream=True)
        assert type(stream) is anthropic.Stream
        assert stream.response.status_code == 200
        assert [event.type for event in stream][-1] == "message_stop"
        assert next(stream, None) is None
        raw = client.messages.with_raw_response.create(
            model=ANTHROPIC_MODEL, max_tokens=9, messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        assert type(raw) is anthropic.APIResponse
        assert raw.headers["x-request-id"]
        first = raw.parse()
        assert raw.parse() is first
        assert len(list(first)) > 1
        assert "close" not in vars(first.response)
        with client.messages.stream(
            model=ANTHROPIC_MODEL, max_tokens=9, messages=[{"role": "user", "content": QUESTION}], output_format=City
        ) as helped:
            kinds = [event.type for event in helped]
        assert "text" in kinds
        assert helped.get_final_message().parsed_output == City(city="Oslo")
        assert [turn.said for turn in hooks.turns] == ['{"city": "Oslo"}'] * 4

    @pytest.mark.parametrize("stream", [False, True])
    def test_with_thoughts_pass_them_on_and_keep_them_out(
        self, stream: bool, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a thought is changed on its way, lost from the next request, or kept as something said."""
        server.script(Reply(text="Let me see.", tool_calls=(ToolCall("weather", {"city": "Oslo"}, id="toolu_1"),)))
        given: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "tools": TOOLS}
        messages: Any = [{"role": "user", "content": QUESTION}]
        if stream:
            arguments = {"model": ANTHROPIC_MODEL, "max_tokens": 9, "messages": messages, **given}
            with client.messages.stream(**arguments) as events:
                reply = events.get_final_message()
        else:
            reply = say(client, messages, **given)
        thought = reply.content[0]
        assert thought.type == "thinking"
        assert thought.signature
        messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": [RETURNED]}]
        say(client, messages, **given)
        sent = server.requests[1].body["messages"][1]["content"][0]
        assert (sent["thinking"], sent["signature"]) == (thought.thinking, thought.signature)
        asked, answered = hooks.turns
        assert asked.reply == (Message(role="assistant", content="Let me see."), CALL)
        assert answered.sent == (USER, *asked.reply, RESULT)
        assert thought.thinking not in str([(turn.sent, turn.reply) for turn in hooks.turns])

    @pytest.mark.parametrize("stream", [False, True])
    def test_of_a_tool_loop_are_the_conversation(
        self, stream: bool, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a loop that appends the reply's content to the messages is misread, or its hops differ."""
        server.script(Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}),)), Reply(text="Rain."))
        messages: Any = [{"role": "user", "content": QUESTION}]
        for _ in range(2):
            arguments = {"model": ANTHROPIC_MODEL, "max_tokens": 9, "messages": messages, "tools": TOOLS}
            if stream:
                with client.messages.stream(**arguments) as events:
                    reply: Any = events.get_final_message()
            else:
                reply = client.messages.create(**arguments)
            returned = [{**RETURNED, "tool_use_id": block.id} for block in reply.content if block.type == "tool_use"]
            messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": returned}]
        asked, answered = hooks.turns
        assert asked.reply == (CALL,)
        assert answered.sent == (USER, CALL, RESULT)
        assert answered.said == "Rain."
        assert [[turn.text for turn in request.turns][:2] for request in server.requests] == [[BLOCK, QUESTION]] * 2

    @pytest.mark.parametrize("stream", [False, True])
    def test_of_the_sdks_tool_runner_tell_each_message_once(
        self, stream: bool, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when the runner breaks, or a hop of which Anthropic keeps the beginning loses or repeats a message."""
        server.script(Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}),)), Reply(text="Rain."))
        asked: Any = {"role": "user", "content": QUESTION}
        runner: Any = client.beta.messages.tool_runner(
            model=ANTHROPIC_MODEL, max_tokens=9, messages=[asked], tools=[weather], stream=stream
        )
        assert runner.until_done().content[0].text == "Rain."
        assert asked == {"role": "user", "content": QUESTION}
        told: list[tuple[str, str]] = []
        for turn in hooks.turns:
            assert turn.finishes == 1
            said = [(message.role, message.content) for message in (*turn.sent, *turn.reply)]
            told += [one for one in said if one not in told]
        assert told == [
            ("user", QUESTION),
            ("assistant", 'weather({"city": "Oslo"})'),
            ("tool", "12 degrees, rain"),
            ("assistant", "Rain."),
        ]

    @pytest.mark.parametrize("stream", [False, True])
    def test_that_refuse_are_kept(
        self, stream: bool, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when the words of a refusal are lost."""
        server.script(Reply(refusal="I cannot help with that."))
        answer = ask(client, stream=stream)
        if stream:
            list(answer)
        else:
            assert answer.stop_reason == "refusal"
        assert hooks.turn.said == "I cannot help with that."
        assert hooks.turn.partial is False

    @pytest.mark.skipif(SDK < (2, 12), reason="this SDK has no threads yet")
    def test_of_a_thread_are_each_turns_own(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a conversation that Anthropic keeps is made a request it refuses, or its turns are lost."""
        hooks.role = "system"
        thread = client.beta.messages.thread(model=ANTHROPIC_MODEL, max_tokens=9, system="Be brief.")
        for question in ("Hello.", QUESTION):
            thread.send({"role": "user", "content": question})
        first, second = server.requests
        assert first.body["system"] == f"Be brief.\n\n{BLOCK}"
        assert BLOCK in second.text
        if second.body["thread"]["type"] == "continue":
            assert "system" not in second.body
            assert hooks.turns[1].sent == (USER,)


class TestStreams:
    def test_are_recorded_before_the_caller_sees_the_end(self, client: Anthropic, hooks: ListeningHooks) -> None:
        """Fails when a program that stops right after the last event can outrun the recording."""
        stream = ask(client, stream=True)
        while next(stream, None) is not None:
            assert hooks.turns[0].finishes == 0
        assert hooks.turn.partial is False
        assert hooks.turn.waited is True

    def test_are_handed_on_event_by_event(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when events are gathered before the caller has them."""
        server.script(Reply(text="one two three four five", chunk_delay_s=0.1))
        began = time.monotonic()
        stream = ask(client, stream=True)
        next(stream)
        assert time.monotonic() - began < 0.5
        assert len(list(stream)) > 4
        assert hooks.turn.said == "one two three four five"

    @pytest.mark.parametrize("colour", COLOURS)
    def test_closed_unread_keep_what_was_asked(
        self, colour: Colour, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a stream of which nothing was read leaves no trace of the question."""
        if colour == "sync":
            with Anthropic(api_key="key", base_url=server.url) as client:
                adapter.register(client, hooks)
                stream = ask(client, stream=True)
                stream.close()
                stream.close()
        else:

            async def program(client: AsyncAnthropic) -> None:
                stream = await ask(client, stream=True)
                await stream.close()
                await stream.close()

            arun(server, hooks, program)
        assert hooks.turn.sent == (USER,)
        assert hooks.turn.reply == ()
        assert hooks.turn.partial is True
        assert hooks.turn.waited is True

    def test_left_after_their_last_word_are_whole(self, client: Anthropic, hooks: ListeningHooks) -> None:
        """Fails when a caller that leaves at the stop reason makes the reply a partial one."""
        with ask(client, stream=True) as stream:
            for event in stream:
                if event.type == "message_delta":
                    break
        assert hooks.turn.said == "Understood."
        assert hooks.turn.partial is False

    def test_that_are_dropped_are_recorded_at_once(self, client: Anthropic, hooks: ListeningHooks) -> None:
        """Fails when a stream left by a break has to wait for the garbage collector, and so may miss the exit."""
        gc.disable()
        try:
            for _ in ask(client, stream=True):
                break
            assert hooks.turn.partial is True
            assert hooks.turn.waited is False
        finally:
            gc.enable()

    def test_end_well_when_the_client_is_unregistered_meanwhile(self, client: Anthropic, hooks: ListeningHooks) -> None:
        """Fails when unregistering loses the calls that are under way."""
        stream = ask(client, stream=True)
        next(stream)
        adapter.unregister(client, hooks)
        list(stream)
        assert hooks.turn.said == "Understood."

    def test_left_by_an_error_of_the_caller_raise_that_error(self, client: Anthropic, hooks: ListeningHooks) -> None:
        """Fails when what goes wrong in the caller's own loop is replaced, or loses the turn."""

        def listen() -> None:
            with client.messages.stream(
                model=ANTHROPIC_MODEL, max_tokens=9, messages=[{"role": "user", "content": QUESTION}]
            ) as stream:
                for _ in stream.text_stream:
                    raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            listen()
        assert hooks.turn.partial is True
        assert hooks.turn.said == "Understood."

    def test_of_a_tools_input_cut_off_keep_as_much_as_came(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when half a tool call is lost, or passes for whole."""
        call = ToolCall("weather", {"city": "Oslo", "days": 3})
        server.script(Reply(tool_calls=(call,), error_after=6, error_message="overloaded"))
        with pytest.raises(anthropic.APIStatusError, match="overloaded"):
            list(ask(client, stream=True, tools=TOOLS))
        (kept,) = hooks.turn.reply
        assert kept.kind == "tool_call"
        assert kept.content == 'weather({"city": "Oslo",)'
        assert hooks.turn.partial is True


class TestAsync:
    def test_cancelled_in_mid_stream_keeps_what_came(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when a cancelled task loses its turn, waits for it, or is not cancelled."""
        server.script(Reply(text="one two three four five", chunk_delay_s=0.05))

        async def program(client: AsyncAnthropic) -> None:
            heard: list[Any] = []

            async def listen() -> None:
                async for event in await ask(client, stream=True):
                    heard.append(event)  # noqa: PERF401 - it is cancelled in the middle

            task = asyncio.create_task(listen())
            await until(lambda: len(heard) > 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert hooks.turn.waited is False

        arun(server, hooks, program)
        assert hooks.turn.partial is True
        assert "one two three four five".startswith(hooks.turn.said)
        assert hooks.turn.said

    def test_that_times_out_raises_that_and_records_nothing(
        self, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a timeout of the caller's is swallowed, or an unanswered call is recorded."""
        server.script(Reply(text="Too late.", delay_s=5))

        async def program(client: AsyncAnthropic) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await ask(client)

        arun(server, hooks, program)
        assert [turn.finishes for turn in hooks.turns] == [0]

    def test_and_threads_do_not_mix_up_their_turns(
        self, client: Anthropic, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when calls that run at once get each other's replies."""
        errors: list[BaseException] = []

        def talk(name: str) -> None:
            try:
                for number in range(4):
                    answer = ask(client, f"I am {name}, {number}.", stream=bool(number % 2))
                    if number % 2:
                        list(answer)
            except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
                errors.append(error)

        threads = [threading.Thread(target=talk, args=(f"user {number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(hooks.turns) == len(server.requests) == 24
        assert all(turn.finishes == 1 for turn in hooks.turns)
        assert len({turn.sent[0].content for turn in hooks.turns}) == 24
