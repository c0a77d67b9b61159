"""``mem.llm.register`` for LangChain's chat models."""

from __future__ import annotations

import threading
from typing import Protocol

from langchain_core.language_models import BaseChatModel

from memori import ConfigurationError, Memori
from memori_langchain.models import listen, listeners

__all__ = ["LangChainAdapter", "adapter"]

_registering = threading.Lock()


class Owned(Protocol):
    """The hooks that ``mem.llm.register`` hands to adapters."""

    @property
    def owner(self) -> object:
        """The `Memori`."""


class LangChainAdapter:
    """Listens to chat models of every provider, each instance by itself."""

    def register(self, client: object, hooks: Owned) -> None:
        """Give every call of a model the memory of *hooks*, and those of what is made from it; twice is once.

        Raises:
            ConfigurationError: *client* is something else of LangChain's.
        """
        memori = _memori(hooks)
        if not isinstance(client, BaseChatModel):
            raise ConfigurationError(
                f"got {type(client).__module__}.{type(client).__qualname__}: pass the chat model itself, before it is "
                "bound to tools or built into a chain; for an agent, use MemoriMiddleware"
            )
        with _registering:
            known = listeners(client)
            if not any(found is memori for found in known):
                listen(client, [*known, memori])

    def unregister(self, client: object, hooks: Owned) -> bool:
        """Undo `register`; return whether there was anything to undo. Copies stay registered on their own."""
        memori = _memori(hooks)
        with _registering:
            known = listeners(client) if isinstance(client, BaseChatModel) else ()
            if not isinstance(client, BaseChatModel) or not any(found is memori for found in known):
                return False
            listen(client, [found for found in known if found is not memori])
            return True


adapter = LangChainAdapter()


def _memori(hooks: Owned) -> Memori:
    if not isinstance(hooks.owner, Memori):
        raise ConfigurationError(f"got {hooks!r}: register by mem.llm.register(model)")
    return hooks.owner
