"""Capture of Google's Gen AI SDK: the real SDK, over real HTTP, against a provider on this machine."""

from __future__ import annotations

import asyncio
import copy
import gc
import ssl
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import pytest
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.genai import types
from google.genai.version import __version__
from google.oauth2.credentials import Credentials

from memori.capture.google import adapter
from memori.capture.registry import client_adapter
from memori.errors import ConfigurationError
from memori.testing.capture import QUESTION, CaptureSuite
from memori.testing.google_calls import GOOGLE_CALLS
from memori.testing.listening import BLOCK, ListeningHooks
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori.types import Message

# The SDK's own doing, in its asynchronous half when aiohttp is installed.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

SDK = tuple(int(part) for part in __version__.split(".")[:2])
MODEL = "gemini-2.5-flash"
CALL = Message(role="assistant", kind="tool_call", content='weather({"city": "Oslo"})')
RESULT = Message(role="tool", kind="tool_result", content="12 degrees, rain", author="weather")


def weather(city: str) -> str:
    """Return the weather."""
    return "12 degrees, rain"


weather.__annotations__ = {"city": str, "return": str}  # SDKs before version 3 cannot call what has them as text.


# One for all clients: each would take its time to read the machine's certificates, which none of them needs.
TLS = ssl.create_default_context()


def options(address: str) -> Any:
    return {"base_url": address, "client_args": {"verify": TLS}, "async_client_args": {"verify": TLS, "ssl": TLS}}


@contextmanager
def made(address: str) -> Iterator[genai.Client]:
    with genai.Client(api_key="key", http_options=options(address)) as client:
        yield client


@asynccontextmanager
async def amade(address: str) -> AsyncIterator[Any]:
    with made(address) as client:
        try:
            yield client.aio
        finally:
            await client.aio.aclose()


class TestEveryCall(CaptureSuite):
    adapter = adapter
    calls = GOOGLE_CALLS
    sdk = SDK  # type: ignore[assignment]
    provider = "google"

    def client(self, address: str) -> AbstractContextManager[genai.Client]:
        return made(address)

    def async_client(self, address: str) -> AbstractAsyncContextManager[Any]:
        return amade(address)

    def touched(self, client: Any) -> list[Any]:
        return [client, client.models, *([client.aio.models] if isinstance(client, genai.Client) else [])]


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def hooks() -> ListeningHooks:
    return ListeningHooks()


@pytest.fixture
def client(server: ProviderServer, hooks: ListeningHooks) -> Iterator[genai.Client]:
    with made(server.url) as client:
        adapter.register(client, hooks)
        yield client


def texts(contents: Any) -> list[tuple[str, list[str | None]]]:
    return [(content.role, [part.text for part in content.parts]) for content in contents]


