"""What another program remembered, brought into memori: by the same door as everything else, so into any storage."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import get_args, get_type_hints

from memori.protocols import Storage
from memori.storage.upstream import Triple, UpstreamDatabase
from memori.types import (
    IMPORTED,
    Attribution,
    Exchange,
    ExtractedFact,
    Imported,
    KnownFact,
    Message,
    Revision,
)

__all__ = ["Importer"]

_BATCH = 500
_KINDS = get_args(get_type_hints(Imported)["kind"])


class Importer:
    """Copies what one database of MemoriLabs' memori holds. Done again, it adds only what came since.

    Args:
        carried: Returns what known facts change, see `memori.augmentation.pipeline.Pipeline.carried`.
    """

    def __init__(self, storage: Storage, carried: Callable[[Sequence[KnownFact], datetime], Revision]) -> None:
        self._storage = storage
        self._carried = carried
        self._found: Counter[str] = Counter()
        self._new: Counter[str] = Counter()

    def run(self, source: UpstreamDatabase) -> list[Imported]:
        """Copy everything; return how much was found and how much of it is new, a kind each.

        Raises:
            StorageError: One of the two databases failed. What was copied until then stays.
        """
        for row, process_id in source.processes():
            self._process(process_id, source.attributes(row))
        for row, entity_id in source.entities():
            self._entity(source, row, entity_id)
        self._found["sessions"] += source.nobodys_sessions()
        return [Imported(kind=kind, found=self._found[kind], new=self._new[kind]) for kind in _KINDS]

    def _process(self, process_id: str, attributes: Sequence[str]) -> None:
        new = self._storage.describe(process_id, {text: text for text in attributes}, now=datetime.now(UTC))
        self._count("attributes", len(attributes), new)

    def _entity(self, source: UpstreamDatabase, row: int, entity_id: str) -> None:
        known = self._storage.version(entity_id) is not None
        self._count("entities", 1, not known)
        if not known:
            self._storage.revise(entity_id, Revision(slots=frozenset(), decide=lambda _: []), now=datetime.now(UTC))
        for session in source.sessions(row):
            messages = source.messages(session.conversation)
            if messages and session.summary:
                messages[0] = replace(messages[0], metadata={"conversation_summary": session.summary})
            stored = self._record(
                Attribution(entity_id, session.process_id, session.uuid), messages, session.started_at
            )
            self._count("sessions", 1, bool(stored))
            self._count("messages", len(messages), stored)
        triples = {_key(triple.text): triple for triple in source.triples(row)}
        self._count("triples", len(triples), 0)
        for page in source.facts(row):
            self._count("facts", len(page), 0)
            self._store(entity_id, [_with_triple(known, triples.pop(_key(known.fact.content), None)) for known in page])
        for batch in _batches([_of_triple(triple) for triple in triples.values()]):
            self._store(entity_id, batch)

    def _record(self, attribution: Attribution, messages: Sequence[Message], at: datetime) -> int:
        if not messages:
            return 0
        told = "\x00".join((attribution.entity_id, attribution.session_id, str(len(messages))))
        exchange = Exchange(
            id=IMPORTED + blake2b(told.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(),
            attribution=attribution,
            sent=tuple(messages),
            reply=(),
            at=at,
        )
        return len(self._storage.record(exchange))

    def _store(self, entity_id: str, facts: Sequence[KnownFact]) -> None:
        now = datetime.now(UTC)
        stored = self._storage.revise(entity_id, self._carried(facts, now), now=now)
        self._count("facts", 0, len(stored))
        self._count("triples", 0, sum(1 for fact in stored if fact.subject and fact.predicate and fact.object))

    def _count(self, kind: str, found: int, new: int) -> None:
        self._found[kind] += found
        self._new[kind] += new


def _with_triple(known: KnownFact, triple: Triple | None) -> KnownFact:
    # Most facts there are the sentence of a triple: the two are one fact here.
    return known if triple is None else replace(known, fact=_told(known.fact.content, triple))


def _of_triple(triple: Triple) -> KnownFact:
    return KnownFact(
        fact=_told(triple.text, triple), mentions=triple.mentions, first_at=triple.first_at, last_at=triple.last_at
    )


def _told(content: str, triple: Triple) -> ExtractedFact:
    return ExtractedFact(
        kind="fact",
        content=content,
        subject=triple.subject,
        predicate=triple.predicate,
        object=triple.object,
        subject_type=triple.subject_type or None,
        object_type=triple.object_type or None,
    )


def _key(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _batches(facts: Sequence[KnownFact]) -> Iterator[Sequence[KnownFact]]:
    for start in range(0, len(facts), _BATCH):
        yield facts[start : start + _BATCH]
