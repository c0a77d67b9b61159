"""LangGraph's store over a database: it answers as `InMemoryStore` does, and keeps what that one cannot."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph.store.memory", exc_type=ImportError)

from blockbuster import blockbuster_ctx
from databases import Engine, each, mongodb, needs_mongodb
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from memori import ClosedError, Memori, MissingExtraError, StorageError
from memori_langchain import MemoriStore

OURS = ["memori", "memori_langchain"]
ANN = ("memories", "ann@example.com")
BOB = ("memories", "bob@example.com")


def letters(texts: Sequence[str]) -> list[list[float]]:
    """Return how often a text has some letters: vectors that float32 holds exactly, so that scores can be the same."""
    return [[*(float(text.lower().count(letter)) for letter in "abcde"), 1.0] for text in texts]


async def aletters(texts: Sequence[str]) -> list[list[float]]:
    await asyncio.sleep(0)
    return letters(texts)


def index(*fields: str) -> IndexConfig:
    return IndexConfig(dims=6, embed=letters, fields=list(fields) or None)


@pytest.fixture(
    scope="module", params=[*each("sqlite", "postgres"), pytest.param(None, id="mongodb", marks=needs_mongodb)]
)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memori]:
    engine: Engine | None = request.param
    place: Any = mongodb() if engine is None else engine.empty(tmp_path_factory.mktemp("store"))
    with place as conn, Memori(conn, worker=False) as mem:
        mem.config.storage.build()
        yield mem.ready()


@pytest.fixture
def mem(shared: Memori) -> Iterator[Memori]:
    """An empty database of any kind."""
    yield shared
    empty(shared)


def empty(mem: Memori) -> None:
    mem.items.sweep()
    for root in {namespace[:1] for namespace in mem.items.namespaces()}:
        mem.items.erase(root)


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Memori]:
    """An empty SQLite file: for what has nothing to do with the kind of database."""
    with Memori(tmp_path / "memori.db", worker=False) as mem:
        mem.config.storage.build()
        yield mem


def plain(result: Any) -> Any:
    """Return a result without its times, which are the clock's."""
    if isinstance(result, list):
        return [plain(part) for part in result]
    if isinstance(result, Item):
        return {name: part for name, part in result.dict().items() if not name.endswith("_at")} | {
            "type": type(result).__name__
        }
    return result


def run(store: BaseStore, colour: str, ops: Sequence[Op]) -> list[Any]:
    if colour == "sync":
        return store.batch(ops)

    async def main() -> list[Any]:
        with blockbuster_ctx(OURS):
            return await store.abatch(ops)

    return asyncio.run(main())


def put(namespace: Sequence[str], key: str, value: dict[str, Any] | None = None, **more: Any) -> PutOp:
    # A text of its own: InMemoryStore cannot embed the same text twice in one batch.
    return PutOp(tuple(namespace), key, {"text": f"{'/'.join(namespace)} {key}"} if value is None else value, **more)


def listing(*conditions: tuple[Any, Sequence[str]], **more: Any) -> ListNamespacesOp:
    return ListNamespacesOp(tuple(MatchCondition(kind, tuple(path)) for kind, path in conditions), **more)


