"""langchain-core's key-value store over a database: LangChain's own suite, and what it does not ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_tests.integration_tests", exc_type=ImportError)

from langchain_core.stores import BaseStore
from langchain_tests.integration_tests import BaseStoreAsyncTests, BaseStoreSyncTests

from memori import Memori
from memori_langchain import MemoriStore

CACHE = ("cache", "ann@example.com")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoriStore]:
    with Memori(tmp_path / "memori.db", worker=False) as mem:
        mem.config.storage.build()
        yield MemoriStore(mem)


class _Bytes:
    @pytest.fixture
    def kv_store(self, store: MemoriStore) -> BaseStore[str, bytes]:
        return store.key_value(CACHE)

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"", b"\x00\xff" * 50, b"text"


class TestBytes(_Bytes, BaseStoreSyncTests[bytes]):
    pass


class TestJson(BaseStoreSyncTests[Any]):
    @pytest.fixture
    def kv_store(self, store: MemoriStore) -> BaseStore[str, Any]:
        return store.key_value(CACHE)

    @pytest.fixture
    def three_values(self) -> tuple[Any, Any, Any]:
        return {"bytes": "no bytes", "value": 1}, ["a", None], 0


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:The test <Function test_no_overrides")  # One of the suite's is synchronous.
class TestAsync(_Bytes, BaseStoreAsyncTests[bytes]):
    pass


def test_it_holds_its_own_namespace_only(store: MemoriStore) -> None:
    """Fails when keys of a namespace below or beside it are given, or bytes do not come back as bytes."""
    cache = store.key_value(CACHE)
    store.key_value((*CACHE, "below")).mset([("below", b"1")])
    store.key_value(("cache",)).mset([("above", b"1")])
    cache.mset([("b/2", b"\x00"), ("a", None), ("b/1", "text"), ("a", b"last")])
    assert list(cache.yield_keys()) == ["b/2", "a", "b/1"]
    assert list(cache.yield_keys(prefix="b/")) == ["b/2", "b/1"]
    assert list(cache.yield_keys(prefix="_")) == []
    assert cache.mget(["b/1", "below", "a", "b/2"]) == ["text", None, b"last", b"\x00"]


def test_keys_may_be_deleted_while_they_are_given(store: MemoriStore) -> None:
    """Fails when deleting during `yield_keys` skips keys, or there are more than one page."""
    cache = store.key_value(CACHE)
    cache.mset([(str(number), b"") for number in range(1001)])
    for key in cache.yield_keys():
        cache.mdelete([key, key])
        if int(key) == 2:
            cache.mdelete([str(number) for number in range(3, 1000)])
    assert list(cache.yield_keys()) == []
    assert store.list_namespaces() == []
