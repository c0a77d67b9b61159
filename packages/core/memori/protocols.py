"""The seams: what a storage, an embedder, an index, an extractor, a ranker and a reader must be able to do.

Each is a Protocol with a conformance suite of the same name in `memori.testing`. An optional ability is a protocol of
its own, never a method that may refuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from memori.types import (
        Attribution,
        Candidates,
        Changes,
        Embedding,
        Exchange,
        Extraction,
        Fact,
        FactKind,
        FailedJob,
        Item,
        ItemKey,
        Job,
        JobCounts,
        Message,
        Namespace,
        NewItem,
        Ranked,
        Reply,
        Revision,
        SchemaVersion,
        Status,
        StoredMessage,
        Vector,
        Version,
    )

__all__ = [
    "CallHooks",
    "CallTurn",
    "ClientAdapter",
    "Embedder",
    "Extractor",
    "ItemStorage",
    "Ranker",
    "Reader",
    "ReplyFold",
    "Storage",
    "Turn",
    "VectorIndex",
    "Versioned",
]


class Storage(Protocol):
    """Where everything is kept. Safe to use from any thread; every method is one transaction, or none on error.

    Methods that take an ``entity_id`` never touch another entity's rows. A missing entity is an empty one. Database
    failures arrive as `memori.errors.StorageError` (`NotBuiltError` when the tables are not there).
    """

    def build(self) -> None:
        """Create or upgrade the tables: idempotent, safe while other processes do the same, silent.

        Raises:
            ForeignSchemaError: The tables there were made by another program.
            NewerSchemaError: They were made by a newer memori.
        """

    def record(self, exchange: Exchange, *, read_back: bool = True) -> list[StoredMessage]:
        """Store what is new of *exchange* and the job to augment it; return the new messages, in order.

        Which of the sent messages are new is decided by `memori.storage.history.unknown`. An exchange already stored
        (by id) stores nothing and returns an empty list, and so does one that brings nothing new; neither makes a job.

        Args:
            read_back: Without it nothing is returned: whoever waits for the exchange to be stored need not wait for
                that as well.
        """

    def claim(self, worker: str, *, now: datetime, lease: timedelta, limit: int) -> list[Job]:
        """Lease at most *limit* due jobs to *worker* and return them, oldest exchange first.

        Due are waiting jobs whose time has come, and running ones whose lease has run out. No job is leased twice. One
        that two workers or more took up and did not finish is leased alone: it may be what ended them, and would end
        the next one with all that is leased beside it.
        """

    def complete(self, job: Job, revision: Revision, *, now: datetime) -> bool:
        """Apply *revision* to the job's entity and mark the job done, in one transaction; return whether it was.

        False, and nothing is changed, when the job is no longer leased to the job's worker.
        """

    def fail(self, job: Job, error: str, *, retry_at: datetime | None) -> None:
        """Note that *job* failed: due again at *retry_at*, or given up for good when that is None."""

    def release(self, jobs: Sequence[Job]) -> None:
        """Give *jobs* back undone: due at once, and as if they had not been claimed. Those leased to others stay so."""

    def failed(self, *, limit: int) -> list[FailedJob]:
        """Return at most *limit* of the jobs that were given up, the latest first."""

    def retry(self) -> int:
        """Make every job that was given up due at once; return how many."""

    def jobs(self, *, now: datetime) -> JobCounts:
        """Return how much augmentation is waiting, running, failed and done."""

    def revise(self, entity_id: str, revision: Revision, *, now: datetime) -> list[Fact]:
        """Apply *revision* to the entity (created if missing); return the facts it stored or mentioned, in order."""

    def embed(self, entity_id: str, *, messages: Mapping[int, Embedding], facts: Mapping[int, Embedding]) -> int:
        """Store embeddings with messages and facts of the entity, by their ids; return with how many.

        What the entity does not have, or no longer, is left out; when that is everything, nothing changes.
        """

    def entities(self, *, after: int = 0, limit: int) -> list[tuple[int, str]]:
        """Return at most *limit* entities with a number above *after*, by number: pairs of number and id.

        The number is the storage's own, positive, and stays with the entity.
        """

    def describe(self, process_id: str, attributes: Mapping[str, str], *, now: datetime) -> int:
        """Store what is known of a process (created if missing); return how many of the names are new.

        Names known already keep their values.
        """

    def version(self, entity_id: str) -> Version | None:
        """Return where the entity's memory stands; None when there is no such entity. One short query."""

    def changes(self, entity_id: str, *, since: Version | None) -> Changes | None:
        """Return what changed since *since* (None: everything); None when there is no such entity.

        A *since* of another generation returns everything.
        """

    def facts(
        self,
        entity_id: str,
        *,
        kinds: Sequence[FactKind] | None = None,
        statuses: Sequence[Status] = ("active",),
        as_of: datetime | None = None,
        limit: int | None = None,
    ) -> list[Fact]:
        """Return the entity's facts, newest valid_from first, ties by descending id.

        Args:
            as_of: Only those that held then (valid_from <= as_of < valid_to); *statuses* then also admits superseded.
        """

    def messages(
        self, entity_id: str, *, session_id: str | None = None, limit: int | None = None
    ) -> list[StoredMessage]:
        """Return the entity's messages in order of time and position; with *limit*, the newest that many."""

    def recalled(self, entity_id: str, fact_ids: Sequence[int], *, at: datetime) -> None:
        """Note that these facts were recalled. Does not change the entity's version."""

    def forget(self, entity_id: str, *, fact_id: int | None = None) -> int:
        """Erase one fact, or with None all that is kept of the entity; return how many facts and messages went.

        Erasing one fact restores nothing that it superseded. Erased is erased: rows are deleted, and jobs with them.
        """

    def close(self) -> None:
        """Give back what this storage opened itself. Connections and engines that the user passed in stay open."""


