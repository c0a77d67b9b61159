"""Every kind of LangChain chat model, asked in every way: given memories, and kept, exactly once."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pytest

pytest.importorskip("langchain.agents")

from blockbuster import blockbuster_ctx
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from memori import Memori
from memori.testing.provider import ProviderServer, Reply, ToolCall

KNOWN = "The user's favorite food is ramen."
ASKED = "My favorite color is blue. Which dish would suit my favorite food?"
ANSWER = "Noodles in a bowl as blue as the sky would suit it well."
SAID = ("user", "text", ASKED)
ANSWERED = ("assistant", "text", ANSWER)
# By then some of the text has come, from every provider, and some has not.
BEGUN = 8


@tool
def weather(city: str) -> str:
    """Return the weather in a city."""
    return f"Sunny in {city}."


class Color(BaseModel):
    """A color."""

    name: str


class Plain(BaseChatModel):
    """Somebody's own model, which is synchronous and knows nothing but LangChain's interface."""

    address: str

    @property
    def _llm_type(self) -> str:
        return "plain"

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(given) for given in tools], **kwargs)

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        with self._asked(messages, kwargs) as response:
            said = json.load(response)["choices"][0]["message"]
        calls = [
            {"name": call["function"]["name"], "args": json.loads(call["function"]["arguments"]), "id": call["id"]}
            for call in said.get("tool_calls", ())
        ]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(said["content"] or "", tool_calls=calls))])

    def _stream(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        with self._asked(messages, {**kwargs, "stream": True}) as response:
            for line in response:
                data = line.decode().removeprefix("data: ").strip()
                if not data or data == "[DONE]":
                    continue
                if "error" in (event := json.loads(data)):
                    raise ConnectionError(event["error"]["message"])
                delta = event["choices"][0]["delta"]
                calls = [_piece(call) for call in delta.get("tool_calls", ())]
                message = AIMessageChunk(content=delta.get("content") or "", tool_call_chunks=calls)
                yield ChatGenerationChunk(message=message)

    def _asked(self, messages: list[BaseMessage], more: dict[str, Any]) -> Any:
        body = {"model": "plain", "messages": convert_to_openai_messages(messages), **more}
        request = urllib.request.Request(  # noqa: S310 - this machine's own
            f"{self.address}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            return urllib.request.urlopen(request, timeout=30)  # noqa: S310
        except urllib.error.HTTPError as error:
            with error:
                raise ConnectionError(error.read().decode()) from None


def _piece(call: dict[str, Any]) -> Any:
    function = call["function"]
    return tool_call_chunk(
        name=function.get("name"), args=function.get("arguments"), id=call.get("id"), index=call["index"]
    )


def chat_openai(address: str, **options: Any) -> BaseChatModel:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="gpt-4o-mini", api_key="key", base_url=f"{address}/v1", max_retries=0, **options)  # type: ignore[arg-type]


def chat_anthropic(address: str) -> BaseChatModel:
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(model="claude-test", api_key="key", base_url=address, max_retries=0)  # type: ignore[call-arg, arg-type]


def chat_google(address: str) -> BaseChatModel:
    from langchain_google_genai import ChatGoogleGenerativeAI

    return ChatGoogleGenerativeAI(model="gemini-test", google_api_key="key", base_url=address, max_retries=1)


CLAUDE, NOVA = "anthropic.claude-test-v1:0", "amazon.nova-lite-v1:0"
AWS: dict[str, Any] = {"region_name": "us-east-1", "aws_access_key_id": "key", "aws_secret_access_key": "secret"}


@functools.cache
def boto(address: str) -> dict[str, Any]:
    """Return clients of *address*: to make one takes long."""
    import boto3  # type: ignore[import-untyped]

    runtime, control = (boto3.client(name, endpoint_url=address, **AWS) for name in ("bedrock-runtime", "bedrock"))
    return {"client": runtime, "bedrock_client": control}


def chat_bedrock(address: str, model: str = CLAUDE) -> BaseChatModel:
    from langchain_aws import ChatBedrock

    # It hands its keys, but not its second client, to the model that it asks by Converse.
    return ChatBedrock(model=model, endpoint_url=address, **AWS, **boto(address))


def chat_bedrock_converse(address: str) -> BaseChatModel:
    from langchain_aws import ChatBedrockConverse

    return ChatBedrockConverse(model=NOVA, base_url=address, **AWS, **boto(address))


def chat_anthropic_bedrock(address: str) -> BaseChatModel:
    from langchain_aws import ChatAnthropicBedrock

    os.environ["ANTHROPIC_BEDROCK_BASE_URL"] = address  # The only way in; a fixture takes it back.
    return ChatAnthropicBedrock(model=CLAUDE, max_retries=0, **AWS)  # type: ignore[call-arg]


async def nothing_to_close(model: Any) -> None:
    pass


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        own_path: Whether each is given a path of its own, for LangChain shares connections by address.
        structured: How it is told to answer by a tool call.
    """

    name: str
    module: str
    make: Callable[[str], BaseChatModel]
    aclose: Callable[[Any], Awaitable[None]] = nothing_to_close
    own_path: bool = True
    structured: dict[str, Any] = field(default_factory=dict)


