"""Documents under namespaces, in any database that SQLAlchemy reaches.

Paths and keys are looked up by their digests: exact in every collation, at any length. Each transaction that changes a
namespace's documents begins by locking its row: what is then found stays as it is, and nobody puts a document into a
namespace that is being removed for having lost its last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import (
    Connection,
    Delete,
    Select,
    bindparam,
    case,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)

from memori.schema.columns import UtcDateTime
from memori.schema.tables import item, namespace, prefix
from memori.storage.database import Database
from memori.storage.documents import decoded, digest, encoded, escaped, unescaped
from memori.storage.rows import batches
from memori.types import Embedding, Item, ItemKey, Namespace, NewItem

if TYPE_CHECKING:
    from memori.types import Vector

__all__ = ["SQLItems"]

_NOW = bindparam("now", type_=UtcDateTime())
_LIVE = or_(item.c.expires_at.is_(None), item.c.expires_at > _NOW)
_UNDER = select(prefix.c.namespace_id).where(prefix.c.prefix_hash == bindparam("prefix"))
_ITEMS: Select[Any] = (
    select(
        namespace.c.path,
        item.c.key,
        item.c.value,
        item.c.created_at,
        item.c.updated_at,
        item.c.ttl_s,
        item.c.expires_at,
        item.c.embedding,
        item.c.embedding_rows,
        item.c.embedding_model,
    )
    .join(namespace, namespace.c.id == item.c.namespace_id)
    .where(_LIVE)
)
_READ = _ITEMS.where(
    namespace.c.path_hash.in_(bindparam("paths", expanding=True)),
    item.c.key_hash.in_(bindparam("keys", expanding=True)),
)
_FIND = _ITEMS.order_by(namespace.c.id, item.c.id)
_NAMESPACES = select(namespace.c.path).where(exists().where(item.c.namespace_id == namespace.c.id, _LIVE))
_ROWS = (
    select(namespace.c.path_hash, namespace.c.id)
    .where(namespace.c.path_hash.in_(bindparam("paths", expanding=True)))
    .order_by(namespace.c.id)
    .with_for_update()
)
_LOCK = (
    select(namespace.c.id)
    .where(namespace.c.id.in_(bindparam("rows", expanding=True)))
    .order_by(namespace.c.id)
    .with_for_update()
)
_STORED = select(item.c.namespace_id, item.c.key_hash, item.c.id).where(
    item.c.namespace_id.in_(bindparam("rows", expanding=True)),
    item.c.key_hash.in_(bindparam("keys", expanding=True)),
)
_VALUES = ("value", "ttl_s", "expires_at", "embedding", "embedding_rows", "embedding_model")
# MySQL assigns from left to right, and a later assignment sees what an earlier one did: `created_at` comes first, as
# SQLAlchemy keeps to the table's order.
_UPDATE = (
    update(item)
    .where(item.c.id == bindparam("row_id"))
    .values(
        {name: bindparam(f"new_{name}") for name in _VALUES}
        | {"updated_at": _NOW, "created_at": case((item.c.expires_at <= _NOW, _NOW), else_=item.c.created_at)}
    )
)
_DELETE = delete(item).where(item.c.namespace_id == bindparam("at"), item.c.key_hash == bindparam("of"))
_EXTEND = (
    update(item)
    .where(
        item.c.namespace_id
        == select(namespace.c.id).where(namespace.c.path_hash == bindparam("path")).scalar_subquery(),
        item.c.key_hash == bindparam("of"),
        item.c.expires_at > _NOW,
    )
    .values(expires_at=bindparam("until"))
)
_EXPIRED = select(item.c.namespace_id).where(item.c.expires_at <= _NOW).distinct()
_ERASE = delete(item).where(item.c.namespace_id.in_(bindparam("rows", expanding=True)))
_SWEEP = _ERASE.where(item.c.expires_at <= _NOW)
_EMPTY = select(namespace.c.id).where(
    namespace.c.id.in_(bindparam("rows", expanding=True)),
    ~exists().where(item.c.namespace_id == namespace.c.id),
)
_PRUNE_PREFIXES = delete(prefix).where(prefix.c.namespace_id.in_(bindparam("rows", expanding=True)))
_PRUNE = delete(namespace).where(namespace.c.id.in_(bindparam("rows", expanding=True)))


class SQLItems:
    """A `memori.protocols.ItemStorage` in any database that SQLAlchemy reaches.

    Args:
        database: Runs the transactions. Whoever passes it closes it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, puts: Sequence[NewItem], deletes: Sequence[ItemKey] = (), *, now: datetime) -> None:
        new = [(put.namespace, digest(put.key), put.key, _columns(put, now)) for put in puts]
        gone = [(path, digest(key)) for path, key in deletes]

        def work(connection: Connection) -> None:
            rows = _namespaces(connection, [path for path, *_ in new], [path for path, _ in gone])
            stored = _stored(connection, [(rows[path], key_hash) for path, key_hash, *_ in new])
            changed: list[dict[str, Any]] = []
            added: list[dict[str, Any]] = []
            for path, key_hash, key, columns in new:
                row = stored.get((rows[path], key_hash))
                if row is not None:
                    changed.append({"row_id": row, "now": now} | {f"new_{name}": columns[name] for name in _VALUES})
                else:
                    place = {"namespace_id": rows[path], "key": escaped(key), "key_hash": key_hash}
                    added.append(columns | place | {"created_at": now, "updated_at": now})
            # In one order everywhere, so that two who change the same ones do not wait for each other in a ring.
            for batch in batches(sorted(changed, key=lambda change: change["row_id"])):
                connection.execute(_UPDATE, batch)
            for batch in batches(added):
                connection.execute(insert(item), batch)
            # Last: a namespace that loses one document and gets another stays the same.
            _remove(connection, [(rows[path], key_hash) for path, key_hash in gone if path in rows])

        if new or gone:
            self._database.write(work)

    def read(self, keys: Sequence[ItemKey], *, now: datetime) -> list[Item | None]:
        def work(connection: Connection) -> list[Item | None]:
            found: dict[ItemKey, Item] = {}
            for batch in batches(dict.fromkeys(keys)):
                wanted = {
                    "now": now,
                    "paths": sorted({digest(path) for path, _ in batch}),
                    "keys": sorted({digest(key) for _, key in batch}),
                }
                found |= {(one.namespace, one.key): one for one in _items(connection.execute(_READ, wanted))}
            return [found.get(key) for key in keys]

        return self._database.read(work) if keys else []

    def find(self, prefix: Namespace, *, now: datetime, limit: int | None = None, offset: int = 0) -> list[Item]:
        query, parameters = _under(_FIND, prefix), {"now": now, "prefix": digest(prefix)}
        if limit is None:
            # On the MySQL family an offset needs a limit, and the one that SQLAlchemy adds is too much for OceanBase.
            return self._database.read(lambda connection: _items(connection.execute(query, parameters)))[offset:]
        query = query.limit(limit).offset(offset or None)
        return self._database.read(lambda connection: _items(connection.execute(query, parameters)))

    def namespaces(self, prefix: Namespace, *, now: datetime) -> list[Namespace]:
        query, parameters = _under(_NAMESPACES, prefix), {"now": now, "prefix": digest(prefix)}
        return self._database.read(
            lambda connection: [tuple(decoded(path)) for path in connection.scalars(query, parameters)]
        )

    def extend(self, expiries: Mapping[ItemKey, datetime], *, now: datetime) -> None:
        changes = [
            {"path": digest(path), "of": digest(key), "until": until, "now": now}
            for (path, key), until in expiries.items()
        ]
        changes.sort(key=lambda change: (change["path"], change["of"]))

        def work(connection: Connection) -> None:
            for batch in batches(changes):
                connection.execute(_EXTEND, batch)

        if changes:
            self._database.write(work)

    def erase(self, prefix: Namespace) -> int:
        parameters = {"prefix": digest(prefix)}

        def work(connection: Connection) -> int:
            rows = connection.scalars(_under(select(namespace.c.id), prefix), parameters).all()
            return sum(_emptied(connection, batch, _ERASE, {}) for batch in batches(sorted(rows)))

        return self._database.write(work)

    def sweep(self, *, now: datetime) -> int:
        def work(connection: Connection) -> int:
            rows = connection.scalars(_EXPIRED, {"now": now}).all()
            return sum(_emptied(connection, batch, _SWEEP, {"now": now}) for batch in batches(sorted(rows)))

        return self._database.write(work)