class ItemStorage(Protocol):
    """Documents of the application's own, each under a namespace and a key: what a storage may offer as ``items``.

    Safe to use from any thread; every method is one transaction, or none on error. What has expired is as if it were
    not there, swept or not. A namespace lies under each of its prefixes, itself and the empty one included; labels are
    compared whole and exactly. Database failures arrive as `memori.errors.StorageError`.
    """

    def write(self, puts: Sequence[NewItem], deletes: Sequence[ItemKey] = (), *, now: datetime) -> None:
        """Store *puts*, in this order, and remove *deletes*, in one transaction; no key is given twice.

        What is stored again keeps its place and its ``created_at``. A key that is not there is removed already.

        Raises:
            ConfigurationError: A value is no JSON object. Nothing was changed.
        """

    def read(self, keys: Sequence[ItemKey], *, now: datetime) -> list[Item | None]:
        """Return the items of *keys*, in their order; None for each that is not there."""

    def find(self, prefix: Namespace, *, now: datetime, limit: int | None = None, offset: int = 0) -> list[Item]:
        """Return the items under *prefix*: a namespace after the other, within it in the order they were first stored.

        Namespaces come in the order in which they got their first item; one that became empty begins anew.
        """

    def namespaces(self, prefix: Namespace, *, now: datetime) -> list[Namespace]:
        """Return the namespaces under *prefix* that hold an item, in no particular order."""

    def extend(self, expiries: Mapping[ItemKey, datetime], *, now: datetime) -> None:
        """Let these items expire at these times; those that are gone or never expire stay as they are."""

    def erase(self, prefix: Namespace) -> int:
        """Delete all items under *prefix*; return how many. Erased is erased: no row names them any more."""

    def sweep(self, *, now: datetime) -> int:
        """Delete what has expired; return how many items."""


@runtime_checkable
class Versioned(Protocol):
    """A storage whose tables have revisions."""

    def schema(self) -> SchemaVersion:
        """Return which tables there are, and which ones `Storage.build` makes.

        Raises:
            ForeignSchemaError: The tables there were made by another program.
        """


class Embedder(Protocol):
    """Text to unit vectors. Safe to use from any thread."""

    @property
    def model(self) -> str:
        """The name of the space; vectors of different names are never compared."""

    def embed(self, texts: Sequence[str], *, purpose: Literal["query", "document"]) -> Vector:
        """Return one unit vector a text: float32, shape (len(texts), dimensions); a zero row for a blank text.

        The same text gives the same vector whatever stands beside it. Any script, any length, empty included.
        """


class VectorIndex(Protocol):
    """Nearest vectors of one entity. Vectors are of unit length, or zero. Safe to use from any thread."""

    def upsert(self, entity_id: str, ids: Sequence[str], vectors: Vector) -> None:
        """Add these vectors, in place of those with the same ids; of an id given twice, the later one counts.

        Args:
            vectors: float32, shape (len(ids), dimensions).

        Raises:
            DimensionError: They are not one an id, or of another length than the entity's others.
        """

    def delete(self, entity_id: str, ids: Sequence[str] | None = None) -> None:
        """Remove these vectors, or all of the entity's; unknown ids and entities are no error."""

    def search(self, entity_id: str, vector: Vector, *, limit: int) -> list[tuple[str, float]]:
        """Return at most *limit* (id, cosine in [-1, 1]) pairs, closest first, ties by id. Unknown entity: empty.

        Raises:
            DimensionError: *vector* is of another length than the entity's.
        """


