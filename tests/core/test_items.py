"""The application's own documents: whose they are, how they are found, and how long they live."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memori import ClosedError, ConfigurationError, Memori, NotBuiltError
from memori.items import matches
from memori.types import Embedding, NewItem

ANN = ("memories", "ann@example.com")
BOB = ("memories", "bob@example.com")


@pytest.fixture
def mem(tmp_path: Path) -> Iterator[Memori]:
    with Memori(tmp_path / "memori.db", worker=False) as mem:
        mem.config.storage.build()
        yield mem


def keys(found: Any) -> list[str]:
    return [item.key for item in found]


def test_what_is_closest_comes_first(mem: Memori) -> None:
    """Fails when documents are not found by what they mean, or what has no text is lost to a search."""
    mem.items.put(ANN, "number", {"n": 1})
    mem.items.put(ANN, "drink", {"note": {"text": ["drinks green tea in the morning"]}})
    mem.items.put(ANN, "work", {"text": "works as a nurse at the hospital"})
    found = mem.items.search(ANN, query="Which hospital is her job at?")
    assert keys(found) == ["work", "drink", "number"]
    assert found[0].score is not None
    assert found[1].score is not None
    assert 1.0 > found[0].score > found[1].score
    assert found[2].score is None
    assert keys(mem.items.search(ANN, query="tea", limit=1)) == ["drink"]
    assert keys(mem.items.search(ANN, query="tea", filter={"n": 1})) == ["number"]


def test_an_item_is_as_close_as_the_closest_of_its_vectors(mem: Memori) -> None:
    """Fails when several vectors of one document are averaged, or bring it up twice."""

    def new(key: str, *rows: list[float], model: str = "m") -> NewItem:
        embedding = Embedding(model, np.array(rows, dtype=np.float32))
        return NewItem(namespace=ANN, key=key, value={}, embedding=embedding)

    mem.items.write([new("two", [-1, 0], [3, 4]), new("one", [1, 1]), new("zero", [0, 0])])
    mem.items.write([new("other", [1, 0], model="x"), new("longer", [1, 0, 0])])
    found = mem.items.search(ANN, query=Embedding("m", np.array([0, 2], dtype=np.float32)))
    assert [(item.key, item.score) for item in found] == [
        ("two", pytest.approx(0.8)),
        ("one", pytest.approx(0.5**0.5)),
        ("zero", 0.0),
        ("other", None),
        ("longer", None),
    ]


def test_nobody_gets_what_is_under_another_prefix(mem: Memori) -> None:
    """Fails when a search, a listing or an erasure reaches beyond the prefix it was given."""
    for namespace in (ANN, BOB, ("memories", "ann@example.com.evil"), ("memories", "ANN@example.com")):
        mem.items.put(namespace, "key", {"text": f"the secret of {namespace[1]}"})
    assert [item.namespace for item in mem.items.search(ANN, query="the secret of bob@example.com")] == [ANN]
    assert mem.items.namespaces(BOB) == [BOB]
    assert mem.items.erase(ANN) == 1
    assert len(mem.items.search(("memories",))) == 3


def test_forgetting_an_entity_leaves_documents_to_the_application(mem: Memori) -> None:
    """Fails when erasing what is remembered of an entity erases documents that may be somebody else's."""
    mem.remember("Likes tea.", entity_id="ann@example.com")
    mem.items.put(ANN, "key", {"text": "Likes tea."})
    mem.forget(everything=True, entity_id="ann@example.com")
    assert keys(mem.items.search(ANN)) == ["key"]


def test_everything_is_not_erased_by_an_empty_prefix(mem: Memori) -> None:
    """Fails when a namespace that was forgotten to be filled in erases everybody's documents."""
    mem.items.put(ANN, "key", {})
    with pytest.raises(ConfigurationError, match="every document"):
        mem.items.erase(())
    assert keys(mem.items.search()) == ["key"]


@pytest.mark.parametrize("namespace", ["ann", ("memories", ""), ("memories", None), (1,)])
def test_a_namespace_is_labels(mem: Memori, namespace: Any) -> None:
    """Fails when a user id that is missing or no tuple silently makes a namespace that all users share."""
    for call in (
        lambda: mem.items.put(namespace, "k", {}),
        lambda: mem.items.get(namespace, "k"),
        lambda: mem.items.delete(namespace, "k"),
        lambda: mem.items.search(namespace),
        lambda: mem.items.namespaces(namespace),
        lambda: mem.items.erase(namespace),
    ):
        with pytest.raises(ConfigurationError, match="tuple of strings"):
            call()


