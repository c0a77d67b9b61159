"""The whole path for every way to run a LangChain agent: recalled, never in the thread, and captured once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

import pytest

pytest.importorskip("langchain.agents", exc_type=ImportError)

from blockbuster import blockbuster_ctx
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, ConfigDict, Field

from memori import Memori
from memori.ranking.hybrid import HybridRanker
from memori.types import Candidates, Ranked, StoredMessage
from memori_langchain import MemoriContext, MemoriMiddleware

pytestmark = pytest.mark.filterwarnings("ignore:The v3 streaming protocol on Pregel is experimental")

SAID = "My favorite color is blue. Which dish would suit my favorite food?"
KNOWN = "The user's favorite food is ramen."
ANSWER = "Ramen with a blue bowl, and a green tea beside it."


class City(BaseModel):
    """Where to eat."""

    name: str
    ramen: bool


class RefusedError(Exception):
    """The model does not answer."""


class Scripted(BaseChatModel):
    """A model that says what it was given to say, and notes what it was asked.

    Attributes:
        replies: A message, or an error to raise; of a stream, an error may follow some words.
        asked: The messages of each request.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    replies: list[Any] = Field(default_factory=list)
    asked: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind()

    def _next(self, messages: list[BaseMessage]) -> list[Any]:
        self.asked.append(list(messages))
        reply = self.replies.pop(0)
        return list(reply) if isinstance(reply, tuple) else [reply]

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        said = self._next(messages)
        if isinstance(said[-1], BaseException):
            raise said[-1]
        return ChatResult(generations=[ChatGeneration(message=said[-1])])

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for part in self._next(messages):
            if isinstance(part, BaseException):
                raise part
            for word in part.content.replace(" ", " \x00").split("\x00") if part.content else ():
                yield ChatGenerationChunk(message=AIMessageChunk(content=word))
            if part.tool_calls:
                chunks: list[Any] = [
                    {"name": call["name"], "args": dumped(call["args"]), "id": call["id"], "index": place}
                    for place, call in enumerate(part.tool_calls)
                ]
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=chunks))


def dumped(args: dict[str, Any]) -> str:
    return City.model_validate(args).model_dump_json() if "ramen" in args else str(args).replace("'", '"')


def scripted(*replies: Any) -> Scripted:
    return Scripted(replies=list(replies))


def calling(name: str, args: dict[str, Any], id: str = "call-1") -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": id}])


@tool
def menu(food: str) -> str:
    """Say what there is."""
    return "Hakata ramen, Sapporo ramen"


@tool(return_direct=True)
def bill(table: str) -> str:
    """Say what there is to pay."""
    return "12 euros"


@tool
def broken(food: str) -> str:
    """Say nothing."""
    raise RefusedError("no such table")