OPENAI: dict[str, Any] = {
    "module": "langchain_openai",
    "aclose": lambda model: model.root_async_client.close(),
    "structured": {"method": "function_calling"},
}
KINDS = [
    Kind("Plain", "langchain", lambda address: Plain(address=address)),
    Kind("ChatOpenAI", make=chat_openai, **OPENAI),
    Kind("ChatOpenAI-responses", make=lambda address: chat_openai(address, use_responses_api=True), **OPENAI),
    Kind("ChatAnthropic", "langchain_anthropic", chat_anthropic, lambda model: model._async_client.close()),
    Kind(
        "ChatGoogleGenerativeAI",
        "langchain_google_genai",
        chat_google,
        lambda model: model.client.aio.aclose(),
        structured={"method": "function_calling"},
    ),
    Kind("ChatBedrock-invoke", "langchain_aws", chat_bedrock, own_path=False),
    Kind("ChatBedrock-converse", "langchain_aws", functools.partial(chat_bedrock, model=NOVA), own_path=False),
    Kind("ChatBedrockConverse", "langchain_aws", chat_bedrock_converse, own_path=False),
    Kind(
        "ChatAnthropicBedrock",
        "langchain_aws",
        chat_anthropic_bedrock,
        lambda model: model._async_client.close(),
        own_path=False,
    ),
]

Hear = Callable[[Any, Kind], Iterator[str]]
AHear = Callable[[Any, Kind], AsyncIterator[str]]


@dataclass(frozen=True)
class Way:
    """One way to ask.

    Attributes:
        replies: What the provider answers to each request.
        kept: The messages that are stored, with their roles and kinds; None: what was asked, and what was heard of the
            answer, as a partial one.
    """

    name: str
    run: Hear
    arun: AHear
    replies: tuple[Reply, ...] = (Reply(text=ANSWER),)
    kept: tuple[tuple[str, str, str], ...] | None = (SAID, ANSWERED)


def invoke(model: Any, kind: Kind) -> Iterator[str]:
    yield model.invoke(ASKED).text


async def ainvoke(model: Any, kind: Kind) -> AsyncIterator[str]:
    yield (await model.ainvoke(ASKED)).text


def stream(model: Any, kind: Kind) -> Iterator[str]:
    for chunk in model.stream(ASKED):
        yield chunk.text


async def astream(model: Any, kind: Kind) -> AsyncIterator[str]:
    async for chunk in model.astream(ASKED):
        yield chunk.text


def batch(model: Any, kind: Kind) -> Iterator[str]:
    # One after the other, so that they are stored in order.
    for message in model.batch([ASKED, "Is ramen my favorite food?"], {"max_concurrency": 1}):
        yield message.text


async def abatch(model: Any, kind: Kind) -> AsyncIterator[str]:
    for message in await model.abatch([ASKED, "Is ramen my favorite food?"], {"max_concurrency": 1}):
        yield message.text


def bound_tools(model: Any, kind: Kind) -> Iterator[str]:
    yield model.bind_tools([weather]).invoke(ASKED).text


async def abound_tools(model: Any, kind: Kind) -> AsyncIterator[str]:
    yield (await model.bind_tools([weather]).ainvoke(ASKED)).text


def streamed_tools(model: Any, kind: Kind) -> Iterator[str]:
    for chunk in model.bind_tools([weather]).stream(ASKED):
        yield chunk.text


async def astreamed_tools(model: Any, kind: Kind) -> AsyncIterator[str]:
    async for chunk in model.bind_tools([weather]).astream(ASKED):
        yield chunk.text


def structured(model: Any, kind: Kind) -> Iterator[str]:
    yield model.with_structured_output(Color, **kind.structured).invoke(ASKED).name


async def astructured(model: Any, kind: Kind) -> AsyncIterator[str]:
    yield (await model.with_structured_output(Color, **kind.structured).ainvoke(ASKED)).name


def piped(model: Any) -> Any:
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{asked}")])
    return prompt | model | StrOutputParser()


def pipe(model: Any, kind: Kind) -> Iterator[str]:
    yield piped(model).invoke({"asked": ASKED})


async def apipe(model: Any, kind: Kind) -> AsyncIterator[str]:
    async for piece in piped(model).astream({"asked": ASKED}):
        yield piece


TURN: Any = {"messages": [("user", ASKED)]}


