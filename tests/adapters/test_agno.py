"""The whole path for every way to run Agno, with every way to give it memory: recalled and captured once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from blockbuster import blockbuster_ctx

pytest.importorskip("agno.agent", exc_type=ImportError)
pytest.importorskip("agno.models.openai", reason="openai is too old for it", exc_type=ImportError)

from agno.agent import Agent
from agno.db.base import SessionType
from agno.db.in_memory import InMemoryDb
from agno.learn import LearningMachine
from agno.models.openai import OpenAIChat
from agno.team import Team
from agno.workflow import Step, Workflow
from openai import AsyncOpenAI, OpenAI

from memori import Memori
from memori.testing.provider import ProviderServer, Reply, ToolCall
from memori.testing.ranker import CountingRanker
from memori_agno import MemoriMemoryManager, MemoriStore, MemoriTools, memori_agent_kwargs

SAID = "My favorite color is blue. Which dish would suit my favorite food?"
KNOWN = "The user's favorite food is ramen."
ANSWER = "Ramen with a blue bowl, and a green tea beside it."
TASK = "Look up what there is. My favorite color is red."  # Which the leader says, not the user.

Entry = Literal["run", "arun", "stream", "astream"]
Kind = Literal["text", "tools", "early close", "Team", "workflow step"]
Way = Literal["hooks", "learning + hook", "memory manager", "registered model", "registered agent", "everything"]
ENTRIES: tuple[Entry, ...] = ("run", "arun", "stream", "astream")
KINDS: tuple[Kind, ...] = ("text", "tools", "early close", "Team", "workflow step")
WAYS: tuple[Way, ...] = (
    "hooks",
    "learning + hook",
    "memory manager",
    "registered model",
    "registered agent",
    "everything",
)
CELLS = [(entry, kind) for kind in KINDS for entry in ENTRIES if kind != "early close" or "stream" in entry]

DELEGATED = Reply(tool_calls=(ToolCall("delegate_task_to_member", {"member_id": "cook", "task": TASK}),))
REPLIES: dict[Kind, list[Reply]] = {
    "text": [Reply(text=ANSWER)],
    "tools": [Reply(tool_calls=(ToolCall("menu", {"food": "ramen"}),)), Reply(text=ANSWER)],
    "early close": [Reply(text=ANSWER, chunk_delay_s=0.01)],
    "Team": [DELEGATED, Reply(text="Hakata ramen"), Reply(text=ANSWER)],
    "workflow step": [Reply(text=ANSWER)],
}


def menu(food: str) -> str:
    """Say what there is."""
    return "Hakata ramen"


@pytest.fixture(scope="module")
def ranker() -> CountingRanker:
    return CountingRanker()


@pytest.fixture(scope="module")
def memori(tmp_path_factory: pytest.TempPathFactory, ranker: CountingRanker) -> Iterator[Memori]:
    with Memori(conn=tmp_path_factory.mktemp("memory") / "memori.db", ranker=ranker) as memori:
        memori.config.storage.build()
        memori.config.recall_timeout_s = memori.config.capture_timeout_s = 10.0
        yield memori


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ProviderServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0) as client:
        yield client


def asynchronous_client(server: ProviderServer, entry: Entry) -> AsyncOpenAI | None:
    """Return a client for the loop of this run: to make one takes longer than the run."""
    if entry in ("run", "stream"):
        return None
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0)


def database() -> InMemoryDb:
    return InMemoryDb()  # type: ignore[no-untyped-call]


def with_memory(way: Way, memori: Memori, model: OpenAIChat, make: Callable[..., Any]) -> Any:
    """Return what *make* makes with the arguments that give it memory in this way."""
    if way in ("registered model", "everything"):
        memori.llm.register(model)
    options: dict[str, Any] = {}
    if way in ("memory manager", "everything"):
        options |= {"memory_manager": MemoriMemoryManager(memori), "update_memory_on_run": True}
    if way in ("learning + hook", "everything"):
        options["learning"] = LearningMachine(custom_stores={"memori": MemoriStore(memori)})
    if way in ("hooks", "learning + hook", "everything"):
        options |= {**memori_agent_kwargs(memori)}
    made = make(model=model, telemetry=False, **options)
    if way in ("registered agent", "everything"):
        memori.llm.register(made)
    return made


def runnable(kind: Kind, model: OpenAIChat, db: InMemoryDb | None, remembering: Callable[..., Any]) -> Any:
    """Return what is run: *remembering* is called for what has memory, with what makes it."""

    def agent(**options: Any) -> Agent:
        inside = kind == "workflow step"
        return Agent(name="waiter", db=None if inside else db, tools=[menu] if kind == "tools" else None, **options)

    def team(**options: Any) -> Team:
        # The cook shares the leader's model.
        cook = Agent(name="cook", role="Cooks", model=model, telemetry=False)
        return Team(name="waiter", members=[cook], db=db, **options)

    made = remembering(team if kind == "Team" else agent)
    if kind != "workflow step":
        return made
    return Workflow(name="service", steps=[Step(name="serve", agent=made)], db=db, telemetry=False)


def left(event: Any) -> bool:
    return bool(getattr(event, "content", None))


async def arun(entry: Entry, run: Any, client: AsyncOpenAI, user: str, *, leave: bool) -> None:
    async with client:
        with blockbuster_ctx(["memori", "memori_agno"]):
            if entry == "arun":
                await run.arun(SAID, user_id=user, session_id=f"{user}'s")
                return
            events = run.arun(SAID, user_id=user, session_id=f"{user}'s", stream=True)
            async for event in events:
                if leave and left(event):
                    await events.aclose()
                    return


def drive(entry: Entry, run: Any, client: AsyncOpenAI | None, user: str, *, leave: bool = False) -> None:
    if client is not None:
        asyncio.run(arun(entry, run, client, user, leave=leave))
    elif entry == "run":
        run.run(SAID, user_id=user, session_id=f"{user}'s")
    else:
        events = run.run(SAID, user_id=user, session_id=f"{user}'s", stream=True)
        for event in events:
            if leave and left(event):
                events.close()
                return


def eventually(memori: Memori, user: str, count: int) -> list[Any]:
    """Return the user's messages as soon as there are that many: what is left early is stored a moment later."""
    end = time.monotonic() + 30
    while len(stored := memori.messages(entity_id=user)) < count:
        assert time.monotonic() < end, f"only this was stored: {stored}"
        time.sleep(0.005)
    return stored


