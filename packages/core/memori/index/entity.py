"""What recall needs of one entity, in main memory: its facts and messages as columns, vectors and inverted indexes."""

from __future__ import annotations

import bisect
import re
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from memori.index.columns import Column, products
from memori.index.inverted import InvertedIndex, hashed, settled
from memori.index.text import STOP_WORDS, gram_hashes, stem, words
from memori.types import Candidates, Changes, Fact, RecollectionKind, StoredMessage, Version

if TYPE_CHECKING:
    import numpy.typing as npt

    from memori.types import Flags, Numbers, Rows, Seconds, Vector

__all__ = ["Document", "EntityIndex", "began"]

Document: TypeAlias = Fact | StoredMessage
ScalarT = TypeVar("ScalarT", bound=np.generic)

_KINDS: tuple[RecollectionKind, ...] = (
    "fact",
    "preference",
    "rule",
    "event",
    "attribute",
    "person",
    "relationship",
    "skill",
    "message",
)
_KIND_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_MESSAGE = _KIND_NUMBERS["message"]
_EVENT = _KIND_NUMBERS["event"]
_STATUS_NUMBERS = {"active": 0, "superseded": 1, "quarantined": 2}

# Question marks and full stops: Latin, full-width, Arabic.
_QUESTION = re.compile("[?\uff1f\u061f]\\s*$")
_ONLY_QUESTION = re.compile("[^.!?\uff01\uff1f\u061f\u3002\n]*[?\uff1f\u061f]\\s*")
_SUBSTANTIAL = 4  # Words of content with which a message says something of its own: "Noted, thanks!" does not.
_LONG_QUERY_WORDS = 8
_LONG_QUERY_GRAMS = 96  # Of about eight words.
_OBJECT_BYTES = 1200  # What Python takes for one document and its entries, measured; the text itself is added.