def test_a_document_lives_as_long_as_it_is_read(mem: Memori) -> None:
    """Fails when reading or finding does not prolong a life, prolongs it though told not to, or swept is not gone."""
    mem.items.put(ANN, "key", {}, ttl=timedelta(hours=1))
    (first, second) = (mem.items.get(ANN, "key", refresh=False), mem.items.get(ANN, "key"))
    assert first is not None
    assert second is not None
    assert first.expires_at is not None
    assert second.expires_at is not None
    assert second.expires_at > first.expires_at
    (third,) = mem.items.search(ANN, refresh=False)
    (fourth,) = mem.items.search(ANN)
    assert third.expires_at == second.expires_at
    assert fourth.expires_at is not None
    assert fourth.expires_at > second.expires_at
    assert mem.items.get(ANN, "key", refresh=False) == replace(fourth, score=None)
    mem.items.put(ANN, "gone", {}, ttl=timedelta(0))
    assert mem.items.get(ANN, "gone") is None
    assert (mem.items.sweep(), mem.items.sweep()) == (1, 0)


STORE = """
import sys
from memori import Memori
with Memori(sys.argv[1], worker=False, embedder=lambda texts: [[1.0] for _ in texts]) as mem:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(20):
        mem.items.put(("memories", "ann@example.com"), f"{sys.argv[2]}-{number}", {"text": sys.argv[2]})
        mem.items.put(("memories", "ann@example.com"), "shared", {"text": sys.argv[2]})
        mem.items.delete(("memories", sys.argv[2]), "none")
"""


def test_processes_store_beside_each_other(mem: Memori, tmp_path: Path) -> None:
    """Fails when documents that processes store at once in one new namespace are lost, or one of them raises."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", STORE, str(tmp_path / "memori.db"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two", "three")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [(writer.communicate()[0], writer.returncode) for writer in writers] == [("", 0)] * 3
    expected = {f"{name}-{number}" for name in ("one", "two", "three") for number in range(20)}
    assert set(keys(mem.items.search(ANN, limit=99))) == expected | {"shared"}
    assert mem.items.namespaces() == [ANN]


def test_the_callers_value_is_left_alone(mem: Memori) -> None:
    """Fails when what is stored or returned shares anything with the caller's own objects."""
    value = {"list": [1]}
    mem.items.put(ANN, "key", value)
    value["list"].append(2)
    found = mem.items.get(ANN, "key")
    assert found is not None
    assert found.value == {"list": [1]}


VALUE = {"n": 5, "s": "x", "none": None, "o": {"a": {"b": 1}, "c": [1, {"d": 2}]}, "number": "4.5", "t": True}
FILTERS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"n": 5}, True),
    ({"n": 6}, False),
    ({"n": 5, "s": "y"}, False),
    ({"missing": None}, True),
    ({"none": None}, True),
    ({"missing": {"$ne": 1}}, True),
    ({"missing": {"$gt": 1}}, False),
    ({"none": {"$lte": 1}}, False),
    ({"s": {"$lt": 1}}, False),
    ({"number": {"$gt": 4}}, True),
    ({"n": {"$gt": 5}}, False),
    ({"n": {"$gte": 5, "$lt": 6}}, True),
    ({"n": {"$eq": 5}}, True),
    ({"o": {"a": {"b": 1}}}, True),
    ({"o": {"a": {"b": {"$gt": 0}}}}, True),
    ({"o": {"a": {"b": 2}}}, False),
    ({"s": {"a": 1}}, False),
    ({"o": {"c": [1, {"d": 2}]}}, True),
    ({"o": {"c": [1]}}, False),
    ({"n": [5]}, False),
    ({"t": True}, True),
]


@pytest.mark.parametrize(("filter", "expected"), FILTERS, ids=str)
def test_filters(filter: dict[str, Any], expected: bool) -> None:
    """Fails when a filter lets through, or holds back, what it should not."""
    assert matches(VALUE, filter) is expected


@pytest.mark.parametrize("filter", [{"n": {"$in": [5]}}, {"n": {"$gt": "five"}}, {"n": {"$gt": None}}])
def test_filters_that_say_nothing_are_refused(filter: dict[str, Any]) -> None:
    """Fails when a mistaken filter is taken for one that nothing, or everything, passes."""
    with pytest.raises(ConfigurationError, match="filter"):
        matches(VALUE, filter)


def test_closed_and_unbuilt_are_told(tmp_path: Path) -> None:
    """Fails when a document is quietly not stored, or the message does not say what to do."""
    mem = Memori(tmp_path / "memori.db", worker=False)
    with pytest.raises(NotBuiltError, match="build"):
        mem.items.put(ANN, "key", {})
    mem.close()
    with pytest.raises(ClosedError):
        mem.items.get(ANN, "key")
