"""The values that pass between memori's parts: frozen, plain, and importing nothing of ours.

Times are timezone-aware UTC. Ids of rows are positive integers given by the database; ids of entities, processes and
sessions are the application's own strings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector: TypeAlias = npt.NDArray[np.float32]
    Flags: TypeAlias = npt.NDArray[np.bool_]
    Numbers: TypeAlias = npt.NDArray[np.float32]
    Seconds: TypeAlias = npt.NDArray[np.float64]
    Rows: TypeAlias = npt.NDArray[np.int64]

__all__ = [
    "IMPORTED",
    "Attribution",
    "Candidates",
    "Change",
    "Changes",
    "Embedding",
    "Exchange",
    "Explanation",
    "ExtractedFact",
    "Extraction",
    "Fact",
    "FactKind",
    "FailedJob",
    "Health",
    "Imported",
    "Item",
    "ItemKey",
    "Job",
    "JobCounts",
    "KnownFact",
    "Mention",
    "Message",
    "MessageKind",
    "Namespace",
    "NewFact",
    "NewItem",
    "Ranked",
    "RecallStatus",
    "Recollection",
    "RecollectionKind",
    "Reply",
    "Retirement",
    "Revision",
    "Role",
    "SchemaVersion",
    "Status",
    "StoredMessage",
    "Triple",
    "Trust",
    "Version",
]

Role: TypeAlias = Literal["user", "assistant", "tool", "system"]
MessageKind: TypeAlias = Literal["text", "tool_call", "tool_result"]
FactKind: TypeAlias = Literal["fact", "preference", "rule", "event", "attribute", "person", "relationship", "skill"]
RecollectionKind: TypeAlias = FactKind | Literal["message"]
Status: TypeAlias = Literal["active", "superseded", "quarantined"]
# On whose word a fact stands: the application itself (`remember`) and the user, whose word counts alike; the model; a
# tool. A lower word never ends what a higher one said.
Trust: TypeAlias = Literal["application", "user", "assistant", "tool"]


# How the ids of exchanges begin whose facts are stored already: the work on them is to embed them, not to read them.
IMPORTED = "import:"


@dataclass(frozen=True, slots=True)
class Attribution:
    """Whose memories a call reads and writes. Never without an entity."""

    entity_id: str
    process_id: str | None
    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation, as any provider's reads once a Reader has translated it.

    Attributes:
        content: The text; of a tool call ``name(arguments as JSON)``; of an image or file, a reference such as
            ``[image: https://…]`` or ``[image: image/png, sha256 1a2b3c4d…]``, never its bytes.
        author: Who said it, where the role does not tell (several people in one chat, a named tool).
        at: When it was said; None: when it was captured.
        metadata: The application's own, JSON-serialisable; returned with recollections, never searched.
    """

    role: Role
    content: str
    kind: MessageKind = "text"
    author: str | None = None
    at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage(Message):
    """A message as the database holds it.

    Attributes:
        position: Its place in its session, from 0, without gaps while nothing is forgotten.
        exchange_id: The exchange that brought it.
        partial: Whether the reply was cut off (an early break, a lost connection).
        at: Never None here.
        version: The entity's version with which it was stored.
        embedding: None until the worker has embedded it.
    """

    id: int
    session_id: str
    position: int
    exchange_id: str
    process_id: str | None = None
    partial: bool = False
    version: int = 0
    embedding: Embedding | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A vector, and the model whose space it lies in. Vectors of other models are never compared with it."""

    model: str
    vector: Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What one call said and was answered: the unit that is stored whole or not at all.

    Attributes:
        id: Unique; recording an exchange whose id is already stored does nothing.
        sent: The conversation as the request carried it, oldest first, without system prompts and without memori's
            own block. Storage keeps those that the session does not hold yet.
        reply: What came back; empty when nothing did.
        at: When the request was made.
        partial: Whether the reply was cut off.
    """

    id: str
    attribution: Attribution
    sent: tuple[Message, ...]
    reply: tuple[Message, ...]
    at: datetime
    provider: str | None = None
    model: str | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a response said, as a Reader reads it.

    Attributes:
        messages: In order; empty when nothing came.
        model: As the response names it.
        partial: Whether it was cut off.
    """

    messages: tuple[Message, ...] = ()
    model: str | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Triple:
    """One edge of the knowledge graph."""

    subject: str
    predicate: str
    object: str
    subject_type: str | None = None
    object_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedFact:
    """What an extractor read out of an exchange, before it is known whether it is news.

    Attributes:
        content: One self-contained sentence in the words and script of its source.
        subject, predicate, object: The triple, where there is one; predicates are snake_case verbs (``lives_in``).
        importance: In [0, 1]; 0.5 is ordinary.
        confidence: In [0, 1].
        valid_from: When it began to hold or happened; None: when it was said.
        valid_to: When it stopped to hold, if that was said too.
        sources: Ids of the messages it was read from.
    """

    kind: FactKind
    content: str
    subject: str | None = None
    predicate: str | None = None
    object: str | None = None
    subject_type: str | None = None
    object_type: str | None = None
    importance: float = 0.5
    confidence: float = 1.0
    trust: Trust = "user"
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    sources: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """All that an extractor read out of one exchange.

    Attributes:
        attributes: What was learned of the process (the agent), by name.
    """

    facts: tuple[ExtractedFact, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One memory of an entity, as the database holds it.

    Attributes:
        slot: What it is about: facts with the same slot are about the same thing of the same subject.
        content_hash: Unique per entity.
        valid_from: When it began to hold (the event's own time).
        valid_to: When it stopped to hold; None: it still holds.
        recorded_at: When memori learned it.
        superseded_by: The id of the fact that took its place.
        mentions: How often it was said, the first time included.
        sources: Ids of the messages it was read from, oldest first.
        version: The entity's version of its last change.
    """

    id: int
    entity_id: str
    kind: FactKind
    content: str
    slot: str
    content_hash: str
    subject: str | None = None
    predicate: str | None = None
    object: str | None = None
    importance: float = 0.5
    confidence: float = 1.0
    trust: Trust = "user"
    status: Status = "active"
    valid_from: datetime
    valid_to: datetime | None = None
    recorded_at: datetime
    superseded_by: int | None = None
    mentions: int = 1
    last_mentioned_at: datetime
    times_recalled: int = 0
    last_recalled_at: datetime | None = None
    sources: tuple[int, ...] = ()
    version: int = 0
    embedding: Embedding | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFact:
    """A change: store this fact.

    Attributes:
        superseded_by: The content hash of the fact that holds in its place (a late arrival), stored or stored by the
            same revision.
        mentions, recorded_at, last_mentioned_at: Of what another program knew before: how often it was told there, and
            when first and last. None: now.
    """

    fact: ExtractedFact
    slot: str
    content_hash: str
    status: Status
    valid_from: datetime
    valid_to: datetime | None = None
    superseded_by: str | None = None
    embedding: Embedding | None = field(default=None, repr=False)
    mentions: int = 1
    recorded_at: datetime | None = None
    last_mentioned_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """A change: this fact stopped to hold. The row stays.

    Attributes:
        superseded_by: The content hash of the fact that took its place.
    """

    fact_id: int
    valid_to: datetime
    superseded_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A change: this fact was said again.

    Attributes:
        at: When; the fact's last mention is the later of this and what it was.
        sources: Messages to add to the fact's own.
    """

    fact_id: int
    at: datetime
    sources: tuple[int, ...] = ()


Change: TypeAlias = NewFact | Retirement | Mention


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """What is to be done to an entity's memory in one transaction.

    Attributes:
        slots: The slots that may change. Storage reads their facts under the entity's lock and hands them to decide.
        decide: A pure function of those facts, oldest valid_from first, that returns the changes in order.
        message_embeddings: Embeddings to store with messages, by message id.
        attributes: What was learned of the process, by name.
    """

    slots: frozenset[str]
    decide: Callable[[Sequence[Fact]], Sequence[Change]]
    message_embeddings: Mapping[int, Embedding] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The work still to be done on one exchange, leased to one worker.

    Attributes:
        messages: The messages that the exchange brought, in order.
        attempts: How often it was claimed, this time included.
        worker: The name it was claimed under: only that worker may complete it.
    """

    id: int
    exchange_id: str
    entity_id: str
    process_id: str | None
    session_id: str
    attempts: int
    worker: str
    at: datetime
    messages: tuple[StoredMessage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedJob:
    """The work on one exchange that was given up.

    Attributes:
        attempts: How often it was taken up.
        error: Why it failed the last time.
        failed_at: When that was.
    """

    exchange_id: str
    entity_id: str
    process_id: str | None
    session_id: str
    attempts: int
    error: str | None
    failed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts:
    """How much augmentation there is in the database.

    Attributes:
        pending: Waiting, or due to be tried again.
        running: Leased to a worker whose lease has not run out.
        failed: Given up after the last attempt; `memori.augmentation.retry()` puts them back.
        done: Finished.
        errors: The last error of each failed or waiting job that has one, newest first, at most ten.
        next_due: When the first waiting job may be claimed; None when none waits.
    """

    pending: int = 0
    running: int = 0
    failed: int = 0
    done: int = 0
    errors: tuple[str, ...] = ()
    next_due: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallStatus:
    """What recall keeps in memory, and how it went.

    Attributes:
        entities: How many entities' indexes are kept.
        bytes: About how much they take.
        stale_answers: How often the database did not answer and the last known memory did instead.
        words_only_answers: How often the embedder failed and words alone had to do.
    """

    entities: int = 0
    bytes: int = 0
    stale_answers: int = 0
    words_only_answers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How one `Memori` is doing: what `memori.Memori.status` returns.

    Attributes:
        recorded: Exchanges stored by it.
        pending: Exchanges it holds in memory because they could not be stored yet.
        spooled: Exchanges it has on disk for the same reason.
        lost: Exchanges it could not keep.
        skipped: Calls that were made for no entity: not remembered, given nothing.
        failures: How often something of ours failed.
        last_failure: What failed last, and how; None when nothing did.
        last_failure_at: When.
        augmentation: The work in the database; None when the database did not answer.
        recall: What recall keeps in memory, and how often an answer had to do with less.
    """

    recorded: int = 0
    pending: int = 0
    spooled: int = 0
    lost: int = 0
    skipped: int = 0
    failures: int = 0
    last_failure: str | None = None
    last_failure_at: datetime | None = None
    augmentation: JobCounts | None = None
    recall: RecallStatus = RecallStatus()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFact:
    """A fact as another program knew it: how often it was told there, and when first and last."""

    fact: ExtractedFact
    mentions: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import read of one kind, and how much of it is new here."""

    kind: Literal["entities", "sessions", "messages", "facts", "triples", "attributes"]
    found: int = 0
    new: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaVersion:
    """Which tables a database has, and which this memori works with.

    Attributes:
        found: The revision of the tables that are there; None: there are none.
        newest: The revision that `build` makes.
        newer: Whether the tables there are of a newer memori.
    """

    found: str | None
    newest: str
    newer: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """Where an entity's memory stands. Another generation means that something was forgotten: read it all anew."""

    generation: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What an entity's memory holds beyond a version.

    Attributes:
        whole: Whether this is everything, to be taken in place of what was known before.
        messages: Stored or embedded since, by id.
        facts: Added or changed since, by id; of every status.
    """

    version: Version
    whole: bool
    messages: tuple[StoredMessage, ...] = ()
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why something was recalled: every score that went into its rank.

    Attributes:
        scores: Each signal's own score by name (``meaning``, ``words``, ``neighbours``, ``importance``, …).
        terms: The words of the query that it shares.
    """

    scores: Mapping[str, float]
    terms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """One thing recalled. Answers attributes and, for callers of the older API, keys: ``item["content"]``.

    Attributes:
        id: Of the fact, or of the message when kind is ``message``.
        score: In [0, 1]; comparable within one answer.
        at: When it began to hold, or was said.
        sources: The messages it came from, oldest first; of a message, itself.
        similarity: The cosine of the query's and its embedding in [-1, 1]; 0.0 when it has none.
        rank_score: The same as score.
        date_created: When memori stored it.
        summaries: Always empty: kept for callers of the older API.
    """

    id: int
    kind: RecollectionKind
    content: str
    score: float
    at: datetime
    date_created: datetime
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    status: Status = "active"
    trust: Trust = "user"
    author: str | None = None
    similarity: float = 0.0
    sources: tuple[StoredMessage, ...] = ()
    summaries: tuple[str, ...] = ()
    explanation: Explanation | None = None

    @property
    def rank_score(self) -> float:
        """The same as `score`."""
        return self.score

    def keys(self) -> Iterator[str]:
        """Return the names that ``item[name]`` answers."""
        yield from (item.name for item in fields(self))
        yield "rank_score"

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return ``item[name]``, or *default* when there is no such name."""
        return self[name] if name in self.keys() else default


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """All that an entity's memory holds, for one query, as columns: row *i* of each is one fact or message. Read-only.

    What may not be used (quarantined, or not yet known at the time asked about) has no evidence and is not recallable.

    Attributes:
        texts: What it says.
        recallable: Whether it may be in the answer; the others are there for what they say about their neighbours.
        messages: Whether it is a message; the others are facts.
        questions: In [0, 1], how far a message only asks: 1.0 nothing but a question, 0.5 it ends with one.
        substance: In [0, 1], how far a message says something of its own: 0.0 no word of content, 1.0 four or more.
        past: Whether it no longer holds: of a message, whether nothing that was read from it still holds.
        successors: The row of the fact that took its place; -1: none.
        meaning: The cosine with the query in [-1, 1]; 0.0 without an embedding of the current model.
        words: How much of the query its words cover: 1.0 like an average text with each of them once; 0.0 none.
        characters: The same by character n-grams, which forgive typos and inflection.
        before, after: Of a message, the row of the one before and after it in its session; -1: none.
        sessions: Of a message, the number of its session, from 0; -1: none (a fact).
        named: Whether the query names its author, and the entity has messages by others.
        links: Two rows of numbers: a fact, and a message that it was read from.
        at: When it began to hold or was said, in seconds since 1970.
        importance: In [0, 1]; 0.5 is ordinary.
    """

    texts: Sequence[str]
    recallable: Flags
    messages: Flags
    questions: Numbers
    substance: Numbers
    past: Flags
    successors: Rows
    meaning: Numbers
    words: Numbers
    characters: Numbers
    before: Rows
    after: Rows
    sessions: Rows
    named: Flags
    links: Rows
    at: Seconds
    importance: Numbers


@dataclass(frozen=True, slots=True)
class Ranked:
    """Where one of the `Candidates` came in.

    Attributes:
        row: Its row there.
        score: In [0, 1].
        scores: What the score is made of, by name; for explanations only.
    """

    row: int
    score: float
    scores: Mapping[str, float] = field(default_factory=dict)


# A path of labels, the application's own: any strings, compared exactly and label by label.
Namespace: TypeAlias = tuple[str, ...]
ItemKey: TypeAlias = tuple[Namespace, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """A document of the application's own, to be stored in place of what its namespace has under its key.

    Attributes:
        value: A JSON object.
        ttl: How long after it is stored or read it ceases to be; None: it stays.
        embedding: What it is found by: a matrix with a row for each text of it. None: it is not found by meaning.
    """

    namespace: Namespace
    key: str
    value: Mapping[str, Any]
    ttl: timedelta | None = None
    embedding: Embedding | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(NewItem):
    """A document as the database holds it.

    Attributes:
        created_at: When its key was first stored.
        updated_at: When it was last stored.
        expires_at: When it ceases to be; None: never.
        score: How close it is to what was searched for, a cosine in [-1, 1]; None when it was not found by that.
    """

    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    score: float | None = None