PATHS = ["a", "ab", "abc", "abd", "abde", "b", "ba", "bc", "aB", "c"]
SCORED: list[Op] = [
    put("a", "one", {"n": 1, "text": "aaa b"}),
    put("a", "two", {"n": 2, "text": "bbb"}),
    put("b", "three", {"n": 3, "text": "ab"}),
    put("ab", "four", {"n": 4, "text": "a bbb cc", "more": ["b", "e"]}),
    put("ab", "five", {"n": 5, "text": "ddd"}, index=False),
    put("ab", "six", {"n": 6, "text": "eee", "more": ["dd", "a"]}, index=["more[*]"]),
    put("ab", "seven", {"n": 7, "other": "b"}),
]
MIXED: list[dict[str, Any]] = [
    {"n": 5, "s": "x", "none": None, "o": {"a": {"b": 1}, "c": [1, {"d": 2}]}, "t": True},
    {"n": 5.5, "s": "4.5", "o": {"a": {"b": 2}}},
    {"n": -1, "s": "", "none": 0, "o": None, "t": False},
    {"s": None, "o": [1], "t": 1},
    {},
]
FILTERS: list[dict[str, Any]] = [
    {},
    {"n": 5},
    {"n": 5.0},
    {"s": "x", "n": 5},
    {"s": "x", "n": 6},
    {"none": None},
    {"missing": None},
    {"missing": 1},
    {"s": ""},
    {"t": True},
    {"t": 1},
    {"t": False},
    {"o": {"a": {"b": 1}}},
    {"o": {"a": {}}},
    {"o": {}},
    {"o": [1]},
    {"o": {"c": [1, {"d": 2}]}},
    {"o": {"c": [1, {"d": {"$gt": 1}}]}},
    {"o": {"a": {"b": {"$ne": 1}}}},
    {"n": {"$ne": 5}},
    {"n": {"$ne": None}},
    {"n": {"$eq": None}},
    {"n": {"$eq": 5}},
    {"missing": {"$ne": 1}},
    {"missing": {"$eq": None}},
    {"n": {"$eq": 5, "$ne": 5.5}},
    {"o": {"$eq": [1]}},
    {"o": {"$ne": {"a": {"b": 2}}}},
]
NUMBERS: list[Op] = [put("f", str(number), {"n": number, "text": f"a{number}"}) for number in (3, 1, 2, 1.5, -4)]

# Each a sequence of batches.
SCRIPTS: dict[str, list[list[Op]]] = {
    "a value comes back": [[put("ab", "k", {"x": [1, {"y": None}], "é": "日本"})], [GetOp(("a", "b"), "k")]],
    "a missing one is none": [[put("a", "k")], [GetOp(("a",), "x"), GetOp(("a", "k"), "k")]],
    "a batch reads what was there before its puts": [
        [put("a", "k", {"n": 1})],
        [put("a", "k", {"n": 2}), GetOp(("a",), "k"), SearchOp(("a",)), listing(), put("b", "k"), SearchOp(())],
        [GetOp(("a",), "k"), SearchOp(()), listing()],
    ],
    "of several puts the last counts": [
        [put("a", "1", {"n": 1}), put("a", "2"), put("a", "1", {"n": 3}), PutOp(("a",), "2", None), put("a", "3")],
        [SearchOp(("a",)), GetOp(("a",), "1"), GetOp(("a",), "2")],
        [PutOp(("a",), "3", None), put("a", "3", {"n": 4})],
        [SearchOp(("a",))],
    ],
    "deleting": [
        [put("a", "1"), put("a", "2"), put("a", "3")],
        [PutOp(("a",), "2", None), PutOp(("a",), "none", None)],
        [SearchOp(("a",)), GetOp(("a",), "2")],
        [put("a", "2")],
        [SearchOp(("a",))],
    ],
    "prefixes end at labels": [
        [*(put(path, "k") for path in PATHS)],
        [SearchOp(tuple(prefix), limit=99) for prefix in ["", *PATHS, "abx", "d"]],
    ],
    "labels are only what they are": [
        [*(put((label, "x"), "k") for label in ("%", "_", "a%", "A", "a", "a ", "*", "\\", '"', "日本", "a/x", "'"))],
        [SearchOp((label,)) for label in ("%", "_", "a%", "A", "a", "a ", "*", "\\", '"', "日本", "a/x", "'", "a/")],
    ],
    "pages": [
        [*(put("ab", str(number)) for number in range(7)), put("ac", "x"), put("b", "y")],
        [SearchOp(("a",), limit=limit, offset=offset) for limit in (0, 1, 3, 20) for offset in (0, 1, 5, 8, 50)],
        [SearchOp(("a",), limit=limit, offset=offset) for limit, offset in ((-1, 0), (2, -3), (-2, -4))],
        [listing(limit=limit, offset=offset) for limit in (0, 1, 9) for offset in (0, 1, 9)],
    ],
    "listing": [
        [*(put(path, "k") for path in PATHS)],
        [listing(max_depth=depth) for depth in (None, 1, 2, 9)],
        [listing(("prefix", prefix), limit=50) for prefix in ["a", "ab", "abd", "*", "a*", "*b", "**", "x", "***"]],
        [listing(("suffix", suffix)) for suffix in ["c", "bc", "*", "b*", "*c", "abde", "xabde", "B"]],
        [
            listing(("prefix", "a"), ("suffix", "c")),
            listing(("prefix", "ab"), ("prefix", "*bd")),
            listing(("prefix", "a"), max_depth=2),
            listing(("prefix", "a"), max_depth=1, limit=1, offset=0),
            listing(("prefix", "a"), max_depth=2, limit=1, offset=1),
            listing(("prefix", ()), ("suffix", ())),
            ListNamespacesOp(),
        ],
    ],
    "filters": [
        [*(put("f", str(number), value) for number, value in enumerate(MIXED))],
        [SearchOp(("f",), filter=filter) for filter in FILTERS],
        [SearchOp(("f",), filter={"n": {"$ne": 5}}, limit=2, offset=1), SearchOp((), filter={"t": True}, limit=1)],
    ],
    "comparisons": [
        NUMBERS,
        [
            SearchOp(("f",), filter={"n": bounds})
            for bounds in (
                {"$gt": 1},
                {"$gte": 1},
                {"$lt": 2},
                {"$lte": 2},
                {"$gt": 1, "$lt": 3},
                {"$gt": "1"},
                {"$gt": 3},
                {"$gte": -4, "$ne": 2},
            )
        ],
    ],
    "by meaning": [
        SCORED,
        [SearchOp((), query=query) for query in ("a", "b", "abc", "e", "ddddd", "x", "")],
        [SearchOp(("a",), query="bbb", limit=limit, offset=offset) for limit in (1, 2, 5) for offset in (0, 1, 2, 9)],
        [SearchOp((), query="ab", filter={"n": {"$gt": 2}}), SearchOp(("a", "b"), query="b", filter={"n": 4})],
        [SearchOp(("x",), query="a"), SearchOp((), query="ab"), SearchOp((), query="ab", limit=2)],
    ],
}


