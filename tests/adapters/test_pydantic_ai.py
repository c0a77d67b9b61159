"""The whole path for every way to run a Pydantic AI agent, on every kind of model: recalled and captured once."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from blockbuster import blockbuster_ctx
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    TextPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel as PydanticTestModel
from pydantic_ai.settings import ModelSettings

from memori import Memori
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori.testing.ranker import CountingRanker
from memori_pydantic_ai import MemoriCapability

SAID = "My favorite color is blue. Which dish would suit my favorite food?"
KNOWN = "The user's favorite food is ramen."
ANSWER = "Ramen with a blue bowl, and a green tea beside it."
CITY = {"name": "Fukuoka", "ramen": True}

Entry = Literal["run", "run_sync", "run_stream", "iter", "run_stream_events"]
Kind = Literal["text", "structured output", "tools", "early exit", "model error"]
ENTRIES: tuple[Entry, ...] = ("run", "run_sync", "run_stream", "iter", "run_stream_events")
KINDS: tuple[Kind, ...] = ("text", "structured output", "tools", "early exit", "model error")


class City(BaseModel):
    """Where to eat."""

    name: str
    ramen: bool


class LeftError(Exception):
    """The caller of a run goes away."""


class RefusedError(AgentRunError):
    """The model does not answer."""


REPLIES: dict[Kind, list[Reply]] = {
    "text": [Reply(text=ANSWER)],
    "structured output": [Reply(tool_calls=(ToolCall("final_result", CITY),))],
    "tools": [Reply(tool_calls=(ToolCall("menu", {"food": "ramen"}),)), Reply(text=ANSWER)],
    "early exit": [Reply(text=ANSWER, chunk_delay_s=0.01)],
    "model error": [Reply(status=400, error_message="no")],
}


@dataclass
class Wire:
    """A model, and what it was sent: the user's texts of each request, memori's block among them."""

    model: Model
    requests: Callable[[], list[list[str]]]
    client: Any = None

    async def close(self) -> None:
        if self.client is not None:
            closing = self.client.close()
            if inspect.isawaitable(closing):
                await closing


def user_texts(messages: Sequence[ModelMessage]) -> list[str]:
    parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
    return [str(part.content) for part in parts if isinstance(part, UserPromptPart)]


@dataclass(init=False)
class Heard(PydanticTestModel):
    """Pydantic AI's model for tests, which also notes what it is sent."""

    heard: list[list[str]] = field(default_factory=list)
    refusals: int = 0

    def _hear(self, messages: Sequence[ModelMessage]) -> None:
        self.heard.append(user_texts(messages))
        if self.refusals:
            self.refusals -= 1
            raise RefusedError("no")

    async def request(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> ModelResponse:
        self._hear(messages)
        return await super().request(messages, settings, parameters)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncIterator[StreamedResponse]:
        self._hear(messages)
        async with super().request_stream(messages, settings, parameters, run_context) as stream:
            yield stream


def wire_of_test_model(kind: Kind, server: ProviderServer) -> Wire:
    model = Heard(
        call_tools=["menu"] if kind == "tools" else [],
        custom_output_text=None if kind == "structured output" else ANSWER,
        custom_output_args=CITY if kind == "structured output" else None,
    )
    model.heard = []
    model.refusals = int(kind == "model error")
    return Wire(model, lambda: model.heard)


def wire_of_function_model(kind: Kind, server: ProviderServer) -> Wire:
    heard: list[list[str]] = []
    replies = iter(REPLIES[kind])

    def reply(messages: list[ModelMessage]) -> Reply:
        heard.append(user_texts(messages))
        answer = next(replies)
        if answer.status != 200:
            raise RefusedError(answer.error_message)
        return answer

    def whole(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        answer = reply(messages)
        calls = [ToolCallPart(call.name, dict(call.arguments)) for call in answer.tool_calls]
        return ModelResponse(parts=[*([TextPart(answer.text)] if answer.text else []), *calls])

    async def streamed(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        answer = reply(messages)
        for word in answer.text.split(" "):
            if word:
                yield word if word == answer.text.split(" ")[0] else f" {word}"
        for place, call in enumerate(answer.tool_calls):
            arguments = str(dict(call.arguments)).replace("'", '"').replace("True", "true")
            yield {place: DeltaToolCall(name=call.name, json_args=arguments, tool_call_id=f"call-{place}")}

    return Wire(FunctionModel(whole, stream_function=streamed), lambda: heard)


def scripted(kind: Kind, server: ProviderServer, model: Model, client: Any) -> Wire:
    before = len(server.requests)
    server.script(*REPLIES[kind])
    return Wire(
        model,
        lambda: [[turn.text for turn in request.turns if turn.role == "user"] for request in server.requests[before:]],
        client,
    )


def wire_of_openai(kind: Kind, server: ProviderServer) -> Wire:
    pytest.importorskip("pydantic_ai.models.openai", reason="openai is too old for it", exc_type=ImportError)
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0)
    return scripted(kind, server, OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=client)), client)