class Extractor(Protocol):
    """What a conversation says about the entity. Safe to use from any thread; may be slow."""

    def extract(self, messages: Sequence[StoredMessage]) -> Extraction:
        """Return the memories in *messages* (one exchange, in order); empty when there are none.

        Raises:
            ExtractionError: It could not be read this time; it will be tried again.
        """


class Ranker(Protocol):
    """Orders what may be recalled. Pure: time comes in as an argument. Safe to use from any thread."""

    def rank(self, query: str, candidates: Candidates, *, now: datetime, limit: int) -> Sequence[Ranked]:
        """Return at most *limit* recallable rows, best first, each once; those with nothing for them are left out.

        The same arguments always give the same answer, ties included. A ranker that can judge few texts only ranks what
        another one found, e.g. ``HybridRanker().rank(query, candidates, now=now, limit=50)``.
        """


RequestT = TypeVar("RequestT")


class Reader(Protocol, Generic[RequestT]):
    """How one provider's requests and responses read. Pure: it never changes what it is given."""

    @property
    def provider(self) -> str:
        """The provider's name, as stored with exchanges."""

    def sent(self, request: RequestT) -> tuple[Message, ...]:
        """Return the conversation in *request*, oldest first, without system prompts."""

    def with_memory(self, request: RequestT, block: str, *, role: Literal["user", "system"]) -> RequestT:
        """Return a copy of *request* with *block* just before its last user message (or as a system message).

        The request itself when it has no user message.
        """

    def reply(self, response: Any) -> Reply:
        """Return what *response* says, whole: the SDK's object or the JSON it was made of."""

    def fold(self) -> ReplyFold:
        """Return an empty fold, to be fed the chunks of one streamed response."""


class ReplyFold(Protocol):
    """A streamed reply as far as it has come."""

    def add(self, chunk: Any) -> None:
        """Take in the next chunk."""

    def reply(self, *, ended: bool) -> Reply:
        """Return what the chunks so far say.

        Args:
            ended: Whether the provider ended the stream of itself.
        """


class CallTurn(Protocol):
    """One call under way. Its methods never raise unless ``on_error="raise"``."""

    @property
    def block(self) -> str | None:
        """What to inject; None: send the request as it is."""

    @property
    def role(self) -> Literal["user", "system"]:
        """The role to inject it under."""

    def finish(self, reply: Sequence[Message], *, model: str | None, partial: bool = False, wait: bool = True) -> None:
        """Record the exchange. Called at most once has effect.

        Args:
            wait: Whether to wait (bounded) until it is stored. False where waiting is impossible: a cancelled task, a
                garbage-collected stream.
        """


class Turn(CallTurn, Protocol):
    """One call under way, as adapters of frameworks have it from `memori.Memori.turn`."""

    @property
    def attribution(self) -> Attribution:
        """Whose the exchange is, and the session that it is stored in."""

    async def afinish(self, reply: Sequence[Message], *, model: str | None, partial: bool = False) -> None:
        """Do what `finish` does without blocking the event loop; cancelled, without waiting for it to be stored."""


class CallHooks(Protocol):
    """What capture asks of the `Memori` behind it. Synchronous: asynchronous callers run it in a worker thread."""

    def begin(self, sent: Sequence[Message], *, provider: str) -> CallTurn | None:
        """Recall for this call; None when it is to pass untouched (no entity, or a failure of ours)."""

    def failed(self, error: Exception) -> None:
        """Log and count a failure of ours; raises it under ``on_error="raise"``."""


class ClientAdapter(Protocol):
    """How clients of one SDK are listened to. Stateless: what is registered is kept on the client.

    Named by the entry-point group ``memori.clients``; the entry's name is the top-level module of the clients.
    """

    def register(self, client: Any, hooks: CallHooks) -> None:
        """Let *hooks* take part in every call of *client*; a second time changes nothing.

        Raises:
            ConfigurationError: *client* is of this SDK, but nothing that makes calls.
        """

    def unregister(self, client: Any, hooks: CallHooks) -> bool:
        """Undo `register`; return whether there was anything to undo. After the last, *client* is as it was."""