class TestParity:
    @pytest.mark.parametrize("colour", ["sync", "async"])
    @pytest.mark.parametrize("fields", [None, ("text",), ("$",), ("text", "more[*]")], ids=str)
    @pytest.mark.parametrize("script", SCRIPTS)
    def test_batches(self, mem: Memori, script: str, fields: tuple[str, ...] | None, colour: str) -> None:
        """Fails when a batch's results differ from InMemoryStore's in anything but the times."""
        expected = InMemoryStore(index=index(*fields) if fields else None)
        store = MemoriStore(mem, index=index(*fields) if fields else False)
        for ops in SCRIPTS[script]:
            assert plain(run(store, colour, ops)) == plain(run(expected, colour, ops)), ops

    def test_methods(self, mem: Memori) -> None:
        """Fails when a method of its own, which replaces the base class's, has other results or other defaults."""
        stores: list[BaseStore] = [MemoriStore(mem, index=index("text")), InMemoryStore(index=index("text"))]

        def sync(store: BaseStore) -> list[Any]:
            for number in range(12):
                store.put(("a", str(number % 3)), str(number), {"text": "a" * number + "b", "n": number})
            store.put(("b",), "x", {"text": "b"}, index=False)
            store.put(("b",), "y", {"text": "b", "o": "aa"}, ["o"])
            store.put(("a", "0"), "0", {"text": "again", "n": 0})
            store.delete(("a", "1"), "1")
            store.delete(("a", "1"), "none")
            return [
                store.get(("a", "0"), "0"),
                store.get(("a", "1"), "1"),
                store.get(("a", "2"), 2),  # type: ignore[arg-type] # It is said to take only a str, and takes any.
                store.search(("a",)),
                store.search(()),
                store.search(("a",), query="ab", limit=3, offset=1),
                store.search(("a",), filter={"n": {"$gte": 9}}, limit=2),
                store.list_namespaces(),
                store.list_namespaces(prefix=("a",), max_depth=1),
                store.list_namespaces(suffix=("*", "2"), limit=1),
                store.list_namespaces(prefix=("a",), suffix=("1",), offset=0),
                store.list_namespaces(limit=2, offset=1),
            ]

        async def asynchronous(store: BaseStore) -> list[Any]:
            await store.aput(("c",), "x", {"text": "aaa"})
            await store.aput(("c",), "y", {"text": "b"}, index=False)
            await store.aput(("c",), "z", {"text": "b"})
            await store.adelete(("c",), "z")
            return [
                await store.aget(("c",), "x"),
                await store.aget(("c",), "z"),
                await store.asearch(("c",), query="a"),
                await store.asearch((), filter={"n": 4}),
                await store.alist_namespaces(prefix=("c",)),
                await store.alist_namespaces(suffix=("2",), max_depth=2),
            ]

        ours, theirs = [plain(sync(store)) for store in stores]
        assert ours == theirs
        with blockbuster_ctx(OURS):
            ours = plain(asyncio.run(asynchronous(stores[0])))
        assert ours == plain(asyncio.run(asynchronous(stores[1])))

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.put((), "k", {}),
            lambda store: store.put(("langgraph", "x"), "k", {}),
            lambda store: store.put(("a", ""), "k", {}),
            lambda store: store.get(("", "a"), "k"),
            lambda store: store.put(("a", 1), "k", {}),
            lambda store: store.search(("a", None)),
            lambda store: store.delete(("a", b"x"), "k"),
            lambda store: store.list_namespaces(prefix=("",)),
            lambda store: store.list_namespaces(suffix=("a", 3)),
            lambda store: store.batch([object()]),
            lambda store: store.batch([put("a", "k"), listing(("infix", "a"))]),
            lambda store: asyncio.run(store.aput((), "k", {})),
            lambda store: asyncio.run(store.aget(("",), "k")),
        ],
    )
    def test_refusals(self, lite: Memori, call: Callable[[BaseStore], object]) -> None:
        """Fails when what InMemoryStore refuses is taken, or refused in another way."""
        errors: list[type[BaseException]] = []
        for store in (MemoriStore(lite, index=False), InMemoryStore()):
            store.put(("a",), "k", {})
            with pytest.raises(ValueError) as caught:  # noqa: PT011 - that they are the same says enough
                call(store)
            errors.append(caught.type)
        assert errors[0] is errors[1]

    def test_anything_in_any_order(self, mem: Memori) -> None:
        """Fails when some sequence of batches has other results than with InMemoryStore."""

        class Machine(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                empty(mem)
                self.stores: list[BaseStore] = [
                    MemoriStore(mem, index=index("text")),
                    InMemoryStore(index=index("text")),
                ]
                # One stays in each: InMemoryStore remembers empty namespaces, a database does not.
                self.both([put(path, "stays") for path in SPACES])

            def both(self, ops: Sequence[Op]) -> None:
                ours, theirs = [plain(store.batch(ops)) for store in self.stores]
                assert ours == theirs

            @rule(ops=BATCHES)
            def batch(self, ops: list[Op]) -> None:
                self.both(ops)

            @rule(search=SEARCHES)
            def search(self, search: SearchOp) -> None:
                try:
                    theirs = plain(self.stores[1].batch([search]))
                except (TypeError, ValueError):  # A comparison with what is no number: documented as a difference.
                    self.stores[0].batch([search])
                else:
                    assert plain(self.stores[0].batch([search])) == theirs

        run_state_machine_as_test(
            Machine, settings=settings(max_examples=20, stateful_step_count=15, phases=[Phase.generate, Phase.shrink])
        )


SPACES: list[tuple[str, ...]] = [("a",), ("a", "b"), ("a", "ann@example.com"), ("A", "b"), ("a", "b", "%"), ("日",)]
TEXTS = st.text(alphabet="abcdeé \"'\\\n日🦊\x00", max_size=6)
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5)
JSON = st.recursive(
    LEAVES, lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=3), max_leaves=6
)
NUMBERS_OR_NOT = st.sampled_from([0, 1, 2, 2.5, -1])
DOCUMENTS = st.fixed_dictionaries({"text": TEXTS}, optional={"n": NUMBERS_OR_NOT, "any": JSON, "o": JSON})
SPACE = st.sampled_from(SPACES)
KEYS = st.sampled_from(["k", "K", "k ", "", "é", "%", "a\x00", "'"])
PUTS = st.tuples(SPACE, KEYS, DOCUMENTS | st.none()).map(lambda parts: PutOp(*parts))
CONDITIONS = st.tuples(
    st.sampled_from(["prefix", "suffix"]), st.lists(st.sampled_from(["a", "b", "A", "*", "%"]), max_size=3)
)
FILTER = st.dictionaries(
    st.sampled_from(["n", "any", "text", "missing"]),
    JSON
    | st.dictionaries(st.sampled_from(["$eq", "$ne"]), JSON, min_size=1)
    | st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS_OR_NOT, min_size=1),
    max_size=2,
)
PREFIX = st.sampled_from([(), *SPACES, ("b",), ("a", "%")])
PAGE = st.integers(0, 4)
QUERY = st.none() | st.sampled_from(["a", "b", "x", "é ab"])
SEARCHES = st.tuples(PREFIX, st.none() | FILTER, PAGE, PAGE, QUERY).map(lambda parts: SearchOp(*parts))
READS = (
    st.tuples(SPACE, KEYS).map(lambda parts: GetOp(*parts))
    | st.tuples(PREFIX, st.none(), PAGE, PAGE, QUERY).map(lambda parts: SearchOp(*parts))
    | st.tuples(st.lists(CONDITIONS, max_size=2), st.none() | st.integers(1, 3), PAGE, PAGE).map(
        lambda parts: listing(*parts[0], max_depth=parts[1], limit=parts[2], offset=parts[3])
    )
)


