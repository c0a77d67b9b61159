"""Nearest vectors by comparing with every one: exact, in memory, and up to 100,000 vectors the fastest way there is."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from memori.errors import DimensionError
from memori.index.columns import Column, products

if TYPE_CHECKING:
    from memori.types import Vector

__all__ = ["ExactIndex"]


class ExactIndex:
    """A `memori.protocols.VectorIndex` in memory. Searches of one entity wait for each other, and for no one else's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entities: dict[str, _Vectors] = {}

    def upsert(self, entity_id: str, ids: Sequence[str], vectors: Vector) -> None:
        rows = np.asarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or len(rows) != len(ids):
            raise DimensionError(f"got {len(ids)} ids and vectors of shape {rows.shape}: pass one row an id")
        if not len(ids):
            return
        with self._lock:
            held = self._entities.setdefault(entity_id, _Vectors(rows.shape[1]))
        held.upsert(ids, rows)

    def delete(self, entity_id: str, ids: Sequence[str] | None = None) -> None:
        with self._lock:
            held = self._entities.pop(entity_id, None) if ids is None else self._entities.get(entity_id)
        if held is not None and ids is not None:
            held.delete(ids)

    def search(self, entity_id: str, vector: Vector, *, limit: int) -> list[tuple[str, float]]:
        with self._lock:
            held = self._entities.get(entity_id)
        return [] if held is None or limit <= 0 else held.search(np.asarray(vector, dtype=np.float32), limit)


class _Vectors:
    """One entity's vectors. Rows are dense: the last one fills the gap that a deleted one leaves."""

    def __init__(self, width: int) -> None:
        self._lock = threading.Lock()
        self._width = width
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._matrix = Column(np.float32, width=width)

    def upsert(self, ids: Sequence[str], vectors: Vector) -> None:
        self._check(vectors.shape[1])
        with self._lock:
            # Of an id that is given twice, the later vector counts.
            latest = dict(zip(ids, vectors, strict=True))
            fresh = [name for name in latest if name not in self._rows]
            for name in latest.keys() & self._rows.keys():
                self._matrix.values[self._rows[name]] = latest[name]
            if fresh:
                self._matrix.extend(np.stack([latest[name] for name in fresh]))
                self._rows.update({name: row for row, name in enumerate(fresh, start=len(self._ids))})
                self._ids += fresh

    def delete(self, ids: Sequence[str]) -> None:
        with self._lock:
            for name in ids:
                row = self._rows.pop(name, None)
                if row is None:
                    continue
                last = self._ids.pop()
                if last != name:
                    self._ids[row] = last
                    self._rows[last] = row
                    self._matrix.values[row] = self._matrix.values[-1]
                self._matrix.truncate(len(self._ids))

    def search(self, vector: Vector, limit: int) -> list[tuple[str, float]]:
        self._check(vector.size)
        with self._lock:
            cosines = np.clip(products(self._matrix.values, vector), -1.0, 1.0)
            if len(cosines) > limit:
                least = np.partition(cosines, len(cosines) - limit)[len(cosines) - limit]
                rows = np.flatnonzero(cosines >= least)
            else:
                rows = np.arange(len(cosines))
            found = [(self._ids[row], float(cosines[row])) for row in rows.tolist()]
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:limit]

    def _check(self, width: int) -> None:
        if width != self._width:
            raise DimensionError(f"got vectors of {width} numbers, and this entity's have {self._width}")
