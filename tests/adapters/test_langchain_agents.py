"""The whole path for every way to run a LangChain agent: recalled, never in the thread, and captured once."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

pytest.importorskip("langchain.agents", exc_type=ImportError)

from blockbuster import blockbuster_ctx
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel, ConfigDict, Field

from memori import AttributionError, ConfigurationError, Memori, Settings
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori.testing.ranker import CountingRanker
from memori.types import StoredMessage
from memori_langchain import MemoriCallbackHandler, MemoriContext, MemoriMiddleware, MemoriSearchTool

pytestmark = pytest.mark.filterwarnings("ignore:The v3 streaming protocol on Pregel is experimental")

SAID = "My favorite color is blue. Which dish would suit my favorite food?"
KNOWN = "The user's favorite food is ramen."
ANSWER = "Ramen with a blue bowl, and a green tea beside it."


STUCK = object()


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
            if part is STUCK:
                raise AssertionError("only an asynchronous model waits for ever")
            for word in part.content.replace(" ", " \x00").split("\x00") if part.content else ():
                yield ChatGenerationChunk(message=AIMessageChunk(content=word))
            if part.tool_calls:
                chunks: list[Any] = [
                    {"name": call["name"], "args": dumped(call["args"]), "id": call["id"], "index": place}
                    for place, call in enumerate(part.tool_calls)
                ]
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=chunks))

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        if STUCK not in (said := self.replies[0] if isinstance(self.replies[0], tuple) else ()):
            for chunk in self._stream(messages, stop, run_manager, **kwargs):
                yield chunk
            return
        self._next(messages)
        yield ChatGenerationChunk(message=AIMessageChunk(content=said[0].content))
        await asyncio.Event().wait()


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


def agent_for(memori: Memori, model: BaseChatModel, *tools: Any, **options: Any) -> Any:
    middleware = options.pop("middleware", None) or [MemoriMiddleware(memori)]
    options = {"context_schema": MemoriContext, "checkpointer": InMemorySaver(), "name": "waiter", **options}
    return create_agent(model, list(tools), middleware=middleware, **options)


def test_a_thread_of_many_turns_is_stored_once(memori: Memori, user: str) -> None:
    """Fails when the history that a checkpointer brings back each turn is stored again."""
    turns = [(f"Turn {turn}: is there ramen?", f"Answer {turn}") for turn in range(6)]
    model = scripted(*(reply for turn in turns for reply in (calling("menu", {"food": "ramen"}), AIMessage(turn[1]))))
    agent = agent_for(memori, model, menu)
    for asked, _ in turns:
        agent.invoke(ask(asked), thread(user), context=MemoriContext(user))
    expected = [
        part
        for asked, answer in turns
        for part in (("user", "text", asked), CALLED, CAME, ("assistant", "text", answer))
    ]
    assert said(memori.messages(entity_id=user)) == expected
    assert all(len(injected(request)) == 1 for request in model.asked)


def test_the_same_words_said_again_are_stored_again(memori: Memori, user: str) -> None:
    """Fails when a user who says the same twice is taken for one call that is repeated."""
    agent = agent_for(memori, scripted(*(AIMessage(ANSWER) for _ in range(3))))
    for _ in range(3):
        agent.invoke(ask(SAID), thread(user), context=MemoriContext(user))
    assert said(memori.messages(entity_id=user)) == [USER_SAID, ANSWERED] * 3


@dataclass
class ShopContext(MemoriContext):
    """What a shop's agent is told."""

    shop: str = "Hakata"


@dataclass
class OtherContext:
    """A context that is not memori's."""

    user_id: str
    tenant: str


CONTEXTS: dict[str, tuple[Any, Callable[[str], Any]]] = {
    "MemoriContext": (MemoriContext, MemoriContext),
    "keys for a MemoriContext": (MemoriContext, lambda user: {"user_id": user}),
    "a subclass": (ShopContext, ShopContext),
    "another dataclass": (OtherContext, lambda user: OtherContext(user, "acme")),
    "a mapping": (dict, lambda user: {"user_id": user, "tenant": "acme"}),
    "no schema": (None, MemoriContext),
}


