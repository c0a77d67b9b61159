"""Agents whose tools read and write the store, over real HTTP: what one run keeps, the next one's tools find."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest

pytest.importorskip("langchain.agents", exc_type=ImportError)
pytest.importorskip("langchain_openai", exc_type=ImportError)

from blockbuster import blockbuster_ctx
from langchain.agents import create_agent
from langchain.tools import ToolRuntime, tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_store
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from pydantic import SecretStr

from memori import Memori
from memori.testing.provider import ProviderRequest, ProviderServer, Reply, ToolCall
from memori_langchain import MemoriContext, MemoriMiddleware, MemoriStore


def notes_of(runtime: ToolRuntime[Any]) -> tuple[str, str]:
    return ("notes", runtime.context.user_id)


def store_of(runtime: ToolRuntime[Any]) -> MemoriStore:
    assert isinstance(runtime.store, MemoriStore)
    return runtime.store


@tool
def keep(name: str, text: str, runtime: ToolRuntime[MemoriContext]) -> str:
    """Keep a note."""
    store_of(runtime).put(notes_of(runtime), name, {"text": text})
    return "kept"


@tool
def look_up(query: str, runtime: ToolRuntime[MemoriContext]) -> str:
    """Look notes up."""
    found = store_of(runtime).search(notes_of(runtime), query=query, limit=1)
    return "; ".join(item.value["text"] for item in found) or "nothing"


@tool
async def akeep(name: str, text: str, runtime: ToolRuntime[MemoriContext]) -> str:
    """Keep a note."""
    await store_of(runtime).aput(notes_of(runtime), name, {"text": text})
    return "kept"


@tool
async def alook_up(query: str, runtime: ToolRuntime[MemoriContext]) -> str:
    """Look notes up."""
    found = await store_of(runtime).asearch(notes_of(runtime), query=query, limit=1)
    return "; ".join(item.value["text"] for item in found) or "nothing"


@pytest.fixture
def mem(tmp_path: Path) -> Iterator[Memori]:
    with Memori(tmp_path / "memori.db") as mem:
        mem.config.storage.build()
        mem.config.recall_timeout_s = mem.config.capture_timeout_s = 10.0
        yield mem.ready()


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


def agent_of(server: ProviderServer, mem: Memori, *tools: Any) -> Any:
    return create_agent(
        ChatOpenAI(model="gpt-4o-mini", base_url=f"{server.url}/v1", api_key=SecretStr("k"), max_retries=0),
        list(tools),
        store=MemoriStore(mem),
        context_schema=MemoriContext,
        middleware=[MemoriMiddleware(mem)],
        checkpointer=InMemorySaver(),
    )


def calling(tool: str, /, **arguments: str) -> Reply:
    return Reply(tool_calls=(ToolCall(tool, arguments),))


def tool_results(result: dict[str, Any]) -> list[str]:
    return [message.text for message in result["messages"] if message.type == "tool"]


def test_tools_write_and_read(server: ProviderServer, mem: Memori) -> None:
    """Fails when a tool has no store, what it keeps is not found by another run, or is found by another user's."""
    agent = agent_of(server, mem, keep, look_up)

    def ask(text: str, user: str, thread: str) -> dict[str, Any]:
        result: dict[str, Any] = agent.invoke(
            {"messages": [{"role": "user", "content": text}]},
            context=MemoriContext(user_id=user),
            config={"configurable": {"thread_id": thread}},
        )
        return result

    server.script(calling("keep", name="door", text="the door code is 4711"), Reply(text="Kept."))
    server.script(calling("keep", name="cat", text="the cat eats at noon"), Reply(text="Kept."))
    assert tool_results(ask("Keep the code.", "ann@example.com", "1")) == ["kept"]
    ask("Keep about the cat.", "ann@example.com", "2")
    for user, expected in (("ann@example.com", "the door code is 4711"), ("bob@example.com", "nothing")):
        server.script(calling("look_up", query="what is the code of the door?"), Reply(text="Here."))
        assert tool_results(ask("What is the code?", user, f"{user} 3")) == [expected]
    offered = server.requests[0].body["tools"]
    assert [sorted(one["function"]["parameters"]["properties"]) for one in offered] == [["name", "text"], ["query"]]


def look_up_once(request: ProviderRequest) -> Reply:
    """Ask for the tool, then answer: whichever of several runs side by side asks."""
    answered = request.body["messages"][-1]["role"] == "tool"
    return Reply(text="Here.") if answered else calling("alook_up", query="the secret")


def test_asynchronous_tools(mem: Memori) -> None:
    """Fails when a tool's use of the store blocks the event loop, or users of runs side by side are mixed up."""
    users = [f"user{number}@example.com" for number in range(3)]

    async def ask(agent: Any, user: str) -> list[str]:
        result = await agent.ainvoke(
            {"messages": [{"role": "user", "content": "Go on."}]},
            context=MemoriContext(user_id=user),
            config={"configurable": {"thread_id": user}},
        )
        return tool_results(result)

    async def main(server: ProviderServer) -> None:
        agent = agent_of(server, mem, akeep, alook_up)
        for user in users:
            server.script(calling("akeep", name="secret", text=f"the secret of {user}"), Reply(text="Kept."))
            assert await ask(agent, user) == ["kept"]
        found = await asyncio.gather(*(ask(agent, user) for user in users))
        assert [answers[-1] for answers in found] == [f"the secret of {user}" for user in users]

    with ProviderServer(answer=look_up_once) as server, blockbuster_ctx(["memori", "memori_langchain"]):
        asyncio.run(main(server))


class Said(TypedDict):
    text: str


async def write(state: Said, runtime: Runtime[MemoriContext]) -> Said:
    assert runtime.store is not None
    await runtime.store.aput(("notes", runtime.context.user_id), "key", {"text": state["text"]})
    return state


def read(state: Said, runtime: Runtime[MemoriContext]) -> Said:
    found = get_store().get(("notes", runtime.context.user_id), "key")
    return {"text": "nothing" if found is None else found.value["text"]}


def graph_of(mem: Memori, node: Any) -> Any:
    builder = StateGraph(Said, context_schema=MemoriContext)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile(store=MemoriStore(mem))


def test_nodes_of_a_graph(mem: Memori) -> None:
    """Fails when a node does not have the store, by its runtime or by `get_store`, in either colour."""
    ann, bob = (MemoriContext(user_id=f"{name}@example.com") for name in ("ann", "bob"))
    with blockbuster_ctx(["memori", "memori_langchain"]):
        asyncio.run(graph_of(mem, write).ainvoke({"text": "tea"}, context=ann))
    reading = graph_of(mem, read)
    assert [reading.invoke({"text": ""}, context=user)["text"] for user in (ann, bob)] == ["tea", "nothing"]
