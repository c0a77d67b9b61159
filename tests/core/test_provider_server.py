"""The local provider server, asked by the real OpenAI SDK in both colours."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from operator import attrgetter, mul
from typing import Any

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI
from pydantic import BaseModel

from memori.injection import block
from memori.testing.provider import ProviderRequest, ProviderServer, Reply, ToolCall, answer_from_context
from memori.types import Recollection

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello there"}]
CHAT = "chat.completions"
ENTRIES = pytest.mark.parametrize("entry", [CHAT, "responses"])
WEATHER_CALL = ToolCall("weather", {"city": "São Paulo", "days": 3}, id="call_fixed")


class City(BaseModel):
    name: str
    country: str


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


class Ask:
    """One call of the real SDK, in one colour, over a client of its own."""

    def __init__(self, server: ProviderServer, colour: str) -> None:
        self.server = server
        self.asynchronous = colour == "async"

    def client(self, kinds: tuple[type[OpenAI], type[AsyncOpenAI]] = (OpenAI, AsyncOpenAI), **options: Any) -> Any:
        if kinds == (OpenAI, AsyncOpenAI):
            options["base_url"] = f"{self.server.url}/v1"
        # Without verify=False each client reads the certificates of all authorities first: 100 ms.
        if self.asynchronous:
            return kinds[1](api_key="local", http_client=DefaultAsyncHttpxClient(verify=False), **options)
        return kinds[0](api_key="local", http_client=DefaultHttpxClient(verify=False), **options)

    def __call__(self, entry: str, *, until: int | None = None, max_retries: int = 0, **arguments: Any) -> Any:
        """Return what *entry* answers; of a stream the list of its events, or the first *until* and then a close."""
        return self.over(self.client(max_retries=max_retries), entry, until=until, **arguments)

    def over(self, client: OpenAI | AsyncOpenAI, entry: str, *, until: int | None = None, **arguments: Any) -> Any:
        if isinstance(client, AsyncOpenAI):
            return asyncio.run(self._asynchronous(client, entry, until, arguments))
        with client:
            answer = attrgetter(entry)(client)(**arguments)
            if not arguments.get("stream"):
                return answer
            events = []
            with answer:
                for event in answer:
                    events.append(event)
                    if len(events) == until:
                        break
            return events

    async def _asynchronous(self, client: AsyncOpenAI, entry: str, until: int | None, arguments: dict[str, Any]) -> Any:
        async with client:
            answer = await attrgetter(entry)(client)(**arguments)
            if not arguments.get("stream"):
                return answer
            events = []
            async with answer:
                async for event in answer:
                    events.append(event)
                    if len(events) == until:
                        break
            return events

    def final(self, entry: str, **arguments: Any) -> Any:
        """Return what the SDK's own accumulator makes of ``entry.stream()``."""
        name = "get_final_completion" if entry == CHAT else "get_final_response"
        if self.asynchronous:

            async def run() -> Any:
                async with self.client() as client, attrgetter(entry)(client).stream(**arguments) as stream:
                    return await getattr(stream, name)()

            return asyncio.run(run())
        with self.client() as client, attrgetter(entry)(client).stream(**arguments) as stream:
            return getattr(stream, name)()


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, server: ProviderServer) -> Ask:
    return Ask(server, request.param)


def sent(entry: str, messages: list[dict[str, Any]] = HELLO, **more: Any) -> dict[str, Any]:
    """Return the arguments of a call of either API that says *messages*."""
    return {"model": "local", ("messages" if entry == CHAT else "input"): messages, **more}


def eventually(condition: Callable[[], bool]) -> bool:
    """Return whether *condition* comes true within five seconds."""
    end = time.monotonic() + 5
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return met


