"""Embeddings made anew: where another embedder made them, or none, for it failed at the time."""

from __future__ import annotations

from collections.abc import Iterator

from memori.embeddings.stored import embedded
from memori.protocols import Embedder, Storage
from memori.types import Fact, StoredMessage

__all__ = ["Reindexer"]

_BATCH = 256  # Texts that are embedded, and stored, at once.
_PAGE = 1000


class Reindexer:
    """Gives every fact and message an embedding of *embedder*'s. Safe while others store, recall and reindex."""

    def __init__(self, storage: Storage, embedder: Embedder) -> None:
        self._storage = storage
        self._embedder = embedder

    def run(self, entity_id: str | None = None) -> int:
        """Embed what has no embedding of the embedder's model; return how many facts and messages.

        Interrupted, it goes on where it was when it is run again.

        Args:
            entity_id: Whose; None: everybody's.

        Raises:
            StorageError: The database failed. What was embedded until then stays.
            EmbeddingError: The embedder did; likewise.
        """
        return sum(self._entity(name) for name in (self._entities() if entity_id is None else [entity_id]))

    def _entities(self) -> Iterator[str]:
        last = 0
        while page := self._storage.entities(after=last, limit=_PAGE):
            yield from (entity_id for _, entity_id in page)
            last = page[-1][0]

    def _entity(self, entity_id: str) -> int:
        changes = self._storage.changes(entity_id, since=None)
        if changes is None:
            return 0
        model = self._embedder.model
        texts: list[Fact | StoredMessage] = [message for message in changes.messages if message.kind == "text"]
        wanted = [
            item
            for item in [*texts, *changes.facts]
            if item.content.strip() and (item.embedding is None or item.embedding.model != model)
        ]
        return sum(self._embed(entity_id, wanted[start : start + _BATCH]) for start in range(0, len(wanted), _BATCH))

    def _embed(self, entity_id: str, items: list[Fact | StoredMessage]) -> int:
        embeddings = embedded(self._embedder, (item.content for item in items))
        return self._storage.embed(
            entity_id,
            messages={item.id: embeddings[item.content] for item in items if isinstance(item, StoredMessage)},
            facts={item.id: embeddings[item.content] for item in items if isinstance(item, Fact)},
        )