@pytest.mark.parametrize("kind", CONTEXTS)
def test_a_context_says_whom_a_run_is_for(memori: Memori, user: str, kind: str) -> None:
    """Fails when a context's user is not found, or a fixed user or the current entity goes before it."""
    schema, context = CONTEXTS[kind]
    agent = agent_for(
        memori, scripted(AIMessage(ANSWER)), middleware=[MemoriMiddleware(memori, user="fixed")], context_schema=schema
    )
    with memori.scope(entity_id="somebody else"):
        agent.invoke(ask(SAID), thread(user), context=context(user))
    assert said(memori.messages(entity_id=user)) == [USER_SAID, ANSWERED]


def test_a_context_names_process_and_session(memori: Memori, user: str) -> None:
    """Fails when a context's names do not go before the agent's and the thread's."""
    agent = agent_for(memori, scripted(AIMessage(ANSWER)))
    agent.invoke(ask(SAID), thread(user), context=MemoriContext(user, process_id="cook", session_id="evening"))
    found = memori.messages(entity_id=user)
    assert {(item.process_id, item.session_id) for item in found} == {("cook", "evening")}


class ServerUser(dict[str, Any]):
    """Who is authenticated at a LangGraph server."""

    def __init__(self, identity: str) -> None:
        super().__init__(identity=identity)
        self.identity, self.display_name, self.is_authenticated = identity, identity, True
        self.permissions: list[str] = []


def test_whom_a_run_is_for_where_its_context_does_not_say(memori: Memori, user: str) -> None:
    """Fails when a function, a fixed user, the server's user or the current entity is not asked, in this order."""
    by_server = {"langgraph_auth_user": ServerUser(f"{user}, server")}
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (lambda runtime: f"{user}, {runtime.execution_info.thread_id}", by_server, "t"),
        (f"{user}, fixed", by_server, "fixed"),
        (None, by_server, "server"),
        (None, {}, "scope"),
    ]
    for given, configurable, expected in cases:
        agent = agent_for(
            memori,
            scripted(AIMessage(ANSWER)),
            middleware=[MemoriMiddleware(memori, user=given)],
            context_schema=None,
        )
        with memori.scope(entity_id=f"{user}, scope", process_id="kitchen"):
            agent.invoke(ask(SAID), {"configurable": {"thread_id": "t", **configurable}})
        found = memori.messages(entity_id=f"{user}, {expected}")
        assert said(found) == [USER_SAID, ANSWERED]
        assert {(item.process_id, item.session_id) for item in found} == {("kitchen", "t")}


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_a_run_for_nobody_is_an_error(memori: Memori, how: str) -> None:
    """Fails when a run for nobody goes on, asks the model, or is tried again and answered with the error's text."""
    model = scripted(AIMessage(ANSWER))
    retried = [ModelRetryMiddleware(max_retries=2, initial_delay=0.0), MemoriMiddleware(memori)]
    agent = agent_for(memori, model, middleware=retried, context_schema=None)
    with pytest.raises(AttributionError, match="context=MemoriContext"):
        drive(how, agent, ask(SAID), thread("nobody"), None)
    assert model.asked == []


@pytest.mark.parametrize("wrong", [7, "", " "])
def test_who_cannot_be_a_user_is_an_error(memori: Memori, wrong: Any) -> None:
    """Fails when a user's id that memory cannot take is passed over in silence, or taken for somebody."""
    agent = agent_for(memori, scripted(AIMessage(ANSWER)), context_schema=dict)
    with pytest.raises(ConfigurationError, match="user_id="):
        agent.invoke(ask(SAID), thread("wrong"), context={"user_id": wrong})


