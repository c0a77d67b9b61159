"""Several providers at once, and what providers keep of a conversation's beginning."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

from memori import Memori
from memori.testing.provider import ProviderServer, Reply

SYSTEM = "You are kind."


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def memori(tmp_path: Path) -> Iterator[Memori]:
    with Memori(conn=tmp_path / "memori.db") as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        yield memori.attribution(entity_id="alice")


@pytest.fixture
def openai(server: ProviderServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url + "/v1", api_key="local", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic(server: ProviderServer) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url, api_key="local", max_retries=0) as client:
        yield client


def ask_openai(client: OpenAI, messages: list[Any]) -> str:
    system: Any = {"role": "system", "content": SYSTEM}
    answer = client.chat.completions.create(model="m", messages=[system, *messages])
    return answer.choices[0].message.content or ""


def ask_anthropic(client: Anthropic, messages: list[Any]) -> str:
    answer = client.messages.create(model="m", max_tokens=99, system=SYSTEM, messages=messages)
    return "".join(block.text for block in answer.content if block.type == "text")


def test_two_providers_on_one_memori(
    memori: Memori, openai: OpenAI, anthropic: Anthropic, server: ProviderServer
) -> None:
    """Fails when one provider's client is not given what was learned through another's."""
    memori.llm.register(openai).llm.register(anthropic)
    ask_openai(openai, [{"role": "user", "content": "My favorite color is blue."}])
    assert memori.augmentation.wait(30)
    ask_anthropic(anthropic, [{"role": "user", "content": "What is my favorite color?"}])
    assert "favorite color is blue" in server.requests[-1].text
    assert len(memori.messages()) == 4


def test_registering_again_after_unregistering(memori: Memori, openai: OpenAI, anthropic: Anthropic) -> None:
    """Fails when a client that was given back cannot be taken again, or is heard in between."""
    asks: list[tuple[Any, Callable[[str], str]]] = [
        (openai, lambda text: ask_openai(openai, [{"role": "user", "content": text}])),
        (anthropic, lambda text: ask_anthropic(anthropic, [{"role": "user", "content": text}])),
    ]
    for client, ask in asks:
        before = len(memori.messages())
        memori.llm.register(client)
        ask("one")
        assert memori.llm.unregister(client)
        ask("two")
        memori.llm.register(client)
        ask("three")
        said = [item.content for item in memori.messages()[before:] if item.role == "user"]
        assert said == ["one", "three"]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_the_beginning_of_a_conversation_stays_what_it_was(
    memori: Memori, openai: OpenAI, anthropic: Anthropic, server: ProviderServer, provider: str
) -> None:
    """Fails when memori changes a byte before the last user message, and with it the provider's prompt cache."""
    memori.llm.register(openai).llm.register(anthropic)
    memori.remember("The user's favorite color is blue.")
    history: list[Any] = []
    injected = 0
    for turn in range(10):
        history.append({"role": "user", "content": f"Turn {turn}: what is my favorite color?"})
        server.script(Reply(text=f"Answer {turn}."))
        if provider == "openai":
            history.append({"role": "assistant", "content": ask_openai(openai, history)})
        else:
            history.append({"role": "assistant", "content": ask_anthropic(anthropic, history)})
        body = server.requests[-1].body
        given = history[:-2]
        if provider == "openai":
            given = [{"role": "system", "content": SYSTEM}, *given]
        else:
            assert body["system"] == SYSTEM
        assert json.dumps(body["messages"][: len(given)]) == json.dumps(given)
        injected += "<memories" in json.dumps(body["messages"][len(given) :])
    assert injected == 10