class TestRegistration:
    def test_of_a_client_is_that_of_both_its_halves(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when the asynchronous half of a registered client, or one of its chats from before, is not heard."""

        async def main() -> None:
            with made(server.url) as client:
                chat = client.aio.chats.create(model=MODEL)
                adapter.register(client, hooks)
                await client.aio.models.generate_content(model=MODEL, contents=QUESTION)
                await chat.send_message(QUESTION)
                await client.aio.aclose()

        asyncio.run(main())
        assert [turn.said for turn in hooks.turns] == ["Understood."] * 2

    def test_takes_subclasses(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when a client of one's own making is refused or not listened to."""

        class Ours(genai.Client):
            pass

        with Ours(api_key="key", http_options=options(server.url)) as client:
            client_adapter(client).register(client, hooks)
            client.models.generate_content(model=MODEL, contents=QUESTION)
        assert hooks.turn.said == "Understood."

    def test_refuses_what_makes_no_calls(self, client: genai.Client, hooks: ListeningHooks) -> None:
        """Fails when a part of a client is taken without a word."""
        with pytest.raises(ConfigurationError, match="Models: pass the client itself"):
            adapter.register(client.models, hooks)
        assert not adapter.unregister(client.models, hooks)
        assert not adapter.unregister(None, hooks)

    def test_leaves_googles_other_clients_to_others(self) -> None:
        """Fails when this adapter claims all that is within Google's namespace."""
        with pytest.raises(ConfigurationError, match="AnonymousCredentials, which no adapter knows"):
            client_adapter(AnonymousCredentials())  # type: ignore[no-untyped-call]

    def test_takes_vertex_ai(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when a client of Vertex AI, whose paths name project and location, goes round memori."""
        with genai.Client(
            vertexai=True,
            project="p",
            location="l",
            credentials=Credentials("token"),  # type: ignore[no-untyped-call]
            http_options=options(server.url),
        ) as client:
            adapter.register(client, hooks)
            client.models.generate_content(model=MODEL, contents=QUESTION)
        assert hooks.turn.said == "Understood."
        assert "/projects/p/locations/l/" in server.requests[0].path
        assert BLOCK in server.requests[0].text


class TestRequests:
    @pytest.mark.parametrize(
        "contents",
        [
            QUESTION,
            types.Part(text=QUESTION),
            {"text": QUESTION},
            types.UserContent(QUESTION),
            {"role": "user", "parts": [{"text": QUESTION}]},
            {"parts": [{"text": QUESTION}]},
            [QUESTION],
            [types.Part(text=QUESTION)],
            [[QUESTION]],
            ["Hello.", QUESTION],
            [types.UserContent("Hello."), types.ModelContent("Hi!"), QUESTION],
            [types.UserContent("Hello."), {"role": "model", "parts": [{"text": "Hi!"}]}, types.Part(text=QUESTION)],
            [QUESTION, types.Part.from_bytes(data=b"png", mime_type="image/png")],
            [types.Part.from_uri(file_uri="gs://files/cat.png", mime_type="image/png"), QUESTION],
            [QUESTION, types.ModelContent("I think")],
        ],
        ids=repr,
    )
    def test_carry_the_block_and_what_they_carried(
        self, contents: Any, server: ProviderServer, hooks: ListeningHooks
    ) -> None:
        """Fails when a request is more, or less, than the original and the block, or the caller's objects change."""
        before = copy.deepcopy(contents)
        with made(server.url) as client:
            client.models.generate_content(model=MODEL, contents=contents)
            adapter.register(client, hooks)
            client.models.generate_content(model=MODEL, contents=contents)
        plain, enriched = (copy.deepcopy(dict(request.body)) for request in server.requests)
        place = max(at for at, content in enumerate(plain["contents"]) if content.get("role", "user") == "user")
        plain["contents"][place]["parts"].insert(0, {"text": BLOCK})
        assert enriched == plain
        assert contents == before
        assert QUESTION in hooks.turn.sent[-1].content or hooks.turn.sent[-1].role == "assistant"

    def test_never_come_between_a_function_and_its_answer(
        self, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when the block is put where Gemini wants a function's response, or the hop asks another question."""
        call = types.Part.from_function_call(name="weather", args={"city": "Oslo"})
        answer = types.Part.from_function_response(name="weather", response={"result": "12 degrees, rain"})
        contents: Any = [
            types.UserContent("Weather in Oslo?"),
            types.ModelContent(call),
            types.UserContent([answer]),
        ]
        client.models.generate_content(model=MODEL, contents=contents)
        sent = server.requests[0].body["contents"]
        assert sent[0]["parts"] == [{"text": BLOCK}, {"text": "Weather in Oslo?"}]
        assert [len(content["parts"]) for content in sent] == [2, 1, 1]
        assert hooks.turn.sent == (Message(role="user", content="Weather in Oslo?"), CALL, RESULT)

    def test_without_a_users_content_pass_untouched(
        self, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a request with nothing to recall for is given a block somewhere."""
        client.models.generate_content(model=MODEL, contents=types.ModelContent("I think"))
        assert BLOCK not in server.requests[0].text
        assert hooks.turn.said == "Understood."

    @pytest.mark.parametrize(
        "config",
        [
            {"system_instruction": "Be brief.", "temperature": 0.5},
            {"systemInstruction": {"parts": [{"text": "Be brief."}]}},
            types.GenerateContentConfig(system_instruction=types.Content(parts=[types.Part(text="Be brief.")])),
        ],
        ids=["mapping", "camel case", "object"],
    )
    def test_keep_the_system_instruction_unless_told_otherwise(
        self, config: Any, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when the block gets into the system instruction uninvited, or asked to go there goes elsewhere."""
        before = copy.deepcopy(config)
        for role in ("user", "system"):
            hooks.role = role
            client.models.generate_content(model=MODEL, contents=QUESTION, config=config)
        user, system = ([(turn.role, turn.text) for turn in request.turns] for request in server.requests)
        assert user == [("system", "Be brief."), ("user", BLOCK), ("user", QUESTION)]
        assert system == [("system", "Be brief."), ("system", BLOCK), ("user", QUESTION)]
        assert server.requests[0].body.get("generationConfig") == server.requests[1].body.get("generationConfig")
        assert config == before

    def test_in_the_system_role_need_no_instruction_of_the_applications(
        self, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when there is no system instruction to append to, and the memories are lost."""
        hooks.role = "system"
        client.models.generate_content(model=MODEL, contents=QUESTION)
        assert [(turn.role, turn.text) for turn in server.requests[0].turns] == [("system", BLOCK), ("user", QUESTION)]

    def test_of_a_cached_content_keep_out_of_its_system_instruction(
        self, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a call with a cached content is made one that Gemini refuses."""
        hooks.role = "system"
        client.models.generate_content(model=MODEL, contents=QUESTION, config={"cached_content": "cachedContents/1"})
        assert [(turn.role, turn.text) for turn in server.requests[0].turns] == [("user", BLOCK), ("user", QUESTION)]

    def test_that_are_no_conversation_pass_untouched(
        self, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when counting tokens or embedding is taken for a conversation."""
        assert client.models.count_tokens(model=MODEL, contents=QUESTION).total_tokens == len(QUESTION.split())
        assert client.models.embed_content(model="gemini-embedding-001", contents=QUESTION).embeddings
        assert hooks.turns == []
        assert BLOCK not in str([request.body for request in server.requests])

    def test_that_the_sdk_refuses_raise_its_own_error(self, client: genai.Client, hooks: ListeningHooks) -> None:
        """Fails when a mistake in a call is answered by another error than the SDK's."""
        with pytest.raises(ValueError, match="contents are required"):
            client.models.generate_content(model=MODEL, contents=[])
        with pytest.raises(TypeError):
            client.models.generate_content(MODEL, QUESTION)  # type: ignore[call-arg]
        assert [turn.finishes for turn in hooks.turns] == []


class TestChats:
    @pytest.mark.parametrize("stream", [False, True])
    def test_keep_their_history_clean(
        self, stream: bool, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when what was injected stays in a chat, and is sent again and again."""
        server.script(Reply(text="Blue it is."), Reply(text="You are welcome."))
        chat = client.chats.create(model=MODEL)
        for text in ("My favorite color is blue.", "Thank you."):
            if stream:
                list(chat.send_message_stream(text))
            else:
                chat.send_message(text)
        assert BLOCK not in str(chat.get_history())
        assert [content.role for content in chat.get_history() if content.role == "user"] == ["user", "user"]
        assert server.requests[1].text.count(BLOCK) == 1
        first, second = hooks.turns
        # What was said is known by what it says: a streamed reply is one message, not one for each chunk.
        assert second.sent[:2] == (*first.sent, *first.reply)
        assert second.sent[2:] == (Message(role="user", content="Thank you."),)

    @pytest.mark.parametrize("stream", [False, True])
    def test_that_call_functions_tell_each_message_once(
        self, stream: bool, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when automatic function calling in a chat loses a message, or leaves the block in its history."""
        server.script(Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}),)), Reply(text="Rain."))
        chat = client.chats.create(model=MODEL, config=types.GenerateContentConfig(tools=[weather]))
        if stream:
            list(chat.send_message_stream("Weather in Oslo?"))
        else:
            chat.send_message("Weather in Oslo?")
        told: list[Message] = []
        for turn in hooks.turns:
            assert turn.finishes == 1
            told += [message for message in (*turn.sent, *turn.reply) if message not in told]
        asked, answered = Message(role="user", content="Weather in Oslo?"), Message(role="assistant", content="Rain.")
        assert told == [asked, CALL, RESULT, answered]
        assert [request.text.count(BLOCK) for request in server.requests] == [1, 1]
        assert BLOCK not in str(chat.get_history())
        roles = [content.role for content in chat.get_history()]
        assert roles == ["user", "model", "user", "model"]


class TestFunctionCalling:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("colour", ["sync", "async"])
    def test_is_one_exchange_with_one_recall(
        self, colour: str, stream: bool, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a function that the SDK calls by itself is recorded hop by hop, or recalled for anew."""
        server.script(Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}),)), Reply(text="Rain."))
        asked: dict[str, Any] = {
            "model": MODEL,
            "contents": ["Weather in Oslo?"],
            "config": types.GenerateContentConfig(tools=[weather]),
        }

        async def ask() -> Any:
            if not stream:
                return await client.aio.models.generate_content(**asked)
            chunks = [chunk async for chunk in await client.aio.models.generate_content_stream(**asked)]
            return chunks[-1]

        async def main() -> Any:
            response = await ask()
            await client.aio.aclose()
            return response

        if colour == "async":
            response = asyncio.run(main())
        elif stream:
            response = list(client.models.generate_content_stream(**asked))[-1]
        else:
            response = client.models.generate_content(**asked)
        assert response.text == "Rain."
        assert hooks.turn.sent == (Message(role="user", content="Weather in Oslo?"),)
        assert hooks.turn.reply == (CALL, RESULT, Message(role="assistant", content="Rain."))
        assert [request.text.count(BLOCK) for request in server.requests] == [1, 1]
        assert texts(response.automatic_function_calling_history)[0] == ("user", ["Weather in Oslo?"])
        assert BLOCK not in str(response.automatic_function_calling_history)

    @pytest.mark.parametrize("stream", [False, True])
    def test_by_the_caller_is_the_conversation(
        self, stream: bool, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a loop of the caller's own, the reply's content appended to the contents, is misread."""
        server.script(Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}),)), Reply(text="Rain."))
        declared = types.FunctionDeclaration(name="weather", parameters_json_schema={"type": "object"})
        config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
        contents: Any = [types.UserContent("Weather in Oslo?")]
        for _ in range(2):
            if stream:
                responses = list(client.models.generate_content_stream(model=MODEL, contents=contents, config=config))
            else:
                responses = [client.models.generate_content(model=MODEL, contents=contents, config=config)]
            candidates = [candidate for response in responses for candidate in response.candidates or ()]
            contents += [candidate.content for candidate in candidates]
            answer = types.Part.from_function_response(name="weather", response={"result": "12 degrees, rain"})
            contents.append(types.UserContent(answer))
        asked, answered = hooks.turns
        assert asked.reply == (CALL,)
        assert answered.sent == (Message(role="user", content="Weather in Oslo?"), CALL, RESULT)
        assert answered.said == "Rain."


