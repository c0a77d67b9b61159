"""An Agno agent that remembers: two users, a tool, and sessions that hold none of what was recalled.

It talks to OpenAI when OPENAI_API_KEY is set, and otherwise to a server on this machine that speaks OpenAI's protocol
and fills the answer in from nothing but what it was sent.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

from agno.agent import Agent
from agno.db.json import JsonDb
from agno.models.openai import OpenAIChat
from openai import OpenAI

from memori import Memori
from memori.testing.provider import ProviderRequest, ProviderServer, Reply, ToolCall
from memori_agno import MemoriTools, memori_agent_kwargs

TRAINS = {"Zermatt": "09:28", "Venice": "10:02"}


def train_to(city: str) -> str:
    """Say when the next train to the city leaves.

    Args:
        city (str): Where to go.
    """
    return TRAINS.get(city, "There is none.")


def planned(request: ProviderRequest) -> Reply:
    """Answer as a small model would: the tool first, then with what the request says of the user."""
    said = [turn for turn in request.turns if turn.role == "user"]
    if "trip" not in said[-1].text:
        return Reply(text="Noted.")
    loved = re.search(r"The user loves the (\w+)", "\n".join(turn.text for turn in said))
    if loved is None:
        return Reply(text="I know nothing of you yet.")
    city = "Zermatt" if loved[1] == "mountains" else "Venice"
    times = [turn.text for turn in request.turns if turn.role == "tool"]
    if not times:
        return Reply(tool_calls=(ToolCall("train_to", {"city": city}),))
    return Reply(text=f"Take the train to {city} at {times[-1]}: you love the {loved[1]}.")


def main() -> None:
    """Run the example and print each step."""
    folder = Path(tempfile.mkdtemp(prefix="memori-"))
    api_key, base_url = os.getenv("OPENAI_API_KEY"), None

    with ExitStack() as stack:
        if not api_key:
            server = stack.enter_context(ProviderServer(answer=planned))
            api_key, base_url = "not needed", f"{server.url}/v1"
            print(f"OPENAI_API_KEY is not set: a local provider at {server.url} answers in OpenAI's place.\n")

        mem = stack.enter_context(Memori(conn=folder / "memori.db"))
        mem.config.recall_timeout_s = mem.config.capture_timeout_s = 5.0  # However busy the machine is.
        mem.config.storage.build()
        client = stack.enter_context(OpenAI(api_key=api_key, base_url=base_url))
        agent = Agent(
            name="travel agent",
            model=OpenAIChat(id="gpt-4o-mini", client=client),
            db=JsonDb(db_path=str(folder / "sessions")),
            tools=[train_to, MemoriTools(mem)],
            telemetry=False,  # Agno's own, which would go over the network.
            **memori_agent_kwargs(mem),
        )

        agent.run("I love the mountains.", user_id="ann", session_id="ann, monday")
        agent.run("I love the sea.", user_id="bob", session_id="bob, monday")
        if not mem.augmentation.wait(timeout=30):
            raise SystemExit(f"augmentation did not finish: {mem.status()}")

        # Other sessions, without the first ones' messages: only memory connects them.
        for user in ("ann", "bob"):
            run = agent.run("Suggest a trip that I would love.", user_id=user, session_id=f"{user}, tuesday")
            print(f"To {user}: {run.content}")

        print("\nWhat is known:")
        for user in ("ann", "bob"):
            for fact in mem.facts(entity_id=user):
                print(f"  of {user}: {fact.content}")

        print("\nWhat was stored of ann's second run:")
        for message in mem.messages(entity_id="ann", session_id="ann, tuesday"):
            print(f"  {message.role} ({message.kind}): {message.content}")

        session = agent.get_session(session_id="ann, tuesday")
        print(f"\nMemories in Agno's own session: {session is None or '<memories' in str(session.to_dict())}")


if __name__ == "__main__":
    main()