RETRIES: dict[str, Callable[[Memori], list[Any]]] = {
    "retried around memory": lambda memori: [
        ModelRetryMiddleware(max_retries=2, initial_delay=0.0, jitter=False),
        MemoriMiddleware(memori),
    ],
    "retried within memory": lambda memori: [
        MemoriMiddleware(memori),
        ModelRetryMiddleware(max_retries=2, initial_delay=0.0, jitter=False),
    ],
    "another model around memory": lambda memori: [
        ModelFallbackMiddleware(scripted(RefusedError("no")), scripted(AIMessage(ANSWER))),
        MemoriMiddleware(memori),
    ],
    "another model within memory": lambda memori: [
        MemoriMiddleware(memori),
        ModelFallbackMiddleware(scripted(RefusedError("no")), scripted(AIMessage(ANSWER))),
    ],
}


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream messages", "astream messages"])
@pytest.mark.parametrize("kind", RETRIES)
def test_a_call_that_is_tried_again_is_recorded_once(memori: Memori, user: str, kind: str, how: str) -> None:
    """Fails when each attempt, or each model, is an exchange of its own, or a later attempt goes without memories."""
    model = scripted(RefusedError("no"), RefusedError("no"), AIMessage(ANSWER))
    agent = agent_for(memori, model, middleware=RETRIES[kind](memori))
    drive(how, agent, ask(SAID), thread(user), MemoriContext(user))
    assert [injected(request) for request in model.asked] == [[0]] * len(model.asked)
    assert said(memori.messages(entity_id=user)) == [USER_SAID, ANSWERED]
    assert not any(item.partial for item in memori.messages(entity_id=user))


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream messages", "astream messages", "astream_events v3"])
def test_what_was_said_to_a_model_that_fails_is_kept(memori: Memori, user: str, how: str) -> None:
    """Fails when a turn that failed leaves nothing, or is stored again with the thread's next turns."""
    model = scripted(RefusedError("no"), RefusedError("no"), AIMessage(ANSWER), AIMessage("Soba."))
    agent = agent_for(memori, model)
    for _ in range(2):
        with pytest.raises(RefusedError):
            drive(how, agent, None if model.asked else ask(SAID), thread(user), MemoriContext(user))
        assert said(stored(memori, user, 1)) == [USER_SAID]
    drive(how, agent, ask("Are you there?"), thread(user), MemoriContext(user))
    asked_again = ("user", "text", "Are you there?")
    assert said(stored(memori, user, 3)) == [USER_SAID, asked_again, ANSWERED]
    drive(how, agent, ask("And else?"), thread(user), MemoriContext(user))
    assert said(stored(memori, user, 5))[3:] == [("user", "text", "And else?"), ("assistant", "text", "Soba.")]


@pytest.mark.parametrize("how", ["stream messages", "astream messages", "stream_events v3", "astream_events v3"])
def test_a_reply_that_breaks_off_is_kept_as_far_as_it_came(memori: Memori, user: str, how: str) -> None:
    """Fails when what a model said before its stream broke is lost, taken for whole, or stored twice."""
    model = scripted((AIMessage("Ramen with"), RefusedError("no")), AIMessage(ANSWER))
    agent = agent_for(memori, model)
    with pytest.raises(RefusedError):
        drive(how, agent, ask(SAID), thread(user), MemoriContext(user))
    found = stored(memori, user, 2)
    assert said(found) == [USER_SAID, ("assistant", "text", "Ramen with")]
    assert [item.partial for item in found] == [False, True]
    drive(how, agent, ask("Go on."), thread(user), MemoriContext(user))
    assert said(stored(memori, user, 4))[2:] == [("user", "text", "Go on."), ANSWERED]


def test_a_stream_that_is_left_is_stored_once(memori: Memori, user: str) -> None:
    """Fails when a turn whose stream the caller does not read to its end is lost, or stored twice."""
    agent = agent_for(memori, scripted(AIMessage(ANSWER)))
    stream = agent.stream(ask(SAID), thread(user), context=MemoriContext(user), stream_mode="messages")
    next(stream)
    stream.close()
    found = stored(memori, user, 2)
    assert said(found)[0] == USER_SAID
    assert ANSWER.startswith(found[1].content)
    assert len(found) == 2


