"""Documents under namespaces, in a MongoDB database.

All that changes them takes turns at one document, as `memori.storage.journal` says. A namespace is what its items say
that it is: they carry the number that it got with its first one, and the digests of all paths that it lies under.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pymongo import UpdateOne

from memori.schema.collections import COUNTER, ITEM
from memori.storage.deployment import Collections, not_built
from memori.storage.documents import decoded, digest, encoded, escaped, unescaped
from memori.storage.gate import taking
from memori.storage.journal import Journal, change, new, removal
from memori.storage.mongo_documents import Document, microseconds, moment
from memori.types import Embedding, Item, ItemKey, Namespace, NewItem

if TYPE_CHECKING:
    from memori.types import Vector

__all__ = ["EMPTY_STORE", "MongoItems"]

T = TypeVar("T")

EMPTY_STORE: Document = {
    "_id": "items",
    "version": 0,
    "generation": 0,
    "pending": None,
    "writes": None,
    "parts": 0,
}
"""The document that whoever changes items takes turns at, as `memori.storage.mongo.MongoStorage.build` makes it."""

_DISTURBED = 4
_REMAINS = timedelta(days=1)  # What keeps a late process from bringing back an item; no process is as late as that.


class MongoItems:
    """A `memori.protocols.ItemStorage` in a MongoDB database.

    Args:
        working: Gives the collections while something is done with them.
        busy_timeout_s: Seconds to wait for a turn.
    """

    def __init__(self, working: Callable[[], AbstractContextManager[Collections]], busy_timeout_s: float) -> None:
        self._working = working
        self._busy_timeout_s = busy_timeout_s
        self.reset()

    def reset(self) -> None:
        """Begin anew: called in the child after a fork."""
        self._turn = threading.Lock()

    def write(self, puts: Sequence[NewItem], deletes: Sequence[ItemKey] = (), *, now: datetime) -> None:
        values = {(digest(put.namespace), digest(put.key)): (put, _value(put, now)) for put in puts}
        gone = [(digest(path), digest(key)) for path, key in deletes]

        def attempt(collections: Collections, version: int) -> tuple[list[Document], None]:
            stored = _stored(collections, [*values, *gone])
            rows = _rows(collections, {path for path, _ in values})
            added = [key for key in values if key not in stored]
            unnumbered = list(dict.fromkeys(path for path, _ in added if path not in rows))
            ids = Journal(collections).ids(item=len(added), namespace=len(unnumbered)) if added else {}
            rows |= dict(zip(unnumbered, ids.get("namespace", ()), strict=True))
            numbers = iter(ids.get("item", ()))
            writes = []
            for key, (put, value) in values.items():
                found = stored.get(key)
                if found is None:
                    place = _place(put, key, row=rows[key[0]], id=next(numbers))
                    times = {"created_at": microseconds(now), "version": version}
                    writes.append(new(ITEM, {**place, **value, **times}))
                else:
                    expired = found["expires_at"] is not None and found["expires_at"] <= microseconds(now)
                    again = {"created_at": microseconds(now)} if expired else {}
                    writes.append(change(ITEM, found["_id"], {**value, **again, "version": version}))
            return writes + _removals((stored[key]["_id"] for key in gone if key in stored), version), None

        if values or gone:
            self._change(attempt)

    def read(self, keys: Sequence[ItemKey], *, now: datetime) -> list[Item | None]:
        if not keys:
            return []

        def work(collections: Collections) -> list[Item | None]:
            wanted = [(digest(path), digest(key)) for path, key in keys]
            stored = _stored(collections, wanted, **_live(now), whole=True)
            return [_item(stored[key]) if key in stored else None for key in wanted]

        return self._undisturbed(work)

    def find(self, prefix: Namespace, *, now: datetime, limit: int | None = None, offset: int = 0) -> list[Item]:
        if limit == 0:
            return []  # To MongoDB, no limit.

        def work(collections: Collections) -> list[Item]:
            found = collections(ITEM).find({**_under(prefix), **_live(now)}).sort([("namespace_id", 1), ("_id", 1)])
            return [_item(document) for document in found.skip(offset).limit(limit or 0)]

        return self._undisturbed(work)

    def namespaces(self, prefix: Namespace, *, now: datetime) -> list[Namespace]:
        return self._undisturbed(
            lambda collections: [
                tuple(decoded(path))
                for path in collections(ITEM).distinct("namespace", {**_under(prefix), **_live(now)})
            ]
        )

    def extend(self, expiries: Mapping[ItemKey, datetime], *, now: datetime) -> None:
        if not expiries:
            return
        with self._working() as collections:
            _store(collections)  # What is about to be stored is there then.
            collections(ITEM).bulk_write(
                [
                    UpdateOne(
                        {
                            "path_hash": digest(path),
                            "key_hash": digest(key),
                            "expires_at": {"$gt": microseconds(now)},
                        },
                        {"$set": {"expires_at": microseconds(until)}},
                    )
                    for (path, key), until in expiries.items()
                ],
                ordered=False,
            )

    def erase(self, prefix: Namespace) -> int:
        return self._remove(_under(prefix))

    def sweep(self, *, now: datetime) -> int:
        with self._working() as collections:
            before = microseconds(datetime.now(UTC) - _REMAINS)
            collections(ITEM).delete_many({"removed_at": {"$lt": before}})
        return self._remove({"expires_at": {"$lte": microseconds(now)}})

    def _remove(self, which: Document) -> int:
        def attempt(collections: Collections, version: int) -> tuple[list[Document], int]:
            found = [document["_id"] for document in collections(ITEM).find(which, {"_id": 1})]
            return _removals(found, version), len(found)

        return self._change(attempt)

    def _change(self, attempt: Callable[[Collections, int], tuple[list[Document], T]]) -> T:
        """Return what *attempt* returns beside the writes that it was asked for, once they are done.

        Args:
            attempt: Is given the version that they get; called again when others were faster.
        """
        with taking(self._turn, self._busy_timeout_s):
            with self._working() as collections:
                committed = None
                while committed is None:
                    store = _store(collections)
                    writes, result = attempt(collections, store["version"] + 1)
                    if not writes:
                        return result
                    committed = Journal(collections, COUNTER).commit(store, writes)
            with self._working() as collections:
                Journal(collections, COUNTER).carry_out(committed)
            return result

    def _undisturbed(self, read: Callable[[Collections], T]) -> T:
        """Return what *read* returns while nobody wrote."""
        for _ in range(_DISTURBED):
            with self._working() as collections:
                found, whole = _seen(collections, read)
            if whole:
                return found
        # Where this process writes all the time, its readers take turns with its writers.
        with taking(self._turn, self._busy_timeout_s), self._working() as collections:
            while True:
                found, whole = _seen(collections, read)
                if whole:
                    return found


def _seen(collections: Collections, read: Callable[[Collections], T]) -> tuple[T, bool]:
    """Return what *read* returns, and whether nobody wrote meanwhile."""
    before = _store(collections)
    found = read(collections)
    after = collections(COUNTER).find_one({"_id": EMPTY_STORE["_id"]}, {"version": 1})
    return found, after is not None and after["version"] == before["version"]


def _store(collections: Collections) -> Document:
    """Return what is locked by whoever changes items, with nothing pending."""
    found = Journal(collections, COUNTER).entity({"_id": EMPTY_STORE["_id"]})
    if found is None:
        raise not_built()
    return found


def _stored(
    collections: Collections, keys: Sequence[tuple[str, str]], *, whole: bool = False, **which: Any
) -> dict[tuple[str, str], Document]:
    """Return the documents of those of *keys* that are there, by key: what is needed to change them, or *whole*."""
    wanted = set(keys)
    query = {
        "path_hash": {"$in": sorted({path for path, _ in wanted})},
        "key_hash": {"$in": sorted({key for _, key in wanted})},
        **which,
    }
    fields = None if whole else {"path_hash": 1, "key_hash": 1, "expires_at": 1}
    found = {(item["path_hash"], item["key_hash"]): item for item in collections(ITEM).find(query, fields)}
    return {key: item for key, item in found.items() if key in wanted}


def _rows(collections: Collections, paths: Iterable[str]) -> dict[str, int]:
    """Return the numbers of those namespaces that have one."""
    items = ((path, collections(ITEM).find_one({"path_hash": path}, {"namespace_id": 1})) for path in paths)
    return {path: item["namespace_id"] for path, item in items if item is not None}


def _place(put: NewItem, key: tuple[str, str], *, row: int, id: int) -> Document:
    path = put.namespace
    return {
        "_id": id,
        "namespace_id": row,
        "namespace": encoded(path),
        "path_hash": key[0],
        "under": [digest(path[:length]) for length in range(1, len(path) + 1)],
        "key": escaped(put.key),
        "key_hash": key[1],
    }


def _value(put: NewItem, now: datetime) -> Document:
    embedding = None if put.embedding is None else np.ascontiguousarray(put.embedding.vector, dtype="<f4")
    return {
        "value": encoded(put.value),
        "updated_at": microseconds(now),
        "ttl_s": None if put.ttl is None else put.ttl.total_seconds(),
        "expires_at": None if put.ttl is None else microseconds(now + put.ttl),
        "embedding": None if embedding is None else embedding.tobytes(),
        "embedding_rows": None if embedding is None else len(embedding),
        "embedding_model": None if put.embedding is None else put.embedding.model,
    }


def _removals(ids: Iterable[int], version: int) -> list[Document]:
    at = microseconds(datetime.now(UTC))
    return [removal(ITEM, id, version, removed_at=at) for id in ids]


def _under(prefix: Namespace) -> Document:
    # What is left of a removed item lies nowhere.
    return {"under": digest(prefix)} if prefix else {"namespace_id": {"$gt": 0}}


def _live(now: datetime) -> Document:
    return {"$or": [{"expires_at": None}, {"expires_at": {"$gt": microseconds(now)}}]}


def _item(document: Mapping[str, Any]) -> Item:
    created_at, updated_at = moment(document["created_at"]), moment(document["updated_at"])
    assert created_at and updated_at  # noqa: PT018, S101 - every item has these times
    return Item(
        namespace=tuple(decoded(document["namespace"])),
        key=unescaped(document["key"]),
        value=decoded(document["value"]),
        created_at=created_at,
        updated_at=updated_at,
        ttl=None if document["ttl_s"] is None else timedelta(seconds=document["ttl_s"]),
        expires_at=moment(document["expires_at"]),
        embedding=_embedding(document["embedding"], document["embedding_rows"], document["embedding_model"]),
    )


def _embedding(data: bytes | None, count: int | None, model: str | None) -> Embedding | None:
    # Vectors that another program cut off must not keep the document beside them from being read.
    if not data or not count or model is None or len(data) % (4 * count):
        return None
    rows: Vector = np.frombuffer(data, dtype="<f4").reshape(count, -1)
    return Embedding(model, rows)