def _under(query: Select[Any], path: Namespace) -> Select[Any]:
    return query.where(namespace.c.id.in_(_UNDER)) if path else query


def _columns(put: NewItem, now: datetime) -> dict[str, Any]:
    embedding = None if put.embedding is None else np.ascontiguousarray(put.embedding.vector, dtype="<f4")
    return {
        "value": encoded(put.value),
        "ttl_s": None if put.ttl is None else put.ttl.total_seconds(),
        "expires_at": None if put.ttl is None else now + put.ttl,
        "embedding": None if embedding is None else embedding.tobytes(),
        "embedding_rows": None if embedding is None else len(embedding),
        "embedding_model": None if put.embedding is None else put.embedding.model,
    }


def _items(rows: Iterable[Any]) -> list[Item]:
    path_of = cache(lambda text: tuple(decoded(text)))  # Many rows have few paths.
    return [
        Item(
            namespace=path_of(path),
            key=unescaped(key),
            value=decoded(value),
            created_at=created_at,
            updated_at=updated_at,
            ttl=None if ttl_s is None else timedelta(seconds=ttl_s),
            expires_at=expires_at,
            embedding=_embedding(data, count, model),
        )
        for path, key, value, created_at, updated_at, ttl_s, expires_at, data, count, model in rows
    ]


