"""Writes to several documents that happen together or not at all, in a MongoDB database without transactions.

MongoDB writes one document atomically; more than that takes transactions, which a single server does not have. So the
document of an entity is made its lock, its commit point and its redo log:

1. Whoever changes an entity's memory reads its document, decides, and writes down every write that is to be done.
2. One update of the entity's document commits them: it raises ``version`` by one and puts the writes into ``writes``
   under a token in ``pending``, on the condition that the version is still the one that was read and that nothing is
   pending. Of several who try, one succeeds; the others begin anew. Writes that are too large to stand there were put
   into the journal's collection before, where nothing refers to them until then.
3. The writes are carried out, and ``pending`` is cleared.

Whoever meets an entity with something pending carries it out first, be it to read or to write. A process that dies
before step 2 has done nothing; after it, the next one to come does the rest. That is why each write must be one that
can be done twice, and done late, by a process that slept meanwhile while others went on:

* A new document has its id already. That it is there means that it was done; only `erase` ever removes one.
* A change sets fields to values, and only where the document's version is below the journal's.
* A fact that is forgotten leaves its number and version behind, without content, so that it is not new again.
* An entity that is erased leaves its number in a collection of its own. Who finds at the end of step 3 that the entity
  is gone erases once more what they may have brought back; `sweep` does so for those who died before that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import uuid4

import bson
from pymongo import InsertOne, ReplaceOne, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from memori.errors import StorageError
from memori.jitter import jittered
from memori.schema.collections import (
    ATTRIBUTE,
    COUNTER,
    ENTITY,
    ERASED,
    FACT,
    JOB,
    JOURNAL,
    MESSAGE,
    SESSION,
)
from memori.schema.columns import NAME_LENGTH
from memori.storage.deployment import Collections, not_built
from memori.storage.mongo_documents import Document, exact, microseconds

__all__ = ["COUNTERS", "Journal", "change", "description", "erasure", "new", "removal"]

COUNTERS = "last"
"""The id of the one document in `COUNTER`."""

_INLINE_BYTES = 256 * 1024  # More would be copied about with each later change of the entity's document.
_PART_BYTES = 8 * 1024 * 1024
_DOCUMENT_BYTES = 16 * 1024 * 1024 - 64 * 1024  # MongoDB's limit, less what a part of the journal adds.
_GRACE_S = 0.003  # Whoever committed is most likely still at it.
_TOKENS = 32  # As many as may be pending for different entities that share a process's attribute, and then some.
_ABANDONED = timedelta(days=1)  # Nobody commits so long after having written a part: the wait is bounded.
_DUPLICATE_KEY = 11000
_OWN = (JOB, FACT, MESSAGE, SESSION, JOURNAL)


def new(collection: str, document: Document) -> Document:
    """Return the write that stores a document which has its id."""
    return {"in": collection, "new": document}


def change(collection: str, id: int, fields: Document, *, fenced: bool = True) -> Document:
    """Return the write that sets fields of a document.

    Args:
        fenced: Whether the document has a version, among *fields*, that keeps late writes off.
    """
    return {"in": collection, "id": id, "set": fields, "fenced": fenced}


def removal(collection: str, id: int, version: int, **left: Any) -> Document:
    """Return the write that leaves of a document nothing but its id, its version, and what of it is to be *left*."""
    return {"in": collection, "id": id, "left": {"version": version, **left}, "fenced": True}


def description(process: str, name: str, value: str, at: datetime) -> Document:
    """Return the write that notes what was learned of a process."""
    return {"in": ATTRIBUTE, "process": process, "name": name, "value": value, "at": microseconds(at)}


def attribute_document(process: str, said: str, value: str, at: int) -> Document:
    """Return what is known of a process, as a document of its own: found there already, it stays as it is."""
    name = exact(said[:NAME_LENGTH])
    return {
        "_id": _attribute_key(process, name),
        "process": process,
        "name": name,
        "value": exact(value),
        "updated_at": at,
        "mentions": 1,
        "tokens": [],
    }


def _attribute_key(process: str, name: str) -> str:
    return json.dumps([process, name])


def erasure() -> Document:
    """Return the write that removes an entity and all that is its own."""
    return {"in": ENTITY}


class Journal:
    """The entities of one database, each changed by one at a time. For one piece of work in one thread.

    Args:
        owners: The collection of the documents that are locks; another one for what is no entity's.
    """

    def __init__(self, collections: Collections, owners: str = ENTITY) -> None:
        self._collections = collections
        self._entities = collections(owners)

    def entity(self, key: Document) -> Document | None:
        """Return the document of the entity that *key* finds, with nothing pending; None when there is none."""
        seen: str | None = None
        while True:
            found = self._entities.find_one(key)
            if found is None or found["pending"] is None:
                return found
            if found["pending"] == seen:
                self.carry_out(found)
            else:
                seen = found["pending"]
                time.sleep(_GRACE_S)

    def carry_out_all(self) -> None:
        """Carry out whatever is pending of any entity."""
        for found in list(self._entities.find({"pending": {"$gt": ""}}, {"_id": 1})):
            self.entity({"_id": found["_id"]})

    def ids(self, **counts: int) -> dict[str, range]:
        """Return as many new ids of each kind as are asked for."""
        last = self._collections(COUNTER).find_one_and_update(
            {"_id": COUNTERS}, {"$inc": counts}, return_document=ReturnDocument.AFTER
        )
        if last is None:
            raise not_built()
        return {name: range(last[name] - count + 1, last[name] + 1) for name, count in counts.items()}

    def commit(
        self, entity: Document, writes: Sequence[Document], *, is_new: bool = False, generation: int | None = None
    ) -> Document | None:
        """Commit *writes* as the next version of *entity*; return its document then, None when others were faster.

        Args:
            is_new: Whether the entity is not stored yet.
            generation: The entity's new one, if it gets one.

        Raises:
            StorageError: A document is too large for MongoDB. Nothing was changed.
        """
        token = uuid4().hex
        inline, parts = _laid_out(writes)
        for number, part in enumerate(parts):
            self._collections(JOURNAL).insert_one(
                {
                    "_id": f"{token}-{number}",
                    "token": token,
                    "part": number,
                    "entity_id": entity["_id"],
                    "version": entity["version"] + 1,
                    "written_at": microseconds(datetime.now(UTC)),
                    "writes": part,
                }
            )
        changed = {
            "version": entity["version"] + 1,
            "generation": entity["generation"] if generation is None else generation,
            "pending": token,
            "writes": inline,
            "parts": len(parts),
        }
        if not self._replaced(entity, changed, is_new=is_new):
            if parts:
                self._collections(JOURNAL).delete_many({"token": token})
            time.sleep(jittered(_GRACE_S, least=0.0))
            return None
        return {**entity, **changed}

    def _replaced(self, entity: Document, changed: Document, *, is_new: bool) -> bool:
        if is_new:
            try:
                self._entities.insert_one({**entity, **changed})
            except DuplicateKeyError:
                return False
            return True
        read = {"_id": entity["_id"], "version": entity["version"], "pending": None}
        return self._entities.update_one(read, {"$set": changed}).matched_count == 1

    def carry_out(self, entity: Document) -> None:
        """Carry out what is pending of *entity*, as its document says, unless another has done so meanwhile."""
        row, token = entity["_id"], entity["pending"]
        writes = entity["writes"]
        if entity["parts"]:
            parts = list(self._collections(JOURNAL).find({"token": token}).sort("part"))
            if len(parts) < entity["parts"]:
                return  # They are removed after all is done.
            writes = [write for part in parts for write in part["writes"]]
        if any("left" in write for write in writes):
            # What is to be forgotten may also stand in the parts of a process that died. Those for a version that has
            # come are of no use: they were committed and carried out, or never will be.
            used = {"entity_id": row, "version": {"$lte": entity["version"]}, "token": {"$ne": token}}
            self._collections(JOURNAL).delete_many(used)
        for name, group in groupby(writes, key=lambda write: str(write["in"])):
            if name == ENTITY:
                self._erase(row)
                self._note_erased(row)
                self._entities.delete_one({"_id": row, "pending": token})
                return
            if name == ATTRIBUTE:
                for write in group:
                    self._describe(write, token)
            else:
                self._write(name, group, entity["version"])
        done = self._entities.update_one(
            {"_id": row, "pending": token}, {"$set": {"pending": None, "writes": None, "parts": 0}}
        )
        if entity["parts"]:
            self._collections(JOURNAL).delete_many({"token": token})
        if not done.matched_count and self._entities.find_one({"_id": row}, {"_id": 1}) is None:
            self._erase(row)

    def _write(self, collection: str, writes: Iterable[Document], version: int) -> None:
        try:
            self._collections(collection).bulk_write([_request(write, version) for write in writes], ordered=False)
        except BulkWriteError as error:
            failed = error.details.get("writeErrors", ())
            # One that is there already was stored before, by whoever began to carry this out.
            if error.details.get("writeConcernErrors") or any(item["code"] != _DUPLICATE_KEY for item in failed):
                raise

    def _describe(self, write: Document, token: str) -> None:
        attributes = self._collections(ATTRIBUTE)
        key = _attribute_key(write["process"], write["name"])
        while True:
            found = attributes.find_one({"_id": key})
            mentions, tokens = (0, []) if found is None else (found["mentions"], found["tokens"])
            if token in tokens:
                return
            said = {
                "process": write["process"],
                "name": write["name"],
                "value": write["value"],
                "updated_at": write["at"],
                "mentions": mentions + 1,
                "tokens": [*tokens, token][-_TOKENS:],
            }
            if found is not None:
                if attributes.update_one({"_id": key, "mentions": mentions}, {"$set": said}).matched_count:
                    return
                continue
            try:
                attributes.insert_one({"_id": key, **said})
            except DuplicateKeyError:
                continue
            return

    def _erase(self, row: int) -> None:
        for name in _OWN:
            self._collections(name).delete_many({"entity_id": row})

    def _note_erased(self, row: int) -> None:
        try:
            self._collections(ERASED).insert_one({"_id": row})
        except DuplicateKeyError:
            return

    def sweep(self) -> None:
        """Remove what processes that died left behind: parts of what was never committed, and of erased entities."""
        for found in list(self._collections(ERASED).find()):
            self._erase(found["_id"])
        before = microseconds(datetime.now(UTC) - _ABANDONED)
        parts = self._collections(JOURNAL)
        for token in parts.distinct("token", {"written_at": {"$lt": before}}):
            if all(self._collections(owners).find_one({"pending": token}) is None for owners in (ENTITY, COUNTER)):
                parts.delete_many({"token": token})


def _request(write: Document, version: int) -> Any:
    if "new" in write:
        return InsertOne(write["new"])
    key = {"_id": write["id"]}
    if write["fenced"]:
        key["version"] = {"$lt": version}
    return ReplaceOne(key, write["left"]) if "left" in write else UpdateOne(key, {"$set": write["set"]})


def _laid_out(writes: Sequence[Document]) -> tuple[list[Document] | None, list[list[Document]]]:
    """Return *writes* as they are stored: in the entity's document, or in parts where they are large."""
    sizes = [len(bson.encode(write)) for write in writes]
    if sum(sizes) <= _INLINE_BYTES:
        return list(writes), []
    parts: list[list[Document]] = []
    filled = 0
    for write, size in zip(writes, sizes, strict=True):
        if size > _DOCUMENT_BYTES:
            raise StorageError(
                f"{size:,} bytes are too many for one document of {write['in']}: MongoDB stores at most 16 MiB in one; "
                "nothing of this was stored"
            )
        if not parts or filled + size > _PART_BYTES:
            parts.append([])
            filled = 0
        parts[-1].append(write)
        filled += size
    return None, parts