class TestChatCompletions:
    def test_a_plain_call_is_answered_by_the_default(self, ask: Ask) -> None:
        """Fails when the body is no chat completion: id, model, choice, finish reason, usage."""
        completion = ask("chat.completions.create", **sent(CHAT))
        choice = completion.choices[0]
        assert (choice.message.role, choice.message.content, choice.finish_reason) == (
            "assistant",
            "Understood.",
            "stop",
        )
        assert completion.object == "chat.completion"
        assert completion.model == "local"
        assert completion.id.startswith("chatcmpl-")
        assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (2, 1)
        assert completion.usage.total_tokens == 3

    def test_ids_are_unique(self, ask: Ask) -> None:
        """Fails when two completions share an id: whoever files them by it would lose one."""
        assert len({ask("chat.completions.create", **sent(CHAT)).id for _ in range(3)}) == 3

    def test_a_stream_comes_word_by_word(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when pieces are lost, joined, or carry no role, finish reason or common id."""
        server.script(Reply(text="  It is\nsunny,  mostly. "))
        chunks = ask("chat.completions.create", **sent(CHAT, stream=True))
        pieces = [chunk.choices[0].delta.content for chunk in chunks]
        assert pieces == ["", "  It", " is", "\nsunny,", "  mostly.", " ", None]
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 6 + ["stop"]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert len({chunk.id for chunk in chunks}) == 1
        assert {chunk.usage for chunk in chunks} == {None}

    def test_a_stream_counts_tokens_when_asked(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when include_usage does not add a last chunk without choices, with the usage."""
        server.script(Reply(text="one two three"))
        chunks = ask("chat.completions.create", **sent(CHAT, stream=True, stream_options={"include_usage": True}))
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens == 3
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)

    def test_tool_calls(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a call's name, arguments or id are not as scripted, or content stands beside it."""
        server.script(Reply(tool_calls=(WEATHER_CALL, ToolCall("clock"))))
        choice = ask("chat.completions.create", **sent(CHAT)).choices[0]
        first, second = choice.message.tool_calls
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert (first.id, first.type, first.function.name) == ("call_fixed", "function", "weather")
        assert json.loads(first.function.arguments) == {"city": "São Paulo", "days": 3}
        assert second.id != first.id
        assert second.function.arguments == "{}"

    def test_tool_calls_are_streamed_in_fragments(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when the fragments do not add up, or the arguments come in one piece."""
        server.script(Reply(text="Let me see.", tool_calls=(WEATHER_CALL, ToolCall("clock"))))
        chunks = ask("chat.completions.create", **sent(CHAT, stream=True))
        fragments = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Let me see."
        names = [(call.index, call.function.name) for call in fragments if call.id]
        assert names == [(0, "weather"), (1, "clock")]
        assert fragments[0].id == "call_fixed"
        weather = [call.function.arguments for call in fragments if call.index == 0]
        assert len(weather) > 3
        assert json.loads("".join(weather)) == {"city": "São Paulo", "days": 3}
        assert "".join(call.function.arguments for call in fragments if call.index == 1) == "{}"
        assert chunks[-1].choices[0].finish_reason == "tool_calls"

    def test_the_sdk_accumulates_the_stream(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when the SDK's own accumulator reads something else out of the chunks than was scripted."""
        server.script(Reply(text="Let me see.", tool_calls=(WEATHER_CALL,)))
        message = ask.final(CHAT, **sent(CHAT)).choices[0].message
        assert message.content == "Let me see."
        assert json.loads(message.tool_calls[0].function.arguments) == {"city": "São Paulo", "days": 3}

    def test_parse(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a structured reply does not reach the SDK's parser, or its schema not the server."""
        server.script(Reply(text='{"name": "Rome", "country": "Italy"}'))
        message = ask("chat.completions.parse", **sent(CHAT, response_format=City)).choices[0].message
        assert message.parsed == City(name="Rome", country="Italy")
        assert server.requests[0].body["response_format"]["json_schema"]["name"] == "City"

    def test_n_choices(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when n is ignored, plain or streamed."""
        assert [c.index for c in ask("chat.completions.create", **sent(CHAT, n=3)).choices] == [0, 1, 2]
        chunks = ask("chat.completions.create", **sent(CHAT, n=2, stream=True))
        texts = ["", ""]
        for chunk in chunks:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        assert texts == ["Understood.", "Understood."]

    def test_refusals(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a refusal comes as content, plain, streamed or parsed."""
        server.script(*[Reply(refusal="I cannot help.")] * 3)
        message = ask("chat.completions.create", **sent(CHAT)).choices[0].message
        assert (message.content, message.refusal) == (None, "I cannot help.")
        chunks = ask("chat.completions.create", **sent(CHAT, stream=True))
        assert "".join(chunk.choices[0].delta.refusal or "" for chunk in chunks) == "I cannot help."
        assert not any(chunk.choices[0].delta.content for chunk in chunks)
        parsed = ask("chat.completions.parse", **sent(CHAT, response_format=City)).choices[0].message
        assert (parsed.parsed, parsed.refusal) == (None, "I cannot help.")


class TestResponses:
    def test_a_plain_call(self, ask: Ask) -> None:
        """Fails when the body is no response: text, status, usage, and what it repeats of the request."""
        response = ask("responses.create", model="local", input="Hello there", instructions="Be kind.", store=False)
        assert response.output_text == "Understood."
        assert (response.status, response.model, response.instructions) == ("completed", "local", "Be kind.")
        assert response.id.startswith("resp_")
        assert (response.usage.input_tokens, response.usage.output_tokens) == (4, 1)
        assert response.output[0].content[0].type == "output_text"

    def test_a_stream_has_every_event_in_order(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when an event is missing or misplaced, or the numbers have gaps."""
        server.script(Reply(text="Blue it is.", tool_calls=(WEATHER_CALL,)))
        events = ask("responses.create", **sent("responses", stream=True))
        kinds = [event.type.removeprefix("response.") for event in events]
        fragments = kinds.count("function_call_arguments.delta")
        assert fragments > 3
        assert kinds == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            *["output_text.delta"] * 3,
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            *["function_call_arguments.delta"] * fragments,
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Blue it is."
        assert events[-1].response.output_text == "Blue it is."
        assert events[0].response.id == events[-1].response.id
        assert events[0].response.output == []

    def test_function_calls(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a scripted call is no function_call item of its own."""
        server.script(Reply(tool_calls=(WEATHER_CALL,)))
        response = ask("responses.create", **sent("responses"))
        (item,) = response.output
        assert (item.type, item.name, item.call_id) == ("function_call", "weather", "call_fixed")
        assert json.loads(item.arguments) == {"city": "São Paulo", "days": 3}
        assert response.output_text == ""

    def test_the_sdk_accumulates_the_stream(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when the SDK's own accumulator rejects the sequence, or reads something else out of it."""
        server.script(Reply(text="Let me see.", tool_calls=(WEATHER_CALL,)), Reply(refusal="I cannot help."))
        response = ask.final("responses", **sent("responses"))
        assert response.output_text == "Let me see."
        assert json.loads(response.output[1].arguments) == {"city": "São Paulo", "days": 3}
        refused = ask.final("responses", **sent("responses"))
        assert refused.output[0].content[0].refusal == "I cannot help."

    def test_parse(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when text.format does not reach the server, or the reply not the SDK's parser."""
        server.script(*[Reply(text='{"name": "Rome", "country": "Italy"}')] * 2)
        response = ask("responses.parse", **sent("responses", text_format=City))
        assert response.output_parsed == City(name="Rome", country="Italy")
        assert server.requests[0].body["text"]["format"]["name"] == "City"
        streamed = ask.final("responses", **sent("responses", text_format=City))
        assert streamed.output_parsed == City(name="Rome", country="Italy")

    def test_refusals(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a refusal is no part of its own, plain or streamed."""
        server.script(*[Reply(refusal="I cannot help.")] * 2)
        plain = ask("responses.create", **sent("responses"))
        assert (plain.output[0].content[0].type, plain.output_text) == ("refusal", "")
        events = ask("responses.create", **sent("responses", stream=True))
        assert "".join(e.delta for e in events if e.type == "response.refusal.delta") == "I cannot help."


class TestEmbeddings:
    def test_floats_and_base64_are_the_same_unit_vector(self, ask: Ask) -> None:
        """Fails when the two encodings differ, the length is off, or a text has another vector the second time."""
        floats = ask("embeddings.create", model="e", input="green tea", encoding_format="float").data[0].embedding
        packed = ask("embeddings.create", model="e", input="green tea", encoding_format="base64").data[0].embedding
        unpacked = struct.unpack(f"<{len(floats)}f", base64.b64decode(packed))
        assert len(floats) == 1536
        assert unpacked == pytest.approx(floats, abs=1e-6)
        assert sum(value * value for value in floats) == pytest.approx(1.0)
        # The SDK asks for base64 by itself and unpacks it.
        assert ask("embeddings.create", model="e", input="green tea").data[0].embedding == pytest.approx(
            floats, abs=1e-6
        )

    def test_texts_that_share_words_are_closer(self, ask: Ask) -> None:
        """Fails when order is lost, dimensions are ignored, or vectors do not depend on the words."""
        texts = ["I like green tea", "green tea is what I like", "the car broke down yesterday"]
        answer = ask("embeddings.create", model="e", input=texts, dimensions=64)
        first, near, far = (item.embedding for item in answer.data)
        assert [item.index for item in answer.data] == [0, 1, 2]
        assert len(first) == 64
        assert answer.usage.prompt_tokens == 15
        assert sum(map(mul, first, near)) > 0.5 > sum(map(mul, first, far))

    @pytest.mark.parametrize("given", ["", ["a", ""], []])
    def test_empty_inputs_are_refused(self, ask: Ask, given: Any) -> None:
        """Fails when an input that OpenAI refuses is embedded."""
        with pytest.raises(openai.BadRequestError, match="'input'"):
            ask("embeddings.create", model="e", input=given)

    def test_scripted_answers_wait_for_a_model(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when an embedding takes the reply that the next chat call was to get, or a path's own is not taken."""
        server.script(Reply(text="for the chat"))
        server.script(Reply(status=503, error_message="warming up"), path="/embeddings")
        with pytest.raises(openai.InternalServerError, match="warming up"):
            ask("embeddings.create", model="e", input="tea")
        assert ask("embeddings.create", model="e", input="tea").data
        assert ask("chat.completions.create", **sent(CHAT)).choices[0].message.content == "for the chat"


class TestPaths:
    def test_models(self, ask: Ask) -> None:
        """Fails when the list of models is not one."""
        assert "gpt-4o-mini" in [model.id for model in ask("models.list").data]

    @ENTRIES
    def test_azure(self, ask: Ask, server: ProviderServer, entry: str) -> None:
        """Fails when Azure's paths are not answered, or the query is taken for a part of the path."""
        client = ask.client((AzureOpenAI, AsyncAzureOpenAI), azure_endpoint=server.url, api_version="2024-10-21")
        answer = ask.over(client, f"{entry}.create", **sent(entry))
        assert (answer.choices[0].message.content if entry == CHAT else answer.output_text) == "Understood."
        request = server.requests[0]
        assert request.path == ("/openai/deployments/local/chat/completions" if entry == CHAT else "/openai/responses")
        assert request.query == {"api-version": "2024-10-21"}

    def test_an_unknown_path_is_not_found(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when something else than the provider's 404 answers, or it takes a scripted reply."""
        server.script(Reply(text="for the chat"))
        with pytest.raises(openai.NotFoundError, match="Unknown request URL: POST /v1/moderations"):
            ask("moderations.create", input="x")
        assert ask("chat.completions.create", **sent(CHAT)).choices[0].message.content == "for the chat"

    @pytest.mark.parametrize("arguments", [{"model": "", "messages": HELLO}, {"model": "local", "messages": []}])
    def test_requests_that_make_no_sense_are_refused(self, ask: Ask, arguments: dict[str, Any]) -> None:
        """Fails when a request that a provider refuses with 400 is answered."""
        with pytest.raises(openai.BadRequestError):
            ask("chat.completions.create", **arguments)


class TestRequests:
    def test_are_kept_as_they_came(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when path, headers, body or order are not those of the requests."""
        ask("chat.completions.create", **sent(CHAT, temperature=0.5, extra_headers={"X-Trace": "Seven"}))
        ask("responses.create", **sent("responses"))
        first, second = server.requests
        assert (first.method, first.path, second.path) == ("POST", "/v1/chat/completions", "/v1/responses")
        assert first.headers["x-trace"] == "Seven"
        assert first.headers["authorization"] == "Bearer local"
        assert first.body == {"model": "local", "messages": HELLO, "temperature": 0.5}

    def test_the_list_is_a_copy(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a caller's changes of the list, or later requests, reach the one handed out."""
        before = server.requests
        ask("chat.completions.create", **sent(CHAT))
        assert before == []
        server.requests.clear()
        assert len(server.requests) == 1

    def test_text_of_a_chat(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a text is left out or out of order: parts, tool calls and results included, images not."""
        messages: list[dict[str, Any]] = [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "a cat"},
            {"role": "user", "content": "And?"},
        ]
        ask("chat.completions.create", model="local", messages=messages)
        assert server.requests[0].text == 'Be brief.\nWhat is this?\nlook({"at": 1})\na cat\nAnd?'

    def test_text_of_a_response(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a text is left out or out of order: instructions, items of every kind, a bare string."""
        items: list[dict[str, Any]] = [
            {"role": "user", "content": [{"type": "input_text", "text": "What is this?"}]},
            {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"at": 1}'},
            {"type": "function_call_output", "call_id": "c", "output": "a cat"},
            {"role": "user", "content": "And?"},
        ]
        ask("responses.create", model="local", instructions="Be brief.", input=items)
        ask("responses.create", model="local", input="Only this")
        assert server.requests[0].text == 'Be brief.\nWhat is this?\nlook({"at": 1})\na cat\nAnd?'
        assert server.requests[1].text == "Only this"


class TestFailures:
    @ENTRIES
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, openai.BadRequestError),
            (401, openai.AuthenticationError),
            (404, openai.NotFoundError),
            (429, openai.RateLimitError),
            (500, openai.InternalServerError),
            (529, openai.InternalServerError),
        ],
    )
    def test_statuses(
        self, ask: Ask, server: ProviderServer, entry: str, status: int, error: type[openai.APIStatusError]
    ) -> None:
        """Fails when the SDK does not raise its typed error with the message, for a stream as well."""
        server.script(*[Reply(status=status, error_message="that went wrong", headers={"X-Why": "test"})] * 2)
        for stream in (False, True):
            with pytest.raises(error, match="that went wrong") as caught:
                ask(f"{entry}.create", **sent(entry, stream=stream))
            assert caught.value.status_code == status
            assert caught.value.response.headers["x-why"] == "test"
            assert caught.value.request_id

    def test_retries_cost_no_time(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a retry waits for the SDK's back-off, or takes no reply of its own."""
        server.script(Reply(status=500), Reply(status=429), Reply(text="third time"))
        begin = time.monotonic()
        completion = ask("chat.completions.create", max_retries=2, **sent(CHAT))
        assert completion.choices[0].message.content == "third time"
        assert len(server.requests) == 3
        assert time.monotonic() - begin < 0.4

    @ENTRIES
    def test_an_error_in_mid_stream(self, ask: Ask, server: ProviderServer, entry: str) -> None:
        """Fails when the SDK does not raise the error, or not after just so many chunks."""
        server.script(*[Reply(text="a b c d", error_after=5, error_message="overloaded")] * 2)
        with pytest.raises(openai.APIError, match="overloaded"):
            ask(f"{entry}.create", **sent(entry, stream=True))
        events = ask(f"{entry}.create", until=5, **sent(entry, stream=True))
        assert len(events) == 5
        if entry == "responses":
            assert [event.sequence_number for event in events] == [0, 1, 2, 3, 4]

    @ENTRIES
    @pytest.mark.parametrize("after", [0, 2])
    def test_a_connection_cut_in_mid_stream(self, ask: Ask, server: ProviderServer, entry: str, after: int) -> None:
        """Fails when the stream ends as if it were whole."""
        server.script(*[Reply(text="a b c d", cut_after=after)] * 2)
        with pytest.raises(broken_connection()):
            ask(f"{entry}.create", **sent(entry, stream=True))
        if after:
            assert len(ask(f"{entry}.create", until=after, **sent(entry, stream=True))) == after
        assert server.aborted == 0

    def test_a_plain_reply_is_cut(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a plain reply, cut before its only chunk, arrives nevertheless."""
        server.script(Reply(text="never", cut_after=0))
        with pytest.raises(broken_connection()):
            ask("chat.completions.create", **sent(CHAT))

    def test_the_server_lives_on(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a cut, an error or an abort harms the calls after it."""
        server.script(Reply(text="a b", cut_after=1), Reply(text="a b", error_after=1))
        for _ in range(2):
            with pytest.raises((openai.APIError, *broken_connection())):
                ask("chat.completions.create", **sent(CHAT, stream=True))
        assert ask("chat.completions.create", **sent(CHAT)).choices[0].message.content == "Understood."


class TestDelays:
    def test_before_the_first_byte(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when the delay is not kept, or the client's timeout is not counted as its cutting off."""
        server.script(Reply(text="late", delay_s=0.15), Reply(text="too late", delay_s=30))
        begin = time.monotonic()
        assert ask("chat.completions.create", **sent(CHAT)).choices[0].message.content == "late"
        assert time.monotonic() - begin >= 0.15
        with pytest.raises(openai.APITimeoutError):
            ask("chat.completions.create", **sent(CHAT, timeout=0.2))
        assert eventually(lambda: server.aborted == 1)

    @ENTRIES
    def test_between_the_chunks(self, ask: Ask, server: ProviderServer, entry: str) -> None:
        """Fails when chunks are held back and sent together, or the last one is kept from coming."""
        server.script(Reply(text="a b c", chunk_delay_s=0.04))
        begin = time.monotonic()
        events = ask(f"{entry}.create", **sent(entry, stream=True))
        assert time.monotonic() - begin >= 0.04 * (len(events) - 1)

    def test_the_first_chunk_does_not_wait_for_the_second(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when the server gathers the stream before it sends it."""
        server.script(Reply(text="a b c", chunk_delay_s=1.0))
        begin = time.monotonic()
        assert len(ask("chat.completions.create", until=1, **sent(CHAT, stream=True))) == 1
        assert time.monotonic() - begin < 0.9

    @ENTRIES
    def test_a_client_that_stops_is_noticed_at_once(self, ask: Ask, server: ProviderServer, entry: str) -> None:
        """Fails when a stream that the client closed is not counted, or only after the delay."""
        server.script(Reply(text="a b c", chunk_delay_s=30))
        ask(f"{entry}.create", until=1, **sent(entry, stream=True))
        assert eventually(lambda: server.aborted == 1)

    def test_whole_responses_are_not_aborted(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when a client that read everything and left is counted."""
        for stream in (False, True):
            ask("chat.completions.create", **sent(CHAT, stream=stream))
        server.close()
        assert server.aborted == 0


class TestServer:
    def test_replies_are_taken_in_order_and_then_the_answer(self, ask: Ask, server: ProviderServer) -> None:
        """Fails when scripted replies are not first in first out."""
        server.script(Reply(text="one"), Reply(text="two"))
        server.script(Reply(text="three"))
        texts = [ask("chat.completions.create", **sent(CHAT)).choices[0].message.content for _ in range(4)]
        assert texts == ["one", "two", "three", "Understood."]

    def test_answer_is_asked(self) -> None:
        """Fails when the answer function does not get the request, or its Reply or text is not sent."""

        def answer(request: ProviderRequest) -> Reply | str:
            return Reply(refusal="no") if "secret" in request.text else request.text.upper()

        with ProviderServer(answer=answer) as server:
            ask = Ask(server, "sync")
            assert ask("responses.create", model="local", input="hey").output_text == "HEY"
            assert ask("responses.create", model="local", input="a secret").output[0].content[0].refusal == "no"

    def test_a_failing_answer_is_the_clients_error(self, caplog: pytest.LogCaptureFixture) -> None:
        """Fails when a mistake in an answer function hangs the client or stays hidden."""

        def answer(request: ProviderRequest) -> str:
            raise LookupError("no such thing")

        with ProviderServer(answer=answer) as server, pytest.raises(openai.InternalServerError, match="no such thing"):
            Ask(server, "sync")("responses.create", model="local", input="hey")
        assert "answer function" in caplog.text

    def test_many_threads_and_one_client(self) -> None:
        """Fails when requests are lost or answers swapped under load."""
        echo = ProviderServer(answer=lambda request: request.text)
        with echo, OpenAI(base_url=f"{echo.url}/v1", api_key="local", max_retries=0) as client:
            wrong: list[str] = []

            def work(worker: int) -> None:
                for turn in range(20):
                    said = f"{worker} {turn}"
                    answer = client.responses.create(model="local", input=said).output_text
                    if answer != said:
                        wrong.append(answer)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert wrong == []
            assert len(echo.requests) == 160
            assert {request.text for request in echo.requests} == {f"{w} {t}" for w in range(8) for t in range(20)}

    def test_connections_are_kept_alive(self, server: ProviderServer) -> None:
        """Fails when a connection carries one response only, streams and errors included."""
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
            server.script(Reply(text="one"), Reply(status=429), Reply(text="a b"))
            for stream in (False, False, True, False):
                body = json.dumps({"model": "local", "input": "hi", "stream": stream}).encode()
                head = f"POST /v1/responses HTTP/1.1\r\nhost: local\r\ncontent-length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
                received = b""
                while not received.endswith(b"0\r\n\r\n" if stream else b"}"):
                    received += connection.recv(65536)
            assert b"Understood." in received

    def test_close_ends_what_is_under_way(self, server: ProviderServer) -> None:
        """Fails when close waits for a slow reply, leaves threads behind, or counts itself as the client."""
        before = threading.active_count()
        server.script(Reply(text="a b c", chunk_delay_s=60))
        with OpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
            stream = client.chat.completions.create(
                model="local", messages=[{"role": "user", "content": "x"}], stream=True
            )
            next(iter(stream))
            begin = time.monotonic()
            server.close()
            assert time.monotonic() - begin < 2
            with pytest.raises(broken_connection()):
                list(stream)
        server.close()
        assert server.aborted == 0
        assert len(server.requests) == 1
        assert threading.active_count() < before
        with pytest.raises(RuntimeError, match="not running"):
            _ = server.url

    def test_can_be_started_again(self) -> None:
        """Fails when start, close and start again does not serve."""
        server = ProviderServer()
        for _ in range(2):
            server.start()
            assert Ask(server, "sync")("models.list").data
            server.close()

    def test_needs_nothing_but_the_standard_library(self) -> None:
        """Fails when importing the server brings in a third-party package: the demo runs it before any is loaded."""
        program = (
            "import sys; before = set(sys.modules); import memori.testing.provider; "
            "names = {name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names; "
            "print(sorted(name for name in names if not name.startswith('_')))"
        )
        answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == "['memori']"


class TestAnswerFromContext:
    @pytest.mark.parametrize(
        ("told", "question", "answer"),
        [
            (
                ["My favorite color is blue.", "I live in Rome."],
                "What is my favorite color?",
                "My favorite color is blue.",
            ),
            (["- My favorite color is blue.\n- I live in Rome."], "Where do I live?", "I live in Rome."),
            (["Ann has two cats.", "Ann has a dog named Rex."], "What's Ann's dog called?", "Ann has a dog named Rex."),
            (["I live in Rome."], "Hi! Where do I live? One word.", "I live in Rome."),
            (["What is my name?", "My name is Ada."], "Tell me my name", "My name is Ada."),
            (["I live in Rome."], "What is my favorite color?", "I don't know."),
            ([], "What is my favorite color?", "I don't know."),
            (["I moved to Rome.", "I moved to Oslo."], "Where have I moved?", "I moved to Oslo."),
            (["2026-05-01, fact: I live in Rome."], "Where do I live?", "I live in Rome."),
            (["Favorite color: blue"], "What is my favorite color?", "Favorite color: blue"),
            (["I live in Rome."], "My favorite color is blue.", "Thank you, noted."),
        ],
    )
    @ENTRIES
    def test_answers_only_with_what_it_was_told(self, entry: str, told: list[str], question: str, answer: str) -> None:
        """Fails when the answer is not the line before the question that shares the most with it."""
        with ProviderServer(answer=answer_from_context) as server:
            messages = [{"role": "user", "content": text} for text in (*told, question)]
            result = Ask(server, "sync")(f"{entry}.create", **sent(entry, messages=messages))
        assert (result.choices[0].message.content if entry == CHAT else result.output_text) == answer

    def test_reads_what_memori_injects(self) -> None:
        """Fails when the block of memories is one that a model, be it this little, cannot read."""
        now = datetime(2026, 5, 2, tzinfo=UTC)
        facts = ["My favorite color is blue.", "I live in Rome & work as a nurse."]
        recalled = [
            Recollection(id=number, kind="fact", content=text, score=1.0, at=now, date_created=now)
            for number, text in enumerate(facts)
        ]
        memories = block(recalled, now=now, token_budget=1000)
        messages = [{"role": "user", "content": text} for text in (memories, "What is my favorite color?")]
        with ProviderServer(answer=answer_from_context) as server:
            completion = Ask(server, "sync")("chat.completions.create", **sent(CHAT, messages=messages))
        assert completion.choices[0].message.content == "My favorite color is blue."

    def test_reads_the_system_prompt(self) -> None:
        """Fails when only user messages are read."""
        with ProviderServer(answer=answer_from_context) as server:
            result = Ask(server, "sync")(
                "responses.create",
                model="local",
                instructions="The office opens at nine.",
                input="When does the office open?",
            )
        assert result.output_text == "The office opens at nine."


def broken_connection() -> tuple[type[Exception], ...]:
    """Return what a connection that broke raises: the SDK's own error, or in older releases its transport's."""
    with OpenAI(api_key="local") as client:
        names = [kind.__module__.partition(".")[0] for kind in type(client._client).__mro__]
    transport = importlib.import_module(next(name for name in names if name.startswith("httpx")))
    return openai.APIConnectionError, transport.RemoteProtocolError
