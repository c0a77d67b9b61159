"""memori for LangChain and LangGraph, Bedrock included. What is named here is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

try:
    import langchain_core as _langchain_core  # noqa: F401 - to say at once which extra is missing
except ImportError as error:
    from memori import MissingExtraError

    raise MissingExtraError("langchain-core", extra="langchain") from error

__all__: list[str] = []

# Where each is: to register a model asks for langchain-core alone, and loads neither agents nor graphs.
_MODULES: dict[str, str] = {}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("langchain", "langgraph"):
            raise
        from memori import MissingExtraError

        raise MissingExtraError(error.name or "langchain", extra="langchain") from error
