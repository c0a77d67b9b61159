"""The errors memori raises: each also is the built-in a caller would guess.

::

    MemoriError
    ├── ConfigurationError(ValueError)         a setting or argument cannot be used
    │   └── UnsupportedConnectionError(TypeError)   ``conn=`` is nothing memori can reach a database through
    ├── MissingExtraError(ImportError)         an optional dependency is not installed
    ├── AttributionError(LookupError)          no entity is set, and the call needs one
    ├── StorageError(RuntimeError)             the database did not do what was asked
    │   ├── NotBuiltError                      memori's tables are not there: call ``config.storage.build()``
    │   ├── ForeignSchemaError                 the tables there were made by another program
    │   └── NewerSchemaError                   the tables there were made by a newer memori
    ├── DimensionError(ValueError)             a vector has another length than those beside it
    ├── EmbeddingError(RuntimeError)           an embedder could not embed
    ├── ExtractionError(RuntimeError)          an extractor could not read an exchange
    ├── DeadlineError(TimeoutError)            a bounded wait ran out
    ├── AbandonedError(RuntimeError)           workers took up an exchange again and again, and none finished it
    └── ClosedError(RuntimeError)              this ``Memori`` was closed
"""

from __future__ import annotations

__all__ = [
    "AbandonedError",
    "AttributionError",
    "ClosedError",
    "ConfigurationError",
    "DeadlineError",
    "DimensionError",
    "EmbeddingError",
    "ExtractionError",
    "ForeignSchemaError",
    "MemoriError",
    "MissingExtraError",
    "NewerSchemaError",
    "NotBuiltError",
    "StorageError",
    "UnsupportedConnectionError",
]


class MemoriError(Exception):
    """Any error of memori's own."""


class ConfigurationError(MemoriError, ValueError):
    """A setting or an argument cannot be used as it is."""


class UnsupportedConnectionError(ConfigurationError, TypeError):
    """``conn=`` is nothing that memori can reach a database through."""


class MissingExtraError(MemoriError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: The distribution that is missing.
        extra: The extra of ``memori-byodb`` that brings it.
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'memori-byodb[{extra}]'")
        self.package = package
        self.extra = extra


class AttributionError(MemoriError, LookupError):
    """No entity is set, and what was asked is always about one."""


class StorageError(MemoriError, RuntimeError):
    """The database did not do what was asked of it."""


class NotBuiltError(StorageError):
    """Memori's tables are not in this database."""


class ForeignSchemaError(StorageError):
    """The ``memori_*`` tables in this database were made by another program."""


class NewerSchemaError(StorageError):
    """Memori's tables in this database are of a newer version than this one."""


class DimensionError(MemoriError, ValueError):
    """A vector has another length than those beside it."""


class EmbeddingError(MemoriError, RuntimeError):
    """An embedder could not embed."""


class ExtractionError(MemoriError, RuntimeError):
    """An extractor could not read an exchange."""


class AbandonedError(MemoriError, RuntimeError):
    """Workers took up the work on an exchange again and again, and none of them finished it."""


class DeadlineError(MemoriError, TimeoutError):
    """A bounded wait ran out before the work was done."""


class ClosedError(MemoriError, RuntimeError):
    """This ``Memori`` was closed and can no longer be used."""
