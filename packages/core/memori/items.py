"""The application's own documents, beside what memori remembers by itself: kept under namespaces, found by meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from memori.errors import ConfigurationError
from memori.types import Embedding, Item, ItemKey, Namespace, NewItem

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from memori.protocols import Embedder, ItemStorage

__all__ = ["Items", "matches"]

ALL: Namespace = ()


class Items:
    """``mem.items``: documents under a namespace and a key. Safe to use from any thread.

    Namespaces are the application's: memori does not know whose a document is. An application that keeps documents of
    several users puts the user's id into the namespace, and takes it from where it takes ``entity_id``.
    """

    def __init__(self, storage: ItemStorage, embedder: Embedder) -> None:
        self._storage = storage
        self._embedder = embedder

    def get(self, namespace: Namespace, key: str, *, refresh: bool = True) -> Item | None:
        """Return the document; None when there is none.

        Args:
            refresh: Whether one that expires lives on as long as if it were stored now.
        """
        return self.read([(namespace, key)], refresh=[refresh])[0]

    def put(self, namespace: Namespace, key: str, value: Mapping[str, Any], *, ttl: timedelta | None = None) -> None:
        """Store a document, to be found by all the text in it.

        Args:
            value: A JSON object; a copy is kept.
            ttl: How long after it was last stored or read it ceases to be.

        Raises:
            ConfigurationError: *value* is no JSON object, or *namespace* cannot be one.
            StorageError: The database did not take it.
        """
        item = NewItem(namespace=namespace, key=key, value=value, ttl=ttl, embedding=self.embed(texts(value)))
        self.write([item])

    def delete(self, namespace: Namespace, key: str) -> None:
        """Remove the document, if there is one."""
        self.write([], [(namespace, key)])

    def read(self, keys: Sequence[ItemKey], *, refresh: Sequence[bool]) -> list[Item | None]:
        """Return the documents of *keys*, in their order, None for each that is not there; see `get`."""
        for namespace, _ in keys:
            _check(namespace)
        now = datetime.now(UTC)
        found = self._storage.read(keys, now=now)
        read = [item for item, wanted in zip(found, refresh, strict=True) if wanted and item is not None]
        prolonged = {(item.namespace, item.key): item for item in self._prolonged(read, now)}
        return [item and prolonged.get((item.namespace, item.key), item) for item in found]

    def write(self, puts: Sequence[NewItem], deletes: Sequence[ItemKey] = ()) -> None:
        """Store and remove documents: all or, on an error, none.

        Raises:
            ConfigurationError: A value is no JSON object, or a namespace cannot be one.
            StorageError: The database did not take them.
        """
        for namespace in (*(put.namespace for put in puts), *(namespace for namespace, _ in deletes)):
            _check(namespace)
        self._storage.write(puts, deletes, now=datetime.now(UTC))

    def search(
        self,
        prefix: Namespace = ALL,
        *,
        query: str | Embedding | None = None,
        filter: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh: bool = True,
    ) -> list[Item]:
        """Return documents under *prefix*: the closest to *query* first, or without one in the order they are kept in.

        Documents that have no embedding of the query's model come after those that have, while *limit* has room.

        Args:
            prefix: What their namespaces begin with, label by label. ``()``: everything in the database.
            query: A text, or its embedding: one vector.
            filter: What their values have; see `matches`.
            refresh: Whether those found that expire live on as long as if they were stored now.
        """
        _check(prefix)
        now = datetime.now(UTC)
        wanted = self.embed([query], purpose="query") if isinstance(query, str) and query else query or None
        if wanted is None and not filter and limit >= 0 and offset >= 0:
            found = self._storage.find(prefix, now=now, limit=limit, offset=offset)
        else:
            every = [item for item in self._storage.find(prefix, now=now) if not filter or matches(item.value, filter)]
            if isinstance(wanted, Embedding):
                found = _closest(wanted, every, limit=limit, offset=offset)
            else:
                found = every[offset : offset + limit]
        return self._prolonged(found, now) if refresh else found

    def namespaces(self, prefix: Namespace = ALL) -> list[Namespace]:
        """Return the namespaces under *prefix* that hold a document, sorted."""
        _check(prefix)
        return sorted(self._storage.namespaces(prefix, now=datetime.now(UTC)))

    def erase(self, prefix: Namespace) -> int:
        """Erase all documents under *prefix* and return how many; what a person's erasure needs beside `forget`.

        Raises:
            ConfigurationError: *prefix* has no label.
        """
        if not prefix:
            raise ConfigurationError("erase(()) would erase every document: name a namespace")
        _check(prefix)
        return self._storage.erase(prefix)

    def sweep(self) -> int:
        """Delete what has expired, which nobody sees any more, and return how many documents that were."""
        return self._storage.sweep(now=datetime.now(UTC))

    def embed(self, texts: Sequence[str], *, purpose: Literal["query", "document"] = "document") -> Embedding | None:
        """Return what a document with these texts is found by; None without any text."""
        if not any(text.strip() for text in texts):
            return None
        return Embedding(self._embedder.model, self._embedder.embed(texts, purpose=purpose))

    def texts(self, value: Mapping[str, Any]) -> list[str]:
        """Return what a document is found by when nothing else is said: all the text in it, as one."""
        return texts(value)

    def _prolonged(self, items: list[Item], now: datetime) -> list[Item]:
        expiries = {(item.namespace, item.key): now + item.ttl for item in items if item.ttl is not None}
        if not expiries:
            return items
        self._storage.extend(expiries, now=now)
        return [replace(item, expires_at=expiries.get((item.namespace, item.key))) for item in items]


def texts(value: object) -> list[str]:
    """Return all the strings in a JSON value, a line each, as one text; empty without any."""
    whole = "\n".join(_strings(value))
    return [whole] if whole.strip() else []


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)


def matches(value: Mapping[str, Any], filter: Mapping[str, Any]) -> bool:
    """Return whether *value* has, under each key of *filter*, what is asked for there.

    A plain value asks for the same; an object asks for its keys and what is under them; a list for a list with these
    parts; ``{"$gt": 3}`` for a number that is greater, and so on with ``$gte``, ``$lt``, ``$lte``, ``$eq`` and
    ``$ne``. What is missing is None: equal to None, and neither greater nor less than anything.

    Raises:
        ConfigurationError: *filter* has an operator that is none of these, or compares with what is no number.
    """
    return all(_matches(value.get(key), wanted) for key, wanted in filter.items())


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if any(isinstance(key, str) and key.startswith("$") for key in wanted):
            return all(_holds(value, operator, operand) for operator, operand in wanted.items())
        return isinstance(value, Mapping) and all(_matches(value.get(key), part) for key, part in wanted.items())
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(_matches(part, asked) for part, asked in zip(value, wanted, strict=True))
        )
    return bool(value == wanted)


def _holds(value: Any, operator: str, operand: Any) -> bool:
    if operator == "$eq":
        return bool(value == operand)
    if operator == "$ne":
        return bool(value != operand)
    if operator not in ("$gt", "$gte", "$lt", "$lte"):
        raise ConfigurationError(f"filter operator {operator!r}: there are $eq, $ne, $gt, $gte, $lt and $lte")
    try:
        bound = float(operand)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"filter {{{operator!r}: {operand!r}}}: compare with a number") from error
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    if operator == "$gt":
        return number > bound
    if operator == "$gte":
        return number >= bound
    return number < bound if operator == "$lt" else number <= bound


def _closest(query: Embedding, items: Sequence[Item], *, limit: int, offset: int) -> list[Item]:
    """Return what page *offset* of the answer holds: each item once, by the closest of its vectors."""
    import numpy as np

    wanted = np.asarray(query.vector, dtype=np.float64).reshape(-1)
    owners: list[Item] = []
    rows: list[npt.NDArray[np.float32]] = []
    unscored: list[Item] = []
    for item in items:
        embedding = item.embedding
        if embedding is None or embedding.model != query.model or embedding.vector.shape[-1] != len(wanted):
            unscored.append(item)
            continue
        rows.append(embedding.vector)
        owners += [item] * len(embedding.vector)
    scores = _cosines(wanted, np.concatenate(rows).astype(np.float64)) if rows else []
    best: dict[int, tuple[float, Item]] = {}
    for score, item in sorted(zip(scores, owners, strict=True), key=lambda pair: pair[0], reverse=True):
        best.setdefault(id(item), (score, item))
    page = [replace(item, score=score) for score, item in list(best.values())[offset : offset + limit]]
    return page + unscored[: max(limit - len(page), 0)]


def _cosines(wanted: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> list[float]:
    import numpy as np

    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted)
    products = rows @ wanted
    cosines: list[float] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0).tolist()
    return cosines


def _check(namespace: Namespace) -> None:
    if isinstance(namespace, str) or not all(isinstance(label, str) and label for label in namespace):
        raise ConfigurationError(f"namespace {namespace!r}: pass a tuple of strings, none of them empty")
