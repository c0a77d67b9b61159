"""Capture of xAI's SDK: the real SDK, over real gRPC, against a provider on this machine."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import grpc
import pytest
import xai_sdk
from xai_sdk.chat import assistant, image, system, tool, tool_result, user

from memori.capture.registry import client_adapter
from memori.capture.xai import adapter
from memori.errors import ConfigurationError
from memori.testing.capture import QUESTION, CaptureSuite, Colour
from memori.testing.listening import BLOCK, ListeningHooks
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori.testing.xai_calls import XAI_CALLS
from memori.testing.xai_protocol import XAIServer
from memori.types import Message

SDK = tuple(int(part) for part in xai_sdk.__version__.split(".")[:2])
# The SDK's own: its batches are to go.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

ASKED = Message(role="user", content="Weather in Oslo?")
CALL = Message(role="assistant", kind="tool_call", content='weather({"city": "Oslo"})')
RESULT = Message(role="tool", kind="tool_result", content="12 degrees, rain", author="weather")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK's tracer complains of each asynchronous stream that is dropped, with a traceback that pytest would keep,
    # and with it the stream.
    monkeypatch.setattr(logging.getLogger("opentelemetry.context"), "disabled", True)


@contextmanager
def made(address: str) -> Iterator[xai_sdk.Client]:
    client = xai_sdk.Client(api_key="key", api_host=address, use_insecure_channel=True)
    try:
        yield client
    finally:
        client.close()


@asynccontextmanager
async def amade(address: str) -> AsyncIterator[xai_sdk.AsyncClient]:
    client = xai_sdk.AsyncClient(api_key="key", api_host=address, use_insecure_channel=True)
    try:
        yield client
    finally:
        await client.close()


class TestEveryCall(CaptureSuite):
    adapter = adapter
    calls = XAI_CALLS
    sdk = SDK  # type: ignore[assignment]
    provider = "xai"

    @pytest.fixture
    def server(self) -> Iterator[ProviderServer]:
        yield ProviderServer()  # noqa: PT022 - it answers by gRPC only; the suite's own has to be closed

    @pytest.fixture
    def address(self, server: ProviderServer) -> Iterator[str]:
        with XAIServer(server) as running:
            yield running.host

    def client(self, address: str) -> AbstractContextManager[Any]:
        return made(address)

    def async_client(self, address: str) -> AbstractAsyncContextManager[Any]:
        return amade(address)

    def touched(self, client: Any) -> list[Any]:
        return [client, client.chat, client.chat._stub]


@pytest.fixture
def server() -> ProviderServer:
    return ProviderServer()


@pytest.fixture
def address(server: ProviderServer) -> Iterator[str]:
    with XAIServer(server) as running:
        yield running.host


@pytest.fixture
def hooks() -> ListeningHooks:
    return ListeningHooks()


@pytest.fixture
def client(address: str, hooks: ListeningHooks) -> Iterator[Any]:
    with made(address) as client:
        adapter.register(client, hooks)
        yield client


class TestRegistration:
    def test_is_found_by_the_registry(self, client: Any) -> None:
        """Fails when the entry point does not lead to this adapter."""
        assert client_adapter(client) is adapter

    def test_is_honoured_by_chats_from_before(
        self, address: str, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a chat that was made earlier goes round memori."""
        with made(address) as client:
            chat = client.chat.create(model="grok-4", messages=[user(QUESTION)])
            adapter.register(client, hooks)
            chat.sample()
        assert hooks.turn.said == "Understood."
        assert BLOCK in server.requests[0].text

    def test_refuses_what_makes_no_calls(self, client: Any, hooks: ListeningHooks) -> None:
        """Fails when a part of a client is taken without a word."""
        with pytest.raises(ConfigurationError, match="Client: pass the client itself"):
            adapter.register(client.chat, hooks)
        assert not adapter.unregister(client.chat, hooks)
        assert not adapter.unregister(None, hooks)

    def test_leaves_the_stub_all_it_can_do(self, client: Any) -> None:
        """Fails when a method of the stub loses what grpc gives it beside being called."""
        assert client.chat._stub.GetCompletion.with_call
        assert client.chat._stub.GetCompletionChunk._method


