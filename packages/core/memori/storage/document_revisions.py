"""A revision decided on documents: what it does to the facts of an entity, as the writes that do it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from memori.schema.collections import FACT, MESSAGE
from memori.schema.columns import NAME_LENGTH
from memori.storage.deployment import Collections
from memori.storage.journal import Journal, change, description, new
from memori.storage.mongo_documents import ERASED_STATUS, Document, embedded, exact, fact, fact_document, microseconds
from memori.storage.rows import identifier
from memori.types import Change, Embedding, Fact, Mention, NewFact, Retirement, Revision

__all__ = ["DocumentReviser"]


class DocumentReviser:
    """Decides one revision of an entity; nothing is written but counters.

    Args:
        entity: Its document, with nothing pending, as it stands before.
    """

    def __init__(self, collections: Collections, entity: Mapping[str, Any], *, now: datetime) -> None:
        self._collections = collections
        self._row: int = entity["_id"]
        self._name: str = entity["external_id"]
        self._version: int = entity["version"] + 1
        self._now = now
        self._facts: dict[int, Document] = {}  # As the decision leaves them.
        self._changed: dict[int, Document] = {}  # The fields that it sets.
        self._new: dict[int, None] = {}  # In order.

    def decide(self, revision: Revision, *, process: str | None) -> tuple[list[Document], list[Fact]]:
        """Return the writes, and the facts that are stored or mentioned by them, each once, in order."""
        changes = revision.decide(self._in_slots(revision.slots))
        ids = self._ids(
            content_hash
            for item in changes
            if not isinstance(item, Mention)
            for content_hash in (item.content_hash if isinstance(item, NewFact) else None, item.superseded_by)
            if content_hash is not None
        )
        self._load(item.fact_id for item in changes if not isinstance(item, NewFact))
        self._load(ids.values())
        fresh = dict.fromkeys(
            item.content_hash for item in changes if isinstance(item, NewFact) and exact(item.content_hash) not in ids
        )
        numbers = iter(Journal(self._collections).ids(fact=len(fresh))["fact"] if fresh else range(0))
        cited: dict[int, set[int]] = {}
        for item in changes:
            if isinstance(item, NewFact):
                key = exact(item.content_hash)
                if key not in ids:
                    ids[key] = self._add(item, next(numbers))
                else:
                    self._mention(ids[key], item.valid_from)
                cited.setdefault(ids[key], set()).update(item.fact.sources)
            elif isinstance(item, Mention) and item.fact_id in self._facts:
                self._mention(item.fact_id, item.at)
                cited.setdefault(item.fact_id, set()).update(item.sources)
        self._succeed(changes, ids)
        self._cite(cited)
        writes = self._embedded(MESSAGE, revision.message_embeddings)
        writes += [new(FACT, {**self._facts[fact_id], "entity_id": self._row}) for fact_id in self._new]
        writes += [change(FACT, fact_id, fields) for fact_id, fields in self._changed.items()]
        if process is not None:
            writes += [
                description(process, exact(name[:NAME_LENGTH]), exact(value), self._now)
                for name, value in revision.attributes.items()
            ]
        return writes, [fact(self._facts[fact_id], self._name) for fact_id in cited]

    def embed(self, messages: Mapping[int, Embedding], facts: Mapping[int, Embedding]) -> list[Document]:
        """Return the writes that store embeddings with the entity's messages and facts, by their ids: one each."""
        return [*self._embedded(MESSAGE, messages), *self._embedded(FACT, facts)]

    def _in_slots(self, slots: Iterable[str]) -> list[Fact]:
        wanted = [exact(slot) for slot in slots]
        if wanted:
            self._keep(self._collections(FACT).find({"entity_id": self._row, "slot": {"$in": wanted}}))
        found = [fact(document, self._name) for document in self._facts.values()]
        return sorted(found, key=lambda item: (item.valid_from, item.id))

    def _ids(self, hashes: Iterable[str]) -> dict[str, int]:
        wanted = sorted({exact(content_hash) for content_hash in hashes})
        if not wanted:
            return {}
        key = {"entity_id": self._row, "content_hash": {"$in": wanted}}
        return {found["content_hash"]: found["_id"] for found in self._collections(FACT).find(key, {"content_hash": 1})}

    def _load(self, fact_ids: Iterable[int]) -> None:
        missing = sorted(set(fact_ids) - self._facts.keys())
        if missing:
            self._keep(
                self._collections(FACT).find(
                    {"_id": {"$in": missing}, "entity_id": self._row, "status": {"$ne": ERASED_STATUS}}
                )
            )

    def _keep(self, documents: Iterable[Document]) -> None:
        self._facts.update((document["_id"], document) for document in documents)

    def _add(self, item: NewFact, id: int) -> int:
        identifier("slot", item.slot)
        identifier("content_hash", item.content_hash)
        self._facts[id] = fact_document(item, id=id, now=self._now, version=self._version)
        self._new[id] = None
        return id

    def _set(self, fact_id: int, **fields: Any) -> None:
        self._facts[fact_id].update(fields, version=self._version)
        if fact_id not in self._new:
            self._changed.setdefault(fact_id, {}).update(fields, version=self._version)

    def _mention(self, fact_id: int, at: datetime) -> None:
        known = self._facts[fact_id]
        self._set(
            fact_id,
            mentions=known["mentions"] + 1,
            last_mentioned_at=max(known["last_mentioned_at"], microseconds(at)),
        )

    def _succeed(self, changes: Sequence[Change], ids: Mapping[str, int]) -> None:
        """Retire facts, and point each superseded one to its successor, which may be among the new ones."""
        for item in changes:
            if isinstance(item, Mention) or item.superseded_by is None:
                continue
            successor = ids.get(exact(item.superseded_by))
            if isinstance(item, Retirement):
                if item.fact_id in self._facts:
                    self._set(
                        item.fact_id,
                        status="superseded",
                        valid_to=microseconds(item.valid_to),
                        superseded_by=successor,
                    )
            elif ids[exact(item.content_hash)] in self._new and successor is not None:
                self._set(ids[exact(item.content_hash)], superseded_by=successor)

    def _cite(self, cited: Mapping[int, set[int]]) -> None:
        """Link facts to those of the messages that are the entity's and still there."""
        wanted = sorted(set().union(*cited.values()))
        if not wanted:
            return
        key = {"_id": {"$in": wanted}, "entity_id": self._row}
        own = {found["_id"] for found in self._collections(MESSAGE).find(key, {"_id": 1})}
        for fact_id, messages in cited.items():
            known = set(self._facts[fact_id]["sources"])
            if not messages & own <= known:
                self._set(fact_id, sources=sorted(known | (messages & own)))

    def _embedded(self, collection: str, embeddings: Mapping[int, Embedding]) -> list[Document]:
        if not embeddings:
            return []
        key = {"_id": {"$in": sorted(embeddings)}, "entity_id": self._row, "status": {"$ne": ERASED_STATUS}}
        return [
            change(collection, found["_id"], {**embedded(embeddings[found["_id"]]), "version": self._version})
            for found in self._collections(collection).find(key, {"_id": 1})
        ]