class TestStreams:
    def test_that_are_dropped_are_recorded_at_once(self, client: genai.Client, hooks: ListeningHooks) -> None:
        """Fails when a stream left by a break has to wait for the garbage collector, and so may miss the exit."""
        gc.disable()
        try:
            for _ in client.models.generate_content_stream(model=MODEL, contents=QUESTION):
                break
            assert hooks.turn.said == "Understood."
            assert hooks.turn.waited is False
        finally:
            gc.enable()

    def test_that_nobody_reads_ask_nothing(
        self, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a stream of which no chunk was asked for, so that no request was made, is recorded."""
        client.models.generate_content_stream(model=MODEL, contents=QUESTION).close()  # type: ignore[attr-defined]
        gc.collect()
        assert [turn.finishes for turn in hooks.turns] == [0]
        assert server.requests == []

    def test_left_after_their_last_word_are_whole(
        self, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a caller that leaves at the finish reason makes the reply a partial one."""
        server.script(Reply(text="one two"))
        for chunk in client.models.generate_content_stream(model=MODEL, contents=QUESTION):
            assert chunk.candidates
            if chunk.candidates[0].finish_reason:
                break
        assert hooks.turn.said == "one two"
        assert hooks.turn.partial is False

    def test_that_are_blocked_keep_what_was_asked(
        self, client: genai.Client, hooks: ListeningHooks, server: ProviderServer
    ) -> None:
        """Fails when a reply without candidates breaks the reading, or counts as cut off."""
        server.script(*[Reply(refusal="blocked")] * 2)
        list(client.models.generate_content_stream(model=MODEL, contents=QUESTION))
        client.models.generate_content(model=MODEL, contents=QUESTION)
        assert hooks.failures == []
        assert [(turn.finishes, turn.reply, turn.partial) for turn in hooks.turns] == [(1, (), False)] * 2

    def test_cancelled_in_the_middle_keep_what_came(self, server: ProviderServer, hooks: ListeningHooks) -> None:
        """Fails when a cancelled task loses its turn, waits for it, or is not cancelled."""
        server.script(Reply(text="one two three four five", chunk_delay_s=0.05))

        async def main() -> None:
            heard: list[Any] = []

            async def listen(models: Any) -> None:
                stream = await models.generate_content_stream(model=MODEL, contents=QUESTION)
                async for chunk in stream:
                    heard.append(chunk)  # noqa: PERF401 - one at a time is what is tried

            async with amade(server.url) as client:
                adapter.register(client, hooks)
                task = asyncio.create_task(listen(client.models))
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


class TestReplies:
    def test_keep_their_types(self, client: genai.Client, server: ProviderServer) -> None:
        """Fails when what the caller gets is another object than the SDK's own."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            response = client.models.generate_content(model=MODEL, contents=QUESTION)
            stream: Any = client.models.generate_content_stream(model=MODEL, contents=QUESTION)
            assert type(response) is types.GenerateContentResponse
            assert {type(chunk) for chunk in stream} == {types.GenerateContentResponse}
            assert next(stream, None) is None
            stream.close()
