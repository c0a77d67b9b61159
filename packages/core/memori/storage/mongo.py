"""Storage in MongoDB, and in whatever speaks its protocol; no transactions are needed.

`memori.storage.journal` says how several documents are changed together. What it means here:

* `record` commits the messages of an exchange, its session and its job at once. An exchange is stored when its entity's
  document says so, and from then on its job cannot get lost. Handed in again it is known by its job.
* `complete` looks at the lease after whatever was pending of the entity is done, and commits the job's end with the
  facts. Of two workers that hold one job, because a lease ran out, one commits first; the other then finds it done.
* `claim` and `fail` change one document, on the condition that nobody else did.
* Readers read several documents while others write. `changes` tells again what was written meanwhile; `facts` and
  `messages` look whether the entity is still what it was, and else read again.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from memori.errors import ForeignSchemaError, MissingExtraError, NewerSchemaError, StorageError

try:
    from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument, UpdateOne
    from pymongo.errors import DuplicateKeyError
except ImportError as error:
    raise MissingExtraError("pymongo", extra="mongodb") from error

from memori.schema.collections import (
    ATTRIBUTE,
    COUNTER,
    ENTITY,
    FACT,
    INDEXES,
    JOB,
    MESSAGE,
    PROCESS,
    SCHEMA,
    SESSION,
    VERSION,
)
from memori.schema.tables import FOREIGN_TABLES, metadata
from memori.storage.deployment import Collections, Deployment, not_built
from memori.storage.document_revisions import DocumentReviser
from memori.storage.gate import taking
from memori.storage.history import Known, digest, normal, unknown
from memori.storage.journal import COUNTERS, Journal, attribute_document, change, erasure, new, removal
from memori.storage.mongo_documents import (
    ERASED_STATUS,
    Document,
    exact,
    fact,
    message,
    message_document,
    microseconds,
    moment,
    text,
)
from memori.storage.mongo_items import EMPTY_STORE, MongoItems
from memori.storage.rows import identifier
from memori.types import (
    Changes,
    Embedding,
    Exchange,
    Fact,
    FactKind,
    FailedJob,
    Job,
    JobCounts,
    Message,
    Revision,
    SchemaVersion,
    Status,
    StoredMessage,
    Version,
)

__all__ = ["MongoStorage"]

T = TypeVar("T")

_AT_ONCE = 0  # Due whatever the time: exchanges may come with times of their own, and clocks differ.
_ERRORS = 10
_LOST_WITH_WORKERS = 2  # So often taken up and not finished, a job may be what ends its workers.
_SCHEMA = {"_id": "schema"}
_PATIENCE = 12.0  # How many times as long as a write the reading of a whole memory may take, or the making of indexes.
_TURNS = 64
_TORN = 5  # After so many disturbed readings the last one is taken: a memory that is written all the time can be read.


class MongoStorage:
    """A `memori.protocols.Storage` in a MongoDB database.

    Attributes:
        items: The application's own documents there.

    Args:
        conn: A pymongo `Database`, a `MongoClient` whose URL names a database, or such a URL. Nothing is reached for
            yet.
        busy_timeout_s: Seconds to wait for the server, or for a turn at an entity.
        close: Gives *conn* back; None where it stays the user's.

    Raises:
        UnsupportedConnectionError: *conn* leads to no MongoDB database.
    """

    def __init__(self, conn: object, *, busy_timeout_s: float = 5.0, close: Callable[[], object] | None = None) -> None:
        self._deployment = Deployment(conn, timeout_s=busy_timeout_s, close=close)
        self._busy_timeout_s = busy_timeout_s
        self._built = False
        self.items = MongoItems(self._working, busy_timeout_s)
        self._renew_turns()

    def _renew_turns(self) -> None:
        # Those of one process queue for an entity here, instead of getting into each other's way in the database.
        self._turns = [threading.Lock() for _ in range(_TURNS)]

    def build(self) -> None:
        with self._deployment.working(patience=_PATIENCE) as collections:
            if collections(SCHEMA).find_one(_SCHEMA) is None:
                self._refuse_foreign(collections)
                _insert(collections, SCHEMA, {**_SCHEMA, "version": VERSION, "built": False})
            self._verify(collections, built=False)
            for name, indexes in INDEXES.items():
                collections(name).create_indexes(
                    [IndexModel([(key, ASCENDING) for key in keys], unique=unique) for keys, unique in indexes]
                )
            _insert(collections, COUNTER, {"_id": COUNTERS}, unless_there=True)
            _insert(collections, COUNTER, EMPTY_STORE, unless_there=True)
            collections(SCHEMA).update_one(_SCHEMA, {"$set": {"built": True}})
            Journal(collections).sweep()

    def schema(self) -> SchemaVersion:
        with self._deployment.working() as collections:
            found = collections(SCHEMA).find_one(_SCHEMA)
            if found is None:
                self._refuse_foreign(collections)
            there = found["version"] if found is not None and found["built"] else None
            return SchemaVersion(
                found=None if there is None else str(there),
                newest=str(VERSION),
                newer=there is not None and there > VERSION,
            )

    def _refuse_foreign(self, collections: Collections) -> None:
        present = collections(ENTITY).database.list_collection_names()
        foreign = (metadata.tables.keys() | FOREIGN_TABLES).intersection(present)
        # Another that builds at this moment has said so before it made the first of them.
        if foreign and collections(SCHEMA).find_one(_SCHEMA) is None:
            raise ForeignSchemaError(
                f"this database has collections that another program made ({', '.join(sorted(foreign))}): nothing was "
                "changed. Give memori a database of its own, or rename those collections"
            )

    def close(self) -> None:
        self._deployment.close()

    def pause(self, timeout_s: float) -> None:
        """Let no work begin until `resume`: to be called before a fork."""
        self._deployment.pause(timeout_s)

    def resume(self) -> None:
        """Let work begin again: to be called in the parent after a fork."""
        self._deployment.resume()

    def reset(self) -> None:
        """Leave open connections to the parent process: to be called in the child after a fork."""
        self._deployment.reset()
        self._renew_turns()
        self.items.reset()

    def record(self, exchange: Exchange, *, read_back: bool = True) -> list[StoredMessage]:
        who = exchange.attribution
        identifier("session_id", who.session_id)
        identifier("process_id", who.process_id or "")
        recording = _Recording(exchange)

        def attempt(collections: Collections, entity: Document | None) -> tuple[Document | None, list[StoredMessage]]:
            if collections(JOB).find_one({"exchange_id": text(exchange.id)}, {"_id": 1}) is not None:
                return {}, []
            return recording.store(collections, entity)

        stored = self._write(who.entity_id, attempt)
        return stored if read_back else []

    def claim(self, worker: str, *, now: datetime, lease: timedelta, limit: int) -> list[Job]:
        with self._working() as collections:
            Journal(collections).carry_out_all()
            jobs = collections(JOB)
            at, until = microseconds(now), microseconds(now + lease)
            order = [("exchanged_at", ASCENDING), ("_id", ASCENDING)]
            due = [
                found
                for state in ("running", "waiting")
                for found in jobs.find({"state": state, "due_at": {"$lte": at}}).sort(order).limit(limit)
            ]
            due.sort(key=lambda found: (found["exchanged_at"], found["_id"]))
            alone = [found for found in due if found["state"] == "running" and found["attempts"] >= _LOST_WITH_WORKERS]
            claimed = []
            for found in alone[:1] or due[:limit]:
                mine = jobs.find_one_and_update(
                    {name: found[name] for name in ("_id", "state", "attempts", "due_at")},
                    {
                        "$set": {
                            "state": "running",
                            "worker": exact(worker),
                            "attempts": found["attempts"] + 1,
                            "due_at": until,
                        }
                    },
                    return_document=ReturnDocument.AFTER,
                )
                if mine is not None:
                    claimed.append(_job(collections, mine, worker))
            return claimed

    def complete(self, job: Job, revision: Revision, *, now: datetime) -> bool:
        def attempt(collections: Collections, entity: Document | None) -> tuple[Document | None, bool]:
            # Looked at only now: what was pending of the entity may have been the end of this very job.
            leased = collections(JOB).find_one(_lease(job))
            if leased is None or entity is None or leased["entity_id"] != entity["_id"]:
                return {}, False
            writes, _ = DocumentReviser(collections, entity, now=now).decide(revision, process=leased["process"])
            done = change(JOB, job.id, {"state": "done", "last_error": None}, fenced=False)
            return Journal(collections).commit(entity, [*writes, done]), True

        return self._write(job.entity_id, attempt)

    def fail(self, job: Job, error: str, *, retry_at: datetime | None) -> None:
        with self._working() as collections:
            collections(JOB).update_one(
                _lease(job),
                {
                    "$set": {
                        "state": "failed" if retry_at is None else "waiting",
                        "due_at": _AT_ONCE if retry_at is None else microseconds(retry_at),
                        "last_error": exact(error),
                        "failed_at": microseconds(datetime.now(UTC)),
                    }
                },
            )

    def release(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        with self._working() as collections:
            collections(JOB).bulk_write(
                [
                    UpdateOne(
                        _lease(job),
                        {"$set": {"state": "waiting", "due_at": _AT_ONCE, "attempts": max(job.attempts - 1, 0)}},
                    )
                    for job in jobs
                ],
                ordered=False,
            )

    def failed(self, *, limit: int) -> list[FailedJob]:
        order = [("failed_at", DESCENDING), ("_id", DESCENDING)]
        with self._working() as collections:
            return [
                FailedJob(
                    exchange_id=found["exchange_id"],
                    entity_id=found["entity"],
                    process_id=found["process"],
                    session_id=found["session"],
                    attempts=found["attempts"],
                    error=found["last_error"],
                    failed_at=moment(found["failed_at"]),
                )
                for found in _first(collections(JOB).find({"state": "failed"}).sort(order), limit)
            ]

    def retry(self) -> int:
        with self._working() as collections:
            due = {"$set": {"state": "waiting", "attempts": 0, "due_at": _AT_ONCE}}
            return collections(JOB).update_many({"state": "failed"}, due).modified_count

    def jobs(self, *, now: datetime) -> JobCounts:
        with self._working() as collections:
            self._verify(collections)
            Journal(collections).carry_out_all()
            jobs = collections(JOB)
            counts = {
                group["_id"]: group["count"]
                for group in jobs.aggregate([{"$group": {"_id": "$state", "count": {"$sum": 1}}}])
            }
            abandoned = jobs.count_documents({"state": "running", "due_at": {"$lte": microseconds(now)}})
            first = jobs.find_one({"state": "waiting"}, {"due_at": 1}, sort=[("due_at", ASCENDING)])
            told = jobs.find({"state": {"$in": ["waiting", "failed"]}, "last_error": {"$ne": None}}, {"last_error": 1})
            errors = told.sort([("failed_at", DESCENDING), ("_id", DESCENDING)]).limit(_ERRORS)
            return JobCounts(
                pending=counts.get("waiting", 0) + abandoned,
                running=counts.get("running", 0) - abandoned,
                failed=counts.get("failed", 0),
                done=counts.get("done", 0),
                errors=tuple(found["last_error"] for found in errors),
                next_due=now if abandoned else moment(None if first is None else first["due_at"]),
            )

    def revise(self, entity_id: str, revision: Revision, *, now: datetime) -> list[Fact]:
        def attempt(collections: Collections, entity: Document | None) -> tuple[Document | None, list[Fact]]:
            is_new = entity is None
            entity = entity or _new_entity(collections, entity_id, at=now)
            writes, facts = DocumentReviser(collections, entity, now=now).decide(revision, process=None)
            return Journal(collections).commit(entity, writes, is_new=is_new), facts

        return self._write(entity_id, attempt)

    def embed(self, entity_id: str, *, messages: Mapping[int, Embedding], facts: Mapping[int, Embedding]) -> int:
        def attempt(collections: Collections, entity: Document | None) -> tuple[Document | None, int]:
            if entity is None:
                return {}, 0
            writes = DocumentReviser(collections, entity, now=datetime.now(UTC)).embed(messages, facts)
            return (Journal(collections).commit(entity, writes) if writes else {}), len(writes)

        return self._write(entity_id, attempt)

    def entities(self, *, after: int = 0, limit: int) -> list[tuple[int, str]]:
        with self._working() as collections:
            self._verify(collections)
            found = collections(ENTITY).find({"_id": {"$gt": after}}, {"external_id": 1}).sort("_id", ASCENDING)
            return [(document["_id"], document["external_id"]) for document in found.limit(limit)]

    def describe(self, process_id: str, attributes: Mapping[str, str], *, now: datetime) -> int:
        process, at = exact(identifier("process_id", process_id)), microseconds(now)
        with self._working() as collections:
            _insert(collections, PROCESS, {"_id": process, "created_at": at}, unless_there=True)
            return sum(
                _insert(collections, ATTRIBUTE, attribute_document(process, name, value, at))
                for name, value in attributes.items()
            )

    def version(self, entity_id: str) -> Version | None:
        with self._working() as collections:
            return _version(self._entity(collections, entity_id))

    def changes(self, entity_id: str, *, since: Version | None) -> Changes | None:
        with self._working(patience=_PATIENCE) as collections:
            # Read first: what is written while the rest is read is then told again by the next call, never missed.
            entity = self._entity(collections, entity_id)
            version = _version(entity)
            if entity is None or version is None:
                return None
            # A lower number is that of an older database put back in place.
            whole = since is None or since.generation != version.generation or since.number > version.number
            after = 0 if since is None or whole else since.number
            if after == version.number:
                return Changes(version=version, whole=False)
            changed = {"entity_id": entity["_id"], "version": {"$gt": after}}
            messages = [message(found) for found in collections(MESSAGE).find(changed)]
            facts = [
                fact(found, entity["external_id"])
                for found in collections(FACT).find(changed)
                if found["status"] != ERASED_STATUS
            ]
            return Changes(
                version=version,
                whole=whole,
                messages=tuple(sorted(messages, key=lambda item: item.id)),
                facts=tuple(sorted(facts, key=lambda item: item.id)),
            )

    def facts(
        self,
        entity_id: str,
        *,
        kinds: Sequence[FactKind] | None = None,
        statuses: Sequence[Status] = ("active",),
        as_of: datetime | None = None,
        limit: int | None = None,
    ) -> list[Fact]:
        key: Document = {}
        if kinds is not None:
            key["kind"] = {"$in": list(kinds)}
        if as_of is not None:
            at = microseconds(as_of)
            key["valid_from"] = {"$lte": at}
            key["$or"] = [{"valid_to": None}, {"valid_to": {"$gt": at}}]
            statuses = (*statuses, "superseded")
        key["status"] = {"$in": list(statuses)}
        order = [("valid_from", DESCENDING), ("_id", DESCENDING)]

        def read(collections: Collections, entity: Document) -> list[Fact]:
            found = collections(FACT).find({"entity_id": entity["_id"], **key}).sort(order)
            return [fact(document, entity["external_id"]) for document in _first(found, limit)]

        return self._read(entity_id, read)

    def messages(
        self, entity_id: str, *, session_id: str | None = None, limit: int | None = None
    ) -> list[StoredMessage]:
        key = {} if session_id is None else {"session": exact(session_id)}
        order = [("said_at", DESCENDING), ("position", DESCENDING), ("_id", DESCENDING)]

        def read(collections: Collections, entity: Document) -> list[StoredMessage]:
            found = collections(MESSAGE).find({"entity_id": entity["_id"], **key}).sort(order)
            return [message(document) for document in _first(found, limit)][::-1]

        return self._read(entity_id, read)

    def recalled(self, entity_id: str, fact_ids: Sequence[int], *, at: datetime) -> None:
        if not fact_ids:
            return
        with self._working() as collections:
            entity = self._entity(collections, entity_id)
            if entity is None:
                return
            key = {"entity_id": entity["_id"], "status": {"$ne": ERASED_STATUS}}
            collections(FACT).bulk_write(
                [
                    UpdateOne(
                        {"_id": fact_id, **key},
                        {"$inc": {"times_recalled": 1}, "$max": {"last_recalled_at": microseconds(at)}},
                    )
                    for fact_id in sorted(set(fact_ids))
                ],
                ordered=False,
            )

    def forget(self, entity_id: str, *, fact_id: int | None = None) -> int:
        def attempt(collections: Collections, entity: Document | None) -> tuple[Document | None, int]:
            if entity is None:
                return {}, 0
            if fact_id is None:
                own = {"entity_id": entity["_id"]}
                gone = collections(FACT).count_documents({**own, "status": {"$ne": ERASED_STATUS}})
                gone += collections(MESSAGE).count_documents(own)
                return Journal(collections).commit(entity, [erasure()]), gone
            writes = _forgetting(collections, entity, fact_id)
            if not writes:
                return {}, 0
            return Journal(collections).commit(entity, writes, generation=_new_generation()), 1

        return self._write(entity_id, attempt, thoroughly=True)

    def session_row(self, entity_id: str, session_id: str) -> int | None:
        """Return the id that a session of an entity has in ``memori_session``; None when nothing of it is stored."""
        with self._working() as collections:
            entity = self._entity(collections, entity_id)
            found = None if entity is None else _session(collections, entity, session_id)
            return None if found is None else int(found["_id"])

    def conversation(self, row: int) -> dict[str, Any] | None:
        """Return a session's id, uuid, entity, process and times by its id; None when there is no such session."""
        with self._working() as collections:
            found = collections(SESSION).find_one({"_id": row})
            entity = None if found is None else collections(ENTITY).find_one({"_id": found["entity_id"]})
            if found is None or entity is None:
                return None
            return {
                "id": found["_id"],
                "uuid": found["uuid"],
                "session_id": found["_id"],
                "entity_id": entity["external_id"],
                "process_id": found["process"],
                "date_created": moment(found["started_at"]),
                "date_updated": moment(found["last_active_at"]),
            }

    def said_in(self, row: int) -> list[dict[str, str]]:
        """Return role and content of a session's messages, in order; none when there is no such session."""
        with self._working() as collections:
            found = collections(MESSAGE).find({"session_id": row}, {"role": 1, "content": 1}).sort("position")
            return [{"role": document["role"], "content": document["content"]} for document in found]

    # Inside

    @contextlib.contextmanager
    def _working(self, *, patience: float = 1.0) -> Iterator[Collections]:
        with self._deployment.working(patience=patience) as collections:
            if not self._built:
                self._verify(collections)
            yield collections

    def _verify(self, collections: Collections, *, built: bool = True) -> None:
        found = collections(SCHEMA).find_one(_SCHEMA)
        if found is not None and found["version"] > VERSION:
            raise NewerSchemaError(
                f"the collections are of version {found['version']}, which this memori does not know (its newest is "
                f"{VERSION}): nothing was changed; upgrade memori"
            )
        if built and (found is None or not found["built"]):
            self._built = False
            raise not_built()
        self._built = built

    def _entity(self, collections: Collections, entity_id: str) -> Document | None:
        found = Journal(collections).entity({"external_id": exact(entity_id)})
        if found is None:
            self._verify(collections)  # Or the whole database has gone.
        return found

    def _write(
        self,
        entity_id: str,
        attempt: Callable[[Collections, Document | None], tuple[Document | None, T]],
        *,
        thoroughly: bool = False,
    ) -> T:
        """Return what *attempt* returns when what it committed is carried out.

        Args:
            attempt: Returns the entity's document as committed and the result. None for the document: others were
                faster, so it is called again. An empty one: there was nothing to commit.
            thoroughly: Whether a failure after the commit counts. Else whoever comes next carries it out.
        """
        identifier("entity_id", entity_id)
        with taking(self._turns[hash(entity_id) % _TURNS], self._busy_timeout_s):
            with self._working() as collections:
                while True:
                    committed, result = attempt(collections, self._entity(collections, entity_id))
                    if committed is not None:
                        break
            if committed:
                lasting = contextlib.nullcontext() if thoroughly else contextlib.suppress(StorageError)
                with lasting, self._working() as collections:
                    Journal(collections).carry_out(committed)
            return result

    def _read(self, entity_id: str, read: Callable[[Collections, Document], T]) -> T | list[Any]:
        with self._working(patience=_PATIENCE) as collections:
            for attempt in range(_TORN):
                entity = self._entity(collections, entity_id)
                if entity is None:
                    return []
                found = read(collections, entity)
                after = collections(ENTITY).find_one({"_id": entity["_id"]}, {"version": 1})
                if after is not None and after["version"] == entity["version"]:
                    break
                time.sleep(0.001 * attempt)
            return found


