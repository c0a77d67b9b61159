"""A revision applied: the facts of an entity read under its lock, the decision taken, its changes written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, Update, bindparam, case, insert, select, update

from memori.schema.columns import NAME_LENGTH, UtcDateTime
from memori.schema.tables import attribute, edge, fact, message, source
from memori.storage.rows import FACTS, batches, facts, identifier, packed, sources
from memori.types import Change, Embedding, Fact, Mention, NewFact, Retirement, Revision

__all__ = ["Reviser"]

_IN_SLOTS = FACTS.where(
    fact.c.entity_id == bindparam("entity"), fact.c.slot.in_(bindparam("slots", expanding=True))
).order_by(fact.c.valid_from, fact.c.id)
_BY_ID = FACTS.where(fact.c.entity_id == bindparam("entity"), fact.c.id.in_(bindparam("facts", expanding=True)))
_BY_HASH = select(fact.c.content_hash, fact.c.id).where(
    fact.c.entity_id == bindparam("entity"), fact.c.content_hash.in_(bindparam("hashes", expanding=True))
)
_AT = bindparam("at", type_=UtcDateTime())
_MENTION = (
    update(fact)
    .where(fact.c.id == bindparam("fact_id"), fact.c.entity_id == bindparam("entity"))
    .values(
        mentions=fact.c.mentions + 1,
        last_mentioned_at=case((fact.c.last_mentioned_at < _AT, _AT), else_=fact.c.last_mentioned_at),
        version=bindparam("new_version"),
    )
)
_RETIRE = (
    update(fact)
    .where(fact.c.id == bindparam("fact_id"), fact.c.entity_id == bindparam("entity"))
    .values(
        status="superseded",
        valid_to=bindparam("ends"),
        superseded_by=bindparam("successor"),
        version=bindparam("new_version"),
    )
)
_CLOSE_EDGES = (
    update(edge)
    # Under another name than the column's, which a bound parameter of an UPDATE may not have.
    .where(edge.c.fact_id == bindparam("closed"), edge.c.entity_id == bindparam("entity"))
    .values(valid_to=bindparam("ends"))
)
_SUCCEED = update(fact).where(fact.c.id == bindparam("fact_id")).values(superseded_by=bindparam("successor"))
_EMBED_MESSAGE, _EMBED_FACT = (
    update(table)
    .where(table.c.id == bindparam("row_id"), table.c.entity_id == bindparam("entity"))
    .values(embedding=bindparam("data"), embedding_model=bindparam("model"), version=bindparam("new_version"))
    for table in (message, fact)
)
_OWN_MESSAGES, _OWN_FACTS = (
    select(table.c.id).where(
        table.c.entity_id == bindparam("entity"), table.c.id.in_(bindparam("row_ids", expanding=True))
    )
    for table in (message, fact)
)


class Reviser:
    """Applies revisions to one entity whose lock is held: its row was updated in this transaction.

    Args:
        entity_row: The row of the entity.
        version: The entity's version that everything changed here gets.
    """

    def __init__(self, connection: Connection, entity_row: int, version: int, *, now: datetime) -> None:
        self._connection = connection
        self._entity = entity_row
        self._version = version
        self._now = now

    def apply(self, revision: Revision, *, process_row: int | None) -> list[Fact]:
        """Apply *revision*; return the facts it stored or mentioned, each once, in order."""
        self._embed(_EMBED_MESSAGE, revision.message_embeddings)
        if process_row is not None:
            self._describe(process_row, revision.attributes)
        changes = revision.decide(self._in_slots(revision.slots))
        ids = self._ids(change.content_hash for change in changes if isinstance(change, NewFact))
        added: set[str] = set()
        cited: list[tuple[int, tuple[int, ...]]] = []
        for change in changes:
            if isinstance(change, NewFact):
                key, said = change.content_hash, change.fact.sources
                if key not in ids:
                    ids[key] = self._add(change)
                    added.add(key)
                elif not self._mention(ids[key], change.valid_from):
                    continue
                cited.append((ids[key], said))
            elif isinstance(change, Mention) and self._mention(change.fact_id, change.at):
                cited.append((change.fact_id, change.sources))
        self._succeed(changes, ids, added)
        self._cite(cited)
        return self._facts(list(dict.fromkeys(fact_id for fact_id, _ in cited)))

    def embed(self, messages: Mapping[int, Embedding], facts: Mapping[int, Embedding]) -> int:
        """Store embeddings with the entity's messages and facts, by their ids; return with how many."""
        count = 0
        for own, statement, given in ((_OWN_MESSAGES, _EMBED_MESSAGE, messages), (_OWN_FACTS, _EMBED_FACT, facts)):
            # Looked for first: how many rows a statement for many met, not every driver tells.
            there = self._own(own, given)
            self._embed(statement, {row: given[row] for row in there})
            count += len(there)
        return count

    def _in_slots(self, slots: Iterable[str]) -> list[Fact]:
        rows = [
            row
            for batch in batches(sorted(slots))
            for row in self._connection.execute(_IN_SLOTS, {"entity": self._entity, "slots": batch})
        ]
        found = facts(rows, sources(self._connection, [row.id for row in rows]))
        return sorted(found, key=lambda item: (item.valid_from, item.id))

    def _facts(self, fact_ids: Sequence[int]) -> list[Fact]:
        rows = {
            row.id: row
            for batch in batches(fact_ids)
            for row in self._connection.execute(_BY_ID, {"entity": self._entity, "facts": batch})
        }
        found = [rows[fact_id] for fact_id in fact_ids if fact_id in rows]
        return facts(found, sources(self._connection, fact_ids))

    def _ids(self, hashes: Iterable[str]) -> dict[str, int]:
        return {
            content_hash: fact_id
            for batch in batches(dict.fromkeys(hashes))
            for content_hash, fact_id in self._connection.execute(_BY_HASH, {"entity": self._entity, "hashes": batch})
        }

    def _add(self, change: NewFact) -> int:
        said = change.fact
        data, model = packed(change.embedding)
        key = self._connection.execute(
            insert(fact),
            {
                "entity_id": self._entity,
                "kind": said.kind,
                "content": said.content,
                "slot": identifier("slot", change.slot),
                "content_hash": identifier("content_hash", change.content_hash),
                "subject": said.subject,
                "predicate": said.predicate,
                "object": said.object,
                "importance": said.importance,
                "confidence": said.confidence,
                "trust": said.trust,
                "status": change.status,
                "valid_from": change.valid_from,
                "valid_to": change.valid_to,
                "recorded_at": change.recorded_at or self._now,
                "mentions": change.mentions,
                "last_mentioned_at": change.last_mentioned_at or self._now,
                "times_recalled": 0,
                "version": self._version,
                "embedding": data,
                "embedding_model": model,
            },
        ).inserted_primary_key
        fact_id: int = key[0]  # type: ignore[index] # An INSERT of one row has one.
        if said.subject and said.predicate and said.object:
            self._connection.execute(
                insert(edge),
                {
                    "entity_id": self._entity,
                    "fact_id": fact_id,
                    "subject": said.subject,
                    "subject_type": said.subject_type,
                    "predicate": said.predicate,
                    "object": said.object,
                    "object_type": said.object_type,
                    "valid_from": change.valid_from,
                    "valid_to": change.valid_to,
                },
            )
        return fact_id

    def _mention(self, fact_id: int, at: datetime) -> bool:
        """Return whether the entity has this fact: it may have been forgotten, or be another's."""
        parameters = {"fact_id": fact_id, "entity": self._entity, "at": at, "new_version": self._version}
        return self._connection.execute(_MENTION, parameters).rowcount == 1

    def _succeed(self, changes: Sequence[Change], known: Mapping[str, int], added: Collection[str]) -> None:
        """Retire facts, and point each superseded one to its successor, which may have been stored just now."""
        named = {change.superseded_by for change in changes if not isinstance(change, Mention)}
        ids = {**known, **self._ids(sorted(successor for successor in named - known.keys() if successor is not None))}
        for change in changes:
            if isinstance(change, NewFact):
                if change.content_hash in added and change.superseded_by in ids:
                    self._connection.execute(
                        _SUCCEED, {"fact_id": ids[change.content_hash], "successor": ids[change.superseded_by]}
                    )
            elif isinstance(change, Retirement):
                self._retire(change, ids.get(change.superseded_by))

    def _retire(self, change: Retirement, successor: int | None) -> None:
        parameters = {"entity": self._entity, "ends": change.valid_to}
        self._connection.execute(
            _RETIRE,
            {**parameters, "fact_id": change.fact_id, "successor": successor, "new_version": self._version},
        )
        self._connection.execute(_CLOSE_EDGES, {**parameters, "closed": change.fact_id})

    def _cite(self, cited: Sequence[tuple[int, tuple[int, ...]]]) -> None:
        """Link facts to those of the messages that are the entity's and still there, and are not linked yet."""
        wanted = {(fact_id, message_id) for fact_id, messages in cited for message_id in messages}
        if not wanted:
            return
        own = self._own(_OWN_MESSAGES, {message_id for _, message_id in wanted})
        linked = sources(self._connection, sorted({fact_id for fact_id, _ in wanted}))
        links = [
            {"fact_id": fact_id, "message_id": message_id}
            for fact_id, message_id in sorted(wanted)
            if message_id in own and message_id not in linked.get(fact_id, ())
        ]
        for batch in batches(links):
            self._connection.execute(insert(source), batch)

    def _own(self, statement: Select[Any], rows: Iterable[int]) -> set[int]:
        """Return which of *rows* are the entity's."""
        return {
            row
            for batch in batches(sorted(rows))
            for row in self._connection.scalars(statement, {"entity": self._entity, "row_ids": batch})
        }

    def _embed(self, statement: Update, embeddings: Mapping[int, Embedding]) -> None:
        rows = []
        for row, embedding in embeddings.items():
            data, model = packed(embedding)
            rows.append(
                {
                    "row_id": row,
                    "entity": self._entity,
                    "data": data,
                    "model": model,
                    "new_version": self._version,
                }
            )
        for batch in batches(rows):
            self._connection.execute(statement, batch)

    def _describe(self, process_row: int, attributes: Mapping[str, str]) -> None:
        for said, value in attributes.items():
            name = said[:NAME_LENGTH]
            key = (attribute.c.process_id == process_row) & (attribute.c.name == name)
            written = self._connection.execute(
                update(attribute)
                .where(key)
                .values(value=value, mentions=attribute.c.mentions + 1, updated_at=self._now)
            )
            if written.rowcount == 0:
                self._connection.execute(
                    insert(attribute).values(
                        process_id=process_row, name=name, value=value, mentions=1, updated_at=self._now
                    )
                )