class TestRequests:
    @pytest.mark.parametrize(
        "messages",
        [
            [user(QUESTION)],
            [system("Be brief."), user("Hello."), assistant("Hi!"), user(QUESTION)],
            [user(QUESTION, image("https://files/cat.png"))],
            [user(QUESTION), assistant("I think")],
            [user("x" * 100_000), assistant(""), user(QUESTION)],
        ],
        ids=["one", "several", "parts", "opened answer", "long and empty"],
    )
    def test_carry_the_block_and_what_they_carried(
        self, messages: list[Any], address: str, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a request is more, or less, than the original and the block, or the chat's own messages change."""
        with made(address) as client:
            chat = client.chat.create(
                model="grok-4", messages=messages, temperature=0.5, tools=[tool("weather", "The weather", {})]
            )
            before = [message.SerializeToString() for message in chat.messages]
            chat.sample()
            adapter.register(client, hooks)
            chat.sample()
            assert [message.SerializeToString() for message in chat.messages] == before
        plain, enriched = (copy.deepcopy(dict(request.body)) for request in server.requests)
        roles = [message["role"] for message in plain["messages"]]
        place = max(at for at, role in enumerate(roles) if role == "ROLE_USER")
        plain["messages"].insert(place, {"role": "ROLE_USER", "content": [{"text": BLOCK}]})
        assert enriched == plain
        assert server.requests[1].headers["authorization"] == "Bearer key"

    def test_without_a_users_message_pass_untouched(
        self, client: Any, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a request with nothing to recall for is given a block somewhere."""
        client.chat.create(model="grok-4", messages=[system("Begin.")]).sample()
        assert BLOCK not in server.requests[0].text
        assert hooks.turn.said == "Understood."

    def test_take_memories_in_the_system_role_after_the_applications_own(
        self, client: Any, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when injection_role="system" goes before the application's prompt."""
        hooks.role = "system"
        client.chat.create(model="grok-4", messages=[system("Be brief."), user(QUESTION)]).sample()
        client.chat.create(model="grok-4", messages=[user(QUESTION)]).sample()
        first, second = ([(turn.role, turn.text) for turn in request.turns] for request in server.requests)
        assert first == [("system", "Be brief."), ("system", BLOCK), ("user", QUESTION)]
        assert second == [("system", BLOCK), ("user", QUESTION)]

    def test_that_are_deferred_pass_untouched(self, client: Any, hooks: ListeningHooks, server: ProviderServer) -> None:
        """Fails when a deferred completion, which is documented to go its own way, does not work any more."""
        server.script(Reply(text="At last."))
        assert client.chat.create(model="grok-4", messages=[user(QUESTION)]).defer().content == "At last."
        assert hooks.turns == []
        assert BLOCK not in server.requests[0].text

    def test_that_are_retried_are_one_turn(self, client: Any, hooks: ListeningHooks, server: ProviderServer) -> None:
        """Fails when the SDK's own retry recalls, injects or records a second time."""
        server.script(Reply(status=503, error_message="try again"), Reply(text="At last."))
        assert client.chat.create(model="grok-4", messages=[user(QUESTION)]).sample().content == "At last."
        assert hooks.turn.said == "At last."
        assert [request.text.count(BLOCK) for request in server.requests] == [1, 1]


class TestConversations:
    @pytest.mark.parametrize("stream", [False, True])
    def test_keep_their_messages_clean(
        self, stream: bool, client: Any, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when what was injected stays in a chat, and is sent again and again."""
        server.script(Reply(text="Blue it is."), Reply(text="You are welcome."))
        chat = client.chat.create(model="grok-4", messages=[system("Be brief.")])
        for text in ("My favorite color is blue.", "Thank you."):
            chat.append(user(text))
            chat.append([response for response, _ in chat.stream()][-1] if stream else chat.sample())
        assert BLOCK not in str(chat.messages)
        assert len(chat.messages) == 5
        assert server.requests[1].text.count(BLOCK) == 1
        first, second = hooks.turns
        assert second.sent == (*first.sent, *first.reply, Message(role="user", content="Thank you."))

    @pytest.mark.parametrize("stream", [False, True])
    def test_with_tools_are_read_as_they_are(
        self, stream: bool, client: Any, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when xAI's own tool loop, the response appended to the chat, breaks or is misread."""
        server.script(
            Reply(text="Let me look.", tool_calls=(ToolCall("weather", {"city": "Oslo"}, id="call_1"),)),
            Reply(text="Rain."),
        )
        declared = tool("weather", "The weather", {"type": "object", "properties": {}})
        chat = client.chat.create(model="grok-4", messages=[user("Weather in Oslo?")], tools=[declared])
        response = [response for response, _ in chat.stream()][-1] if stream else chat.sample()
        assert response.tool_calls[0].function.name == "weather"
        chat.append(response)
        chat.append(tool_result("12 degrees, rain"))
        chat.sample()
        asked, answered = hooks.turns
        look = Message(role="assistant", content="Let me look.")
        assert asked.reply == (look, CALL)
        assert answered.sent == (ASKED, look, CALL, RESULT)
        assert answered.said == "Rain."
        assert [turn.text for turn in server.requests[1].turns][:2] == [BLOCK, "Weather in Oslo?"]


class TestStreams:
    def test_that_are_dropped_are_recorded_at_once(
        self, client: Any, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a stream left by a break waits for the garbage collector, or goes on at xAI's expense."""
        server.script(Reply(text="one two three four five", chunk_delay_s=0.2))
        gc.disable()
        try:
            for _ in client.chat.create(model="grok-4", messages=[user(QUESTION)]).stream():
                break
            assert hooks.turn.said == "one"
            assert hooks.turn.partial is True
            assert hooks.turn.waited is False
            deadline = time.monotonic() + 5
            while not server.aborted and time.monotonic() < deadline:
                time.sleep(0.01)
            assert server.aborted == 1
        finally:
            gc.enable()

    def test_keep_what_grpc_says_of_their_call(self, client: Any, hooks: ListeningHooks) -> None:
        """Fails when a streamed call that is used directly has lost its code, its metadata or its cancellation."""
        stub, request = (
            client.chat._stub,
            client.chat.create(model="grok-4", messages=[user(QUESTION)])._make_request(1),
        )
        read = stub.GetCompletionChunk(request)
        assert [chunk.model for chunk in read] == ["grok-4"]
        assert read.code() is grpc.StatusCode.OK
        assert read.trailing_metadata() is not None
        cancelled = stub.GetCompletionChunk(request, timeout=5)
        cancelled.cancel()
        with pytest.raises(grpc.RpcError) as error:
            list(cancelled)
        assert error.value.code() is grpc.StatusCode.CANCELLED
        assert [turn.finishes for turn in hooks.turns] == [1, 0]

    def test_of_an_asynchronous_client_do_so_too(self, address: str, hooks: ListeningHooks) -> None:
        """Fails when an asynchronous call that is used directly has lost its code, or cannot be given up beforehand."""

        async def main() -> None:
            async with amade(address) as client:
                adapter.register(client, hooks)
                request: Any = client.chat.create(model="grok-4", messages=[user(QUESTION)])._make_request(1)
                read: Any = client.chat._stub.GetCompletionChunk(request)
                assert [chunk.model async for chunk in read] == ["grok-4"]
                assert await read.code() is grpc.StatusCode.OK
                given_up: Any = client.chat._stub.GetCompletionChunk(request)
                assert given_up.cancel()
                assert not given_up.cancel()
                assert [chunk async for chunk in given_up] == []

        asyncio.run(main())
        assert len(hooks.turns) == 1
        assert hooks.turn.said == "Understood."

    def test_cancelled_in_the_middle_keep_what_came(
        self, address: str, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a cancelled task loses its turn, waits for it, or is not cancelled."""
        server.script(Reply(text="one two three four five", chunk_delay_s=0.05))

        async def main() -> None:
            heard: list[Any] = []

            async def listen(chat: Any) -> None:
                async for _, chunk in chat.stream():
                    heard.append(chunk)

            async with amade(address) as client:
                adapter.register(client, hooks)
                task = asyncio.create_task(listen(client.chat.create(model="grok-4", messages=[user(QUESTION)])))
                async with asyncio.timeout(5):
                    while len(heard) < 2:  # noqa: ASYNC110 - what is waited for is the loop itself
                        await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(main())
        assert hooks.turn.waited is False
        assert hooks.turn.partial is True
        assert "one two three four five".startswith(hooks.turn.said)
        assert hooks.turn.said


class TestTimeouts:
    @pytest.mark.parametrize("colour", ["sync", "async"])
    def test_are_the_callers_own(
        self, colour: Colour, address: str, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a deadline of the client's is swallowed, or an unanswered call is recorded."""
        server.script(Reply(text="Too late.", delay_s=5))
        options: dict[str, Any] = {"api_key": "key", "api_host": address, "use_insecure_channel": True, "timeout": 0.2}

        def ask() -> None:
            client = xai_sdk.Client(**options)
            adapter.register(client, hooks)
            try:
                client.chat.create(model="grok-4", messages=[user(QUESTION)]).sample()
            finally:
                client.close()

        async def aask() -> None:
            client = xai_sdk.AsyncClient(**options)
            adapter.register(client, hooks)
            try:
                await client.chat.create(model="grok-4", messages=[user(QUESTION)]).sample()
            finally:
                await client.close()

        with pytest.raises(grpc.RpcError) as error:
            ask() if colour == "sync" else asyncio.run(aask())
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert [turn.finishes for turn in hooks.turns] == [0]
