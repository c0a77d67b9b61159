"""A LangChain agent that remembers: tools, threads, several users, and memory as a middleware.

It talks to OpenAI when OPENAI_API_KEY is set, and otherwise to a server on this machine that speaks OpenAI's protocol
and fills the answer in from nothing but what it was sent.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import SecretStr

from memori import Memori
from memori.testing.provider import ProviderRequest, ProviderServer, Reply, ToolCall
from memori_langchain import MemoriContext, MemoriMiddleware


@tool
def train_to(city: str) -> str:
    """Return when the next train to the city leaves."""
    return {"Zermatt": "09:28", "Venice": "10:02"}.get(city, "none today")


@tool
def weather_in(city: str) -> str:
    """Return the weather that is expected in the city."""
    return {"Zermatt": "sunny, 14 degrees", "Venice": "rain"}.get(city, "unknown")


def travel_agent(model: ChatOpenAI, mem: Memori) -> Any:
    """Return an agent whose every run is for the user that its context names."""
    return create_agent(
        model,
        [train_to, weather_in],
        system_prompt="Suggest one trip by train.",
        middleware=[MemoriMiddleware(mem)],
        context_schema=MemoriContext,
        checkpointer=InMemorySaver(),
        name="travel_agent",
    )


def planned(request: ProviderRequest) -> Reply:
    """Answer as a small model would: the tools first, then the trip, with what the request says of the user."""
    said = [turn for turn in request.turns if turn.role == "user"]
    if "trip" not in said[-1].text:
        return Reply(text="Noted.")
    known = " ".join(re.findall(r"^- .+?: (The user .*)$", "\n".join(turn.text for turn in said), re.MULTILINE))
    city = "Zermatt" if "mountains" in known else "Venice"
    results = [turn.text for turn in request.turns if turn.role == "tool"]
    if not results:
        return Reply(tool_calls=(ToolCall("train_to", {"city": city}), ToolCall("weather_in", {"city": city})))
    return Reply(text=f"{city}, by the train at {results[0]}: {results[1]}. {known or 'I know nothing of you yet.'}")


def main() -> None:
    """Run the example and print each step."""
    database = Path(tempfile.mkdtemp(prefix="memori-")) / "memori.db"
    api_key, base_url = os.getenv("OPENAI_API_KEY"), None

    with ExitStack() as stack:
        if not api_key:
            server = stack.enter_context(ProviderServer(answer=planned))
            api_key, base_url = "not needed", f"{server.url}/v1"
            print(f"OPENAI_API_KEY is not set: a local provider at {server.url} answers in OpenAI's place.\n")

        mem = stack.enter_context(Memori(conn=database))
        mem.config.storage.build()
        agent = travel_agent(ChatOpenAI(model="gpt-4o-mini", api_key=SecretStr(api_key), base_url=base_url), mem)

        likes = {"ann": "I love the mountains and I live in Basel.", "bob": "I love the sea and I live in Rome."}
        for user, words in likes.items():
            thread: RunnableConfig = {"configurable": {"thread_id": f"{user}'s first"}}
            agent.invoke({"messages": [("user", words)]}, thread, context=MemoriContext(user_id=user))
        if not mem.augmentation.wait(timeout=30):
            raise SystemExit(f"augmentation did not finish: {mem.status()}")

        # In threads of their own, without the first ones' messages: only memory connects them.
        for user in likes:
            print(f"Suggested to {user}: ", end="")
            thread = {"configurable": {"thread_id": f"{user}'s second"}}
            given = {"messages": [("user", "Suggest a trip: mountains or sea, whichever I love more.")]}
            for piece, _ in agent.stream(given, thread, context=MemoriContext(user_id=user), stream_mode="messages"):
                print(piece.text if piece.type == "AIMessageChunk" else "", end="")
            print()

        print("\nWhat is known of ann:")
        for fact in mem.facts(entity_id="ann"):
            print(f"  {fact.kind}: {fact.content}")

        print("\nWhat was stored of her second run:")
        for message in mem.messages(entity_id="ann", session_id="ann's second"):
            print(f"  {message.role} ({message.kind}): {message.content}")

        messages = agent.get_state({"configurable": {"thread_id": "ann's second"}}).values["messages"]
        print(f"\nMemories in the thread's own messages: {any('<memories' in message.text for message in messages)}")


if __name__ == "__main__":
    main()
