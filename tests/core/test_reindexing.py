"""Embeddings made anew after the embedder was changed, or had failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from memori import Memori
from memori.errors import EmbeddingError, NotBuiltError
from memori.types import Fact, StoredMessage


def letters(texts: Sequence[str]) -> list[list[float]]:
    return [[1.0 + text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


def broken(texts: Sequence[str]) -> list[list[float]]:
    raise ConnectionError("no embeddings today")


def memory(path: Path, embedder: Callable[[Sequence[str]], Any] | None = None) -> Memori:
    return Memori(conn=str(path), embedder=embedder, worker=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database in which two entities have a message and two facts each, embedded by the default."""
    path = tmp_path / "memori.db"
    with memory(path) as mem:
        mem.config.storage.build()
        for name in ("ann", "bob"):
            mem.capture([{"role": "user", "content": "I live in Rome."}], entity_id=name)
            mem.remember("Likes sailing boats.", entity_id=name)
        mem.augmentation.run()
    return path


def models(path: Path, entity: str) -> list[str | None]:
    with memory(path) as mem:
        items: list[StoredMessage | Fact] = [*mem.messages(entity_id=entity), *mem.facts(entity_id=entity)]
        return [None if item.embedding is None else item.embedding.model for item in items]


def test_a_new_embedder_finds_by_meaning_what_an_old_one_embedded(path: Path) -> None:
    """Fails when recall is left to words alone after the embedder was changed and everything embedded anew."""
    with memory(path, letters) as mem:
        before = mem.recall("sailing boats", entity_id="ann")[0]
        assert (before.content, before.similarity) == ("Likes sailing boats.", 0.0)
        assert mem.augmentation.reindex() == 6
        after = mem.recall("sailing boats", entity_id="ann")[0]
        assert after.content == "Likes sailing boats."
        assert after.similarity > 0.5
    assert len(set(models(path, "ann") + models(path, "bob"))) == 1


def test_what_is_done_is_not_done_again(path: Path) -> None:
    """Fails when texts are embedded that have the embedder's vectors already: that costs money elsewhere."""
    with memory(path, letters) as mem:
        assert mem.augmentation.reindex("ann") == 3
        assert mem.augmentation.reindex() == 3
        assert mem.augmentation.reindex() == 0
        assert mem.augmentation.reindex("nobody") == 0
    with memory(path) as mem:
        assert mem.augmentation.reindex() == 6


def test_one_entity_is_reindexed_by_itself(path: Path) -> None:
    """Fails when the others are touched too."""
    others = models(path, "bob")
    with memory(path, letters) as mem:
        mem.augmentation.reindex("ann")
    assert models(path, "bob") == others
    assert not set(models(path, "ann")) & set(others)


def test_what_was_stored_while_the_embedder_failed_is_made_good(tmp_path: Path) -> None:
    """Fails when an embedder's outage leaves a memory without embeddings for good."""
    path = tmp_path / "memori.db"
    with memory(path, broken) as mem:
        mem.config.storage.build()
        mem.capture([{"role": "user", "content": "I live in Rome."}], entity_id="ann")
        mem.augmentation.run()
    assert models(path, "ann") == [None, None]
    with memory(path, letters) as mem:
        assert mem.augmentation.reindex() == 2
    assert None not in models(path, "ann")


def test_an_embedder_that_fails_half_way_loses_nothing(path: Path) -> None:
    """Fails when a failure is hidden, or undoes what was embedded before."""
    left = [1]

    def tiring(texts: Sequence[str]) -> list[list[float]]:
        if len(texts) > 1:  # Not the one that warms the embedder up.
            if not left:
                raise ConnectionError("no more embeddings today")
            left.pop()
        return letters(texts)

    before = models(path, "ann")
    with memory(path, tiring) as mem, pytest.raises(EmbeddingError, match="no more embeddings"):
        mem.augmentation.reindex()
    assert not set(models(path, "ann")) & set(before)
    assert models(path, "bob") == before
    left.append(1)
    with memory(path, tiring) as mem:
        assert mem.augmentation.reindex() == 3


def test_much_is_embedded_in_parts(tmp_path: Path) -> None:
    """Fails when an entity's whole memory is handed to the embedder at once, or a part of it is left out."""
    sizes = []

    def counting(texts: Sequence[str]) -> list[list[float]]:
        sizes.append(len(texts))
        return letters(texts)

    path = tmp_path / "memori.db"
    with memory(path) as mem:
        mem.config.storage.build()
        mem.capture([{"role": "user", "content": f"Drawer {at} holds screws."} for at in range(600)], entity_id="ann")
    with memory(path, counting) as mem:
        assert mem.augmentation.reindex() == 600
    assert max(sizes) <= 256


def test_tables_that_are_not_there_are_named(tmp_path: Path) -> None:
    """Fails when an unbuilt database passes for one with nothing to do."""
    with memory(tmp_path / "none.db") as mem, pytest.raises(NotBuiltError):
        mem.augmentation.reindex()