class EntityIndex:
    """One entity's memory as of a version. Safe to use from any thread.

    Rows are numbered in the order they came. Messages that are no text (tool calls and their results) have no row: they
    are not recalled, but stay known as the sources of facts.

    Args:
        model: Whose embeddings to keep. Others are no evidence, and so are those whose length is not the common one.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._version: Version | None = None
        self._documents: list[Document] = []
        self._texts: list[str] = []
        self._facts: dict[int, int] = {}
        self._messages: dict[int, int] = {}
        self._unranked: dict[int, StoredMessage] = {}
        self._text_bytes = 0
        self._words = InvertedIndex(long_query=_LONG_QUERY_WORDS, common=0.5)
        # Whatever their length: so LoCoMo has an MRR of .613, with b 0.4 one of .607.
        self._grams = InvertedIndex(long_query=_LONG_QUERY_GRAMS, common=0.1, b=0.0)
        self._vectors: Column | None = None
        self._sessions: dict[str, tuple[int, list[tuple[int, int]]]] = {}
        self._authors: dict[str | None, int] = {}
        self._kind = Column(np.int8)
        self._status = Column(np.int8)
        self._replaced = Column(np.bool_)
        self._at = Column(np.float64)
        self._until = Column(np.float64)
        self._importance = Column(np.float32)
        self._question = Column(np.float32)
        self._substance = Column(np.float32)
        self._successor = Column(np.int64)
        self._session = Column(np.int64)
        self._author = Column(np.int64)
        self._before = Column(np.int64)
        self._after = Column(np.int64)
        self._link_facts = Column(np.int64)
        self._link_messages = Column(np.int64)
        self._linked: set[tuple[int, int]] = set()
        self._successor_ids: dict[int, int] = {}
        self._lasting = self._snapshot()

    @property
    def version(self) -> Version | None:
        """The version this is as of; None before the first `apply`."""
        return self._version

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes."""
        # Documents keep the vectors that they came with: taking those off would double the time of reading them.
        vectors = 0 if self._vectors is None else 2 * self._vectors.nbytes
        objects = _OBJECT_BYTES * (len(self._documents) + len(self._unranked)) + self._text_bytes
        return self._words.nbytes + self._grams.nbytes + vectors + objects

    def apply(self, changes: Changes) -> None:
        """Take in what changed. Changes that are everything belong into a new index."""
        with self._lock:
            texts: list[Document] = [
                message for message in changes.messages if message.kind == "text" and message.role != "system"
            ]
            self._unranked.update({message.id: message for message in changes.messages if message.kind != "text"})
            documents = [*texts, *changes.facts]
            self._add([document for document in documents if not self._known(document)])
            self._embed(documents)
            for fact in changes.facts:
                self._relate(fact)
            self._resolve_successors()
            # Now, in the background as a rule, and not in the next call.
            self._lasting = self._snapshot()
            self._version = changes.version

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has anything to do."""
        return self._words.unsettled or self._grams.unsettled

    def settle(self) -> None:
        """Put together what came in parts, so that later answers are quick. Others may ask meanwhile."""
        if not self._settling.acquire(blocking=False):
            return
        try:
            for index in (self._words, self._grams):
                while index.unsettled:  # More may come meanwhile, and who brings it does not wait here.
                    before = index.large
                    after = settled(before)
                    with self._lock:
                        index.settle(before, after)
        finally:
            self._settling.release()

    def candidates(
        self,
        query: str,
        vector: Vector | None,
        *,
        now: datetime,
        as_of: datetime | None = None,
        kinds: Collection[RecollectionKind] | None = None,
    ) -> tuple[Candidates, Sequence[Document]]:
        """Return all there is with its evidence for *query*, and beside it the fact or message of each row.

        Args:
            vector: The query's embedding; None: it has none.
            as_of: Only what was known to hold then, and what was said until then.
            kinds: What may be in the answer; None: all. The others still are evidence for their neighbours.
        """
        terms = words(query, stemmed=False)
        asked_words = np.unique(hashed([list(map(stem, terms))])[0])
        asked_grams = np.unique(gram_hashes([terms])[0])
        with self._lock:
            lasting = self._lasting
            recallable, past = self._standing(lasting, now, as_of)
            usable = recallable.astype(np.float32)
            if kinds is not None:
                numbers = [_KIND_NUMBERS[name] for name in kinds if name in _KIND_NUMBERS]
                recallable = recallable & np.isin(self._kind.values, numbers)
            return (
                Candidates(
                    texts=lasting.texts,
                    recallable=recallable,
                    messages=lasting.messages,
                    questions=lasting.questions,
                    substance=lasting.substance,
                    past=past,
                    successors=lasting.successors,
                    meaning=_only(usable, self._meaning(vector)),
                    words=_only(usable, self._words.coverage(asked_words)),
                    characters=_only(usable, self._grams.coverage(asked_grams)),
                    before=lasting.before,
                    after=lasting.after,
                    sessions=lasting.sessions,
                    named=self._named(terms) & lasting.messages,
                    links=lasting.links,
                    at=lasting.at,
                    importance=lasting.importance,
                ),
                lasting.documents,
            )

    def sources(self, fact: Fact) -> tuple[StoredMessage, ...]:
        """Return the messages that *fact* was read from, as far as they are there, in its order, without embeddings."""
        found = (self._message(message_id) for message_id in fact.sources)
        return tuple(replace(message, embedding=None) for message in found if message is not None)

    def _message(self, message_id: int) -> StoredMessage | None:
        row = self._messages.get(message_id)
        if row is None:
            return self._unranked.get(message_id)
        message = self._documents[row]
        return message if isinstance(message, StoredMessage) else None

    # Growing

    def _known(self, document: Document) -> bool:
        """Return whether *document* has its row, and bring that up to date."""
        rows = self._facts if isinstance(document, Fact) else self._messages
        row = rows.get(document.id)
        if row is None:
            return False
        if self._texts[row] != document.content:
            self._replaced.values[row] = True
            del rows[document.id]
            return False
        self._documents[row] = document
        if isinstance(document, Fact):
            self._status.values[row] = _STATUS_NUMBERS[document.status]
            self._at.values[row] = document.valid_from.timestamp()
            self._until.values[row] = _until(document)
            self._importance.values[row] = document.importance
        return True

    def _add(self, documents: Sequence[Document]) -> None:
        if not documents:
            return
        first = len(self._documents)
        count = len(documents)
        contents = [document.content for document in documents]
        terms = [words(text, stemmed=False) for text in contents]
        self._words.add(*hashed([list(map(stem, found)) for found in terms]), texts=count)
        self._grams.add(*gram_hashes(terms), texts=count)
        self._documents += documents
        self._texts += contents
        self._text_bytes += sum(map(len, contents))
        self._replaced.extend(np.zeros(count, dtype=bool))
        self._successor.extend(np.full(count, -1))
        self._before.extend(np.full(count, -1))
        self._after.extend(np.full(count, -1))
        self._kind.extend(
            [_KIND_NUMBERS.get(document.kind, 0) if isinstance(document, Fact) else _MESSAGE for document in documents]
        )
        self._status.extend(
            [_STATUS_NUMBERS[document.status] if isinstance(document, Fact) else 0 for document in documents]
        )
        self._at.extend([began(document).timestamp() for document in documents])
        self._until.extend([_until(document) if isinstance(document, Fact) else np.inf for document in documents])
        self._importance.extend([document.importance if isinstance(document, Fact) else 0.5 for document in documents])
        self._question.extend(
            [0.0 if isinstance(document, Fact) else _asks(document.content) for document in documents]
        )
        self._substance.extend([_says(found) for found in terms])
        if self._vectors is not None:
            self._vectors.extend(np.zeros((count, self._vectors.values.shape[1]), dtype=np.float32))
        sessions, authors = [], []
        for row, document in enumerate(documents, start=first):
            if isinstance(document, Fact):
                self._facts[document.id] = row
                sessions.append(-1)
                authors.append(-1)
            else:
                self._messages[document.id] = row
                sessions.append(self._join_session(document, row))
                authors.append(self._authors.setdefault(document.author, len(self._authors)))
        self._session.extend(sessions)
        self._author.extend(authors)

    def _join_session(self, message: StoredMessage, row: int) -> int:
        """Put *row* in its place among its session's messages; return the session's number."""
        number, order = self._sessions.setdefault(message.session_id, (len(self._sessions), []))
        place = bisect.bisect(order, (message.position, row))
        before = order[place - 1][1] if place > 0 else -1
        after = order[place][1] if place < len(order) else -1
        order.insert(place, (message.position, row))
        self._before.values[row], self._after.values[row] = before, after
        if before >= 0:
            self._after.values[before] = row
        if after >= 0:
            self._before.values[after] = row
        return number

    def _embed(self, documents: Sequence[Document]) -> None:
        found = [
            (self._row(document), document.embedding.vector)
            for document in documents
            if document.embedding is not None and document.embedding.model == self._model
        ]
        if not found:
            return
        if self._vectors is None:
            # One vector of another length must not be the measure of all others.
            width = Counter(vector.size for _, vector in found).most_common(1)[0][0]
            self._vectors = Column(np.float32, width=width)
            self._vectors.extend(np.zeros((len(self._documents), width), dtype=np.float32))
        width = self._vectors.values.shape[1]
        fitting = [(row, vector) for row, vector in found if vector.shape == (width,) and np.isfinite(vector).all()]
        if fitting:
            self._vectors.values[[row for row, _ in fitting]] = np.stack([vector for _, vector in fitting])

    def _row(self, document: Document) -> int:
        return (self._facts if isinstance(document, Fact) else self._messages)[document.id]

    def _relate(self, fact: Fact) -> None:
        row = self._facts[fact.id]
        for message_id in fact.sources:
            source = self._messages.get(message_id)
            if source is not None and (row, source) not in self._linked:
                self._linked.add((row, source))
                self._link_facts.extend([row])
                self._link_messages.extend([source])
        if fact.superseded_by is None:
            self._successor_ids.pop(row, None)
            self._successor.values[row] = -1
        else:
            self._successor_ids[row] = fact.superseded_by

    def _resolve_successors(self) -> None:
        for row, fact_id in self._successor_ids.items():
            self._successor.values[row] = self._facts.get(fact_id, -1)

    # Asking

    def _snapshot(self) -> _Lasting:
        holds = self._status.values == _STATUS_NUMBERS["active"]
        usable, fruitless = self._usable(holds)
        # What happened stays true after it ended; a message never ends.
        ends = np.where(holds & (self._kind.values != _EVENT), self._until.values, np.inf)
        return _Lasting(
            documents=tuple(self._documents),
            texts=tuple(self._texts),
            messages=_frozen(self._kind.values == _MESSAGE),
            questions=_frozen(self._question.values),
            substance=_frozen(self._substance.values),
            successors=_frozen(self._successors()),
            before=_frozen(self._before.values),
            after=_frozen(self._after.values),
            sessions=_frozen(self._session.values),
            links=_frozen(np.stack((self._link_facts.values, self._link_messages.values))),
            at=_frozen(self._at.values),
            importance=_frozen(self._importance.values),
            usable=_frozen(usable),
            fruitless=_frozen(fruitless),
            ends=ends,
            first_end=float(ends.min(initial=np.inf)),
        )

    def _standing(self, lasting: _Lasting, now: datetime, as_of: datetime | None) -> tuple[Flags, Flags]:
        """Return which rows may be used, and which of them no longer hold."""
        if as_of is None:
            moment = now.timestamp()
            if moment < lasting.first_end:
                return lasting.usable, lasting.fruitless
            return lasting.usable, lasting.fruitless | (lasting.ends <= moment)
        moment = as_of.timestamp()
        quarantined = self._status.values == _STATUS_NUMBERS["quarantined"]
        return self._usable(~quarantined & (self._at.values <= moment) & (moment < self._until.values))

    def _usable(self, holds: Flags) -> tuple[Flags, Flags]:
        """Return which rows may be used when these hold, and which messages have facts none of which does."""
        quarantined = self._status.values == _STATUS_NUMBERS["quarantined"]
        usable = holds & ~self._replaced.values
        facts, sources = self._link_facts.values, self._link_messages.values
        # What was held back as a fact must not come in by the message that it was read from.
        usable[sources[quarantined[facts]]] = False
        fruitless = np.zeros(len(holds), dtype=bool)
        fruitless[sources[~holds[facts]]] = True
        fruitless[sources[holds[facts]]] = False
        return usable, fruitless & (self._kind.values == _MESSAGE)

    def _successors(self) -> Rows:
        """Return for each row the one that took its place; of a message, what took the place of a fact read from it."""
        result = self._successor.values.copy()
        facts, sources = self._link_facts.values, self._link_messages.values
        of_facts = result[facts]
        standing = np.zeros(len(result), dtype=bool)
        standing[sources[of_facts < 0]] = True
        taken = (of_facts >= 0) & ~standing[sources]
        result[sources[taken]] = of_facts[taken]
        return result

    def _meaning(self, vector: Vector | None) -> Numbers:
        if vector is None or self._vectors is None or vector.shape != (self._vectors.values.shape[1],):
            return np.zeros(len(self._documents), dtype=np.float32)
        cosines = products(self._vectors.values, vector)
        return np.clip(cosines, -1.0, 1.0, out=cosines)

    def _named(self, terms: Collection[str]) -> Flags:
        """Return which messages are by an author whom *terms* name; none where that would be all."""
        asked = set(terms)
        authors = [
            number
            for name, number in self._authors.items()
            if name and not asked.isdisjoint(words(name, stemmed=False))
        ]
        if not authors or len(authors) == len(self._authors):
            return np.zeros(len(self._documents), dtype=bool)
        return np.isin(self._author.values, authors)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Lasting:
    """What is the same for every query until something changes."""

    documents: tuple[Document, ...]
    texts: tuple[str, ...]
    messages: Flags
    questions: Numbers
    substance: Numbers
    successors: Rows
    before: Rows
    after: Rows
    sessions: Rows
    links: Rows
    at: Seconds
    importance: Numbers
    usable: Flags
    fruitless: Flags
    ends: Seconds
    first_end: float


def _only(usable: Numbers, values: Numbers) -> Numbers:
    return np.multiply(values, usable, out=values)


def _frozen(values: npt.NDArray[ScalarT]) -> npt.NDArray[ScalarT]:
    copy = values.copy()
    copy.flags.writeable = False
    return copy


def began(document: Document) -> datetime:
    """Return when it began to hold, or was said."""
    if isinstance(document, Fact):
        return document.valid_from
    if document.at is None:
        raise ValueError(f"stored message {document.id} has no time")
    return document.at


def _until(fact: Fact) -> float:
    return float("inf") if fact.valid_to is None else fact.valid_to.timestamp()


def _asks(text: str) -> float:
    if not _QUESTION.search(text, max(0, len(text) - 40)):
        return 0.0
    return 1.0 if len(text) < 1000 and _ONLY_QUESTION.fullmatch(text.strip()) else 0.5


def _says(terms: Sequence[str]) -> float:
    return min(1.0, sum(term not in STOP_WORDS for term in terms) / _SUBSTANTIAL)