def _embedding(data: bytes | None, count: int | None, model: str | None) -> Embedding | None:
    # Vectors that another program cut off must not keep the document beside them from being read.
    if not data or not count or model is None or len(data) % (4 * count):
        return None
    rows: Vector = np.frombuffer(data, dtype="<f4").reshape(count, -1)
    return Embedding(model, rows)


def _namespaces(
    connection: Connection, needed: Iterable[Namespace], asked: Iterable[Namespace]
) -> dict[Namespace, int]:
    """Return the rows of namespaces, locked: those *needed* are made where they are missing, those *asked* are not."""
    make = {path: digest(path) for path in needed}
    every = make | {path: digest(path) for path in asked}
    found: dict[str, int] = {}
    for batch in batches(every.values()):
        found |= {row.path_hash: row.id for row in connection.execute(_ROWS, {"paths": batch})}
    for path, path_hash in make.items():
        if path_hash not in found:
            found[path_hash] = _insert_namespace(connection, path, path_hash)
    return {path: found[path_hash] for path, path_hash in every.items() if path_hash in found}


def _insert_namespace(connection: Connection, path: Namespace, path_hash: str) -> int:
    made = connection.execute(insert(namespace), {"path": encoded(path), "path_hash": path_hash})
    row: int = made.inserted_primary_key[0]  # type: ignore[index] # An INSERT of one row has one.
    prefixes = [digest(path[:length]) for length in range(1, len(path) + 1)]
    for batch in batches({"prefix_hash": prefix_hash, "namespace_id": row} for prefix_hash in prefixes):
        connection.execute(insert(prefix), batch)
    return row


def _stored(connection: Connection, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], int]:
    """Return the rows of those of *keys* that are there."""
    wanted = set(keys)
    rows: dict[tuple[int, str], int] = {}
    for batch in batches(keys):
        asked = {"rows": sorted({row for row, _ in batch}), "keys": sorted({key_hash for _, key_hash in batch})}
        rows |= {
            (row, key_hash): id_
            for row, key_hash, id_ in connection.execute(_STORED, asked)
            if (row, key_hash) in wanted
        }
    return rows


def _remove(connection: Connection, keys: Iterable[tuple[int, str]]) -> None:
    gone = sorted(keys)
    for batch in batches(gone):
        connection.execute(_DELETE, [{"at": row, "of": key_hash} for row, key_hash in batch])
    for emptied in batches(sorted({row for row, _ in gone})):
        _prune(connection, emptied)


def _emptied(connection: Connection, rows: Sequence[int], statement: Delete, parameters: Mapping[str, Any]) -> int:
    """Delete documents of these namespaces by *statement*; return how many."""
    connection.execute(_LOCK, {"rows": rows}).close()
    gone = connection.execute(statement, {**parameters, "rows": rows}).rowcount
    _prune(connection, rows)
    return gone


def _prune(connection: Connection, rows: Sequence[int]) -> None:
    """Remove those of these namespaces, which are locked, that are empty."""
    empty = connection.scalars(_EMPTY, {"rows": rows}).all()
    if empty:
        connection.execute(_PRUNE_PREFIXES, {"rows": empty})
        connection.execute(_PRUNE, {"rows": empty})