def wire_of_anthropic(kind: Kind, server: ProviderServer) -> Wire:
    pytest.importorskip("pydantic_ai.models.anthropic", reason="anthropic is too old for it", exc_type=ImportError)
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(base_url=server.url, api_key="local", max_retries=0)
    model = AnthropicModel("claude-opus-5", provider=AnthropicProvider(anthropic_client=client))
    return scripted(kind, server, model, client)


@functools.cache
def aws_session() -> Any:
    """Return the session that reads AWS's description of Bedrock once for all clients."""
    import boto3  # type: ignore[import-untyped]

    keys: dict[str, str] = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return boto3.Session(region_name="us-east-1", **keys)


def wire_of_bedrock(kind: Kind, server: ProviderServer) -> Wire:
    pytest.importorskip("pydantic_ai.models.bedrock", exc_type=ImportError)
    from pydantic_ai.models.bedrock import BedrockConverseModel
    from pydantic_ai.providers.bedrock import BedrockProvider

    client = aws_session().client("bedrock-runtime", endpoint_url=server.url)
    opened = ExitStack()
    opened.callback(client.close)
    # Pydantic AI 2.59 leaves open the stream that its reader left.
    client.meta.events.register(
        "after-call.bedrock-runtime.ConverseStream",
        lambda parsed, **_: opened.callback(parsed["stream"].close) if "stream" in parsed else None,
    )
    model = BedrockConverseModel("us.amazon.nova-lite-v1:0", provider=BedrockProvider(bedrock_client=client))
    return scripted(kind, server, model, opened)


WIRES = {
    "TestModel": wire_of_test_model,
    "FunctionModel": wire_of_function_model,
    "OpenAIChatModel": wire_of_openai,
    "AnthropicModel": wire_of_anthropic,
    "BedrockConverseModel": wire_of_bedrock,
}


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(scope="module")
def ranker() -> CountingRanker:
    return CountingRanker()


@pytest.fixture(scope="module")
def memori(tmp_path_factory: pytest.TempPathFactory, ranker: CountingRanker) -> Iterator[Memori]:
    with Memori(conn=tmp_path_factory.mktemp("memory") / "memori.db", ranker=ranker) as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        yield memori


def agent_for(kind: Kind, wire: Wire, **options: Any) -> Agent[None, Any]:
    agent: Agent[None, Any] = Agent(
        wire.model, output_type=City if kind == "structured output" else str, name="waiter", **options
    )
    if kind == "tools":

        @agent.tool_plain
        def menu(food: str) -> str:
            """Say what there is."""
            return "Hakata ramen, Sapporo ramen"

    return agent


async def leaving(context: object, events: AsyncIterable[object]) -> None:
    async for event in events:
        if isinstance(event, PartDeltaEvent):
            raise LeftError


