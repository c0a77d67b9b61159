"""Memory for LLM applications that stays in your own database."""

from __future__ import annotations

from memori import errors
from memori.errors import (
    AttributionError,
    ClosedError,
    ConfigurationError,
    MemoriError,
    MissingExtraError,
    NotBuiltError,
    StorageError,
)
from memori.injection import tool_guidance
from memori.memori import Memori
from memori.protocols import Turn
from memori.settings import Settings
from memori.types import Fact, Health, Message, Recollection, StoredMessage

__all__ = [
    "AttributionError",
    "ClosedError",
    "ConfigurationError",
    "Fact",
    "Health",
    "Memori",
    "MemoriError",
    "Message",
    "MissingExtraError",
    "NotBuiltError",
    "Recollection",
    "Settings",
    "StorageError",
    "StoredMessage",
    "Turn",
    "errors",
    "tool_guidance",
]
