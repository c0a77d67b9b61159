"""Documents of a MongoDB database, and the values that they stand for. Pure.

Times are microseconds since 1970 in UTC: MongoDB's own dates end at milliseconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from memori.storage.rows import packed, unpacked
from memori.types import Embedding, Exchange, Fact, Message, NewFact, StoredMessage

__all__ = [
    "ERASED_STATUS",
    "Document",
    "embedded",
    "exact",
    "fact",
    "fact_document",
    "message",
    "message_document",
    "microseconds",
    "moment",
    "text",
]

Document = dict[str, Any]

ERASED_STATUS = "erased"
"""Of what is left of a fact that was forgotten: its number, so that no late write brings it back."""

_HALF_SURROGATE = re.compile("[\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(at: datetime) -> int:
    """Return an aware time as it is stored.

    Raises:
        ValueError: *at* has no time zone.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at!r} has no time zone: memori stores aware times only")
    return (at - _EPOCH) // _MICROSECOND


def moment(stored: int | None) -> datetime | None:
    """Return the time that is stored as *stored*; None for None."""
    return None if stored is None else _EPOCH + stored * _MICROSECOND


def exact(value: str) -> str:
    """Return *value* as it is stored: itself, but for halves of surrogate pairs, which no driver can encode."""
    return _HALF_SURROGATE.sub("\ufffd", value)


def text(value: str | None) -> str | None:
    """Return *value* as it is stored; None for None."""
    return None if value is None else exact(value)


def embedded(embedding: Embedding | None) -> Document:
    """Return the fields that hold *embedding*."""
    data, model = packed(embedding)
    return {"embedding": data, "embedding_model": text(model)}


def message_document(
    said: Message, exchange: Exchange, *, id: int, position: int, digest: str, partial: bool, version: int
) -> Document:
    """Return one message of *exchange*, without what says whose it is."""
    who = exchange.attribution
    return {
        "_id": id,
        "session": text(who.session_id),
        "process": text(who.process_id),
        "exchange_id": text(exchange.id),
        "position": position,
        "role": said.role,
        "author": text(said.author),
        "kind": said.kind,
        "content": text(said.content),
        "said_at": microseconds(said.at or exchange.at),
        "partial": partial,
        # As text: the keys of a document may hold less than those of JSON. What JSON has no form for is kept as its
        # text rather than refused: metadata is the application's own.
        "metadata": json.dumps(dict(said.metadata), default=str) if said.metadata else None,
        "digest": digest,
        "version": version,
        "embedding": None,
        "embedding_model": None,
    }


def message(document: Mapping[str, Any]) -> StoredMessage:
    """Return the message that *document* holds."""
    return StoredMessage(
        id=document["_id"],
        role=document["role"],
        content=document["content"],
        kind=document["kind"],
        author=document["author"],
        at=moment(document["said_at"]),
        metadata=json.loads(document["metadata"]) if document["metadata"] else {},
        session_id=document["session"],
        position=document["position"],
        exchange_id=document["exchange_id"],
        process_id=document["process"],
        partial=document["partial"],
        version=document["version"],
        embedding=unpacked(document["embedding"], document["embedding_model"]),
    )


def fact_document(change: NewFact, *, id: int, now: datetime, version: int) -> Document:
    """Return a new fact, without what says whose it is."""
    said = change.fact
    return {
        "_id": id,
        "kind": said.kind,
        "content": text(said.content),
        "slot": text(change.slot),
        "content_hash": text(change.content_hash),
        "subject": text(said.subject),
        "subject_type": text(said.subject_type),
        "predicate": text(said.predicate),
        "object": text(said.object),
        "object_type": text(said.object_type),
        "importance": float(said.importance),
        "confidence": float(said.confidence),
        "trust": said.trust,
        "status": change.status,
        "valid_from": microseconds(change.valid_from),
        "valid_to": None if change.valid_to is None else microseconds(change.valid_to),
        "recorded_at": microseconds(change.recorded_at or now),
        "superseded_by": None,
        "mentions": change.mentions,
        "last_mentioned_at": microseconds(change.last_mentioned_at or now),
        "times_recalled": 0,
        "last_recalled_at": None,
        "sources": [],
        "version": version,
        **embedded(change.embedding),
    }


def fact(document: Mapping[str, Any], entity_id: str) -> Fact:
    """Return the fact that *document* holds."""
    valid_from, recorded_at = moment(document["valid_from"]), moment(document["recorded_at"])
    last_mentioned_at = moment(document["last_mentioned_at"])
    assert valid_from and recorded_at and last_mentioned_at  # noqa: PT018, S101 - every fact has these times
    return Fact(
        id=document["_id"],
        entity_id=entity_id,
        kind=document["kind"],
        content=document["content"],
        slot=document["slot"],
        content_hash=document["content_hash"],
        subject=document["subject"],
        predicate=document["predicate"],
        object=document["object"],
        importance=document["importance"],
        confidence=document["confidence"],
        trust=document["trust"],
        status=document["status"],
        valid_from=valid_from,
        valid_to=moment(document["valid_to"]),
        recorded_at=recorded_at,
        superseded_by=document["superseded_by"],
        mentions=document["mentions"],
        last_mentioned_at=last_mentioned_at,
        times_recalled=document["times_recalled"],
        last_recalled_at=moment(document["last_recalled_at"]),
        sources=tuple(document["sources"]),
        version=document["version"],
        embedding=unpacked(document["embedding"], document["embedding_model"]),
    )
