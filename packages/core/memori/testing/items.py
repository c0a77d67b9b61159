"""What every `memori.protocols.ItemStorage` must do. Subclass `ItemStorageSuite` and give it an ``items`` fixture."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from math import isnan
from typing import Any

import numpy as np
import pytest

from memori.errors import ConfigurationError
from memori.protocols import ItemStorage
from memori.types import Embedding, Namespace, NewItem

__all__ = ["NOW", "ItemStorageSuite", "new_item"]

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
ANN = ("memories", "ann@example.com")
BOB = ("memories", "bob@example.com")

# Labels and keys that one database or another would take for the same, cut, or read as part of its language.
NAMES = [
    "a", "A", "a ", " a", "á", "a\u0301", "\uff41", "ß", "ss", "SS", "\u0131", "i", "I", "İ",
    "%", "_", "a%", "a_", "\\", "\\%", "/", "a/b", "a.b", ".", "..", "*", "?", "[a]", "a\x1fb", "a,b", '["a"]', "'",
    '"', "ann@example.com", "Ann@example.com", "null", "None", "0", "00", "1e3", "$gt", "_id", "__proto__",
    "日本語", "Ünï", "🦊", "👩‍👩‍👧‍👦", "\U0001d4bd", "\u202eabc", "a\tb", "a\r\nb", "a\x00", "a\x00b", "\ud83e",
    "\udd8a", "'; DROP TABLE memori_item; --", "%s", ":x", "{}", "x" * 300, "x" * 299 + "y", "é" * 2000,
]  # fmt: skip
VALUES: list[dict[str, Any]] = [
    {},
    {"": ""},
    {"text": "likes tea", "n": 1, "f": 1.5, "t": True, "f2": False, "none": None},
    {"nested": {"a": [1, [2, {"b": None}], "x"]}, "list": [], "object": {}},
    {"big": 2**200, "small": -(2**70), "float": 1e308, "tiny": 5e-324, "third": 1 / 3, "zero": -0.0},
    {"$gt": 1, "a.b": 2, "_id": 3, "$set": {"$x": 1}, "a\x00b": 4},
    {"nul": "a\x00b", "half": "cut \ud83e", "pair": "🦊", "escape": "\\u0000 \\ \" ' \\ud83e"},
    {"scripts": "我最喜欢的颜色是蓝色 أعيش في القاهرة हिन्दी e\u0301 é"},
    {"z": 1, "a": 2, "m": 3},
    {"infinite": [float("inf"), float("-inf")]},
    {"deep": {"x": [[[[[[[[[[{"y": 1}]]]]]]]]]]}},
]


def new_item(key: str = "key", namespace: Namespace = ANN, value: dict[str, Any] | None = None, **more: Any) -> NewItem:
    """Return a document."""
    return NewItem(namespace=namespace, key=key, value={"text": key} if value is None else value, **more)


class ItemStorageSuite:
    """The contract of a storage of documents."""

    def test_what_is_stored_is_read(self, items: ItemStorage) -> None:
        """Fails when any part of a document is lost or changed on its way through the database."""
        rows = np.array([[0.5, -0.25, 0.0], [1.0, 2.0, 3.0]], dtype=np.float32)
        items.write([new_item(value={"text": "tea"}, ttl=HOUR, embedding=Embedding("model", rows))], now=NOW)
        (found,) = items.read([(ANN, "key")], now=NOW)
        assert found is not None
        assert (found.namespace, found.key, found.value) == (ANN, "key", {"text": "tea"})
        assert (found.created_at, found.updated_at, found.expires_at) == (NOW, NOW, NOW + HOUR)
        assert (found.ttl, found.score) == (HOUR, None)
        assert found.embedding is not None
        assert found.embedding.model == "model"
        assert found.embedding.vector.dtype == np.float32
        assert found.embedding.vector.tolist() == rows.tolist()

    def test_what_may_be_missing_is_none(self, items: ItemStorage) -> None:
        """Fails when a document without expiry or embedding comes back with one."""
        items.write([new_item()], now=NOW)
        (found,) = items.read([(ANN, "key")], now=NOW)
        assert found is not None
        assert (found.ttl, found.expires_at, found.embedding) == (None, None, None)

    def test_values_come_back_as_they_were(self, items: ItemStorage) -> None:
        """Fails when a JSON value is rounded, reordered, cut, refused, or read as part of a query."""
        items.write([new_item(str(number), value=value) for number, value in enumerate(VALUES)], now=NOW)
        found = [item.value for item in items.find(ANN, now=NOW)]
        assert found == VALUES
        assert [list(value) for value in found] == [list(value) for value in VALUES]
        items.write([new_item("nan", value={"x": float("nan")})], now=NOW)
        (odd,) = items.read([(ANN, "nan")], now=NOW)
        assert odd is not None
        assert isnan(odd.value["x"])

    def test_a_large_value_is_kept_whole(self, items: ItemStorage) -> None:
        """Fails when a document of a few megabytes is cut off or refused."""
        value = {"text": "é\x00'" * 700_000, "list": list(range(1000))}
        items.write([new_item(value=value)], now=NOW)
        (found,) = items.read([(ANN, "key")], now=NOW)
        assert found is not None
        assert found.value == value

    @pytest.mark.parametrize("value", [{"x": object()}, {"x": {1, 2}}, {("a", "b"): 1}, {"x": b"bytes"}])
    def test_what_json_cannot_say_is_refused(self, items: ItemStorage, value: dict[Any, Any]) -> None:
        """Fails when a value that cannot come back is stored as something else, or a part of its write remains."""
        items.write([new_item("before")], now=NOW)
        with pytest.raises(ConfigurationError, match="JSON"):
            items.write([new_item("first"), new_item("second", value=value)], [(ANN, "before")], now=NOW)
        assert [item.key for item in items.find((), now=NOW)] == ["before"]

    def test_every_name_is_a_name_of_its_own(self, items: ItemStorage) -> None:
        """Fails when two labels or keys that differ are taken for one another, or a long one is cut or refused."""
        every = [*((("n", name), "key") for name in NAMES), *((("k",), name) for name in NAMES)]
        items.write([new_item(key, path, {"is": [*path, key]}) for path, key in every], now=NOW)
        found = items.read(every, now=NOW)
        assert [None if item is None else (item.namespace, item.key) for item in found] == every
        assert [None if item is None else item.value for item in found] == [{"is": [*path, key]} for path, key in every]
        for name in NAMES:
            assert [item.namespace for item in items.find(("n", name), now=NOW)] == [("n", name)]
        assert [item.key for item in items.find(("k",), now=NOW)] == NAMES
        assert sorted(items.namespaces((), now=NOW)) == sorted([("k",), *(("n", name) for name in NAMES)])

    def test_an_empty_key_is_a_key(self, items: ItemStorage) -> None:
        """Fails when an empty key is refused or lost."""
        items.write([new_item("")], now=NOW)
        assert [item.key for item in items.find(ANN, now=NOW)] == [""]

    def test_prefixes_are_compared_label_by_label(self, items: ItemStorage) -> None:
        """Fails when a prefix matches within a label, or the longer of two paths lies under the shorter one only."""
        paths: list[Namespace] = [("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("a", "bc"), ("A", "b"), ("b", "a")]
        paths += [("a%", "b"), ("_", "b"), ("a/b",), ("a.b", "c"), tuple("deep" * 20)]
        items.write([new_item(namespace=path) for path in paths], now=NOW)
        for prefix in [(), *paths, ("d", "e"), ("%",), ("a", ""), ("c",), ("a", "b", "c", "d")]:
            expected = [path for path in paths if path[: len(prefix)] == prefix]
            assert [item.namespace for item in items.find(prefix, now=NOW)] == expected, prefix
            assert sorted(items.namespaces(prefix, now=NOW)) == sorted(expected), prefix

    def test_documents_come_in_a_lasting_order(self, items: ItemStorage) -> None:
        """Fails when the order is not by namespace, then by first storing, or storing again moves a document."""
        items.write([new_item("1", ANN), new_item("2", BOB)], now=NOW)
        items.write([new_item("4", BOB), new_item("0", ANN), new_item("3", ("memories",))], now=NOW - HOUR)
        items.write([new_item("2", BOB, {"text": "again"}), new_item("1", ANN)], now=NOW + HOUR)
        order = [item.key for item in items.find(("memories",), now=NOW)]
        assert order == ["1", "0", "2", "4", "3"]
        pages = [items.find(("memories",), now=NOW, limit=2, offset=offset) for offset in range(0, 6, 2)]
        assert [item.key for page in pages for item in page] == order
        assert items.find(("memories",), now=NOW, limit=0) == []
        assert items.find(("memories",), now=NOW, limit=5, offset=9) == []
        assert [item.key for item in items.find(("memories",), now=NOW, offset=3)] == order[3:]

    def test_storing_again_replaces(self, items: ItemStorage) -> None:
        """Fails when anything of the older document remains but the time when its key was first stored."""
        old = Embedding("old", np.ones((3, 2), dtype=np.float32))
        items.write([new_item(value={"a": 1}, ttl=MINUTE, embedding=old)], now=NOW)
        items.write([new_item(value={"b": 2})], now=NOW + timedelta(seconds=1))
        (found,) = items.find((), now=NOW + HOUR)
        assert (found.value, found.ttl, found.expires_at, found.embedding) == ({"b": 2}, None, None, None)
        assert (found.created_at, found.updated_at) == (NOW, NOW + timedelta(seconds=1))
        items.write([new_item(value={"b": 2})], now=NOW + timedelta(seconds=1))
        assert items.find((), now=NOW + HOUR) == [found]

    def test_deleting_deletes_that_one(self, items: ItemStorage) -> None:
        """Fails when another document goes too, a missing one is an error, or an empty namespace remains."""
        items.write([new_item("1"), new_item("2"), new_item("1", BOB)], now=NOW)
        items.write([], [(ANN, "1"), (ANN, "none"), (("none",), "1")], now=NOW)
        assert [(item.namespace, item.key) for item in items.find((), now=NOW)] == [(ANN, "2"), (BOB, "1")]
        items.write([], [(BOB, "1")], now=NOW)
        assert items.namespaces((), now=NOW) == [ANN]
        items.write([new_item("1", BOB)], [(ANN, "2")], now=NOW)
        assert items.namespaces((), now=NOW) == [BOB]

    def test_reading_keeps_the_order_asked_in(self, items: ItemStorage) -> None:
        """Fails when results are sorted, doubled or left out, or one is of another namespace."""
        items.write([new_item("1", ANN), new_item("2", BOB)], now=NOW)
        keys = [(BOB, "2"), (ANN, "2"), (ANN, "1"), (BOB, "1"), (BOB, "2"), (("x",), "1")]
        found = items.read(keys, now=NOW)
        assert [item and (item.namespace, item.key) for item in found] == [keys[0], None, keys[2], None, keys[0], None]
        assert items.read([], now=NOW) == []

    def test_a_thousand_at_once(self, items: ItemStorage) -> None:
        """Fails when there is a bound to how many documents one call stores, reads, deletes or finds."""
        keys = [(("many", str(number % 7)), str(number)) for number in range(1200)]
        items.write([new_item(key, path) for path, key in keys], now=NOW)
        items.write([new_item(key, path, {"n": 2}) for path, key in keys], now=NOW)
        found = items.read(keys, now=NOW)
        assert [item and item.key for item in found] == [key for _, key in keys]
        assert len(items.find(("many",), now=NOW)) == len(keys)
        items.extend(dict.fromkeys(keys, NOW), now=NOW)
        items.write([], keys[1:], now=NOW)
        assert [item.key for item in items.find((), now=NOW)] == ["0"]

    def test_what_has_expired_is_not_there(self, items: ItemStorage) -> None:
        """Fails when an expired document is read, found, listed, or prolonged, swept or not."""
        items.write([new_item("short", ttl=MINUTE), new_item("long", BOB, ttl=HOUR)], now=NOW)
        items.write([new_item("ever", ("e",))], now=NOW)
        just, late = NOW + MINUTE - timedelta(microseconds=1), NOW + MINUTE
        assert items.read([(ANN, "short")], now=just)[0] is not None
        items.extend({(ANN, "short"): late + HOUR}, now=late)
        assert items.read([(ANN, "short"), (BOB, "long")], now=late)[0] is None
        assert [item.key for item in items.find((), now=late)] == ["long", "ever"]
        assert [item.key for item in items.find((), now=late, limit=1)] == ["long"]
        assert sorted(items.namespaces((), now=late)) == [("e",), BOB]

    def test_an_expired_key_begins_anew(self, items: ItemStorage) -> None:
        """Fails when a key stored again after its time looks as if it had been there all along."""
        items.write([new_item(ttl=MINUTE)], now=NOW)
        items.write([new_item(value={"x": 1})], now=NOW + HOUR)
        (found,) = items.read([(ANN, "key")], now=NOW + HOUR)
        assert found is not None
        assert (found.created_at, found.value, found.expires_at) == (NOW + HOUR, {"x": 1}, None)

    def test_a_life_is_prolonged(self, items: ItemStorage) -> None:
        """Fails when a document read in time expires at its first term; or one that never does gets a term."""
        items.write([new_item("some", ttl=MINUTE), new_item("ever")], now=NOW)
        items.extend({(ANN, "some"): NOW + HOUR, (ANN, "ever"): NOW + HOUR, (ANN, "none"): NOW + HOUR}, now=NOW)
        some, ever = items.read([(ANN, "some"), (ANN, "ever")], now=NOW + HOUR - MINUTE)
        assert some is not None
        assert ever is not None
        assert (some.expires_at, some.ttl, some.updated_at) == (NOW + HOUR, MINUTE, NOW)
        assert ever.expires_at is None

    def test_sweeping_deletes_what_has_expired(self, items: ItemStorage) -> None:
        """Fails when an expired document stays, a living one goes, or the count is wrong."""
        items.write([new_item(str(number), ttl=MINUTE * number) for number in range(1, 5)], now=NOW)
        items.write([new_item("x", BOB, ttl=MINUTE), new_item("ever", BOB)], now=NOW)
        assert items.sweep(now=NOW) == 0
        assert items.sweep(now=NOW + 2 * MINUTE) == 3
        assert [item.key for item in items.find((), now=NOW)] == ["3", "4", "ever"]
        assert items.sweep(now=NOW + HOUR) == 2
        assert items.namespaces((), now=NOW) == [BOB]

    def test_erasing_is_of_everything_under_a_prefix_and_nothing_else(self, items: ItemStorage) -> None:
        """Fails when a person's documents stay, or another's go."""
        paths: list[Namespace] = [ANN, (*ANN, "notes"), BOB, ("memories",), ("memories", "ann@example.comx")]
        items.write([new_item(str(number), path, ttl=MINUTE) for path in paths for number in range(2)], now=NOW)
        assert items.erase(ANN) == 4
        assert items.erase(ANN) == 0
        assert sorted(items.namespaces((), now=NOW)) == [("memories",), ("memories", "ann@example.comx"), BOB]
        assert items.erase(()) == 6
        assert items.find((), now=NOW) == []

    def test_a_write_is_seen_whole_or_not_at_all(self, items: ItemStorage) -> None:
        """Fails when a reader sees some documents of a write and not the others."""
        items.write([new_item(str(number), value={"n": 0}) for number in range(4)], now=NOW)
        done = threading.Event()
        torn: list[list[Any]] = []

        def watch() -> None:
            while not done.is_set():
                seen = [item.value["n"] for item in items.find(ANN, now=NOW)]
                if len(seen) != 4 or len(set(seen)) != 1:
                    torn.append(seen)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for turn in range(1, 20):
                items.write([new_item(str(number), value={"n": turn}) for number in range(4)], now=NOW)
        finally:
            done.set()
            watcher.join()
        assert torn == []

    def test_threads_lose_nothing(self, items: ItemStorage) -> None:
        """Fails when documents stored at once in one new namespace are lost, doubled, or raise."""

        def store(number: int) -> None:
            items.write([new_item(str(number)), new_item("shared", value={"n": number})], now=NOW)

        _at_once(store, 12)
        found = items.find(ANN, now=NOW)
        assert sorted(item.key for item in found) == sorted([*(str(number) for number in range(12)), "shared"])
        assert items.namespaces((), now=NOW) == [ANN]

    def test_storing_while_the_last_one_is_deleted(self, items: ItemStorage) -> None:
        """Fails when a namespace that is removed for being empty takes along what another has just put there."""

        def store_and_delete(number: int) -> None:
            for turn in range(6):
                key = f"{number}-{turn}"
                items.write([new_item(key)], now=NOW)
                assert items.read([(ANN, key)], now=NOW)[0] is not None
                assert key in {item.key for item in items.find(ANN, now=NOW)}
                items.write([], [(ANN, key)], now=NOW)

        _at_once(store_and_delete, 4)
        assert items.namespaces((), now=NOW) == []


def _at_once(work: Callable[[int], None], count: int) -> None:
    barrier = threading.Barrier(count)

    def begin(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(begin, range(count)))
