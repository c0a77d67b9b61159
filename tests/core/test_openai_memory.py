"""The whole path, for every way to ask OpenAI's SDK: captured, augmented and injected, with nothing in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from blockbuster import blockbuster_ctx
from openai import AsyncOpenAI, OpenAI

from memori import Memori
from memori.testing.openai_calls import OPENAI_CALLS, OpenAICall
from memori.testing.provider import ProviderServer, Reply

SDK = tuple(int(part) for part in openai.__version__.split(".")[:2])
SAID = "My favorite color is blue. Which dish would suit my favorite food?"
KNOWN = "The user's favorite food is ramen."
Leave = Literal["to the end", "early break"]
CELLS = [
    pytest.param(
        call, leave, id=f"{call.id}-{leave}", marks=pytest.mark.skipif(call.since > SDK, reason="not in this SDK yet")
    )
    for call in OPENAI_CALLS
    for leave in ("to the end", "early break")
    if call.streams or leave == "to the end"
]


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


def sync_call(memori: Memori, server: ProviderServer, call: OpenAICall, leave: Leave) -> str:
    with OpenAI(api_key="local", base_url=f"{server.url}/v1", max_retries=0) as client:
        memori.llm.register(client)
        pieces = call.run(client, SAID)
        if leave == "to the end":
            return "".join(pieces)
        first = next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        return first


def async_call(memori: Memori, server: ProviderServer, call: OpenAICall, leave: Leave) -> str:
    async def main() -> str:
        async with AsyncOpenAI(api_key="local", base_url=f"{server.url}/v1", max_retries=0) as client:
            memori.llm.register(client)
            await asyncio.sleep(0)
            with blockbuster_ctx("memori"):
                pieces: Any = call.arun(client, SAID)
                if leave == "to the end":
                    return "".join([piece async for piece in pieces])
                first = await anext(pieces)
                await pieces.aclose()
                return str(first)

    return asyncio.run(main())


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize(("call", "leave"), CELLS)
def test_a_call_is_captured_augmented_and_injected(
    memori: Memori, server: ProviderServer, call: OpenAICall, leave: Leave, colour: str
) -> None:
    """Fails when this way to ask goes without memories, or its exchange is not stored, or not turned into facts."""
    entity = f"{call.id} {leave} {colour}"
    memori.remember(KNOWN, kind="preference", entity_id=entity)
    server.script(Reply(text=call.answer, chunk_delay_s=0.01 if leave == "early break" else 0.0))
    asked = len(server.requests)
    with memori.scope(entity_id=entity, process_id="table"):
        heard = (sync_call if colour == "sync" else async_call)(memori, server, call, leave)

    (request,) = server.requests[asked:]
    assert "favorite food is ramen" in request.text
    assert request.turns[-1].text == SAID

    end = time.monotonic() + 10
    while not (stored := memori.messages(entity_id=entity)):
        assert time.monotonic() < end, "the exchange was not stored"
        time.sleep(0.005)
    assert stored[0].content == SAID
    reply = [message for message in stored if message.role == "assistant"]
    if call.heard:
        assert [message.content for message in reply] == [heard]
        assert reply[0].partial == (leave == "early break")
    else:
        assert reply == []  # What the SDK hands out as bytes, memori does not read.

    assert memori.augmentation.wait(30)
    facts = {fact.predicate: fact for fact in memori.facts(entity_id=entity)}
    assert facts["favorite_color"].object == "blue"
    assert facts["favorite_color"].sources == (stored[0].id,)
