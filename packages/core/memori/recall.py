"""Query → an entity's facts and messages, best first. Everything here is about one entity at a time."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from memori.errors import StorageError
from memori.index.entity import EntityIndex, began
from memori.index.text import words
from memori.types import Explanation, Fact, RecallStatus, Recollection, StoredMessage

if TYPE_CHECKING:
    from memori.index.entity import Document
    from memori.protocols import Embedder, Ranker, Storage
    from memori.settings import Settings
    from memori.types import Ranked, RecollectionKind, Trust, Vector, Version

__all__ = ["Recaller"]

log = logging.getLogger(__name__)

_QUERY_LIMIT = 4000  # Characters; of more, the beginning and the end: what is asked stands at either.
_MARGIN = 2  # Candidates ranked for each recollection wanted: what repeats another falls out.
_ECHO = 0.8  # Share of a message's words that a fact read from it must have to stand for it.


class Recaller:
    """Finds what an entity's memory holds on a query. Safe to use from any thread.

    Each entity's memory is read once, kept in an index (the least recently used go when they take more than
    ``settings.cache_bytes``), and brought up to date before each answer by what changed since.

    Args:
        later: Is handed what no answer should wait for. By default it is done at once, and the answer waits.
    """

    def __init__(
        self,
        storage: Storage,
        embedder: Embedder,
        ranker: Ranker,
        settings: Settings,
        *,
        later: Callable[[Callable[[], object]], object] = lambda work: work(),
    ) -> None:
        self._storage = storage
        self._embedder = embedder
        self._ranker = ranker
        self._settings = settings
        self._later = later
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._stale_answers = 0
        self._words_only_answers = 0

    def recall(
        self,
        entity_id: str,
        query: str,
        *,
        limit: int,
        now: datetime,
        kinds: Collection[RecollectionKind] | None = None,
        as_of: datetime | None = None,
        min_score: float | None = None,
        explain: bool = False,
    ) -> list[Recollection]:
        """Return at most *limit* facts and messages that have to do with *query*, best first; ties: the newer first.

        No two of them say the same: of a fact and the message it was read from, the fact is there and has the message
        in its sources. An unknown entity, a blank query or one that nothing matches: empty. While the database does not
        answer, what was last known of the entity does (counted in `status`).

        Args:
            kinds: Only these; ``message`` is one. None: all.
            as_of: Only what held then and was said until then; superseded facts come back.
            min_score: Only what scores at least that, in [0, 1].
            explain: Whether to fill each item's explanation.

        Raises:
            StorageError: The database does not answer, and nothing is known of the entity.
        """
        return list(
            self.each(
                entity_id,
                query,
                limit=limit,
                now=now,
                kinds=kinds,
                as_of=as_of,
                min_score=min_score,
                explain=explain,
            )
        )

    def each(
        self,
        entity_id: str,
        query: str,
        *,
        limit: int,
        now: datetime,
        kinds: Collection[RecollectionKind] | None = None,
        as_of: datetime | None = None,
        min_score: float | None = None,
        explain: bool = False,
    ) -> Iterator[Recollection]:
        """Yield what `recall` returns, one by one, for whoever may have enough before the last."""
        text = _bounded(query)
        if not text or limit <= 0:
            return
        index = self._current(entity_id)
        if index is None:
            return
        candidates, documents = index.candidates(text, self._vector(text), now=now, as_of=as_of, kinds=kinds)
        ranked = self._ranker.rank(text, candidates, now=now, limit=_MARGIN * limit + 8)
        left = limit
        echoes = _Echoes()
        for item in ranked:
            if min_score is not None and item.score < min_score:
                return
            document = documents[item.row]
            if echoes.has(document):
                continue
            echoes.add(document)
            explanation = _explanation(item, text, document) if explain else None
            similarity = float(candidates.meaning[item.row])
            yield _recollection(document, index, item.score, similarity, explanation)
            left -= 1
            if not left:
                return

    def prefetch(self, entity_id: str) -> None:
        """Read the entity's memory, so that the next answer need not wait for it.

        Raises:
            StorageError: The database does not answer.
        """
        self._current(entity_id)

    def refresh(self, entity_id: str) -> None:
        """Bring what is kept of the entity up to date, so that the next answer need not; nothing if it is not kept.

        Raises:
            StorageError: The database does not answer.
        """
        with self._lock:
            kept = entity_id in self._slots
        if kept:
            self._current(entity_id)

    def warm_up(self) -> None:
        """Load the embedder, so that the first answer need not wait for it."""
        self._embedder.embed(["memory"], purpose="query")

    def status(self) -> RecallStatus:
        """Return what is kept in memory, and how often an answer had to do with less."""
        with self._lock:
            return RecallStatus(
                entities=len(self._slots),
                bytes=sum(slot.nbytes for slot in self._slots.values()),
                stale_answers=self._stale_answers,
                words_only_answers=self._words_only_answers,
            )

    def reset(self) -> None:
        """Forget what is kept in memory. To be called in the child after a fork: locks may be held by no one there."""
        self._lock = threading.Lock()
        self._slots = OrderedDict()

    def _vector(self, text: str) -> Vector | None:
        try:
            vectors = self._embedder.embed([text], purpose="query")
        except Exception as error:  # noqa: BLE001 - any embedder may fail in its own way, and words still find most
            log.warning("the query could not be embedded; recalling by words alone: %s", error)
            with self._lock:
                self._words_only_answers += 1
            return None
        vector: Vector = vectors[0]
        return vector

    def _current(self, entity_id: str) -> EntityIndex | None:
        """Return the entity's index, up to date; None when there is no such entity."""
        try:
            version = self._storage.version(entity_id)
            if version is None:
                self._drop(entity_id)
                return None
            slot = self._slot(entity_id)
            # Not only a higher version is news: a database may have been put back to an older one.
            if slot.index is None or slot.index.version != version:
                self._refresh(entity_id, slot, version)
        except StorageError as error:
            with self._lock:
                known = self._slots.get(entity_id)
                if known is None or known.index is None:
                    raise
                self._stale_answers += 1
                log.debug("answering from what was last known of the entity: %s", error)
                return known.index
        return slot.index

    def _refresh(self, entity_id: str, slot: _Slot, version: Version) -> None:
        with slot.refreshing:
            index = slot.index
            if index is not None and index.version == version:
                return  # Another thread was faster.
            changes = self._storage.changes(entity_id, since=None if index is None else index.version)
            if changes is None:
                slot.index = None
                self._drop(entity_id)
                return
            if index is None or changes.whole:
                index = EntityIndex(self._embedder.model)
            slot.index = None  # Should taking them in fail halfway, the next answer begins with a new one.
            index.apply(changes)
            slot.index = index
            slot.nbytes = index.nbytes
        self._evict()
        if index.unsettled:
            self._later(index.settle)

    def _slot(self, entity_id: str) -> _Slot:
        with self._lock:
            slot = self._slots.setdefault(entity_id, _Slot())
            self._slots.move_to_end(entity_id)
            return slot

    def _drop(self, entity_id: str) -> None:
        with self._lock:
            self._slots.pop(entity_id, None)

    def _evict(self) -> None:
        limit = self._settings.cache_bytes
        with self._lock:
            total = sum(slot.nbytes for slot in self._slots.values())
            # One entity larger than the limit is kept all the same: reading it anew at each call would be worse.
            while total > limit and len(self._slots) > (1 if limit else 0):
                total -= self._slots.popitem(last=False)[1].nbytes


