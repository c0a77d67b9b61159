"""Memory as tools, for agents that decide themselves what to look up and what to keep."""

from __future__ import annotations

from typing import Any, TypeAlias

from pydantic_ai import RunContext
from pydantic_ai.messages import ToolReturn
from pydantic_ai.tools import AgentDepsT
from pydantic_ai.toolsets import FunctionToolset

from memori import Memori, tool_guidance
from memori.types import FactKind
from memori_pydantic_ai.conversation import RECALLED
from memori_pydantic_ai.dependencies import User, user_of

__all__ = ["MemoriToolset", "memory_instructions"]

Found: TypeAlias = list[dict[str, Any]]

_UNAVAILABLE = "The memory cannot be reached now."


def memory_instructions() -> str:
    """Return instructions that tell a model when to use the tools of a `MemoriToolset`: always the same text."""
    return tool_guidance()


class MemoriToolset(FunctionToolset[AgentDepsT]):
    """The tools ``search_memory``, ``remember`` and ``forget``, on the memory of the run's user and nobody else's.

    What a model remembers is stored as its word, which never ends what the user said. What it finds is data in the
    tool's result, and is not learned again.

    Args:
        user: Whom runs are for, as for `MemoriCapability`. A model cannot choose it.
    """

    def __init__(self, memori: Memori, *, user: User[AgentDepsT] = None, id: str | None = "memori") -> None:
        super().__init__(id=id)
        self._memori = memori
        self._user = user
        self.add_function(self._search, takes_ctx=True, name="search_memory")
        self.add_function(self._remember, takes_ctx=True, name="remember")
        self.add_function(self._forget, takes_ctx=True, name="forget")

    async def _search(self, ctx: RunContext[AgentDepsT], query: str, limit: int = 5) -> ToolReturn[Found | str]:
        """Search what is known about the user from earlier conversations.

        Args:
            query: What to look for, in words of its own.
            limit: How many memories at most.
        """
        try:
            items = await self._memori.arecall(query, min(max(limit, 1), 50), entity_id=user_of(self._user, ctx))
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            return ToolReturn(return_value=self._failed(error), metadata=RECALLED)
        found: Found = [
            {
                **({} if item.kind == "message" else {"id": item.id}),
                "kind": item.kind,
                "content": item.content,
                "since": item.at.date().isoformat(),
                "from": item.author or item.trust,
            }
            for item in items
        ]
        return ToolReturn(return_value=found, metadata=RECALLED)

    async def _remember(self, ctx: RunContext[AgentDepsT], content: str, kind: FactKind = "fact") -> str:
        """Keep something about the user for later conversations.

        Args:
            content: One self-contained sentence about the user.
            kind: What kind of memory it is.
        """
        try:
            fact = await self._memori.aremember(
                content, kind=kind, trust="assistant", entity_id=user_of(self._user, ctx)
            )
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            return self._failed(error)
        return f"Remembered, with the id {fact.id}."

    async def _forget(self, ctx: RunContext[AgentDepsT], memory_id: int) -> str:
        """Erase a memory for good, when the user asks for that.

        Args:
            memory_id: The id that the search gave.
        """
        try:
            gone = await self._memori.aforget(memory_id, entity_id=user_of(self._user, ctx))
        except Exception as error:  # noqa: BLE001 - memory never harms the call
            return self._failed(error)
        return "Forgotten." if gone else "There is no memory with this id."

    def _failed(self, error: Exception) -> str:
        self._memori.failed(error)
        return _UNAVAILABLE
