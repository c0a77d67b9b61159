"""A conversation that the application hands in itself → messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from memori.errors import ConfigurationError
from memori.types import Attribution, Message

__all__ = ["conversation", "exchange_id"]

_ROLES = {"user", "assistant", "tool", "system"}
_KINDS = {"text", "tool_call", "tool_result"}
_NAMES = {"role", "content", "kind", "author", "name", "at", "metadata"}


def conversation(messages: Sequence[Message | Mapping[str, Any]], *, at: datetime | None) -> tuple[Message, ...]:
    """Return *messages* as `Message` objects, in order, system messages left out: those are the application's own.

    Args:
        at: The time of those that have none of their own. None: they keep none.

    Raises:
        ConfigurationError: One of them cannot be read; nothing is stored then.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise ConfigurationError(f"messages={type(messages).__name__}: pass a list of messages")
    at = _time("at", at)
    read = [_message(place, given, at) for place, given in enumerate(messages)]
    return tuple(message for message in read if message.role != "system")


def exchange_id(attribution: Attribution, messages: Sequence[Message]) -> str:
    """Return the id to store *messages* under.

    Where each tells its time the id follows from what they are, so that handing in the same once more stores nothing.
    """
    if any(message.at is None for message in messages):
        return uuid4().hex
    plain = [
        [message.role, message.kind, message.author, message.content, message.at.isoformat()]
        for message in messages
        if message.at is not None
    ]
    text = json.dumps([attribution.entity_id, attribution.process_id, plain])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _message(place: int, given: Message | Mapping[str, Any], at: datetime | None) -> Message:
    where = f"messages[{place}]"
    if isinstance(given, Message):
        given = {name: getattr(given, name) for name in ("role", "content", "kind", "author", "at", "metadata")}
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{where} is a {type(given).__name__}: pass a mapping with 'role' and 'content'")
    unknown = sorted(set(given) - _NAMES)
    if unknown:
        raise ConfigurationError(f"{where} has {unknown}: known are {sorted(_NAMES)}; put your own into 'metadata'")
    role, content, kind = given.get("role"), given.get("content"), given.get("kind", "text")
    if role not in _ROLES:
        raise ConfigurationError(f"{where}['role']={role!r}: must be one of {sorted(_ROLES)}")
    if kind not in _KINDS:
        raise ConfigurationError(f"{where}['kind']={kind!r}: must be one of {sorted(_KINDS)}")
    if not isinstance(content, str):
        raise ConfigurationError(f"{where}['content'] is a {type(content).__name__}: must be text")
    author = given.get("author", given.get("name"))
    if author is not None and not isinstance(author, str):
        raise ConfigurationError(f"{where}['author']={author!r}: must be text")
    metadata = given.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise ConfigurationError(f"{where}['metadata'] is a {type(metadata).__name__}: must be a mapping")
    try:
        json.dumps(dict(metadata))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}['metadata']: {error}: use what JSON knows") from error
    return Message(
        role=role,
        content=content,
        kind=kind,
        author=author,
        at=_time(f"{where}['at']", given.get("at")) or at,
        metadata=dict(metadata),
    )


def _time(where: str, at: object) -> datetime | None:
    if at is None:
        return None
    if not isinstance(at, datetime):
        raise ConfigurationError(f"{where}={at!r}: must be a datetime")
    if at.tzinfo is None:
        raise ConfigurationError(f"{where}={at!r}: must say its time zone, e.g. datetime(..., tzinfo=UTC)")
    return at.astimezone(UTC)
