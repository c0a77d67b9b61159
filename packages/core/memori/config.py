"""``mem.config``: the settings of one `Memori`, live, and what its storage and identity are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from memori.identity import Identity
from memori.settings import Settings

if TYPE_CHECKING:
    from memori.protocols import Embedder
    from memori.storage.choose import AnyStorage
    from memori.storage.views import Driver
    from memori.types import SchemaVersion

__all__ = ["Config", "StorageConfig"]


class StorageConfig:
    """``mem.config.storage``: the database.

    Attributes:
        driver: Read-only views of what is stored, as the older API had them.
    """

    def __init__(self, storage: AnyStorage, built: Callable[[], None]) -> None:
        self._storage = storage
        self._built = built

    @property
    def driver(self) -> Driver:
        """Return read-only views of the stored conversations."""
        from memori.storage.views import Driver

        return Driver(self._storage)

    def schema(self) -> SchemaVersion | None:
        """Return which of memori's tables are there, and which `build` makes; None where tables have no versions.

        Raises:
            StorageError: The database cannot be reached.
            ForeignSchemaError: The ``memori_*`` tables there belong to another program.
        """
        return self._storage.schema()

    def build(self) -> StorageConfig:
        """Create or upgrade memori's tables and return this; safe at every start, and by many processes at once.

        Raises:
            StorageError: The database cannot be reached, or does not allow it.
            ForeignSchemaError: The ``memori_*`` tables there belong to another program.
            NewerSchemaError: They were made by a newer memori.
        """
        self._storage.build()
        self._built()
        return self


class Config(Settings):
    """Every tunable of `memori.settings.Settings`, to be read and set at any time, and more that the older API had.

    Attributes:
        identity: Whom calls are for.
        storage: The database.
        embeddings: ``.model`` is the embedder's name.
        cache: ``.conversation_id`` is the row of the current session.
        llm: ``.provider`` is the provider of the last call.
        recall_embeddings_limit: Accepted and ignored: recall has no such limit.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(**{item.name: getattr(settings, item.name) for item in fields(Settings)})
        self.recall_embeddings_limit: int | None = None

    identity: Identity
    storage: StorageConfig
    embeddings: EmbeddingsConfig
    cache: CacheConfig
    llm: LlmConfig

    @property
    def entity_id(self) -> str | None:
        """The current entity; None when none is set."""
        return self.identity.entity_id

    @property
    def process_id(self) -> str | None:
        """The current process; None when none is set."""
        return self.identity.process_id

    @property
    def session_id(self) -> str | None:
        """The current session; None when no entity is set."""
        current = self.identity.current()
        return None if current is None else current.session_id


class EmbeddingsConfig:
    """``mem.config.embeddings``."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def model(self) -> str:
        """The embedder's name."""
        return self._embedder.model


class CacheConfig:
    """``mem.config.cache``."""

    def __init__(self, storage: AnyStorage, identity: Identity) -> None:
        self._storage = storage
        self._identity = identity

    @property
    def conversation_id(self) -> int | None:
        """The row of the current session in ``memori_session``; None before its first exchange is stored."""
        current = self._identity.current()
        return None if current is None else self._storage.session_row(current.entity_id, current.session_id)


class LlmConfig:
    """``mem.config.llm``."""

    def __init__(self, provider: Callable[[], str | None]) -> None:
        self._provider = provider

    @property
    def provider(self) -> str | None:
        """The provider of the last call; None before the first."""
        return self._provider()
