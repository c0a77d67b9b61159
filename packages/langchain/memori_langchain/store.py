"""LangGraph's long-term memory store over the user's own database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeAlias

import numpy as np
from anyio import to_thread
from langgraph.store.base import (
    NOT_PROVIDED,
    BaseStore,
    GetOp,
    IndexConfig,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    NamespacePath,
    NotProvided,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
    get_text_at_path,
)

from memori import Memori
from memori.types import Embedding, Namespace, NewItem
from memori.types import Item as StoredItem
from memori_langchain.key_value import MemoriKeyValueStore

__all__ = ["MemoriStore"]

Index: TypeAlias = Literal[False] | list[str] | None


class MemoriStore(BaseStore):
    """A `BaseStore` in the tables of a `Memori`'s database: ``create_agent(…, store=MemoriStore(mem))``.

    Answers as `InMemoryStore` does. Labels of namespaces may have dots, as e-mail addresses do; a label is never cut
    at one. Reads in a batch see what was there before its puts, and of its puts all are kept or, on an error, none.

    Args:
        index: How documents are embedded: LangGraph's own configuration. None: all text in a document, by the
            `Memori`'s embedder. False: not at all, and a search's query is ignored.
        ttl: LangGraph's own configuration. What has expired never comes back, swept or not. With
            ``sweep_interval_minutes``, a put deletes it when the last sweep is longer ago.
    """

    supports_ttl = True

    def __init__(
        self,
        memori: Memori,
        *,
        index: IndexConfig | Literal[False] | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        self._memori = memori
        self.ttl_config = ttl
        self.index_config = index.copy() if index else None
        self.embeddings = ensure_embeddings(index.get("embed")) if index else None
        self._model = _name(index.get("embed")) if index else ""
        self._indexes = index is not False
        self._fields = (index.get("fields") or ["$"]) if index else None
        self._swept = time.monotonic()

    # What LangGraph and tools call. The base class's own would refuse labels with dots.

    def get(self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        """Return the item; None when there is none."""
        (found,) = self.batch([self._get(namespace, key, refresh_ttl)])
        return found  # type: ignore[return-value] # What a GetOp results in.

    async def aget(self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        """Run `get` without blocking the event loop."""
        (found,) = await self.abatch([self._get(namespace, key, refresh_ttl)])
        return found  # type: ignore[return-value] # What a GetOp results in.

    def search(
        self,
        namespace_prefix: Namespace,
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """Return the items under a prefix that match: the closest to *query* first."""
        op = SearchOp(namespace_prefix, filter, limit, offset, query, self._refresh(refresh_ttl))
        (found,) = self.batch([op])
        return found  # type: ignore[return-value] # What a SearchOp results in.

    async def asearch(
        self,
        namespace_prefix: Namespace,
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """Run `search` without blocking the event loop."""
        op = SearchOp(namespace_prefix, filter, limit, offset, query, self._refresh(refresh_ttl))
        (found,) = await self.abatch([op])
        return found  # type: ignore[return-value] # What a SearchOp results in.

    def put(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        index: Index = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
    ) -> None:
        """Store an item in place of what is under *key*; *ttl* is in minutes."""
        self.batch([self._put(namespace, key, value, index, ttl)])

    async def aput(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        index: Index = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
    ) -> None:
        """Run `put` without blocking the event loop."""
        await self.abatch([self._put(namespace, key, value, index, ttl)])

    def delete(self, namespace: Namespace, key: str) -> None:
        """Delete the item, if there is one."""
        self.batch([PutOp(namespace, str(key), None)])

    async def adelete(self, namespace: Namespace, key: str) -> None:
        """Run `delete` without blocking the event loop."""
        await self.abatch([PutOp(namespace, str(key), None)])

    def list_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """Return the namespaces that hold an item, sorted; ``*`` stands for any label."""
        (found,) = self.batch([_list(prefix, suffix, max_depth, limit, offset)])
        return found  # type: ignore[return-value] # What a ListNamespacesOp results in.

    async def alist_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """Run `list_namespaces` without blocking the event loop."""
        (found,) = await self.abatch([_list(prefix, suffix, max_depth, limit, offset)])
        return found  # type: ignore[return-value] # What a ListNamespacesOp results in.

    # Batches

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Return what each of *ops* results in, in their order.

        Raises:
            InvalidNamespaceError: A label is empty, no string, or has a NUL.
            StorageError: The database did not do it.
        """
        batch = _Batch(ops, self._texts)
        if self.embeddings is not None:
            if batch.texts:
                batch.embed_documents(self._model, self.embeddings.embed_documents(batch.texts))
            for query in batch.queries:
                batch.embed_query(self._model, query, self.embeddings.embed_query(query))
        return self._run(batch)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Run `batch` without blocking the event loop; embeddings that are asynchronous are awaited."""
        if self.embeddings is None:
            return await to_thread.run_sync(self.batch, list(ops))
        batch = _Batch(ops, self._texts)
        if batch.texts:
            batch.embed_documents(self._model, await self.embeddings.aembed_documents(batch.texts))
        vectors = await asyncio.gather(*(self.embeddings.aembed_query(query) for query in batch.queries))
        for query, vector in zip(batch.queries, vectors, strict=True):
            batch.embed_query(self._model, query, vector)
        return await to_thread.run_sync(self._run, batch)

    def sweep_ttl(self) -> int:
        """Delete what has expired, and return how many items that were."""
        self._swept = time.monotonic()
        return self._memori.items.sweep()

    def erase(self, prefix: Namespace) -> int:
        """Erase every item under *prefix* and return how many: what a person's erasure needs."""
        _check(prefix)
        return self._memori.items.erase(prefix)

    def key_value(self, namespace: Namespace) -> MemoriKeyValueStore:
        """Return the items of one namespace as a key-value store of langchain-core, e.g. for cached embeddings."""
        _check(namespace)
        return MemoriKeyValueStore(self._memori, namespace)

    # Inside

    def _run(self, batch: _Batch) -> list[Result]:
        items = self._memori.items
        results: list[Result] = [None] * len(batch.ops)
        gets = [(place, op) for place, op in enumerate(batch.ops) if isinstance(op, GetOp)]
        found = items.read([(op.namespace, op.key) for _, op in gets], refresh=[op.refresh_ttl for _, op in gets])
        for (place, _), item in zip(gets, found, strict=True):
            results[place] = None if item is None else _item(item)
        for place, op in enumerate(batch.ops):
            if isinstance(op, SearchOp):
                results[place] = [
                    _found(item)
                    for item in items.search(
                        op.namespace_prefix,
                        query=batch.asked.get(op.query, op.query) if op.query and self._indexes else None,
                        filter=op.filter,
                        limit=op.limit,
                        offset=op.offset,
                        refresh=op.refresh_ttl,
                    )
                ]
            elif isinstance(op, ListNamespacesOp):
                results[place] = _listed(items.namespaces(_literal(op)), op)
        if batch.puts:
            own = items.embed(batch.texts) if self.embeddings is None else None
            if own is not None:
                batch.embed_documents(own.model, own.vector)
            kept = [(key, op) for key, op in batch.puts.items() if op.value is not None]
            items.write(
                [
                    NewItem(
                        namespace=op.namespace,
                        key=op.key,
                        value=op.value or {},
                        ttl=None if op.ttl is None else timedelta(minutes=op.ttl),
                        embedding=batch.embedded.get(key),
                    )
                    for key, op in kept
                ],
                [key for key, op in batch.puts.items() if op.value is None],
            )
            interval = (self.ttl_config or {}).get("sweep_interval_minutes")
            if interval is not None and time.monotonic() - self._swept >= interval * 60:
                self.sweep_ttl()
        return results

    def _texts(self, op: PutOp) -> list[str]:
        if op.value is None or op.index is False or not self._indexes:
            return []
        paths = self._fields if op.index is None else op.index
        if paths is None:
            return self._memori.items.texts(op.value)
        return [text for path in paths for text in get_text_at_path(op.value, path)]

    def _refresh(self, asked: bool | None) -> bool:
        return (self.ttl_config or {}).get("refresh_on_read", True) if asked is None else asked

    def _get(self, namespace: Namespace, key: str, refresh_ttl: bool | None) -> GetOp:
        return GetOp(namespace, str(key), self._refresh(refresh_ttl))

    def _put(
        self, namespace: Namespace, key: str, value: Mapping[str, Any], index: Index, ttl: float | NotProvided | None
    ) -> PutOp:
        if not namespace:
            raise InvalidNamespaceError("a namespace needs a label")
        if namespace[0] == "langgraph":
            raise InvalidNamespaceError(f'namespace {namespace!r}: LangGraph keeps "langgraph" to itself')
        minutes = (self.ttl_config or {}).get("default_ttl") if isinstance(ttl, NotProvided) else ttl
        return PutOp(namespace, str(key), value, index, minutes)


