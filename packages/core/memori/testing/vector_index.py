"""What every `memori.protocols.VectorIndex` must do. Subclass `VectorIndexSuite` and give it an ``index`` fixture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from memori.errors import DimensionError
from memori.protocols import VectorIndex

if TYPE_CHECKING:
    from memori.types import Vector

__all__ = ["VectorIndexSuite"]

DIMENSIONS = 8


def units(count: int, *, seed: int = 0, dimensions: int = DIMENSIONS) -> Vector:
    """Return *count* unit vectors, always the same for a *seed*."""
    vectors = np.random.default_rng(seed).normal(size=(count, dimensions))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def axis(number: int) -> Vector:
    """Return the unit vector along that axis."""
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    vector[number] = 1.0
    return vector


class VectorIndexSuite:
    """The contract of a vector index."""

    def test_the_closest_come_first_with_their_cosines(self, index: VectorIndex) -> None:
        """Fails when neighbours are missed, out of order, or scored by something other than the cosine."""
        vectors = units(300)
        index.upsert("ann", [f"m{row}" for row in range(300)], vectors)
        query = units(1, seed=1)[0]
        cosines = vectors @ query
        best = np.argsort(-cosines)[:10]
        found = index.search("ann", query, limit=10)
        assert [name for name, _ in found] == [f"m{row}" for row in best]
        assert np.allclose([cosine for _, cosine in found], cosines[best], atol=1e-4)

    def test_entities_do_not_see_each_other(self, index: VectorIndex) -> None:
        """Fails when a search, an upsert or a delete reaches another entity's vectors with the same ids."""
        index.upsert("ann", ["1"], axis(0)[None])
        index.upsert("bob", ["1"], axis(1)[None])
        assert dict(index.search("ann", axis(0), limit=5)) == pytest.approx({"1": 1.0}, abs=1e-4)
        assert dict(index.search("bob", axis(0), limit=5)) == pytest.approx({"1": 0.0}, abs=1e-4)
        index.delete("ann", ["1"])
        assert index.search("ann", axis(0), limit=5) == []
        assert [name for name, _ in index.search("bob", axis(0), limit=5)] == ["1"]

    def test_an_upsert_replaces(self, index: VectorIndex) -> None:
        """Fails when an id that is given again stands twice, or keeps its old vector."""
        index.upsert("ann", ["a", "b"], np.stack([axis(0), axis(1)]))
        index.upsert("ann", ["a", "c", "c"], np.stack([axis(2), axis(3), axis(0)]))
        found = index.search("ann", axis(0), limit=5)
        assert [name for name, _ in found] == ["c", "a", "b"]
        assert dict(index.search("ann", axis(2), limit=1)) == pytest.approx({"a": 1.0}, abs=1e-4)

    def test_ties_come_by_id(self, index: VectorIndex) -> None:
        """Fails when equal vectors come in a different order from run to run, also where the limit cuts them."""
        index.upsert("ann", ["d", "b", "c", "a"], np.stack([axis(0)] * 4))
        assert [name for name, _ in index.search("ann", axis(0), limit=4)] == ["a", "b", "c", "d"]
        assert [name for name, _ in index.search("ann", axis(0), limit=2)] == ["a", "b"]

    def test_deleted_is_gone(self, index: VectorIndex) -> None:
        """Fails when a deleted vector is still found, or takes another one with it."""
        names = [f"m{row}" for row in range(20)]
        vectors = units(20)
        index.upsert("ann", names, vectors)
        index.delete("ann", ["m0", "m7", "m19", "unknown"])
        left = [name for name in names if name not in ("m0", "m7", "m19")]
        found = dict(index.search("ann", vectors[3], limit=50))
        assert sorted(found) == sorted(left)
        for row in (1, 3, 18):
            assert index.search("ann", vectors[row], limit=1)[0][0] == f"m{row}"
        index.delete("ann")
        index.delete("nobody")
        assert index.search("ann", vectors[3], limit=5) == []

    def test_an_unknown_entity_is_empty(self, index: VectorIndex) -> None:
        """Fails when asking for an entity that has no vectors raises."""
        assert index.search("nobody", axis(0), limit=5) == []

    def test_the_limit_holds(self, index: VectorIndex) -> None:
        """Fails when more than *limit* come back, or a limit beyond what there is raises."""
        index.upsert("ann", ["a", "b"], units(2))
        assert len(index.search("ann", axis(0), limit=1)) == 1
        assert len(index.search("ann", axis(0), limit=100)) == 2

    def test_a_zero_vector_is_no_trouble(self, index: VectorIndex) -> None:
        """Fails when a text without a direction breaks the search of the others."""
        index.upsert("ann", ["blank", "a"], np.stack([np.zeros(DIMENSIONS, dtype=np.float32), axis(0)]))
        assert index.search("ann", axis(0), limit=1)[0][0] == "a"

    def test_another_length_is_refused(self, index: VectorIndex) -> None:
        """Fails when vectors that cannot be compared are taken in, or refused in a way callers do not know."""
        index.upsert("ann", ["a"], axis(0)[None])
        with pytest.raises(DimensionError):
            index.upsert("ann", ["b"], units(1, dimensions=DIMENSIONS + 1))
        with pytest.raises(DimensionError):
            index.upsert("ann", ["b", "c"], axis(1)[None])
        with pytest.raises(DimensionError):
            index.search("ann", units(1, dimensions=DIMENSIONS + 1)[0], limit=1)
        assert [name for name, _ in index.search("ann", axis(0), limit=5)] == ["a"]

    def test_threads_do_not_disturb_each_other(self, index: VectorIndex) -> None:
        """Fails when concurrent upserts are lost or a search meets a half-written row."""
        vectors = units(200)

        def work(row: int) -> float:
            index.upsert("ann", [f"m{row}"], vectors[row : row + 1])
            return dict(index.search("ann", vectors[row], limit=1))[f"m{row}"]

        with ThreadPoolExecutor(8) as pool:
            assert np.allclose(list(pool.map(work, range(200))), 1.0, atol=1e-4)
        assert len(index.search("ann", axis(0), limit=500)) == 200
