"""Memory as a tool, for agents that decide themselves what to look up."""

from __future__ import annotations

import json
from typing import Any, Literal

from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field

from memori import Memori, MemoriError, Recollection
from memori_langchain.context import User, runtime_here, user_of
from memori_langchain.messages import RECALLED

__all__ = ["MemoriSearchTool"]

_MOST = 50


class SearchInput(BaseModel):
    """What a model says to search."""

    query: str = Field(description="What to look for, in words of its own.")
    limit: int = Field(default=5, description="How many memories at most.")


class MemoriSearchTool(BaseTool):
    """The tool ``search_memory``, on the memory of the run's user and nobody else's.

    What it finds is data in the tool's result, and is not learned again.

    Attributes:
        user: Whom runs are for, as for `MemoriMiddleware`. A model cannot choose it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str = "search_memory"
    description: str = "Search what is known about the user from earlier conversations."
    args_schema: Any = SearchInput
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    memori: Memori = Field(exclude=True, repr=False)
    user: User = Field(default=None, exclude=True, repr=False)

    def _run(self, query: str, limit: int = 5) -> tuple[str, dict[str, str]]:
        user_id = user_of(self.memori, self.user, runtime_here())
        try:
            items = self.memori.recall(query, _bounded(limit), entity_id=user_id)
        except MemoriError as error:
            return self._failed(error)
        return _found(items), RECALLED

    async def _arun(self, query: str, limit: int = 5) -> tuple[str, dict[str, str]]:
        user_id = user_of(self.memori, self.user, runtime_here())
        try:
            items = await self.memori.arecall(query, _bounded(limit), entity_id=user_id)
        except MemoriError as error:
            return self._failed(error)
        return _found(items), RECALLED

    def _failed(self, error: MemoriError) -> tuple[str, dict[str, str]]:
        self.memori.failed(error)
        return "The memory cannot be reached now.", RECALLED


def _bounded(limit: int) -> int:
    return min(max(limit, 1), _MOST)


def _found(items: list[Recollection]) -> str:
    return json.dumps(
        [
            {
                "kind": item.kind,
                "content": item.content,
                "since": item.at.date().isoformat(),
                "from": item.author or item.trust,
            }
            for item in items
        ],
        ensure_ascii=False,
    )