class _Batch:
    """Operations, sorted by what is to be done for them.

    Args:
        texts_of: What the document of a put is found by.
    """

    def __init__(self, ops: Iterable[Op], texts_of: Callable[[PutOp], list[str]]) -> None:
        self.ops = list(ops)
        # Of one key the last put counts, at the place of the first.
        self.puts: dict[tuple[Namespace, str], PutOp] = {}
        queries: dict[str, None] = {}
        for op in self.ops:
            if isinstance(op, PutOp):
                _check(op.namespace)
                self.puts[op.namespace, op.key] = op
            elif isinstance(op, GetOp):
                _check(op.namespace)
            elif isinstance(op, SearchOp):
                _check(op.namespace_prefix)
                if op.query:
                    queries[op.query] = None
            elif isinstance(op, ListNamespacesOp):
                for condition in op.match_conditions or ():
                    _check(condition.path)
            else:
                raise ValueError(f"unknown operation {op!r}: there are GetOp, SearchOp, PutOp and ListNamespacesOp")
        self.queries = list(queries)
        self._texts = {key: texts_of(op) for key, op in self.puts.items()}
        self.texts = list(dict.fromkeys(text for texts in self._texts.values() for text in texts))
        self.embedded: dict[tuple[Namespace, str], Embedding] = {}
        self.asked: dict[str, Embedding] = {}

    def embed_documents(self, model: str, vectors: Any) -> None:
        """Take in the vectors of `texts`."""
        of_text = dict(zip(self.texts, np.asarray(vectors, dtype=np.float32), strict=True))
        self.embedded = {
            key: Embedding(model, np.stack([of_text[text] for text in texts]))
            for key, texts in self._texts.items()
            if texts
        }

    def embed_query(self, model: str, query: str, vector: Sequence[float]) -> None:
        """Take in the vector of one of `queries`."""
        self.asked[query] = Embedding(model, np.asarray(vector, dtype=np.float32))