async def once(entry: Entry, agent: Agent[None, Any], *, leave: bool) -> list[ModelMessage]:
    """Run the agent and return its messages; left early, none."""
    match entry:
        case "run" | "run_sync":
            result = await agent.run(SAID, event_stream_handler=leaving if leave else None)
            return result.all_messages()
        case "run_stream":
            async with agent.run_stream(SAID) as stream:
                async for _ in stream.stream_output(debounce_by=None):
                    if leave:
                        return []
            return stream.all_messages()
        case "iter":
            async with agent.iter(SAID) as run:
                async for node in run:
                    if leave and Agent.is_model_request_node(node):
                        async with node.stream(run.ctx) as events:
                            async for event in events:
                                if isinstance(event, PartDeltaEvent):
                                    return []
            assert run.result is not None
            return run.result.all_messages()
        case "run_stream_events":
            async with agent.run_stream_events(SAID) as happening:
                async for happened in happening:
                    if leave and isinstance(happened, PartDeltaEvent):
                        return []
                return happening.all_messages()


def drive(entry: Entry, agent: Agent[None, Any], wire: Wire, *, leave: bool) -> list[ModelMessage]:
    async def main() -> list[ModelMessage]:
        await asyncio.sleep(0)
        try:
            with blockbuster_ctx("memori"):
                return await once(entry, agent, leave=leave)
        finally:
            await wire.close()

    if entry != "run_sync":
        return asyncio.run(main())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        result = agent.run_sync(SAID, event_stream_handler=leaving if leave else None)
        return list(result.all_messages())
    finally:
        loop.run_until_complete(wire.close())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", WIRES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_run_is_recalled_and_captured_once(
    memori: Memori, ranker: CountingRanker, server: ProviderServer, entry: Entry, model: str, kind: Kind
) -> None:
    """Fails when this way to run an agent goes without memories, keeps them in its history, or is not stored once."""
    entity = f"{entry} {model} {kind}"
    memori.remember(KNOWN, kind="preference", entity_id=entity)
    wire = WIRES[model](kind, server)
    agent = agent_for(kind, wire, capabilities=[MemoriCapability(memori, user=entity)])
    ranker.queries.clear()

    messages: list[ModelMessage] = []
    runs = 2 if kind == "model error" else 1
    for attempt in range(runs):
        refused = kind == "model error" and attempt == 0
        try:
            messages = drive(entry, agent, wire, leave=kind == "early exit")
            assert not refused
        except AgentRunError:
            assert refused
            assert memori.messages(entity_id=entity) == []
            wire = WIRES[model]("text", server)
            agent = agent_for(kind, wire, capabilities=[MemoriCapability(memori, user=entity)])
        except LeftError:
            assert kind == "early exit"

    requests = wire.requests()
    assert len(requests) == (2 if kind == "tools" else 1)
    for texts in requests:
        assert "favorite food is ramen" in "\n".join(texts)
        assert "\n".join(texts).count("<memories id=") == 1
        assert "\n".join(texts).endswith(SAID)
    if kind == "tools":
        assert requests[0] == requests[1]
    assert ranker.queries == [SAID] * runs
    assert "<memories" not in ModelMessagesTypeAdapter.dump_json(messages).decode()

    end = time.monotonic() + 10
    while len(stored := memori.messages(entity_id=entity)) < 2:
        assert time.monotonic() < end, "the exchange was not stored"
        time.sleep(0.005)
    said = [(message.role, message.kind) for message in stored]
    if kind == "tools":
        assert said == [("user", "text"), ("assistant", "tool_call"), ("tool", "tool_result"), ("assistant", "text")]
        assert (stored[2].content, stored[2].author) == ("Hakata ramen, Sapporo ramen", "menu")
    else:
        assert said == [("user", "text"), ("assistant", "text")]
    assert stored[0].content == SAID
    if kind == "structured output":
        assert City.model_validate_json(stored[1].content) == City.model_validate(CITY)
    elif kind == "early exit":
        assert ANSWER.startswith(stored[1].content)
        assert 0 < len(stored[1].content) < len(ANSWER)
        assert stored[1].partial
    else:
        assert stored[-1].content == ANSWER
        assert not stored[-1].partial
    assert {message.process_id for message in stored} == {"waiter"}
    assert len({message.session_id for message in stored}) == 1

    assert memori.augmentation.wait(30)
    facts = {fact.predicate: fact for fact in memori.facts(entity_id=entity)}
    assert facts["favorite_color"].object == "blue"
    assert facts["favorite_color"].mentions == 1
    assert memori.status().failures == 0
