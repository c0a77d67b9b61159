"""Agno's models, registered by themselves: recalled and captured once whoever runs them, over every provider's wire."""

from __future__ import annotations

import asyncio
import functools
import gc
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from blockbuster import blockbuster_ctx

pytest.importorskip("agno.agent", exc_type=ImportError)
pytest.importorskip("agno.models.openai", reason="openai is too old for it", exc_type=ImportError)

from agno.agent import Agent
from agno.models.base import Model
from agno.models.openai import OpenAIChat

from memori import Memori
from memori.testing.provider import ProviderServer, Reply, ToolCall

pytestmark = [
    # google-genai, of aiohttp's class.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    # Agno lets go of boto3's stream that is left early, without closing it.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]

SAID = "My favorite color is blue. Which dish would suit my favorite food?"
KNOWN = "The user's favorite food is ramen."
ANSWER = "Ramen with a blue bowl, and a green tea beside it."

Entry = Literal["run", "arun", "stream", "astream"]
Kind = Literal["text", "tools", "early close"]
CELLS: list[tuple[Entry, Kind]] = [
    *((entry, kind) for entry in ("run", "arun", "stream", "astream") for kind in ("text", "tools")),
    ("stream", "early close"),
    ("astream", "early close"),
]
REPLIES: dict[Kind, list[Reply]] = {
    "text": [Reply(text=ANSWER)],
    "tools": [Reply(tool_calls=(ToolCall("menu", {"food": "ramen"}),)), Reply(text=ANSWER)],
    "early close": [Reply(text=ANSWER, chunk_delay_s=0.01)],
}


def menu(food: str) -> str:
    """Say what there is."""
    return "Hakata ramen"


@dataclass
class Wire:
    """A model, and its SDK's clients, synchronous and asynchronous."""

    model: Model
    client: Any
    asynchronous: Any = None
    aclose: Callable[[], Awaitable[Any]] | None = None


def openai_clients(server: ProviderServer) -> tuple[Any, Any]:
    from openai import AsyncOpenAI, OpenAI

    options: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "local", "max_retries": 0}
    return OpenAI(**options), AsyncOpenAI(**options)


def openai_chat(server: ProviderServer) -> Wire:
    client, asynchronous = openai_clients(server)
    model = OpenAIChat(id="gpt-4o-mini", client=client, async_client=asynchronous)
    return Wire(model, client, asynchronous, asynchronous.close)


def openai_responses(server: ProviderServer) -> Wire:
    from agno.models.openai import OpenAIResponses

    client, asynchronous = openai_clients(server)
    model = OpenAIResponses(id="gpt-4o-mini", client=client, async_client=asynchronous)
    return Wire(model, client, asynchronous, asynchronous.close)


def xai(server: ProviderServer) -> Wire:
    from agno.models.xai import xAI

    client, asynchronous = openai_clients(server)
    model = xAI(id="grok-4", api_key="local", client=client, async_client=asynchronous)
    return Wire(model, client, asynchronous, asynchronous.close)


def claude(server: ProviderServer) -> Wire:
    pytest.importorskip("agno.models.anthropic", exc_type=ImportError)
    from agno.models.anthropic import Claude
    from anthropic import Anthropic, AsyncAnthropic

    options: dict[str, Any] = {"base_url": server.url, "api_key": "local", "max_retries": 0}
    client, asynchronous = Anthropic(**options), AsyncAnthropic(**options)
    model = Claude(id="claude-opus-5", client=client, async_client=asynchronous)
    return Wire(model, client, asynchronous, asynchronous.close)


@functools.cache
def no_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def gemini(server: ProviderServer) -> Wire:
    pytest.importorskip("agno.models.google", exc_type=ImportError)
    from agno.models.google import Gemini
    from google import genai

    tls: dict[str, Any] = {"client_args": {"verify": no_tls()}, "async_client_args": {"verify": no_tls()}}
    client = genai.Client(api_key="local", http_options={"base_url": server.url, **tls})  # type: ignore[arg-type]
    return Wire(Gemini(id="gemini-2.5-flash", client=client), client, aclose=client.aio.aclose)


class InThreads:
    """An asynchronous client of Bedrock: boto3's own, in worker threads. aioboto3 holds boto3 back."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def converse(self, **options: Any) -> Any:
        return await asyncio.to_thread(self._client.converse, **options)

    async def converse_stream(self, **options: Any) -> Any:
        response = await asyncio.to_thread(self._client.converse_stream, **options)
        return {**response, "stream": self._events(iter(response["stream"]))}

    async def _events(self, events: Iterator[Any]) -> AsyncIterator[Any]:
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event


@functools.cache
def aws_session() -> Any:
    """Return the session that reads AWS's description of Bedrock once for all clients."""
    import boto3  # type: ignore[import-untyped]

    keys: dict[str, str] = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return boto3.Session(region_name="us-east-1", **keys)