def unequal(ops: list[Op]) -> bool:
    texts = [op.value["text"] for op in ops if isinstance(op, PutOp) and op.value is not None]
    return len(texts) == len(set(texts))


BATCHES = st.lists(PUTS | READS, max_size=5).filter(unequal)


class TestBeyond:
    """What InMemoryStore refuses, forgets or gets wrong."""

    def test_labels_may_have_dots(self, mem: Memori) -> None:
        """Fails when an e-mail address is refused as a label, or taken apart at its dots."""
        store = MemoriStore(mem)
        for namespace in (ANN, ("memories", "ann@example", "com"), BOB):
            store.put(namespace, "k", {"text": "/".join(namespace)})
        found = store.get(ANN, "k")
        assert found is not None
        assert found.value == {"text": "memories/ann@example.com"}
        assert [item.namespace for item in store.search(ANN, query="bob@example.com")] == [ANN]
        assert store.list_namespaces(suffix=("ann@example.com",)) == [ANN]
        store.delete(ANN, "k")
        assert store.search(ANN) == []

        async def main() -> None:
            await store.aput(ANN, "k", {"text": "tea"})
            assert await store.aget(ANN, "k") is not None
            assert [item.key for item in await store.asearch(ANN, query="tea")] == ["k"]
            assert await store.alist_namespaces(prefix=ANN) == [ANN]
            await store.adelete(ANN, "k")
            assert await store.aget(ANN, "k") is None

        with blockbuster_ctx(OURS):
            asyncio.run(main())

    def test_everything_outlives_the_process(self, tmp_path: Path) -> None:
        """Fails when another process does not find what one stored, vectors included."""
        script = (
            "import sys; from memori import Memori; from memori_langchain import MemoriStore\n"
            "with Memori(sys.argv[1], worker=False) as mem:\n"
            "    mem.config.storage.build()\n"
            "    MemoriStore(mem).put(('memories', 'ann@example.com'), 'k', {'text': 'drinks tea'})\n"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", script, str(tmp_path / "memori.db")], check=True)
        with Memori(tmp_path / "memori.db", worker=False) as mem:
            (found,) = MemoriStore(mem).search(ANN, query="tea")
            assert found.value == {"text": "drinks tea"}
            assert found.score is not None
            assert found.score > 0.5

    def test_when_it_was_first_stored_is_kept(self, mem: Memori) -> None:
        """Fails when storing again changes ``created_at``, which is said to be the first time."""
        store = MemoriStore(mem)
        store.put(ANN, "k", {"n": 1})
        first = store.get(ANN, "k")
        store.put(ANN, "k", {"n": 2})
        second = store.get(ANN, "k")
        assert first is not None
        assert second is not None
        assert first.created_at == first.updated_at == second.created_at
        assert second.updated_at >= first.updated_at
        assert first.created_at.utcoffset() == timedelta(0)

    def test_a_document_is_found_by_what_it_says_now(self, mem: Memori) -> None:
        """Fails when a vector of an older value, or of one that is no longer to be found, remains."""
        store = MemoriStore(mem, index=index("text", "more"))
        store.put(ANN, "k", {"text": "aaa", "more": "bbb"})
        store.put(ANN, "k", {"text": "ccc"})
        (found,) = store.search(ANN, query="bbbb")
        assert found.score == pytest.approx(1 / (17 * 10) ** 0.5)
        store.put(ANN, "k", {"text": "bbb"}, index=False)
        (found,) = store.search(ANN, query="bbbb")
        assert found.score is None

    def test_a_comparison_leaves_out_what_has_no_number(self, lite: Memori) -> None:
        """Fails when one document without the field makes a search raise, as it does in InMemoryStore."""
        store = MemoriStore(lite)
        for key, value in (("1", {"n": 1}), ("none", {"n": None}), ("missing", {}), ("text", {"n": "x"})):
            store.put(ANN, key, value)
        assert [item.key for item in store.search(ANN, filter={"n": {"$gt": 0}})] == ["1"]
        with pytest.raises(ValueError, match="filter"):
            store.search(ANN, filter={"n": {"$in": [1]}})

    def test_the_same_text_twice_in_a_batch(self, lite: Memori) -> None:
        """Fails when two documents of one batch that say the same are not both found."""
        store = MemoriStore(lite, index=index("text"))
        store.batch([put(ANN, "1", {"text": "aa"}), put(ANN, "2", {"text": "aa"})])
        first, second = store.search(ANN, query="aa")
        assert (first.key, second.key) == ("1", "2")
        assert first.score == second.score == pytest.approx(1.0)

    @pytest.mark.parametrize("key", ["x" * 1000, "a\x00b", "\ud83e", "'; --", "日本" * 200])
    def test_any_key(self, mem: Memori, key: str) -> None:
        """Fails when a key that InMemoryStore takes is cut, changed or refused."""
        store = MemoriStore(mem)
        value = {"text": "a\x00b \ud83e", "n": 2**80}
        store.put(ANN, key, value)
        found = store.get(ANN, key)
        assert found is not None
        assert (found.key, found.value) == (key, value)

    def test_the_first_use_does_not_block_either(self, tmp_path: Path) -> None:
        """Fails when a database that nobody has reached for yet is reached for on the event loop."""
        path = tmp_path / "memori.db"
        with Memori(path, worker=False) as mem:
            mem.config.storage.build()
        with Memori(lambda: sqlite3.connect(path), worker=False) as mem, blockbuster_ctx(OURS):
            store = MemoriStore(mem)
            asyncio.run(store.aput(ANN, "k", {"text": "tea"}))
            assert [item.key for item in asyncio.run(store.asearch(ANN, query="tea"))] == ["k"]


class TestIndex:
    def test_by_default_all_text_is_embedded_by_memori(self, mem: Memori) -> None:
        """Fails when a store without configuration does not find a document by any text in it."""
        store = MemoriStore(mem)
        store.put(ANN, "drink", {"kind": 1, "note": {"lines": ["drinks green tea in the morning"]}})
        store.put(ANN, "work", {"text": "works as a nurse at the hospital"})
        store.put(ANN, "path", {"text": "a nurse in a hospital", "other": "tea"}, index=["other"])
        store.put(ANN, "never", {"text": "works as a nurse at the hospital"}, index=False)
        found = store.search(ANN, query="which hospital does she work at?")
        assert found[0].key == "work"
        assert found[-1].key == "never"
        assert found[-1].score is None
        assert [item.key for item in store.search(ANN, query="tea", limit=2)] == ["path", "drink"]

    def test_vectors_of_another_model_are_not_compared(self, lite: Memori) -> None:
        """Fails when a store with another embedder takes its predecessor's vectors for its own, or fails over them."""

        class Other(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return [[1.0, 0.0, 0.0] for _ in texts]

            def embed_query(self, text: str) -> list[float]:
                return [1.0, 0.0, 0.0]

        MemoriStore(lite, index=index("text")).put(ANN, "old", {"text": "a"})
        store = MemoriStore(lite, index=IndexConfig(dims=3, embed=Other()))
        store.put(ANN, "new", {"text": "b"})
        assert [(item.key, item.score) for item in store.search(ANN, query="a")] == [("new", 1.0), ("old", None)]

    def test_langchain_embeddings(self, lite: Memori) -> None:
        """Fails when an `Embeddings` object is not used, for documents and queries, in both colours."""
        store = MemoriStore(lite, index=IndexConfig(dims=8, embed=DeterministicFakeEmbedding(size=8), fields=["text"]))
        store.put(ANN, "1", {"text": "one"})
        asyncio.run(store.aput(ANN, "2", {"text": "two"}))
        assert [item.key for item in store.search(ANN, query="two")] == ["2", "1"]
        (first, _) = asyncio.run(store.asearch(ANN, query="one"))
        assert first.key == "1"
        assert first.score == pytest.approx(1.0)

    def test_an_asynchronous_embedder(self, lite: Memori) -> None:
        """Fails when a coroutine function that embeds cannot be used, or is run where it blocks."""
        store = MemoriStore(lite, index=IndexConfig(dims=6, embed=aletters, fields=["text"]))

        async def main() -> list[Any]:
            await store.aput(ANN, "1", {"text": "aaa"})
            await store.aput(ANN, "2", {"text": "bbb"})
            return await store.asearch(ANN, query="b")

        with blockbuster_ctx(OURS):
            assert [item.key for item in asyncio.run(main())] == ["2", "1"]


class TestTtl:
    def test_what_has_expired_never_comes_back(self, mem: Memori) -> None:
        """Fails when an expired item is got, found or listed before it is swept, or stays after."""
        store = MemoriStore(mem)
        store.put(ANN, "gone", {"text": "a"}, ttl=0)
        store.put(ANN, "stays", {"text": "a"}, ttl=60)
        store.put(BOB, "gone", {"text": "a"}, ttl=-1)
        assert store.get(ANN, "gone") is None
        assert [item.key for item in store.search((), query="a")] == ["stays"]
        assert store.list_namespaces() == [ANN]
        assert (store.sweep_ttl(), store.sweep_ttl()) == (2, 0)

    def test_defaults_and_what_overrides_them(self, lite: Memori) -> None:
        """Fails when the configured life is not given to what says nothing, or to what says otherwise."""
        store = MemoriStore(lite, ttl={"default_ttl": 5})
        store.put(ANN, "default", {})
        store.put(ANN, "own", {}, ttl=1)
        store.put(ANN, "ever", {}, ttl=None)
        asyncio.run(store.aput(ANN, "async", {}))
        store.batch([put(ANN, "batch")])
        lives = {item.key: item.ttl for item in lite.items.search(ANN, refresh=False)}
        minute = timedelta(minutes=1)
        assert lives == {"default": 5 * minute, "own": minute, "ever": None, "async": 5 * minute, "batch": None}

    @pytest.mark.parametrize("configured", [None, True, False])
    @pytest.mark.parametrize("asked", [None, True, False])
    @pytest.mark.parametrize("method", ["get", "search"])
    def test_reading_refreshes(self, lite: Memori, method: str, asked: bool | None, configured: bool | None) -> None:
        """Fails when a read prolongs a life though it should not, or does not though it should."""
        store = MemoriStore(lite, ttl=None if configured is None else {"refresh_on_read": configured})
        store.put(ANN, "k", {}, ttl=10)
        before = lite.items.get(ANN, "k", refresh=False)
        if method == "get":
            store.get(ANN, "k", refresh_ttl=asked)
        else:
            store.search(ANN, refresh_ttl=asked)
        after = lite.items.get(ANN, "k", refresh=False)
        assert before is not None
        assert after is not None
        refreshes = asked if asked is not None else configured is not False
        assert (after.expires_at != before.expires_at) is refreshes

    def test_puts_sweep_when_it_is_time(self, lite: Memori) -> None:
        """Fails when expired items pile up though an interval is set, or are swept though none is."""
        swept, unswept = MemoriStore(lite, ttl={"sweep_interval_minutes": 0}), MemoriStore(lite)
        unswept.put(ANN, "gone", {}, ttl=0)
        unswept.put(ANN, "1", {})
        assert unswept.sweep_ttl() == 1
        swept.put(ANN, "gone", {}, ttl=0)
        swept.put(ANN, "2", {})
        assert swept.sweep_ttl() == 0
        later = MemoriStore(lite, ttl={"sweep_interval_minutes": 60})
        later.put(ANN, "gone", {}, ttl=0)
        later.put(ANN, "3", {})
        assert later.sweep_ttl() == 1


class TestFailure:
    @pytest.mark.parametrize("colour", ["sync", "async"])
    def test_a_batch_is_kept_whole_or_not_at_all(self, mem: Memori, colour: str) -> None:
        """Fails when a batch that raises leaves some of its puts and deletions behind."""
        store = MemoriStore(mem)
        store.put(ANN, "before", {})
        with pytest.raises(ValueError, match="JSON"):
            run(store, colour, [put(ANN, "1"), PutOp(ANN, "before", None), put(ANN, "2", {"x": object()})])
        assert [item.key for item in store.search(ANN)] == ["before"]

    def test_an_embedder_that_fails_stores_nothing(self, lite: Memori) -> None:
        """Fails when a document is stored that could never be found by meaning, and nobody is told."""

        def broken(texts: Sequence[str]) -> list[list[float]]:
            raise RuntimeError("no embeddings today")

        store = MemoriStore(lite, index=IndexConfig(dims=6, embed=broken))
        with pytest.raises(RuntimeError, match="today"):
            store.put(ANN, "k", {"text": "a"})
        assert store.search(ANN) == []

    def test_a_database_that_does_not_answer_is_told(self, lite: Memori, tmp_path: Path) -> None:
        """Fails when a store that could not keep something pretends it did."""
        store = MemoriStore(lite)
        (tmp_path / "memori.db").unlink()
        with pytest.raises(StorageError):
            store.put(ANN, "k", {})
        lite.close()
        with pytest.raises(ClosedError):
            store.get(ANN, "k")

    def test_the_callers_objects_are_left_alone(self, lite: Memori) -> None:
        """Fails when the store changes, or goes on sharing, what it was given."""
        config = index("text")
        store = MemoriStore(lite, index=config)
        value: dict[str, Any] = {"text": "a", "list": [1]}
        filter = {"n": {"$ne": 1}}
        store.put(ANN, "k", value)
        value["list"].append(2)
        store.search(ANN, filter=filter, query="a")
        found = store.get(ANN, "k")
        assert found is not None
        assert found.value == {"text": "a", "list": [1]}
        assert (config, filter) == (index("text"), {"n": {"$ne": 1}})

    def test_threads_and_tasks(self, mem: Memori) -> None:
        """Fails when items stored at once by many threads and tasks are lost, mixed up, or raise."""
        store = MemoriStore(mem)

        def work(number: int) -> None:
            user = ("memories", f"user{number % 3}@example.com")
            store.put(user, str(number), {"text": f"of {user[1]}"})
            assert store.get(user, str(number)) is not None

        async def tasks() -> None:
            async def one(number: int) -> None:
                user = ("memories", f"user{number % 3}@example.com")
                await store.aput(user, str(number), {"text": f"of {user[1]}"})
                assert await store.aget(user, str(number)) is not None

            await asyncio.gather(*(one(number) for number in range(12, 24)))

        thread = threading.Thread(target=asyncio.run, args=(tasks(),))
        thread.start()
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(12)))
        thread.join()
        for user in range(3):
            namespace = ("memories", f"user{user}@example.com")
            found = store.search(namespace, limit=99)
            assert sorted(int(item.key) for item in found) == list(range(user, 24, 3))
            assert {item.value["text"] for item in found} == {f"of {namespace[1]}"}


class TestErasure:
    def test_erasing_what_is_kept_of_a_person(self, lite: Memori) -> None:
        """Fails when something under the namespace stays, something beside it goes, or nothing named erases all."""
        store = MemoriStore(lite)
        for namespace in (ANN, (*ANN, "notes"), BOB):
            store.put(namespace, "k", {})
        assert store.erase(ANN) == 2
        assert store.list_namespaces() == [BOB]
        with pytest.raises(ValueError, match="every document"):
            store.erase(())
        with pytest.raises(InvalidNamespaceError):
            store.erase(("memories", ""))
        assert store.list_namespaces() == [BOB]


def test_without_langgraph_it_says_what_to_install() -> None:
    """Fails when a missing framework is an ImportError that does not name the extra."""
    script = (
        "import sys; sys.modules['langgraph'] = None\n"
        "import memori_langchain\n"
        "try: memori_langchain.MemoriStore\n"
        "except ImportError as error: print(type(error).__name__, error)\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.startswith(MissingExtraError.__name__)
    assert "memori-byodb[langchain]" in finished.stdout