@pytest.mark.parametrize("how", ["closed", "cancelled", "events of version 3"])
def test_an_asynchronous_run_that_is_left_keeps_what_came(memori: Memori, user: str, how: str) -> None:
    """Fails when what came of a reply before its caller left is lost, taken for whole, or waited for."""
    agent = agent_for(memori, scripted((AIMessage("Ramen with"), STUCK), AIMessage(ANSWER)))

    async def main() -> None:
        if how == "events of version 3":
            run = await agent.astream_events(ask(SAID), thread(user), context=MemoriContext(user), version="v3")
            async for event in run:
                if "content-block-delta" in str(event):
                    break
            await run.abort()
            return
        stream = agent.astream(ask(SAID), thread(user), context=MemoriContext(user), stream_mode="messages")
        assert (await anext(stream))[0].text == "Ramen with"
        if how == "closed":
            await stream.aclose()
        else:
            reading = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await stream.aclose()

    guarded(main)
    found = stored(memori, user, 2)
    assert said(found) == [USER_SAID, ("assistant", "text", "Ramen with")]
    assert [item.partial for item in found] == [False, True]
    agent.invoke(ask("Go on."), thread(user), context=MemoriContext(user))
    assert said(stored(memori, user, 4))[2:] == [("user", "text", "Go on."), ANSWERED]


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_a_tool_that_fails_leaves_what_was_called(memori: Memori, user: str, how: str) -> None:
    """Fails when a turn whose tool raised is lost, or stored again when the run is taken up."""
    model = scripted(calling("broken", {"food": "ramen"}))
    agent = agent_for(memori, model, broken)
    for given in (ask(SAID), None):  # None: LangGraph goes on where it failed.
        with pytest.raises(RefusedError):
            drive(how, agent, given, thread(user), MemoriContext(user))
    call = ("assistant", "tool_call", 'broken({"food": "ramen"})')
    assert said(memori.messages(entity_id=user)) == [USER_SAID, call]
    assert len(model.asked) == 1


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream updates", "astream updates"])
def test_what_a_tool_answers_directly_is_kept(memori: Memori, ranker: CountingRanker, user: str, how: str) -> None:
    """Fails when the result that ends a turn is lost because no model sees it, or costs a recall."""
    model = scripted(calling("bill", {"table": "2"}), AIMessage(ANSWER))
    agent = agent_for(memori, model, bill)
    ranker.queries.clear()
    drive(how, agent, ask(SAID), thread(user), MemoriContext(user))
    assert ranker.queries == [SAID]
    turn = [USER_SAID, ("assistant", "tool_call", 'bill({"table": "2"})'), ("tool", "tool_result", "12 euros")]
    assert said(memori.messages(entity_id=user)) == turn
    drive(how, agent, ask("Thanks."), thread(user), MemoriContext(user))
    assert said(memori.messages(entity_id=user)) == [*turn, ("user", "text", "Thanks."), ANSWERED]


# What a person decides, and what is then said between the call and the answer, in the words of the version.
DECISIONS: dict[str, tuple[dict[str, Any], str]] = {
    "approve": ({"type": "approve"}, "Hakata ramen"),
    "edit": ({"type": "edit", "edited_action": {"name": "menu", "args": {"food": "soba"}}}, "soba"),
    "reject": ({"type": "reject", "message": "Not now."}, "Not now."),
}


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize("decision", DECISIONS)
def test_a_run_that_waits_for_a_person_is_kept_and_not_repeated(
    memori: Memori, user: str, decision: str, how: str
) -> None:
    """Fails when what was said before an interrupt is lost, or stored again when the run is resumed."""
    decided, came = DECISIONS[decision]
    model = scripted(calling("menu", {"food": "ramen"}), AIMessage(ANSWER))
    waiting = HumanInTheLoopMiddleware(interrupt_on={"menu": True})
    agent = agent_for(memori, model, menu, middleware=[MemoriMiddleware(memori), waiting])
    drive(how, agent, ask(SAID), thread(user), MemoriContext(user))
    assert said(memori.messages(entity_id=user)) == [USER_SAID, CALLED]
    drive(how, agent, Command(resume={"decisions": [decided]}), thread(user), MemoriContext(user))
    found = said(memori.messages(entity_id=user))
    assert (found[:2], found[-1]) == ([USER_SAID, CALLED], ANSWERED)
    assert came in str(found[2:-1])
    assert [role for role, kind, _ in found[2:-1] if kind != "tool_call"] == ["tool"]
    assert [injected(request) for request in model.asked] == [[0], [0]]
    assert injected(agent.get_state(thread(user)).values["messages"]) == []


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_a_tool_that_waits_for_a_person_is_kept_and_not_repeated(memori: Memori, user: str, how: str) -> None:
    """Fails when what was said before a tool's interrupt is lost, or stored again when the tool is called once more."""

    @tool
    def order(food: str) -> str:
        """Order it, if a person agrees."""
        return f"{food}: {interrupt('Order?')}"

    agent = agent_for(memori, scripted(calling("order", {"food": "ramen"}), AIMessage(ANSWER)), order)
    drive(how, agent, ask(SAID), thread(user), MemoriContext(user))
    until = [USER_SAID, ("assistant", "tool_call", 'order({"food": "ramen"})')]
    assert said(memori.messages(entity_id=user)) == until
    with pytest.raises(AttributionError):  # A run that is resumed is for nobody unless it says for whom.
        drive(how, agent, Command(resume="no"), thread(user), None)
    drive(how, agent, Command(resume="yes"), thread(user), MemoriContext(user))
    assert said(memori.messages(entity_id=user))[:2] == until
    assert said(memori.messages(entity_id=user))[-1] == ANSWERED
    assert [item.role for item in memori.messages(entity_id=user)] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream messages", "astream messages"])
