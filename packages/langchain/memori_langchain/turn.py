"""Which turns are under way: a conversation is given memories, and kept, once, however many layers it passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from memori import Memori

__all__ = ["is_under_way", "under_way"]

_taking_part: ContextVar[tuple[Memori, ...]] = ContextVar("memori_langchain_turn", default=())


@contextmanager
def under_way(memori: Memori) -> Iterator[None]:
    """Keep *memori* out of what this task or thread asks meanwhile, of models and of SDKs' clients alike.

    For whoever recalls and records by himself: the middleware around its agent's model, a model around its client.
    """
    token = _taking_part.set((*_taking_part.get(), memori))
    try:
        with memori.answering():
            yield
    finally:
        _taking_part.reset(token)


def is_under_way(memori: Memori) -> bool:
    """Return whether someone else takes care of *memori*'s part in what is asked here and now."""
    return any(found is memori for found in _taking_part.get())