class _Recording:
    """One exchange on its way in."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._digests = [digest(said) for said in exchange.sent]

    def store(self, collections: Collections, entity: Document | None) -> tuple[Document | None, list[StoredMessage]]:
        exchange, who = self._exchange, self._exchange.attribution
        session = None if entity is None else _session(collections, entity, who.session_id)
        indexes = self._unknown(collections, session)
        if not indexes and not exchange.reply:
            return {}, []
        process = text(who.process_id)
        if process is not None:
            _insert(collections, PROCESS, {"_id": process, "created_at": microseconds(exchange.at)}, unless_there=True)
        is_new = entity is None
        entity = entity or _new_entity(collections, who.entity_id, at=exchange.at)
        said = [(exchange.sent[index], self._digests[index], False) for index in indexes]
        said += [(answer, digest(answer), exchange.partial) for answer in exchange.reply]
        ids = Journal(collections).ids(message=len(said), job=1, **({"session": 1} if session is None else {}))
        version = entity["version"] + 1
        at = microseconds(exchange.at)
        if session is None:
            first, row = 0, ids["session"][0]
            opened = {
                "_id": row,
                "uuid": text(who.session_id),
                "entity_id": entity["_id"],
                "process": process,
                "started_at": at,
                "last_active_at": at,
                "next_position": len(said),
                "version": version,
            }
            write = new(SESSION, opened)
        else:
            first, row = session["next_position"], session["_id"]
            grown = {
                "next_position": first + len(said),
                "last_active_at": max(at, session["last_active_at"]),
                "version": version,
            }
            write = change(SESSION, row, grown)
        documents = [
            {
                **message_document(
                    item, exchange, id=id, position=position, digest=key, partial=partial, version=version
                ),
                "session_id": row,
                "entity_id": entity["_id"],
            }
            for id, position, (item, key, partial) in zip(
                ids["message"], range(first, first + len(said)), said, strict=True
            )
        ]
        job = {
            "_id": ids["job"][0],
            "exchange_id": text(exchange.id),
            "entity_id": entity["_id"],
            "entity": entity["external_id"],
            "session_id": row,
            "session": text(who.session_id),
            "process": process,
            "provider": text(exchange.provider),
            "model": text(exchange.model),
            "exchanged_at": at,
            "first_position": first,
            "messages": len(said),
            "state": "waiting",
            "attempts": 0,
            "worker": None,
            "due_at": _AT_ONCE,
            "last_error": None,
            "failed_at": None,
        }
        # The job last: whoever claims it finds its messages.
        writes = [*(new(MESSAGE, document) for document in documents), write, new(JOB, job)]
        committed = Journal(collections).commit(entity, writes, is_new=is_new)
        return committed, [message(document) for document in documents]

    def _unknown(self, collections: Collections, session: Document | None) -> list[int]:
        sent = self._exchange.sent
        if session is None:
            return list(range(len(sent)))
        held = collections(MESSAGE)
        known = [
            Known(found["position"], found["digest"])
            for found in held.find(
                {"session_id": session["_id"], "digest": {"$in": list(dict.fromkeys(self._digests))}},
                {"position": 1, "digest": 1},
            )
        ]
        new_ones = unknown(sent, known, digests=self._digests)
        if not any(_may_be_whole(sent[index]) for index in new_ones):
            return new_ones
        # A reply that was cut off here may be whole in the application's list.
        partial = [
            Known(found["position"], found["digest"], normal(found["content"]))
            for found in held.find(
                {"session_id": session["_id"], "partial": True, "kind": "text"},
                {"position": 1, "digest": 1, "content": 1},
            )
        ]
        return unknown(sent, [*known, *partial], digests=self._digests) if partial else new_ones


def _may_be_whole(said: Message) -> bool:
    return said.role == "assistant" and said.kind == "text"


def _insert(collections: Collections, name: str, document: Document, *, unless_there: bool = False) -> bool:
    """Store a document that others may be storing at the same time; return whether it was stored here."""
    if unless_there and collections(name).find_one({"_id": document["_id"]}, {"_id": 1}) is not None:
        return False
    try:
        collections(name).insert_one(document)
    except DuplicateKeyError:
        return False
    return True


def _new_generation() -> int:
    # Random: what was erased and comes back must not look like what someone still remembers of it.
    return secrets.randbits(62)


def _new_entity(collections: Collections, entity_id: str, *, at: datetime) -> Document:
    return {
        "_id": Journal(collections).ids(entity=1)["entity"][0],
        "external_id": exact(entity_id),
        "version": 0,
        "generation": _new_generation(),
        "created_at": microseconds(at),
    }


def _version(entity: Document | None) -> Version | None:
    return None if entity is None else Version(entity["generation"], entity["version"])


def _session(collections: Collections, entity: Document, session_id: str) -> Document | None:
    return collections(SESSION).find_one({"entity_id": entity["_id"], "uuid": exact(session_id)})


def _lease(job: Job) -> Document:
    # The attempts tell two leases of one worker apart.
    return {"_id": job.id, "state": "running", "worker": exact(job.worker), "attempts": job.attempts}


def _job(collections: Collections, found: Document, worker: str) -> Job:
    first = found["first_position"]
    brought = collections(MESSAGE).find(
        {"session_id": found["session_id"], "position": {"$gte": first, "$lt": first + found["messages"]}}
    )
    at = moment(found["exchanged_at"])
    assert at is not None  # noqa: S101 - every job has one
    return Job(
        id=found["_id"],
        exchange_id=found["exchange_id"],
        entity_id=found["entity"],
        process_id=found["process"],
        session_id=found["session"],
        attempts=found["attempts"],
        worker=worker,
        at=at,
        messages=tuple(message(document) for document in brought.sort("position")),
    )


def _forgetting(collections: Collections, entity: Document, fact_id: int) -> list[Document]:
    """Return the writes that erase one fact, with what points to it; none when the entity does not have it."""
    facts = collections(FACT)
    key = {"_id": fact_id, "entity_id": entity["_id"], "status": {"$ne": ERASED_STATUS}}
    if facts.find_one(key, {"_id": 1}) is None:
        return []
    version = entity["version"] + 1
    pointing = facts.find({"superseded_by": fact_id, "entity_id": entity["_id"]}, {"_id": 1})
    return [
        removal(FACT, fact_id, version, entity_id=entity["_id"], status=ERASED_STATUS),
        *(change(FACT, found["_id"], {"superseded_by": None, "version": version}) for found in pointing),
    ]


def _first(found: Any, limit: int | None) -> Any:
    # MongoDB takes 0 for no limit at all.
    return found if limit is None else found.limit(limit) if limit else ()