def test_a_callback_stands_aside_for_the_middleware(memori: Memori, user: str, how: str) -> None:
    """Fails when an agent that has both is stored twice."""
    agent = agent_for(memori, scripted(AIMessage(ANSWER)))
    config = thread(user, callbacks=[MemoriCallbackHandler(memori, user=user)])
    drive(how, agent, ask(SAID), config, MemoriContext(user))
    assert said(memori.messages(entity_id=user)) == [USER_SAID, ANSWERED]


def test_a_summary_is_not_the_users_word(memori: Memori, user: str) -> None:
    """Fails when what a summary takes the place of is stored again, the summary is stored, or it is asked about."""
    turns = [f"Turn {turn}: is there ramen?" for turn in range(5)]
    model = scripted(*(AIMessage(f"Answer {turn}") for turn in range(5)))
    summarizer = scripted(*(AIMessage("SUMMARY: the user asked for ramen.") for _ in range(5)))
    summarizing = SummarizationMiddleware(summarizer, trigger=("messages", 4), keep=("messages", 2))
    agent = agent_for(memori, model, middleware=[MemoriMiddleware(memori), summarizing])
    for asked in turns:
        agent.invoke(ask(asked), thread(user), context=MemoriContext(user))
    assert any("SUMMARY" in message.text for request in model.asked for message in request)
    assert all("<memories" not in message.text for request in summarizer.asked for message in request)
    expected = [
        part
        for turn, asked in enumerate(turns)
        for part in (("user", "text", asked), ("assistant", "text", f"Answer {turn}"))
    ]
    assert said(memori.messages(entity_id=user)) == expected
    for request, asked in zip(model.asked, turns, strict=True):
        assert "<memories" in request[-2].text
        assert request[-1].text == asked


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream messages", "astream messages", "astream_events v3"])
def test_a_registered_model_stands_aside_for_the_middleware(
    memori: Memori, ranker: CountingRanker, user: str, how: str
) -> None:
    """Fails when an agent whose model is registered as well is given memories, or recorded, twice."""
    model = scripted(calling("menu", {"food": "ramen"}), AIMessage(ANSWER))
    asked = model.asked
    memori.llm.register(model)
    agent = agent_for(memori, model, menu)
    ranker.queries.clear()
    with memori.scope(entity_id=user):
        drive(how, agent, ask(SAID), thread(user), MemoriContext(user))
    assert ranker.queries == [SAID]
    assert [injected(request) for request in asked] == [[0], [0]]
    assert said(memori.messages(entity_id=user)) == [USER_SAID, CALLED, CAME, ANSWERED]