def agent(model: Any, kind: Kind) -> Iterator[str]:
    yield create_agent(model, [weather], system_prompt="Be brief.").invoke(TURN)["messages"][-1].text


async def aagent(model: Any, kind: Kind) -> AsyncIterator[str]:
    yield (await create_agent(model, [weather], system_prompt="Be brief.").ainvoke(TURN))["messages"][-1].text


def streamed_agent(model: Any, kind: Kind) -> Iterator[str]:
    for chunk, _ in create_agent(model, [weather]).stream(TURN, stream_mode="messages"):
        yield chunk.text if isinstance(chunk, AIMessageChunk) else ""


async def astreamed_agent(model: Any, kind: Kind) -> AsyncIterator[str]:
    async for chunk, _ in create_agent(model, [weather]).astream(TURN, stream_mode="messages"):
        yield chunk.text if isinstance(chunk, AIMessageChunk) else ""


def events(model: Any, kind: Kind) -> Iterator[str]:
    yield from model.stream_events(ASKED, version="v3").text


async def aevents(model: Any, kind: Kind) -> AsyncIterator[str]:
    async for piece in (await model.astream_events(ASKED, version="v3")).text:
        yield piece


def left_stream(model: Any, kind: Kind) -> Iterator[str]:
    for chunk in model.stream(ASKED):
        yield chunk.text
        if chunk.text:
            break


async def aleft_stream(model: Any, kind: Kind) -> AsyncIterator[str]:
    chunks = model.astream(ASKED)
    async for chunk in chunks:
        yield chunk.text
        if chunk.text:
            break
    await chunks.aclose()


def left_events(model: Any, kind: Kind) -> Iterator[str]:
    yield next(iter(model.stream_events(ASKED, version="v3").text))


async def aleft_events(model: Any, kind: Kind) -> AsyncIterator[str]:
    running = await model.astream_events(ASKED, version="v3")
    async for piece in running.text:
        yield piece
        break
    await running.aclose()


CALL = ToolCall("weather", {"city": "Oslo"}, id="call_1")
CALLED = ("assistant", "tool_call", 'weather({"city": "Oslo"})')
TOOLS: dict[str, Any] = {
    "replies": (Reply(text="Let me see.", tool_calls=(CALL,)),),
    "kept": (SAID, ("assistant", "text", "Let me see."), CALLED),
}
LOOP: dict[str, Any] = {
    "replies": (Reply(tool_calls=(CALL,)), Reply(text=ANSWER)),
    "kept": (SAID, CALLED, ("tool", "tool_result", "Sunny in Oslo."), ANSWERED),
}
LEFT: dict[str, Any] = {"replies": (Reply(text=ANSWER, chunk_delay_s=0.02),), "kept": None}
WAYS = [
    Way("invoke", invoke, ainvoke),
    Way("stream", stream, astream),
    Way(
        "batch",
        batch,
        abatch,
        replies=(Reply(text=ANSWER), Reply(text="Yes.")),
        kept=(SAID, ANSWERED, ("user", "text", "Is ramen my favorite food?"), ("assistant", "text", "Yes.")),
    ),
    Way("bind_tools", bound_tools, abound_tools, **TOOLS),
    Way("bind_tools-stream", streamed_tools, astreamed_tools, **TOOLS),
    Way(
        "structured",
        structured,
        astructured,
        replies=(Reply(tool_calls=(ToolCall("Color", {"name": "blue"}),)),),
        kept=(SAID, ("assistant", "tool_call", 'Color({"name": "blue"})')),
    ),
    Way("pipe", pipe, apipe),
    Way("agent", agent, aagent, **LOOP),
    Way("agent-stream", streamed_agent, astreamed_agent, **LOOP),
    Way("events", events, aevents),
    Way("break", left_stream, aleft_stream, **LEFT),
    Way("events-break", left_events, aleft_events, **LEFT),
    Way(
        "error",
        stream,
        astream,
        replies=(Reply(text=ANSWER, error_after=BEGUN, error_message="overloaded"),),
        kept=None,
    ),
    Way("refused", invoke, ainvoke, replies=(Reply(status=400, error_message="no such model"),), kept=()),
]
FAILS = {"error", "refused"}


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_BEDROCK_BASE_URL", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(scope="module")
def memori(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memori]:
    with Memori(conn=tmp_path_factory.mktemp("memory") / "memori.db") as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        yield memori


def hear(way: Way, model: Any, kind: Kind, heard: list[str]) -> None:
    heard.extend(way.run(model, kind))


@contextmanager
def unblocked() -> Iterator[None]:
    """Fail what blocks the event loop from anywhere below memori's code."""
    with blockbuster_ctx(["memori", "memori_langchain"]) as watched:
        for function in watched.functions.values():
            # Where ChatBedrock makes a client of AWS's each time, with memori or without.
            function.can_block_in("memori_langchain/models.py", "as_converse")
        yield


