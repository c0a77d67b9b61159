"""langchain-core's key-value store, in one namespace of the application's own documents."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.stores import BaseStore

from memori import Memori
from memori.types import Item, Namespace, NewItem

__all__ = ["MemoriKeyValueStore"]

_PAGE = 1000


class MemoriKeyValueStore(BaseStore[str, Any]):
    """A key-value store whose values are bytes, or whatever JSON has a form for. The asynchronous methods do not block.

    Args:
        namespace: Where its items are; those of namespaces below it are not its own.
    """

    def __init__(self, memori: Memori, namespace: Namespace) -> None:
        self._memori = memori
        self._namespace = namespace

    def mget(self, keys: Sequence[str]) -> list[Any]:
        """Return the values of *keys*, in their order; None for each that is not there."""
        asked = [(self._namespace, key) for key in keys]
        found = self._memori.items.read(asked, refresh=[True] * len(asked))
        return [None if item is None else _value(item.value) for item in found]

    def mset(self, key_value_pairs: Sequence[tuple[str, Any]]) -> None:
        """Store these values, all or none; of a key that is given twice, the later one counts."""
        self._memori.items.write(
            [
                NewItem(namespace=self._namespace, key=key, value=_wrapped(value))
                for key, value in dict(key_value_pairs).items()
            ]
        )

    def mdelete(self, keys: Sequence[str]) -> None:
        """Delete these, as far as they are there."""
        self._memori.items.write([], [(self._namespace, key) for key in dict.fromkeys(keys)])

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Give the keys that begin with *prefix*, in the order they were first stored in."""
        # All are read before the first is given, for the caller may delete as it goes.
        own = [item.key for item in self._items() if item.namespace == self._namespace]
        yield from (key for key in own if key.startswith(prefix or ""))

    def _items(self) -> Iterator[Item]:
        offset = 0
        while page := self._memori.items.search(self._namespace, limit=_PAGE, offset=offset, refresh=False):
            yield from page
            offset += len(page)


def _wrapped(value: Any) -> dict[str, Any]:
    return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else {"value": value}


def _value(document: Mapping[str, Any]) -> Any:
    return base64.b64decode(document["bytes"]) if "bytes" in document else document.get("value")
