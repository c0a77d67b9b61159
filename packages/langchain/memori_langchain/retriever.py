"""Memory as a retriever, for chains that put documents into their prompts themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from memori import Memori, Recollection
from memori.types import RecollectionKind

__all__ = ["MemoriRetriever"]


class MemoriRetriever(BaseRetriever):
    """Returns what a user's memory holds on a query as documents, best first.

    It only recalls. As a retriever's, its failures are raised.

    Attributes:
        user_id: Whom memories are about. None: the current entity of ``mem.scope`` or ``mem.attribution``.
        k: How many documents at most. None: ``mem.config.recall_facts_limit``.
        kinds: Only memories of these kinds; ``"message"`` is one.
        min_score: Only what scores at least that, in [0, 1].
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    memori: Memori = Field(exclude=True, repr=False)
    user_id: str | None = None
    k: int | None = None
    kinds: Sequence[RecollectionKind] | None = None
    min_score: float | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return _documents(self.memori.recall(query, self._limit(k), **self._options()))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return _documents(await self.memori.arecall(query, self._limit(k), **self._options()))

    def _limit(self, k: int | None) -> int | None:
        return self.k if k is None else k

    def _options(self) -> dict[str, Any]:
        return {"kinds": self.kinds, "min_score": self.min_score, "entity_id": self.user_id}


def _documents(items: Sequence[Recollection]) -> list[Document]:
    return [
        Document(
            id=f"{'message' if item.kind == 'message' else 'fact'}-{item.id}",
            page_content=item.content,
            metadata={
                "kind": item.kind,
                "score": item.score,
                "at": item.at.isoformat(),
                "status": item.status,
                "trust": item.trust,
                "author": item.author,
                "sources": [source.id for source in item.sources],
            },
        )
        for item in items
    ]
