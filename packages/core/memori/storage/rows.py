"""Rows of the tables, and the values that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sqlalchemy import Connection, Select, bindparam, select

from memori.errors import ConfigurationError
from memori.schema.columns import NAME_LENGTH
from memori.schema.tables import entity, fact, message, process, session, source
from memori.types import Embedding, Fact, StoredMessage

if TYPE_CHECKING:
    from memori.types import Vector

__all__ = [
    "FACTS",
    "MESSAGES",
    "batches",
    "facts",
    "identifier",
    "messages",
    "packed",
    "sources",
    "unpacked",
]

ItemT = TypeVar("ItemT")

# Oracle takes no more than 1,000 values in one IN, and every engine has a bound on a statement's parameters.
BATCH = 500

MESSAGES: Select[Any] = (
    select(
        message.c.id,
        message.c.role,
        message.c.content,
        message.c.kind,
        message.c.author,
        message.c.said_at,
        message.c.metadata,
        session.c.uuid,
        message.c.position,
        message.c.exchange_id,
        process.c.external_id,
        message.c.partial,
        message.c.version,
        message.c.embedding,
        message.c.embedding_model,
    )
    .join(session, session.c.id == message.c.session_id)
    .outerjoin(process, process.c.id == message.c.process_id)
)
FACTS: Select[Any] = select(
    fact.c.id,
    entity.c.external_id,
    fact.c.kind,
    fact.c.content,
    fact.c.slot,
    fact.c.content_hash,
    fact.c.subject,
    fact.c.predicate,
    fact.c.object,
    fact.c.importance,
    fact.c.confidence,
    fact.c.trust,
    fact.c.status,
    fact.c.valid_from,
    fact.c.valid_to,
    fact.c.recorded_at,
    fact.c.superseded_by,
    fact.c.mentions,
    fact.c.last_mentioned_at,
    fact.c.times_recalled,
    fact.c.last_recalled_at,
    fact.c.version,
    fact.c.embedding,
    fact.c.embedding_model,
).join(entity, entity.c.id == fact.c.entity_id)
_SOURCES: Select[Any] = select(source.c.fact_id, source.c.message_id).order_by(source.c.message_id)
_SOURCES_OF = _SOURCES.where(source.c.fact_id.in_(bindparam("facts", expanding=True)))
_one = fact.alias()
_SOURCES_BESIDE = (
    _SOURCES.join(fact, fact.c.id == source.c.fact_id)
    .join(_one, _one.c.entity_id == fact.c.entity_id)
    .where(_one.c.id == bindparam("fact"))
)


def identifier(name: str, value: str) -> str:
    """Return *value*, which can be stored as an id.

    Raises:
        ConfigurationError: It is too long.
    """
    if len(value) > NAME_LENGTH:
        raise ConfigurationError(
            f"{name} of {len(value)} characters ({value[:40]!r}…): at most {NAME_LENGTH} can be stored; pass a digest"
        )
    return value


def batches(items: Iterable[ItemT]) -> list[list[ItemT]]:
    """Return *items* in lists that one statement can take; no list without any."""
    every = list(items)
    return [every[start : start + BATCH] for start in range(0, len(every), BATCH)]


def packed(embedding: Embedding | None) -> tuple[bytes | None, str | None]:
    """Return *embedding* as it is stored: little-endian float32, and its model."""
    if embedding is None:
        return None, None
    return np.ascontiguousarray(embedding.vector, dtype="<f4").tobytes(), embedding.model


def unpacked(data: bytes | None, model: str | None) -> Embedding | None:
    """Return the embedding that is stored so; None when there is none, or not a whole one."""
    # A vector that another program cut off must not keep the text beside it from being read.
    if data is None or model is None or not data or len(data) % 4:
        return None
    vector: Vector = np.frombuffer(data, dtype="<f4")
    return Embedding(model, vector)


def messages(rows: Iterable[Any]) -> list[StoredMessage]:
    """Return the messages of *rows*, which `MESSAGES` selects."""
    return [
        StoredMessage(
            id=id_,
            role=role,
            content=content,
            kind=kind,
            author=author,
            at=at,
            metadata=metadata or {},
            session_id=session_id,
            position=position,
            exchange_id=exchange_id,
            process_id=process_id,
            partial=partial,
            version=version,
            embedding=None if embedding is None else unpacked(embedding, model),
        )
        for (
            id_,
            role,
            content,
            kind,
            author,
            at,
            metadata,
            session_id,
            position,
            exchange_id,
            process_id,
            partial,
            version,
            embedding,
            model,
        ) in rows
    ]


def facts(rows: Iterable[Any], sources_by_fact: Mapping[int, Sequence[int]]) -> list[Fact]:
    """Return the facts of *rows*, which `FACTS` selects."""
    return [
        Fact(
            id=id_,
            entity_id=entity_id,
            kind=kind,
            content=content,
            slot=slot,
            content_hash=content_hash,
            subject=subject,
            predicate=predicate,
            object=object_,
            importance=importance,
            confidence=confidence,
            trust=trust,
            status=status,
            valid_from=valid_from,
            valid_to=valid_to,
            recorded_at=recorded_at,
            superseded_by=superseded_by,
            mentions=mentions,
            last_mentioned_at=last_mentioned_at,
            times_recalled=times_recalled,
            last_recalled_at=last_recalled_at,
            sources=tuple(sources_by_fact.get(id_, ())),
            version=version,
            embedding=None if embedding is None else unpacked(embedding, model),
        )
        for (
            id_,
            entity_id,
            kind,
            content,
            slot,
            content_hash,
            subject,
            predicate,
            object_,
            importance,
            confidence,
            trust,
            status,
            valid_from,
            valid_to,
            recorded_at,
            superseded_by,
            mentions,
            last_mentioned_at,
            times_recalled,
            last_recalled_at,
            version,
            embedding,
            model,
        ) in rows
    ]


def sources(connection: Connection, fact_ids: Sequence[int]) -> dict[int, list[int]]:
    """Return the messages of each of the facts that has any, oldest first. The facts are of one entity."""
    if len(fact_ids) > BATCH:
        # Of an entity with so many, one query for all of them is quicker than one for each batch.
        return _by_fact(connection.execute(_SOURCES_BESIDE, {"fact": fact_ids[0]}).all())
    return _by_fact(connection.execute(_SOURCES_OF, {"facts": fact_ids}).all()) if fact_ids else {}


def _by_fact(links: Iterable[Any]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for fact_id, message_id in links:
        found.setdefault(fact_id, []).append(message_id)
    return found