class CountingRanker(HybridRanker):
    """memori's own ranker, which also notes for whose words it is asked: once a recall."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[str] = []

    def rank(self, query: str, candidates: Candidates, *, now: datetime, limit: int) -> Sequence[Ranked]:
        self.queries.append(query)
        return super().rank(query, candidates, now=now, limit=limit)


@pytest.fixture(scope="module")
def ranker() -> CountingRanker:
    return CountingRanker()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, ranker: CountingRanker) -> Iterator[Memori]:
    with Memori(conn=tmp_path_factory.mktemp("memory") / "memori.db", ranker=ranker) as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        yield memori


@pytest.fixture
def memori(shared: Memori) -> Iterator[Memori]:
    failures = shared.status().failures
    yield shared
    assert shared.status().failures == failures


@pytest.fixture
def user(memori: Memori, request: pytest.FixtureRequest) -> str:
    """Somebody of whom something is known."""
    user: str = request.node.name
    memori.remember(KNOWN, kind="preference", entity_id=user)
    return user


def stored(memori: Memori, user: str, count: int) -> list[StoredMessage]:
    """Return what is stored, as soon as it is at least that much."""
    end = time.monotonic() + 30
    while len(found := memori.messages(entity_id=user)) < count:
        assert time.monotonic() < end, f"stored is only {found}"
        time.sleep(0.005)
    return found


def said(messages: Sequence[StoredMessage]) -> list[tuple[str, str, str]]:
    return [(message.role, message.kind, message.content) for message in messages]


def thread(id: str, **options: Any) -> Any:
    return {"configurable": {"thread_id": id}, **options}


def ask(*texts: str) -> Any:
    return {"messages": [HumanMessage(text) for text in texts]}


def injected(messages: Sequence[BaseMessage]) -> list[int]:
    return [place for place, message in enumerate(messages) if "<memories" in message.text]


def guarded(main: Callable[[], Any]) -> Any:
    """Run *main* where nothing may block the event loop."""

    async def inner() -> Any:
        await asyncio.sleep(0)
        with blockbuster_ctx():
            return await main()

    return asyncio.run(inner())


USER_SAID = ("user", "text", SAID)
ANSWERED = ("assistant", "text", ANSWER)
CALLED = ("assistant", "tool_call", 'menu({"food": "ramen"})')
CAME = ("tool", "tool_result", "Hakata ramen, Sapporo ramen")

Kind = Literal["text", "tools", "structured output"]
MODES = ("values", "updates", "messages", "custom", "debug", "tasks", "checkpoints")


def drive(entry: str, agent: Any, given: Any, config: Any, context: Any) -> None:
    """Run an agent that way, to its end."""
    entry, _, mode = entry.partition(" ")
    modes: Any = list(MODES) if mode == "all" else mode

    async def main() -> None:
        match entry:
            case "ainvoke":
                await agent.ainvoke(given, config, context=context)
            case "abatch":
                await agent.abatch([given], config, context=context)
            case "astream":
                async for _ in agent.astream(given, config, context=context, stream_mode=modes):
                    pass
            case "astream_events":
                events = agent.astream_events(given, config, context=context, version=mode)
                async for _ in await events if mode == "v3" else events:
                    pass

    match entry:
        case "invoke":
            agent.invoke(given, config, context=context)
        case "batch":
            agent.batch([given], config, context=context)
        case "stream":
            for _ in agent.stream(given, config, context=context, stream_mode=modes):
                pass
        case "stream_events":
            for _ in agent.stream_events(given, config, context=context, version=mode):
                pass
        case _:
            guarded(main)


ENTRIES = [
    "invoke",
    "ainvoke",
    "batch",
    "abatch",
    *(f"stream {mode}" for mode in (*MODES, "all")),
    *(f"astream {mode}" for mode in (*MODES, "all")),
    "astream_events v2",
    "stream_events v3",
    "astream_events v3",
]


@pytest.mark.parametrize("kind", ["text", "tools", "structured output"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_run_is_recalled_and_captured_once(
    memori: Memori, ranker: CountingRanker, user: str, entry: str, kind: Kind
) -> None:
    """Fails when this way to run an agent goes without memories, keeps them in its thread, or is not stored once."""
    city = {"name": "Fukuoka", "ramen": True}
    model = {
        "text": scripted(AIMessage(ANSWER)),
        "tools": scripted(calling("menu", {"food": "ramen"}), AIMessage(ANSWER)),
        "structured output": scripted(calling("City", city)),
    }[kind]
    agent = create_agent(
        model,
        [menu],
        system_prompt="Be brief.",
        middleware=[MemoriMiddleware(memori)],
        response_format=ToolStrategy(City) if kind == "structured output" else None,
        context_schema=MemoriContext,
        checkpointer=InMemorySaver(),
        name="waiter",
    )
    ranker.queries.clear()
    given, config = ask(SAID), thread(user)
    drive(entry, agent, given, config, MemoriContext(user_id=user))

    assert ranker.queries == [SAID]
    assert len(model.asked) == (2 if kind == "tools" else 1)
    for request in model.asked:
        assert [type(message) for message in request[:3]] == [SystemMessage, HumanMessage, HumanMessage]
        assert injected(request) == [1]
        assert "favorite food is ramen" in request[1].text
        assert (request[0].text, request[2].text) == ("Be brief.", SAID)
    assert model.asked[0] == model.asked[-1][:3]
    assert [message.content for message in given["messages"]] == [SAID]
    assert injected(agent.get_state(config).values["messages"]) == []
    for snapshot in agent.get_state_history(config):
        assert "<memories" not in str(snapshot)

    found = memori.messages(entity_id=user)
    assert (
        said(found)
        == {
            "text": [USER_SAID, ANSWERED],
            "tools": [USER_SAID, CALLED, CAME, ANSWERED],
            "structured output": [
                USER_SAID,
                ("assistant", "tool_call", 'City({"name": "Fukuoka", "ramen": true})'),
                ("tool", "tool_result", "Returning structured response: name='Fukuoka' ramen=True"),
            ],
        }[kind]
    )
    assert {(item.session_id, item.process_id, item.partial) for item in found} == {(user, "waiter", False)}
    assert memori.augmentation.wait(30)
    facts = {fact.predicate: fact for fact in memori.facts(entity_id=user)}
    assert (facts["favorite_color"].object, facts["favorite_color"].mentions) == ("blue", 1)
