"""Memory as tools, for agents that decide themselves what to look up and what to keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agno.run import RunContext
from agno.tools import Toolkit

from memori import Fact, Memori, MemoriError, Recollection, tool_guidance
from memori_agno.conversation import RECALLED

__all__ = ["MemoriTools"]

_UNAVAILABLE = "The memory cannot be reached now."
_MOST = 50  # What one search gives at most.


class MemoriTools(Toolkit):
    """The tools ``search_memory``, ``remember``, ``forget`` and ``known_facts``: ``Agent(tools=[MemoriTools(mem)])``.

    They work on the memory of the run's user and of nobody else: a model cannot choose whose. What a model remembers is
    stored as its word, which never ends what the user said. What it finds is not learned again.

    Args:
        user_id: Whom runs are for. None: the run's own ``user_id``, else the current entity of ``mem.scope`` or
            ``mem.attribution``.
    """

    def __init__(self, memori: Memori, *, user_id: str | None = None) -> None:
        self._memori = memori.ready()
        self._user_id = user_id
        super().__init__(
            name="memori_tools",
            tools=[self.search_memory, self.remember, self.forget, self.known_facts],
            async_tools=[
                (self.asearch_memory, "search_memory"),
                (self.aremember, "remember"),
                (self.aforget, "forget"),
                (self.aknown_facts, "known_facts"),
            ],
            instructions=tool_guidance(),
            add_instructions=True,
        )

    def __deepcopy__(self, memo: object) -> MemoriTools:
        return self

    def search_memory(self, run_context: RunContext, query: str, limit: int = 5) -> str:
        """Search what is known about the user from earlier conversations.

        Args:
            query (str): What to look for, in words of its own.
            limit (int): How many memories at most.
        """
        try:
            return _found(self._memori.recall(query, _count(limit), entity_id=self._user(run_context)))
        except MemoriError as error:
            return self._failed(error)

    async def asearch_memory(self, run_context: RunContext, query: str, limit: int = 5) -> str:
        """Search what is known about the user from earlier conversations.

        Args:
            query (str): What to look for, in words of its own.
            limit (int): How many memories at most.
        """
        try:
            return _found(await self._memori.arecall(query, _count(limit), entity_id=self._user(run_context)))
        except MemoriError as error:
            return self._failed(error)

    def remember(self, run_context: RunContext, content: str) -> str:
        """Keep something about the user for later conversations.

        Args:
            content (str): One self-contained sentence about the user.
        """
        try:
            return _kept(self._memori.remember(content, trust="assistant", entity_id=self._user(run_context)))
        except MemoriError as error:
            return self._failed(error)

    async def aremember(self, run_context: RunContext, content: str) -> str:
        """Keep something about the user for later conversations.

        Args:
            content (str): One self-contained sentence about the user.
        """
        try:
            return _kept(await self._memori.aremember(content, trust="assistant", entity_id=self._user(run_context)))
        except MemoriError as error:
            return self._failed(error)

    def forget(self, run_context: RunContext, memory_id: int) -> str:
        """Erase a memory for good, when the user asks for that.

        Args:
            memory_id (int): The id that a search gave.
        """
        try:
            return _gone(self._memori.forget(memory_id, entity_id=self._user(run_context)))
        except MemoriError as error:
            return self._failed(error)

    async def aforget(self, run_context: RunContext, memory_id: int) -> str:
        """Erase a memory for good, when the user asks for that.

        Args:
            memory_id (int): The id that a search gave.
        """
        try:
            return _gone(await self._memori.aforget(memory_id, entity_id=self._user(run_context)))
        except MemoriError as error:
            return self._failed(error)

    def known_facts(self, run_context: RunContext) -> str:
        """Say what is known about the user, the newest first, when they ask what you know of them."""
        try:
            return _listed(self._memori.facts(limit=_MOST, entity_id=self._user(run_context)))
        except MemoriError as error:
            return self._failed(error)

    async def aknown_facts(self, run_context: RunContext) -> str:
        """Say what is known about the user, the newest first, when they ask what you know of them."""
        try:
            return _listed(await self._memori.afacts(limit=_MOST, entity_id=self._user(run_context)))
        except MemoriError as error:
            return self._failed(error)

    def _user(self, run_context: RunContext) -> str | None:
        return self._user_id or run_context.user_id or None

    def _failed(self, error: MemoriError) -> str:
        self._memori.failed(error)
        return _UNAVAILABLE


def _count(limit: int) -> int:
    return min(max(limit, 1), _MOST)


def _found(items: Sequence[Recollection]) -> str:
    found = [
        {
            **({} if item.kind == "message" else {"id": item.id}),
            "kind": item.kind,
            "content": item.content,
            "since": item.at.date().isoformat(),
            "from": item.author or item.trust,
        }
        for item in items
    ]
    return _recalled(found)


def _listed(facts: Sequence[Fact]) -> str:
    return _recalled(
        [{"id": fact.id, "kind": fact.kind, "content": fact.content, "from": fact.trust} for fact in facts]
    )


def _recalled(found: list[dict[str, Any]]) -> str:
    return f"{RECALLED}{json.dumps(found, ensure_ascii=False)}}}"


def _kept(fact: Fact) -> str:
    return f"Remembered, with the id {fact.id}."


def _gone(count: int) -> str:
    return "Forgotten." if count else "There is no memory with this id."
