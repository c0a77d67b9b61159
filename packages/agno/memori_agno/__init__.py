"""memori for Agno: memory for agents, teams and workflows' steps, for models, as a memory manager, and as tools."""

from __future__ import annotations

try:
    import agno.agent as _agno  # noqa: F401 - to say at once which extra is missing
except ImportError as error:
    from memori import MissingExtraError

    raise MissingExtraError("agno", extra="agno") from error

from memori_agno.hook import MemoriHook, memori_agent_kwargs
from memori_agno.learning import MemoriStore
from memori_agno.memories import MemoriMemoryManager
from memori_agno.toolkit import MemoriTools

__all__ = ["MemoriHook", "MemoriMemoryManager", "MemoriStore", "MemoriTools", "memori_agent_kwargs"]
