"""What type checkers make of agents with memory: read by mypy and pyright, never run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_type

from pydantic import BaseModel
from pydantic_ai import Agent, RunContext
from pydantic_ai.run import AgentRunResult

from memori import Fact, Memori, Recollection
from memori_pydantic_ai import MemoriCapability, MemoriDeps, MemoriToolset, memory_instructions


@dataclass
class Account:
    """Dependencies of the application's own, which know nothing of memory."""

    number: int


@dataclass
class Shop(MemoriDeps):
    """Memory, and more."""

    name: str


class Order(BaseModel):
    """An output."""

    item: str


def user_of(ctx: RunContext[Account]) -> str:
    return f"account-{ctx.deps.number}"


def user_of_shop(ctx: RunContext[Shop]) -> str:
    return ctx.deps.user_id


mem = Memori(worker=False)

assert_type(MemoriCapability(mem, user=user_of), MemoriCapability[Account])
assert_type(MemoriToolset(mem, user=user_of), MemoriToolset[Account])
assert_type(memory_instructions(), str)

shop = Agent(
    "test",
    deps_type=Shop,
    output_type=Order,
    instructions=memory_instructions(),
    capabilities=[MemoriCapability[Shop](mem), MemoriCapability[Shop](mem, user="alice", process="shop")],
    toolsets=[MemoriToolset[Shop](mem)],
)
assert_type(shop, Agent[Shop, Order])

account = Agent(
    "test", deps_type=Account, capabilities=[MemoriCapability(mem, user=user_of)], toolsets=[MemoriToolset(mem)]
)
assert_type(account, Agent[Account, str])

plain = Agent("test", capabilities=[MemoriCapability(mem)])
assert_type(mem.llm.register(plain), Memori)

# What one agent's dependencies cannot give, no checker may let through.
wrong = Agent("test", deps_type=Account, capabilities=[MemoriCapability(mem, user=user_of_shop)])  # type: ignore[arg-type]
MemoriCapability(mem, user=7)  # type: ignore[arg-type]
MemoriDeps(mem)  # type: ignore[call-arg]


@shop.tool
async def look_up(ctx: RunContext[Shop], query: str) -> str:
    assert_type(ctx.deps.recall(query), list[Recollection])
    assert_type(await ctx.deps.arecall(query, 3, kinds=["preference"]), list[Recollection])
    assert_type(ctx.deps.remember(query, kind="event"), Fact)
    assert_type(await ctx.deps.aremember(query), Fact)
    assert_type(ctx.deps.forget(1), int)
    assert_type(await ctx.deps.aforget(1), int)
    return ctx.deps.name


@shop.instructions
def known(ctx: RunContext[Shop]) -> str:
    return "; ".join(item.content for item in ctx.deps.recall("the user"))


async def order() -> str:
    result = await shop.run("Order.", deps=Shop(mem, user_id="alice", name="paint"))
    assert_type(result, AgentRunResult[Order])
    return result.output.item