def _check(labels: NamespacePath) -> None:
    for label in labels:
        if not isinstance(label, str) or not label or "\x00" in label:
            raise InvalidNamespaceError(
                f"label {label!r} in {labels!r}: labels are strings, not empty and without NUL characters"
            )


def _list(
    prefix: NamespacePath | None, suffix: NamespacePath | None, max_depth: int | None, limit: int, offset: int
) -> ListNamespacesOp:
    conditions = []
    if prefix:
        conditions.append(MatchCondition("prefix", prefix))
    if suffix:
        conditions.append(MatchCondition("suffix", suffix))
    return ListNamespacesOp(tuple(conditions), max_depth, limit, offset)


def _literal(op: ListNamespacesOp) -> Namespace:
    """Return the longest prefix without wildcards that all namespaces asked for have."""
    literal: Namespace = ()
    for condition in op.match_conditions or ():
        if condition.match_type == "prefix":
            path = condition.path[: condition.path.index("*")] if "*" in condition.path else condition.path
            literal = max(literal, path, key=len)
    return literal


def _listed(namespaces: Iterable[Namespace], op: ListNamespacesOp) -> list[Namespace]:
    matching = [path for path in namespaces if all(_matches(path, one) for one in op.match_conditions or ())]
    cut = sorted({path[: op.max_depth] for path in matching})
    return cut[op.offset : op.offset + op.limit]


def _matches(namespace: Namespace, condition: MatchCondition) -> bool:
    path = condition.path
    if condition.match_type not in ("prefix", "suffix"):
        raise ValueError(f"match_type {condition.match_type!r}: there are prefix and suffix")
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(asked in ("*", label) for asked, label in zip(path, part, strict=True))


def _item(item: StoredItem) -> Item:
    return Item(
        value=dict(item.value),
        key=item.key,
        namespace=item.namespace,
        created_at=item.created_at,
        updated_at=item.updated_at,
    )


def _found(item: StoredItem) -> SearchItem:
    return SearchItem(item.namespace, item.key, dict(item.value), item.created_at, item.updated_at, item.score)


def _name(embed: Any) -> str:
    """Return the name under which vectors of *embed* are stored: those of another are never compared with them."""
    if isinstance(embed, str):
        return embed
    owner = embed if hasattr(embed, "__qualname__") else type(embed)
    models = (getattr(embed, name, None) for name in ("model", "model_name", "model_id"))
    return ":".join([f"{owner.__module__}.{owner.__qualname__}", *(name for name in models if isinstance(name, str))])