def test_what_other_middleware_makes_of_a_reply(memori: Memori, user: str) -> None:
    """Fails when what is redacted within memory is stored as it was, or a reply changed later confuses a thread."""

    class Redacting(AgentMiddleware[Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            (message,) = handler(request).result
            return AIMessage(message.text.replace("4711", "****"))

    class Shouting(AgentMiddleware[Any, Any]):
        def after_model(self, state: Any, runtime: Any) -> Any:
            message = state["messages"][-1]
            return {"messages": [message.model_copy(update={"content": message.text.upper()})]}

    model = scripted(AIMessage("Your code is 4711."), AIMessage(ANSWER), AIMessage(ANSWER))
    agent = agent_for(memori, model, middleware=[MemoriMiddleware(memori), Redacting(), Shouting()])
    for words in ("One.", "Two.", "Three."):
        agent.invoke(ask(words), thread(user), context=MemoriContext(user))
    assert [message.content for message in memori.messages(entity_id=user)] == [
        "One.",
        "Your code is ****.",
        "YOUR CODE IS ****.",
        "Two.",
        ANSWER,
        ANSWER.upper(),
        "Three.",
        ANSWER,
    ]


@pytest.mark.parametrize("first", [True, False], ids=["memory first", "memory last"])
def test_what_other_middleware_makes_of_a_request_was_not_said(memori: Memori, user: str, first: bool) -> None:
    """Fails when what another middleware puts into one request, or leaves out of it, is stored, or asked about."""

    class Reminding(AgentMiddleware[Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(messages=[*request.messages, HumanMessage("Reminder: be polite.")]))

    trigger: Any = {"trigger": 1, "keep": 0, "placeholder": "[cleared]"}
    others = [ContextEditingMiddleware(edits=[ClearToolUsesEdit(**trigger)]), Reminding()]
    replies = [(calling("menu", {"food": "ramen"}, id=f"call-{turn}"), AIMessage(ANSWER)) for turn in range(2)]
    model = scripted(*(reply for turn in replies for reply in turn))
    middleware = [MemoriMiddleware(memori), *others] if first else [*others, MemoriMiddleware(memori)]
    agent = agent_for(memori, model, menu, middleware=middleware)
    for _ in range(2):
        agent.invoke(ask(SAID), thread(user), context=MemoriContext(user))
    assert "[cleared]" in str(model.asked[-1])
    assert [len(injected(request)) for request in model.asked] == [1] * 4
    assert said(memori.messages(entity_id=user)) == [USER_SAID, CALLED, CAME, ANSWERED] * 2


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_structured_output_of_the_providers_is_an_answer(memori: Memori, user: str, how: str) -> None:
    """Fails when an answer that the provider keeps to a schema is not stored as what the model said."""
    city = City(name="Fukuoka", ramen=True)
    model = scripted(AIMessage(city.model_dump_json()))
    agent = agent_for(memori, model, response_format=ProviderStrategy(City))
    drive(how, agent, ask(SAID), thread(user), MemoriContext(user))
    assert agent.get_state(thread(user)).values["structured_response"] == city
    assert said(memori.messages(entity_id=user)) == [USER_SAID, ("assistant", "text", city.model_dump_json())]


def test_where_turns_must_alternate_the_block_is_a_part_of_the_users_message(memori: Memori, user: str) -> None:
    """Fails when Anthropic would be sent two messages of the user's in a row, or its system prompt is touched."""
    models = pytest.importorskip("langchain_anthropic", exc_type=ImportError)
    with ProviderServer() as server:
        server.script(Reply(tool_calls=(ToolCall("menu", {"food": "ramen"}),)), Reply(text=ANSWER))
        model = models.ChatAnthropic(model="claude-opus-5", api_key="local", base_url=server.url, max_retries=0)
        agent = agent_for(memori, model, menu, system_prompt="Be brief.")
        agent.invoke(ask(SAID), thread(user), context=MemoriContext(user))
        first, second = (request.body for request in server.requests)
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    block, words = first["messages"][0]["content"]
    assert block["text"].startswith("<memories")
    assert words["text"] == SAID
    assert second["messages"][0] == first["messages"][0]
    assert (first["system"], second["system"]) == ("Be brief.", "Be brief.")
    assert said(memori.messages(entity_id=user)) == [USER_SAID, CALLED, CAME, ANSWERED]


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_an_agent_that_a_tool_calls_knows_the_user_and_records_nothing(memori: Memori, user: str, how: str) -> None:
    """Fails when a model's words to another agent are stored as the user's, or that agent goes without memories."""
    cook = scripted(calling("menu", {"food": "ramen"}), AIMessage("Sapporo ramen."))
    kitchen = agent_for(memori, cook, menu, name="cook", checkpointer=None)

    @tool
    def ask_cook(order: str) -> str:
        """Ask the cook."""
        return str(kitchen.invoke(ask(order))["messages"][-1].text)

    @tool
    async def aask_cook(order: str) -> str:
        """Ask the cook."""
        return str((await kitchen.ainvoke(ask(order)))["messages"][-1].text)

    asking = aask_cook if how == "ainvoke" else ask_cook
    waiter = scripted(calling(asking.name, {"order": "favorite food"}), AIMessage(ANSWER))
    agent = agent_for(memori, waiter, asking)
    drive(how, agent, ask(SAID), thread(user), MemoriContext(user))
    assert [injected(request) for request in (*waiter.asked, *cook.asked)] == [[0]] * 4
    assert said(memori.messages(entity_id=user)) == [
        USER_SAID,
        ("assistant", "tool_call", f'{asking.name}({{"order": "favorite food"}})'),
        ("tool", "tool_result", "Sapporo ramen."),
        ANSWERED,
    ]


def test_agents_that_are_nodes_share_their_threads_conversation(memori: Memori, user: str) -> None:
    """Fails when an agent within a graph is not recorded, or what two of them say is stored twice."""
    graph = StateGraph(MessagesState, context_schema=MemoriContext)
    graph.add_node("first", agent_for(memori, scripted(AIMessage("One moment.")), name="first", checkpointer=None))
    graph.add_node("second", agent_for(memori, scripted(AIMessage(ANSWER)), name="second", checkpointer=None))
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.compile(checkpointer=InMemorySaver()).invoke(ask(SAID), thread(user), context=MemoriContext(user))
    assert said(memori.messages(entity_id=user)) == [USER_SAID, ("assistant", "text", "One moment."), ANSWERED]


def test_without_a_thread_the_running_session_is_the_conversations(memori: Memori, user: str) -> None:
    """Fails when an agent without a checkpointer, whose caller keeps the history, is not recorded or recorded twice."""
    agent = agent_for(memori, scripted(AIMessage(ANSWER), AIMessage("Soba.")), checkpointer=None)
    history = agent.invoke(ask(SAID), context=MemoriContext(user))["messages"]
    agent.invoke({"messages": [*history, HumanMessage("Else?")]}, context=MemoriContext(user))
    found = memori.messages(entity_id=user)
    assert said(found) == [USER_SAID, ANSWERED, ("user", "text", "Else?"), ("assistant", "text", "Soba.")]
    assert len({item.session_id for item in found}) == 1


def test_what_failed_in_one_session_is_said_in_another(memori: Memori, user: str) -> None:
    """Fails when the same words, said in a session after a call failed in another, are taken for a retry's."""
    agent = agent_for(memori, scripted(RefusedError("no"), AIMessage(ANSWER)), checkpointer=None)
    with memori.scope(user, session_id="first"), pytest.raises(RefusedError):
        agent.invoke(ask(SAID), context=MemoriContext(user))
    with memori.scope(user, session_id="second"):
        agent.invoke(ask(SAID), context=MemoriContext(user))
    assert memori.augmentation.wait(30)
    assert said(memori.messages(entity_id=user, session_id="first")) == [USER_SAID]
    assert said(memori.messages(entity_id=user, session_id="second")) == [USER_SAID, ANSWERED]


def test_the_block_may_be_the_systems(tmp_path: Path) -> None:
    """Fails when ``injection_role`` does not count, or a system prompt is lost beside memories."""
    settings = Settings(injection_role="system", recall_timeout_s=10.0, capture_timeout_s=10.0)
    with Memori(conn=tmp_path / "memori.db", settings=settings) as memori:
        memori.config.storage.build()
        memori.remember(KNOWN, kind="preference", entity_id="ann")
        for prompt in (None, "Be brief."):
            model = scripted(AIMessage(ANSWER))
            agent = agent_for(memori, model, system_prompt=prompt)
            agent.invoke(ask(SAID), thread(str(prompt)), context=MemoriContext("ann"))
            *system, last = model.asked[0]
            assert [type(message) for message in system] == [SystemMessage] * len(system)
            assert [message.text for message in system if "<memories" not in message.text] == (
                [prompt] if prompt else []
            )
            assert (len(injected(system)), last.text) == (1, SAID)


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize("trouble", ["no tables", "closed"])
def test_a_run_goes_on_without_memory(tmp_path: Path, trouble: str, how: str) -> None:
    """Fails when a database that does not answer, or a closed memory, becomes the agent's trouble."""
    with Memori(conn=tmp_path / "memori.db") as memori:
        memori.config.close_timeout_s = 0.1
        agent = agent_for(memori, scripted(calling("menu", {"food": "ramen"}), AIMessage(ANSWER)), menu)
        if trouble == "closed":
            memori.close()
        drive(how, agent, ask(SAID), thread("t"), MemoriContext("ann"))
        assert agent.get_state(thread("t")).values["messages"][-1].text == ANSWER


def test_the_search_tool_finds_the_runs_user_alone_and_is_not_learned(memori: Memori, user: str) -> None:
    """Fails when an agent's search finds another's memories, a model can choose whose, or results are stored again."""
    memori.remember("The user's favorite food is fugu.", kind="preference", entity_id=f"{user}, another")
    for how in ("invoke", "ainvoke"):
        model = scripted(calling("search_memory", {"query": "favorite food", "limit": 3}), AIMessage(ANSWER))
        agent = agent_for(memori, model, middleware=[MemoriMiddleware(memori, search=True)])
        drive(how, agent, ask(SAID), thread(f"{user} {how}"), MemoriContext(user))
        result = next(message for message in model.asked[1] if isinstance(message, ToolMessage))
        assert "ramen" in result.text
        assert "fugu" not in result.text
        assert not any(item.role == "tool" for item in memori.messages(entity_id=user))
    assert set(MemoriSearchTool(memori=memori).args) == {"query", "limit"}


def test_three_users_interleaved_keep_their_memories_and_their_threads_apart(memori: Memori) -> None:
    """Fails when one of many runs at once is given another's memories, or a thread holds what was recalled."""
    favorites = {"ann": "ramen", "bob": "goulash", "cid": "paella"}
    for name, food in favorites.items():
        memori.remember(f"The user's favorite food is {food}.", kind="preference", entity_id=f"interleaved {name}")
    answers = Answering()

    @tool
    def table(people: int) -> str:
        """Keep a table."""
        return f"Table for {people}"

    agent = create_agent(
        answers,
        [menu, table],
        middleware=[MemoriMiddleware(memori)],
        context_schema=MemoriContext,
        checkpointer=InMemorySaver(),
    )

    names = list(favorites)
    asked = {number: f"Turn {number}: what is my favorite food?" for number in range(20)}

    async def turn(number: int) -> None:
        name = names[number % 3]
        await agent.ainvoke(ask(asked[number]), thread(name), context=MemoriContext(f"interleaved {name}"))

    async def main() -> None:
        for first in range(0, 20, 3):  # A thread has one run at a time.
            await asyncio.gather(*(turn(number) for number in range(first, min(first + 3, 20))))

    guarded(main)
    for place, (name, food) in enumerate(favorites.items()):
        assert injected(agent.get_state(thread(name)).values["messages"]) == []
        found = memori.messages(entity_id=f"interleaved {name}")
        assert said(found) == [
            part
            for number in range(place, 20, 3)
            for part in (
                ("user", "text", asked[number]),
                ("assistant", "tool_call", 'menu({"food": "all"})'),
                ("assistant", "tool_call", f'table({{"people": {number}}})'),
                CAME,
                ("tool", "tool_result", f"Table for {number}"),
                ("assistant", "text", f"Turn {number}: {food}"),
            )
        ]
        assert {item.session_id for item in found} == {name}


class Answering(BaseChatModel):
    """A model that calls both tools, then answers from nothing but what it was sent."""

    @property
    def _llm_type(self) -> str:
        return "answering"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind()

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        place = max(n for n, message in enumerate(messages) if isinstance(message, HumanMessage))
        number = messages[place].text.partition(":")[0].removeprefix("Turn ")
        if place == len(messages) - 1:
            calls = [
                {"name": "menu", "args": {"food": "all"}, "id": f"menu-{number}"},
                {"name": "table", "args": {"people": int(number)}, "id": f"table-{number}"},
            ]
            message = AIMessage("", tool_calls=calls)
        else:
            known = re.findall(r"favorite food is (\w+)", messages[place - 1].text)
            message = AIMessage(f"Turn {number}: {' and '.join(known)}")
        return ChatResult(generations=[ChatGeneration(message=message)])
