"""Which messages of a request are news to its session, where the application keeps its own list. Pure.

A request's conversation is split at the last message of the model. What stands up to there, the *history*, was said
before: a message of it is new only if the session does not hold as many like it. What follows, the *tail*, is being
said now: it is new, except where it already follows the same message of the model (the call is repeated, or its answer
asked for again). Where the session does not know what it follows, results of tools that are stored already are known:
they come without their history when the provider keeps it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from memori.schema.columns import storable
from memori.types import Message

__all__ = ["Known", "digest", "normal", "unknown"]

_CONTEXT = 32  # Messages looked back over; bounds the work where every answer is the same.


@dataclass(frozen=True, slots=True)
class Known:
    """A message that the session holds.

    Attributes:
        partial: The `normal` form of a reply that was cut off; None for all others.
    """

    position: int
    digest: str
    partial: str | None = None


def normal(content: str) -> str:
    """Return *content* as it is compared: NFC, runs of white space as one space, none at its ends."""
    return " ".join(unicodedata.normalize("NFC", storable(content)).split())


def digest(message: Message) -> str:
    """Return what *message* is recognised by, as 32 hexadecimal digits: its role, kind, author and normal content."""
    # No part can contain a NUL once it is storable.
    parts = (message.role, message.kind, storable(message.author or ""), normal(message.content))
    return blake2b("\x00".join(parts).encode(), digest_size=16).hexdigest()


def unknown(sent: Sequence[Message], stored: Sequence[Known], *, digests: Sequence[str] | None = None) -> list[int]:
    """Return the indexes of the messages of *sent* that are new to the session, in order.

    Args:
        sent: The conversation as a request carries it, oldest first.
        stored: The session's messages that have a digest of one of *sent*; its partial replies may stand among them.
        digests: The `digest` of each message of *sent*, where the caller has them already.
    """
    digests = [digest(message) for message in sent] if digests is None else digests
    tail = max((index + 1 for index, message in enumerate(sent) if message.role == "assistant"), default=0)
    at = {known.position: known.digest for known in stored}
    left = Counter(known.digest for known in stored)
    partials = {known.position: known.partial for known in stored if known.partial}
    new: list[int] = []
    ends = [position for position, found in sorted(at.items()) if tail and found == digests[tail - 1]]
    for index in range(tail):
        if left[digests[index]]:
            left[digests[index]] -= 1
            continue
        position = _cut_off(sent[index], digests[index - 1] if index else None, at, partials)
        if position is None:
            new.append(index)
            continue
        del partials[position]
        at[position] = digests[index]
        if index == tail - 1:
            ends.append(position)
    if ends:
        return new + _tail(digests, tail, at, ends)
    for index in range(tail, len(sent)):
        if sent[index].kind == "tool_result" and left[digests[index]]:
            left[digests[index]] -= 1
        else:
            new.append(index)
    return new


def _cut_off(message: Message, before: str | None, at: dict[int, str], partials: dict[int, str]) -> int | None:
    """Return the position of the partial reply that *message* is the whole of: it follows the same message."""
    if message.role != "assistant" or not partials:
        return None
    content = normal(message.content)
    for position, partial in partials.items():
        if content.startswith(partial) and at.get(position - 1) == before:
            return position
    return None


def _tail(digests: Sequence[str], tail: int, at: dict[int, str], ends: Sequence[int]) -> list[int]:
    end = max(ends, key=lambda end: (_shared(digests, tail, at, end), end))
    for index in range(tail, len(digests)):
        if at.get(end + 1 + index - tail) != digests[index]:
            return list(range(index, len(digests)))
    return []


def _shared(digests: Sequence[str], tail: int, at: dict[int, str], end: int) -> int:
    """Return how many messages before the tail are those before and at *end*: that tells equal answers apart.

    Where it does not, the latest is meant: better a message twice than one lost.
    """
    for count in range(min(tail, _CONTEXT)):
        if at.get(end - count) != digests[tail - 1 - count]:
            return count
    return min(tail, _CONTEXT)
