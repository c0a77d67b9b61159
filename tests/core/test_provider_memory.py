"""The whole path, for every way to ask every SDK: captured, augmented and injected, with nothing in between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from typing import Any, Literal

import pytest
from blockbuster import blockbuster_ctx

from memori import Memori
from memori.testing.calls import SHAPES, ProviderCall
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori.testing.providers import PROVIDERS, ProviderSDK
from memori.types import StoredMessage

SAID = "My favorite color is blue. Which dish would suit my favorite food?"
KNOWN = "The user's favorite food is ramen."
End = Literal["to the end", "early break", "error mid-stream"]
TOOL = ToolCall("weather", {"city": "Oslo"}, id="call_1")


def reason_to_skip(sdk: ProviderSDK, call: ProviderCall) -> str | None:
    try:
        return "not in this SDK yet" if call.since > sdk.version else None
    except PackageNotFoundError:
        return f"{sdk.distribution} is not installed here"


def cell(sdk: ProviderSDK, call: ProviderCall, *more: str) -> Any:
    marks: list[Any] = [pytest.mark.filterwarnings(noise) for noise in sdk.noise]
    if reason := reason_to_skip(sdk, call):
        marks.append(pytest.mark.skip(reason=reason))
    return pytest.param(sdk, call, *more, id="-".join([sdk.name, call.id, *more]), marks=marks)


CELLS = [
    cell(sdk, call, end)
    for sdk in PROVIDERS
    for call in sdk.calls
    for end in ("to the end", "early break", "error mid-stream")
    if call.streams or end == "to the end"
]
# One of each shape, and of those that stream and those that do not: a table of its own is how each SDK's tools read.
TOOL_CELLS = [
    cell(sdk, call)
    for sdk in PROVIDERS
    for shape in SHAPES
    for streams in (False, True)
    for call in [call for call in sdk.calls if (call.shape, call.streams, call.heard) == (shape, streams, True)][:1]
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


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tracer of xAI's SDK complains of each asynchronous stream that is dropped, with a traceback that pytest would
    # keep, and with it the stream.
    monkeypatch.setattr(logging.getLogger("opentelemetry.context"), "disabled", True)


def sync_call(
    memori: Memori, address: str, sdk: ProviderSDK, call: ProviderCall, heard: list[str], leave: bool
) -> None:
    with sdk.client(address) as client:
        memori.llm.register(client)
        pieces = call.run(client, SAID)
        for piece in pieces:
            heard.append(piece)
            if leave:
                break
        pieces.close()  # type: ignore[attr-defined]


def async_call(
    memori: Memori, address: str, sdk: ProviderSDK, call: ProviderCall, heard: list[str], leave: bool
) -> None:
    async def main() -> None:
        async with sdk.async_client(address) as client:
            memori.llm.register(client)
            await asyncio.sleep(0)
            with contextlib.nullcontext() if sdk.blocks else blockbuster_ctx("memori"):
                pieces: Any = call.arun(client, SAID)
                async for piece in pieces:
                    heard.append(piece)
                    if leave:
                        break
                await pieces.aclose()

    asyncio.run(main())


COLOURS: dict[str, Callable[..., None]] = {"sync": sync_call, "async": async_call}


def stored_by(memori: Memori, entity: str) -> list[StoredMessage]:
    end = time.monotonic() + 10
    while not (stored := list(memori.messages(entity_id=entity))):
        assert time.monotonic() < end, "the exchange was not stored"
        time.sleep(0.005)
    return stored


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(("sdk", "call", "end"), CELLS)
def test_a_call_is_captured_augmented_and_injected(
    memori: Memori, server: ProviderServer, sdk: ProviderSDK, call: ProviderCall, end: End, colour: str
) -> None:
    """Fails when this way to ask goes without memories, or its exchange is not stored, or not turned into facts."""
    entity = f"{sdk.name} {call.id} {end} {colour}"
    memori.remember(KNOWN, kind="preference", entity_id=entity)
    broken: dict[str, Any] = {"error_after": call.begun} if end == "error mid-stream" else {}
    server.script(Reply(text=call.answer, chunk_delay_s=0.01 if end == "early break" else 0.0, **broken))
    asked, heard = len(server.requests), list[str]()
    raised = False
    with memori.scope(entity_id=entity, process_id="table"), sdk.serve(server) as address:
        try:
            COLOURS[colour](memori, address, sdk, call, heard, end == "early break")
        except Exception:  # Which error an SDK raises is told by its own tests; some older ones take it for the end.
            raised = True
            if not broken:
                raise

    (request,) = server.requests[asked:]
    assert "favorite food is ramen" in request.text
    assert request.turns[-1].text == SAID

    stored = stored_by(memori, entity)
    assert stored[0].content == SAID
    reply = [message for message in stored if message.role == "assistant"]
    if call.heard:
        assert [message.content for message in reply] == ["".join(heard)]
        assert reply[0].partial == (end == "early break" or raised)
        assert ("".join(heard) == call.answer) == (end == "to the end")
    else:
        assert reply == []  # What the SDK hands out as bytes, memori does not read.

    assert memori.augmentation.wait(30)
    facts = {fact.predicate: fact for fact in memori.facts(entity_id=entity)}
    assert facts["favorite_color"].object == "blue"
    assert facts["favorite_color"].sources == (stored[0].id,)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(("sdk", "call"), TOOL_CELLS)
def test_what_a_call_is_asked_to_call_is_captured(
    memori: Memori, server: ProviderServer, sdk: ProviderSDK, call: ProviderCall, colour: str
) -> None:
    """Fails when a tool call in a reply, whole or in fragments, is lost, or what was said beside it is."""
    entity = f"{sdk.name} {call.id} tools {colour}"
    server.script(Reply(text=call.answer, tool_calls=(TOOL,)))
    heard = list[str]()
    with memori.scope(entity_id=entity, process_id="table"), sdk.serve(server) as address:
        COLOURS[colour](memori, address, sdk, call, heard, False)
    reply = [(message.kind, message.content) for message in stored_by(memori, entity) if message.role == "assistant"]
    assert reply == [("text", call.answer), ("tool_call", 'weather({"city": "Oslo"})')]


def test_every_cell_is_tried_or_said_not_to_be_offered() -> None:
    """Fails when an SDK has neither calls of a shape nor a word on why."""
    for sdk in PROVIDERS:
        offered = {call.shape for call in sdk.calls}
        missing = {found.shape for found in sdk.not_offered}
        assert offered | missing == set(SHAPES), sdk.name
        assert not offered & missing, sdk.name
        assert len({call.id for call in sdk.calls}) == len(sdk.calls)
