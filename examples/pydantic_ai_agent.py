"""A Pydantic AI agent that remembers: typed dependencies, a tool, structured output, and memory as a capability.

It talks to OpenAI when OPENAI_API_KEY is set, and otherwise to a server on this machine that speaks OpenAI's protocol
and fills the answer in from nothing but what it was sent.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, RunContext
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from memori import Memori
from memori.testing.provider import ProviderRequest, ProviderServer, Reply, ToolCall
from memori_pydantic_ai import MemoriCapability, MemoriDeps


@dataclass
class TravelDeps(MemoriDeps):
    """Whom the agent works for, with their memory, and where it may send them."""

    trains: dict[str, str]


class Trip(BaseModel):
    """Where to go, and why that suits the user."""

    city: str
    train: str
    reason: str


def travel_agent(model: OpenAIChatModel, mem: Memori) -> Agent[TravelDeps, Trip]:
    """Return an agent whose every run is for ``deps.user_id``."""
    agent = Agent(
        model,
        name="travel_agent",
        deps_type=TravelDeps,
        output_type=Trip,
        instructions="Suggest one trip by train.",
        capabilities=[MemoriCapability(mem)],
    )

    @agent.tool
    async def train_to(ctx: RunContext[TravelDeps], city: str) -> str:
        """Return when the next train to the city leaves, and note that the user asked for it."""
        await ctx.deps.aremember(f"The user asked for a train to {city}.", kind="event")
        return ctx.deps.trains.get(city, "none")

    return agent


def planned(request: ProviderRequest) -> Reply:
    """Answer as a small model would: the tool first, then the trip, with what the request says of the user."""
    said = [turn for turn in request.turns if turn.role == "user"]
    if "trip" not in said[-1].text:
        return Reply(tool_calls=(ToolCall("final_result", {"city": "none", "train": "none", "reason": "Noted."}),))
    if not any(turn.role == "tool" for turn in request.turns):
        return Reply(tool_calls=(ToolCall("train_to", {"city": "Zermatt"}),))
    known = re.findall(r"^- .+?: (.*mountains.*)$", "\n".join(turn.text for turn in said), re.MULTILINE)
    reason = known[0] if known else "I know nothing of you yet."
    return Reply(tool_calls=(ToolCall("final_result", {"city": "Zermatt", "train": "09:28", "reason": reason}),))


async def main() -> None:
    """Run the example and print each step."""
    database = Path(tempfile.mkdtemp(prefix="memori-")) / "memori.db"
    api_key, base_url = os.getenv("OPENAI_API_KEY"), None

    async with AsyncExitStack() as stack:
        if not api_key:
            server = stack.enter_context(ProviderServer(answer=planned))
            api_key, base_url = "not needed", f"{server.url}/v1"
            print(f"OPENAI_API_KEY is not set: a local provider at {server.url} answers in OpenAI's place.\n")

        mem = await stack.enter_async_context(Memori(conn=database))
        mem.config.storage.build()
        client = await stack.enter_async_context(AsyncOpenAI(api_key=api_key, base_url=base_url))
        agent = travel_agent(OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=client)), mem)
        deps = TravelDeps(mem, user_id="user_123", trains={"Zermatt": "09:28", "Venice": "10:02"})

        await agent.run("I love the mountains and I live in Basel.", deps=deps)
        if not await mem.augmentation.await_(timeout=30):
            raise SystemExit(f"augmentation did not finish: {await mem.astatus()}")

        # A second run, without the first one's messages: only memory connects them.
        result = await agent.run("Suggest a trip: mountains or sea, whichever I love more.", deps=deps)
        trip = result.output
        print(f"Suggested: {trip.city}, by the train at {trip.train}. {trip.reason}")

        print("\nWhat is known of the user:")
        for fact in await mem.afacts(entity_id=deps.user_id):
            print(f"  {fact.kind}: {fact.content}")

        print("\nWhat was stored of the second run:")
        conversation = result.all_messages()[0].conversation_id
        for message in await mem.amessages(entity_id=deps.user_id, session_id=conversation):
            print(f"  {message.role} ({message.kind}): {message.content}")

        print(f"\nMemories in the run's own history: {b'<memories' in result.all_messages_json()}")


if __name__ == "__main__":
    asyncio.run(main())