def ahear(way: Way, model: Any, kind: Kind, heard: list[str]) -> None:
    async def main() -> None:
        try:
            with unblocked():
                async for piece in way.arun(model, kind):
                    heard.append(piece)  # noqa: PERF401 - it may be left by an error
        finally:
            await kind.aclose(model)

    asyncio.run(main())


WARM: set[str] = set()


def warm_up(kind: Kind, address: str) -> None:
    """Let an SDK read, on no event loop that is watched, what it reads when it is first used."""
    if kind.name in WARM:
        return
    WARM.add(kind.name)
    model = kind.make(address)

    async def main() -> None:
        async for _ in model.astream("Hello."):
            pass
        await model.ainvoke("Hello.")
        await kind.aclose(model)

    asyncio.run(main())


COLOURS = {"sync": hear, "async": ahear}


def stored(memori: Memori, entity: str) -> list[tuple[str, str, str]]:
    assert memori.augmentation.wait(30)
    return [(message.role, message.kind, message.content) for message in memori.messages(entity_id=entity)]


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")  # Google's SDK.
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_call_is_given_memories_and_kept_once(
    memori: Memori, server: ProviderServer, kind: Kind, way: Way, colour: str
) -> None:
    """Fails when this way to ask goes without memories or gets them twice, or what was said is lost or doubled."""
    if find_spec(kind.module) is None:
        pytest.skip(f"{kind.module} is not installed here")
    entity = f"{kind.name} {way.name} {colour}"
    memori.remember(KNOWN, kind="preference", entity_id=entity)
    if colour == "async":
        warm_up(kind, f"{server.url}/{kind.name}" if kind.own_path else server.url)
    model = kind.make(f"{server.url}/{abs(hash(entity))}" if kind.own_path else server.url)
    memori.llm.register(model)
    server.script(*way.replies)
    asked, heard = len(server.requests), list[str]()
    error = None
    with memori.scope(entity_id=entity):
        try:
            COLOURS[colour](way, model, kind, heard)
        except Exception as raised:  # noqa: BLE001 - which it is differs by SDK
            error = str(raised)
    if way.kept is None:
        gc.collect()
    assert (error is not None) == (way.name in FAILS), error

    requests = server.requests[asked:]
    assert len(requests) == len(way.replies)
    for request in requests:
        assert request.text.count("<memories id=") == 1
        assert "favorite food is ramen" in request.text

    kept = stored(memori, entity)
    if way.kept is not None:
        assert kept == list(way.kept)
        assert not any(message.partial for message in memori.messages(entity_id=entity))
    else:
        assert kept == [SAID, ("assistant", "text", "".join(heard))]
        assert 0 < len("".join(heard)) < len(ANSWER)
        assert memori.messages(entity_id=entity)[-1].partial


def is_block(part: Any) -> bool:
    """Return whether a message or a part of one is a block of memories, and nothing else."""
    said = part.get("content", part.get("text")) if isinstance(part, dict) else None
    return isinstance(said, str) and said.startswith("<memories id=") and said.endswith("</memories>")


def pruned(value: Any) -> Any:
    """Return a request's body without blocks, a content that is a mere text as the part that it stands for."""
    if isinstance(value, list):
        return [pruned(item) for item in value if not is_block(item)]
    if not isinstance(value, dict):
        return value
    return {
        name: [{"type": "text", "text": item}] if name == "content" and isinstance(item, str) else pruned(item)
        for name, item in value.items()
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_request_differs_by_one_block_before_the_users_last_words(
    memori: Memori, server: ProviderServer, kind: Kind
) -> None:
    """Fails when a conversation's beginning is sent otherwise than without memory, which costs the prompt cache."""
    if find_spec(kind.module) is None:
        pytest.skip(f"{kind.module} is not installed here")
    entity = f"{kind.name} request"
    memori.remember(KNOWN, kind="preference", entity_id=entity)
    model: Any = kind.make(f"{server.url}/{abs(hash(entity))}" if kind.own_path else server.url)
    conversation = [("system", "Be brief."), ("user", "Hello."), ("assistant", "Hi, who are you?"), ("user", ASKED)]
    asked = len(server.requests)
    with memori.scope(entity_id=entity):
        model.invoke(conversation)
        memori.llm.register(model)
        model.invoke(conversation)
    plain, enriched = (dict(request.body) for request in server.requests[asked:])
    assert json.dumps(enriched).count("<memories id=") == 1
    assert pruned(enriched) == pruned(plain)
    (name,) = {"messages", "input", "contents"} & plain.keys()
    assert enriched[name][: len(plain[name]) - 1] == plain[name][:-1]
    assert list(enriched) == list(plain)