def aws_bedrock(server: ProviderServer) -> Wire:
    pytest.importorskip("agno.models.aws", exc_type=ImportError)
    from agno.models.aws import AwsBedrock

    client = aws_session().client("bedrock-runtime", endpoint_url=server.url)
    return Wire(AwsBedrock(id="amazon.nova-lite-v1:0", client=client, async_client=InThreads(client)), client)


MODELS: dict[str, Callable[[ProviderServer], Wire]] = {
    "OpenAIChat": openai_chat,
    "OpenAIResponses": openai_responses,
    "Claude": claude,
    "Gemini": gemini,
    "AwsBedrock": aws_bedrock,
    "xAI": xai,
}


# The named forms of mem.llm.register that a model of Agno's may be given by, too.
FORMS = {"OpenAIChat": "openai_chat", "Claude": "claude", "Gemini": "gemini", "xAI": "xai"}


@pytest.fixture(scope="module")
def memori(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memori]:
    with Memori(conn=tmp_path_factory.mktemp("memory") / "memori.db") as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        yield memori


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


def left(event: Any) -> bool:
    return bool(getattr(event, "content", None))


async def arun(entry: Entry, agent: Agent, wire: Wire, user: str, *, leave: bool) -> None:
    try:
        with blockbuster_ctx(["memori", "memori_agno"]):
            if entry == "arun":
                await agent.arun(SAID, user_id=user, session_id="s")
                return
            events: Any = agent.arun(SAID, user_id=user, session_id="s", stream=True)
            async for event in events:
                if leave and left(event):
                    await events.aclose()
                    return
    finally:
        if wire.aclose is not None:
            await wire.aclose()


def drive(entry: Entry, agent: Agent, wire: Wire, user: str, *, leave: bool = False) -> None:
    if entry in ("arun", "astream"):
        asyncio.run(arun(entry, agent, wire, user, leave=leave))
    elif entry == "run":
        agent.run(SAID, user_id=user, session_id="s")
    else:
        events: Any = agent.run(SAID, user_id=user, session_id="s", stream=True)
        for event in events:
            if leave and left(event):
                events.close()
                break
    wire.client.close()
    if leave:
        gc.collect()  # So that it is this test which hears of what was not closed.


def eventually(memori: Memori, user: str, count: int) -> list[Any]:
    """Return the user's messages as soon as there are that many: what is left early is stored a moment later."""
    end = time.monotonic() + 30
    while len(stored := memori.messages(entity_id=user)) < count:
        assert time.monotonic() < end, f"only this was stored: {stored}"
        time.sleep(0.005)
    return stored


def blocks(request: Any) -> int:
    return str(request.body).count("<memories id=")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("entry", "kind"), CELLS)
def test_a_registered_model_is_recalled_and_captured_once(
    memori: Memori, server: ProviderServer, entry: Entry, kind: Kind, name: str
) -> None:
    """Fails when this model's requests go without memories, or with two blocks, or its run is not stored once."""
    user = f"{name} {entry} {kind}"
    memori.remember(KNOWN, kind="preference", entity_id=user)
    wire = MODELS[name](server)
    if name == "AwsBedrock" and entry in ("arun", "astream") and not hasattr(wire.model, "_async_client"):
        pytest.skip("this Agno has asynchronous clients of Bedrock's made by aioboto3 alone")
    if name in FORMS and entry in ("arun", "astream"):
        memori.llm.register(**{FORMS[name]: wire.model})
    else:
        memori.llm.register(wire.model)
    for client in (wire.client, wire.asynchronous):
        if client is not None and name != "AwsBedrock":
            memori.llm.register(client)  # The model's own client, too: it is the same conversation.
    agent = Agent(name="waiter", model=wire.model, telemetry=False, tools=[menu] if kind == "tools" else None)
    before = len(server.requests)
    server.script(*REPLIES[kind])

    drive(entry, agent, wire, user, leave=kind == "early close")

    requests = server.requests[before:]
    assert len(requests) == len(REPLIES[kind])
    for request in requests:
        assert blocks(request) == 1
        texts = "\n".join(turn.text for turn in request.turns)
        assert texts.index("favorite food is ramen") < texts.index(SAID)
    stored = eventually(memori, user, 4 if kind == "tools" else 2)
    said = [(message.role, message.kind, message.content) for message in stored]
    assert said[0] == ("user", "text", SAID)
    if kind == "tools":
        assert [role for role, _, _ in said] == ["user", "assistant", "tool", "assistant"]
        assert said[1][2].startswith("menu({")
        assert said[2][1:] == ("tool_result", "Hakata ramen")
    else:
        assert [role for role, _, _ in said] == ["user", "assistant"]
    if kind == "early close":
        assert ANSWER.startswith(said[1][2])
        assert stored[1].partial
    else:
        assert said[-1] == ("assistant", "text", ANSWER)
    assert {message.process_id for message in stored} == {"waiter"}
    assert memori.status().failures == 0
