"""Memory as a dependency of an agent's own tools and instructions, and whom a run's dependencies are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias, runtime_checkable

from pydantic_ai import RunContext
from pydantic_ai.tools import AgentDepsT

from memori import Fact, Memori, Recollection
from memori.types import FactKind, RecollectionKind

__all__ = ["HasUserId", "MemoriDeps", "User", "user_of"]

User: TypeAlias = str | Callable[[RunContext[AgentDepsT]], str] | None


@runtime_checkable
class HasUserId(Protocol):
    """Dependencies that say whom a run is for."""

    @property
    def user_id(self) -> str:
        """Whom memories are about."""
        ...


def user_of(user: User[AgentDepsT], ctx: RunContext[AgentDepsT]) -> str | None:
    """Return whom the run is for: *user*, what it returns, or the dependencies' own; None: the current entity."""
    if callable(user):
        return user(ctx)
    if user is not None:
        return user
    deps: object = ctx.deps
    if isinstance(deps, Mapping):
        return deps.get("user_id")
    return deps.user_id if isinstance(deps, HasUserId) else None


@dataclass
class MemoriDeps:
    """One user's memory, as a run's dependencies or a part of them.

    Subclass it to add dependencies of the application's own, or hold it in them. The methods with an *a* are for
    asynchronous tools and instructions; the others are for synchronous ones, which Pydantic AI runs in threads.

    Attributes:
        user_id: Whom the memories are about.
    """

    memori: Memori
    user_id: str

    def recall(
        self,
        query: str,
        limit: int | None = None,
        *,
        kinds: Sequence[RecollectionKind] | None = None,
        as_of: datetime | None = None,
        min_score: float | None = None,
    ) -> list[Recollection]:
        """Return what the user's memory holds on *query*, best first. As `memori.Memori.recall`."""
        return self.memori.recall(query, limit, kinds=kinds, as_of=as_of, min_score=min_score, entity_id=self.user_id)

    async def arecall(
        self,
        query: str,
        limit: int | None = None,
        *,
        kinds: Sequence[RecollectionKind] | None = None,
        as_of: datetime | None = None,
        min_score: float | None = None,
    ) -> list[Recollection]:
        """Run `recall` in a worker thread."""
        return await self.memori.arecall(
            query, limit, kinds=kinds, as_of=as_of, min_score=min_score, entity_id=self.user_id
        )

    def remember(self, content: str, *, kind: FactKind = "fact") -> Fact:
        """Store a fact about the user on the application's word, and return it. As `memori.Memori.remember`."""
        return self.memori.remember(content, kind=kind, entity_id=self.user_id)

    async def aremember(self, content: str, *, kind: FactKind = "fact") -> Fact:
        """Run `remember` in a worker thread."""
        return await self.memori.aremember(content, kind=kind, entity_id=self.user_id)

    def forget(self, fact_id: int) -> int:
        """Erase a fact of the user's, and return how many went: 0 when there is no such fact."""
        return self.memori.forget(fact_id, entity_id=self.user_id)

    async def aforget(self, fact_id: int) -> int:
        """Run `forget` in a worker thread."""
        return await self.memori.aforget(fact_id, entity_id=self.user_id)
