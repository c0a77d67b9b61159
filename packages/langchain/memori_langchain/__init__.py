"""memori for LangChain and LangGraph, Bedrock included. What is named here is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    import langchain_core as _langchain_core  # noqa: F401 - to say at once which extra is missing
except ImportError as error:
    from memori import MissingExtraError

    raise MissingExtraError("langchain-core", extra="langchain") from error

if TYPE_CHECKING:
    from memori_langchain.callbacks import MemoriCallbackHandler
    from memori_langchain.classic import MemoriMemory
    from memori_langchain.context import MemoriContext
    from memori_langchain.history import MemoriChatMessageHistory
    from memori_langchain.middleware import MemoriMiddleware
    from memori_langchain.retriever import MemoriRetriever
    from memori_langchain.store import MemoriStore
    from memori_langchain.tools import MemoriSearchTool

__all__ = [
    "MemoriCallbackHandler",
    "MemoriChatMessageHistory",
    "MemoriContext",
    "MemoriMemory",
    "MemoriMiddleware",
    "MemoriRetriever",
    "MemoriSearchTool",
    "MemoriStore",
]

# Where each is: to register a model asks for langchain-core alone, and loads neither agents nor graphs.
_MODULES = {
    "MemoriCallbackHandler": "callbacks",
    "MemoriChatMessageHistory": "history",
    "MemoriContext": "context",
    "MemoriMemory": "classic",
    "MemoriMiddleware": "middleware",
    "MemoriRetriever": "retriever",
    "MemoriSearchTool": "tools",
    "MemoriStore": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("langchain", "langgraph"):
            raise
        from memori import MissingExtraError

        raise MissingExtraError(missing, extra="langchain") from error
