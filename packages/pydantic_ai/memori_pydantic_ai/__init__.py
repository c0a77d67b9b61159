"""memori for Pydantic AI: a capability of an agent, a typed dependency, and tools."""

from __future__ import annotations

try:
    import pydantic_ai as _pydantic_ai  # noqa: F401 - to say at once which extra is missing
except ImportError as error:
    from memori import MissingExtraError

    raise MissingExtraError("pydantic-ai-slim", extra="pydantic-ai") from error

from memori_pydantic_ai.capability import MemoriCapability
from memori_pydantic_ai.dependencies import HasUserId, MemoriDeps
from memori_pydantic_ai.toolset import MemoriToolset, memory_instructions

__all__ = ["HasUserId", "MemoriCapability", "MemoriDeps", "MemoriToolset", "memory_instructions"]