def kept(run: Any, db: InMemoryDb | None) -> str:
    """Return all that Agno has stored, as JSON."""
    if db is None:
        return ""
    kind = {Agent: SessionType.AGENT, Team: SessionType.TEAM, Workflow: SessionType.WORKFLOW}[type(run)]
    sessions: Any = db.get_sessions(session_type=kind)
    return json.dumps([session.to_dict() for session in sessions], default=str)


@pytest.mark.parametrize("with_db", [True, False], ids=["db", "no db"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("entry", "kind"), CELLS)
def test_a_run_is_recalled_and_captured_once(
    memori: Memori,
    ranker: CountingRanker,
    server: ProviderServer,
    client: OpenAI,
    entry: Entry,
    kind: Kind,
    way: Way,
    with_db: bool,
) -> None:
    """Fails when this way to run and to remember gets no memories, gets them twice, or is not stored exactly once."""
    user = f"{entry} {kind} {way} {with_db}"
    memori.remember(KNOWN, kind="preference", entity_id=user)
    asynchronous = asynchronous_client(server, entry)
    model = OpenAIChat(id="gpt-4o-mini", client=client, async_client=asynchronous)
    db = database() if with_db else None
    run = runnable(kind, model, db, lambda make: with_memory(way, memori, model, make))
    before = len(server.requests)
    server.script(*REPLIES[kind])
    ranker.queries.clear()

    drive(entry, run, asynchronous, user, leave=kind == "early close")

    requests = [[turn.text for turn in request.turns] for request in server.requests[before:]]
    assert len(requests) == len(REPLIES[kind])
    if kind == "Team":
        # The cook's: recalled for only where the model itself is remembered, whoever uses it.
        cooks = "\n".join(requests.pop(1))
        assert cooks.count("<memories id=") == (way in ("registered model", "everything"))
        assert cooks.endswith(TASK)
    for texts in requests:
        assert "\n".join(texts).count("<memories id=") == 1
        at = texts.index(SAID)
        assert "favorite food is ramen" in texts[at - 1]
    assert [query for query in ranker.queries if query != TASK] == [SAID]

    stored = eventually(memori, user, {"tools": 4, "Team": 4}.get(kind, 2))
    said = [(message.role, message.kind, message.content) for message in stored]
    assert said[0] == ("user", "text", SAID)
    if kind == "tools":
        assert [role for role, _, _ in said] == ["user", "assistant", "tool", "assistant"]
        assert said[1][1:] == ("tool_call", 'menu({"food": "ramen"})')
        assert said[2][1:] == ("tool_result", "Hakata ramen")
    elif kind == "Team":
        assert [role for role, _, _ in said] == ["user", "assistant", "tool", "assistant"]
        assert TASK in said[1][2]
        assert said[2][1:] == ("tool_result", "Hakata ramen")
    else:
        assert [role for role, _, _ in said] == ["user", "assistant"]
    if kind == "early close":
        assert ANSWER.startswith(said[1][2])
        assert 0 < len(said[1][2]) < len(ANSWER)
        assert stored[1].partial
    else:
        assert said[-1] == ("assistant", "text", ANSWER)
    assert {(message.process_id, message.session_id) for message in stored} == {("waiter", f"{user}'s")}

    assert memori.augmentation.wait(30)
    facts = {fact.predicate: fact for fact in memori.facts(entity_id=user)}
    assert (facts["favorite_color"].object, facts["favorite_color"].mentions) == ("blue", 1)
    assert "<memories id=" not in kept(run, db)
    assert not with_db or kind == "early close" or ANSWER in kept(run, db)
    assert memori.status().failures == 0


ASKED = Reply(tool_calls=(ToolCall("search_memory", {"query": "favorite food"}),))
KEPT = Reply(tool_calls=(ToolCall("remember", {"content": "The user wants a green tea."}),))


@pytest.mark.parametrize("with_db", [True, False], ids=["db", "no db"])
@pytest.mark.parametrize(("entry", "kind"), [cell for cell in CELLS if cell[1] != "tools"])
def test_tools_recall_and_remember_once(
    memori: Memori, server: ProviderServer, client: OpenAI, entry: Entry, kind: Kind, with_db: bool
) -> None:
    """Fails when an agent that decides itself does not find a memory, or what it remembers is not kept once."""
    user = f"tools {entry} {kind} {with_db}"
    memori.remember(KNOWN, kind="preference", entity_id=user)
    asynchronous = asynchronous_client(server, entry)
    model = OpenAIChat(id="gpt-4o-mini", client=client, async_client=asynchronous)
    db = database() if with_db else None
    tools = MemoriTools(memori)
    run = runnable(kind, model, db, lambda make: make_with(make, model, tools))
    before = len(server.requests)
    server.script(ASKED, KEPT, *REPLIES[kind])

    drive(entry, run, asynchronous, user, leave=kind == "early close")

    last = server.requests[before + 2]
    results = [turn.text for turn in last.turns if turn.role == "tool"]
    assert results[0].count("favorite food is ramen") == 1
    assert results[1].startswith("Remembered, with the id ")
    kept = [(fact.content, fact.trust, fact.mentions) for fact in memori.facts(entity_id=user)]
    assert ("The user wants a green tea.", "assistant", 1) in kept
    assert len(kept) == 2
    assert memori.messages(entity_id=user) == []
    assert memori.status().failures == 0


def make_with(make: Callable[..., Any], model: OpenAIChat, tools: MemoriTools) -> Any:
    made = make(model=model, telemetry=False)
    made.tools = [tools]
    return made


def test_what_tools_found_is_not_learned_again(memori: Memori, server: ProviderServer, client: OpenAI) -> None:
    """Fails when a search's results are stored with the run that made it, in an agent that also captures."""
    memori.remember(KNOWN, kind="preference", entity_id="both")
    model = OpenAIChat(id="gpt-4o-mini", client=client)
    agent = Agent(model=model, telemetry=False, tools=[MemoriTools(memori)], **memori_agent_kwargs(memori))
    server.script(ASKED, Reply(tool_calls=(ToolCall("known_facts", {}),)), Reply(text="Noted."))
    agent.run(SAID, user_id="both", session_id="both")
    assert [(message.role, message.kind) for message in memori.messages(entity_id="both")] == [
        ("user", "text"),
        ("assistant", "tool_call"),
        ("assistant", "tool_call"),
        ("assistant", "text"),
    ]
