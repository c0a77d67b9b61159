"""Where memori's block goes in what Pydantic AI asks of Bedrock's Converse, which wants roles to alternate."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic_ai.models.bedrock", exc_type=ImportError)

import boto3  # type: ignore[import-untyped]
from blockbuster import blockbuster_ctx
from botocore.config import Config  # type: ignore[import-untyped]
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.bedrock import BedrockConverseModel
from pydantic_ai.providers.bedrock import BedrockProvider

from memori import Memori
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori_pydantic_ai import MemoriCapability

KNOWN = "The user's favorite color is teal."
QUESTION = "What is my favorite color?"


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def client(server: ProviderServer) -> Iterator[Any]:
    config = Config(retries={"mode": "standard", "max_attempts": 2})
    where: dict[str, str] = {"region_name": "us-east-1", "endpoint_url": server.url}
    keys: dict[str, str] = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    made = boto3.client("bedrock-runtime", config=config, **where, **keys)
    with ExitStack() as opened:
        opened.callback(made.close)
        # Pydantic AI 2.59 leaves open the stream that broke off.
        made.meta.events.register(
            "after-call.bedrock-runtime.ConverseStream",
            lambda parsed, **_: opened.callback(parsed["stream"].close) if "stream" in parsed else None,
        )
        yield made


@pytest.fixture
def memori(tmp_path: Path) -> Iterator[Memori]:
    with Memori(conn=tmp_path / "memori.db") as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        memori.remember(KNOWN, kind="preference", entity_id="alice")
        yield memori


@pytest.fixture
def agent(memori: Memori, client: Any) -> Agent[None, str]:
    model = BedrockConverseModel("us.amazon.nova-lite-v1:0", provider=BedrockProvider(bedrock_client=client))
    agent = Agent(model, instructions="Be brief.", capabilities=[MemoriCapability(memori, user="alice")])

    @agent.tool_plain
    def clock() -> str:
        """Tell the time."""
        return "noon"

    return agent


def run(agent: Agent[None, str], prompt: str, history: list[ModelMessage] | None = None) -> list[ModelMessage]:
    """Return the messages; whatever of ours blocks the event loop raises."""

    async def main() -> list[ModelMessage]:
        await asyncio.sleep(0)
        with blockbuster_ctx("memori"):
            return (await agent.run(prompt, message_history=history)).all_messages()

    return asyncio.run(main())


def is_block(content: dict[str, Any]) -> bool:
    return str(content.get("text")).startswith("<memories id=")


def test_the_block_is_a_content_of_its_own_in_the_users_message(
    agent: Agent[None, str], server: ProviderServer
) -> None:
    """Fails when a request has the block elsewhere, twice, or in a message of its own, which Bedrock refuses."""
    history: list[ModelMessage] = []
    for turn in range(3):
        server.script(Reply(tool_calls=(ToolCall("clock"),)), Reply(text=f"Teal, at noon, I say {turn}."))
        history = run(agent, f"{QUESTION} ({turn})", history)
    assert len(server.requests) == 6
    for number, request in enumerate(server.requests):
        turn, after_tool = divmod(number, 2)
        messages = request.body["messages"]
        assert [message["role"] for message in messages] == ["user", *["assistant", "user"] * (2 * turn + after_tool)]
        asked = messages[4 * turn]["content"]
        assert is_block(asked[0])
        assert KNOWN in asked[0]["text"]
        assert asked[1:] == [{"text": f"{QUESTION} ({turn})"}]
        assert sum(is_block(content) for message in messages for content in message["content"]) == 1
        assert request.body["system"] == [{"text": "Be brief."}]


def test_bedrock_refuses_it_in_a_message_of_its_own(
    agent: Agent[None, str], server: ProviderServer, client: Any
) -> None:
    """Fails when the server takes what the real one refuses, so that the test above shows nothing."""
    run(agent, QUESTION)
    (asked,) = server.requests[0].body["messages"]
    apart = [{"role": "user", "content": [content]} for content in asked["content"]]
    assert len(apart) == 2
    with pytest.raises(client.exceptions.ValidationException, match="alternate"):
        client.converse(modelId="us.amazon.nova-lite-v1:0", messages=apart)


def test_in_the_system_role_it_comes_after_the_applications_own(
    agent: Agent[None, str], memori: Memori, server: ProviderServer
) -> None:
    """Fails when injection_role="system" puts the block where Converse takes no system text, or among the user's."""
    memori.config.injection_role = "system"
    run(agent, QUESTION)
    body = server.requests[0].body
    assert [is_block(content) for content in body["system"]].count(True) == 1
    assert {"text": "Be brief."} in body["system"]
    assert body["messages"] == [{"role": "user", "content": [{"text": QUESTION}]}]


def test_what_boto3_tries_again_is_one_turn(agent: Agent[None, str], memori: Memori, server: ProviderServer) -> None:
    """Fails when a throttled request is recalled for twice, or stored twice."""
    server.script(Reply(status=429), Reply(status=503), Reply(text="Teal."))
    run(agent, QUESTION)
    first, second, third = server.requests
    assert first.body == second.body == third.body
    assert [message.content for message in memori.messages(entity_id="alice")] == [QUESTION, "Teal."]


def test_an_exception_in_mid_stream_keeps_what_came(
    agent: Agent[None, str], memori: Memori, server: ProviderServer
) -> None:
    """Fails when Bedrock's error does not reach the caller, or takes what was said before it along."""
    server.script(Reply(text="Teal, as you told me.", error_after=3, error_message="it broke"))

    async def main() -> None:
        async with agent.run_stream(QUESTION) as stream:
            async for _ in stream.stream_text(delta=True, debounce_by=None):
                pass

    with pytest.raises(Exception, match="it broke"):
        asyncio.run(main())
    assert memori.augmentation.wait(30)
    asked, partial = memori.messages(entity_id="alice")
    assert asked.content == QUESTION
    assert partial.partial
    assert "Teal, as you told me.".startswith(partial.content)