class _Slot:
    """Where one entity's index is kept."""

    def __init__(self) -> None:
        self.refreshing = threading.Lock()
        self.index: EntityIndex | None = None
        self.nbytes = 0


class _Echoes:
    """What an answer says already."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._facts: dict[int, list[Fact]] = {}

    def has(self, document: Document) -> bool:
        if _normal(document.content) in self._said:
            return True
        if isinstance(document, Fact) or document.id not in self._facts:
            return False
        terms = set(words(document.content))
        return any(len(terms & set(words(fact.content))) >= _ECHO * len(terms) for fact in self._facts[document.id])

    def add(self, document: Document) -> None:
        self._said.add(_normal(document.content))
        if isinstance(document, Fact):
            for message_id in document.sources:
                self._facts.setdefault(message_id, []).append(document)


def _recollection(
    document: Document, index: EntityIndex, score: float, similarity: float, explanation: Explanation | None
) -> Recollection:
    if isinstance(document, Fact):
        sources = index.sources(document)
        return Recollection(
            id=document.id,
            kind=document.kind,
            content=document.content,
            score=score,
            at=document.valid_from,
            date_created=document.recorded_at,
            valid_from=document.valid_from,
            valid_to=document.valid_to,
            status=document.status,
            trust=document.trust,
            author=sources[0].author if sources else None,
            similarity=similarity,
            sources=sources,
            explanation=explanation,
        )
    at = began(document)
    return Recollection(
        id=document.id,
        kind="message",
        content=document.content,
        score=score,
        at=at,
        date_created=at,
        trust=_trust(document),
        author=document.author,
        similarity=similarity,
        sources=(replace(document, embedding=None),),
        explanation=explanation,
    )


def _trust(message: StoredMessage) -> Trust:
    if message.role == "assistant":
        return "assistant"
    return "tool" if message.role == "tool" else "user"


def _explanation(item: Ranked, query: str, document: Document) -> Explanation:
    asked = set(words(query))
    shared = dict.fromkeys(term for term in words(document.content) if term in asked)
    return Explanation(scores=dict(item.scores), terms=tuple(shared))


def _bounded(query: str) -> str:
    text = query if len(query) <= _QUERY_LIMIT else f"{query[: _QUERY_LIMIT // 2]} {query[-_QUERY_LIMIT // 2 :]}"
    return text.strip()


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
