"""An Agno team that remembers: the leader is told what matters, and nobody takes its tasks for the user's words.

It talks to OpenAI when OPENAI_API_KEY is set, and otherwise to a server on this machine that speaks OpenAI's protocol
and fills the answers in from nothing but what it was sent.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from agno.agent import Agent
from agno.models.openai import OpenAIChat
from agno.team import Team
from openai import AsyncOpenAI

from memori import Memori
from memori.testing.provider import ProviderRequest, ProviderServer, Reply, ToolCall
from memori_agno import memori_agent_kwargs


def cooked(request: ProviderRequest) -> Reply:
    """Answer as the leader or the cook would, with what the request says."""
    said = [turn.text for turn in request.turns if turn.role == "user"]
    if said[-1].startswith("Propose"):
        return Reply(text="Shoyu ramen with mushrooms in place of pork.")
    if "cook" not in said[-1]:
        return Reply(text="Noted.")
    results = [turn.text for turn in request.turns if turn.role == "tool"]
    if results:
        return Reply(text=f"The cook proposes: {results[-1]}")
    known = re.findall(r"^- .+?: (The user.*)$", "\n".join(said), re.MULTILINE)
    task = f"Propose a dish. {' '.join(known)}"
    return Reply(tool_calls=(ToolCall("delegate_task_to_member", {"member_id": "cook", "task": task}),))


async def main() -> None:
    """Run the example and print each step."""
    database = Path(tempfile.mkdtemp(prefix="memori-")) / "memori.db"
    api_key, base_url = os.getenv("OPENAI_API_KEY"), None

    async with AsyncExitStack() as stack:
        if not api_key:
            server = stack.enter_context(ProviderServer(answer=cooked))
            api_key, base_url = "not needed", f"{server.url}/v1"
            print(f"OPENAI_API_KEY is not set: a local provider at {server.url} answers in OpenAI's place.\n")

        mem = await stack.enter_async_context(Memori(conn=database))
        mem.config.recall_timeout_s = mem.config.capture_timeout_s = 5.0  # However busy the machine is.
        mem.config.storage.build()
        client = await stack.enter_async_context(AsyncOpenAI(api_key=api_key, base_url=base_url))
        model = OpenAIChat(id="gpt-4o-mini", async_client=client)
        # Agno's telemetry would go over the network.
        cook = Agent(name="cook", role="Proposes dishes", model=model, telemetry=False)
        kitchen = Team(name="kitchen", members=[cook], model=model, telemetry=False, **memori_agent_kwargs(mem))

        await kitchen.arun("My favorite food is ramen. I am a vegetarian.", user_id="ann", session_id="monday")
        if not await mem.augmentation.await_(timeout=30):
            raise SystemExit(f"augmentation did not finish: {await mem.astatus()}")

        # Another session: only memory connects the two.
        print("The user is told: ", end="")
        question = "What could you cook that suits my favorite food, vegetarian as I am?"
        events = kitchen.arun(question, user_id="ann", session_id="tuesday", stream=True)
        async for event in events:
            if event.event == "TeamRunContent":
                print(event.content, end="", flush=True)

        print("\n\nWhat was stored of the second run:")
        for message in await mem.amessages(entity_id="ann", session_id="tuesday"):
            print(f"  {message.role} ({message.kind}): {message.content}")

        print("\nWhat is known of the user, of which the leader's task is no part:")
        for fact in await mem.afacts(entity_id="ann"):
            print(f"  {fact.kind}: {fact.content}")


if __name__ == "__main__":
    asyncio.run(main())
