"""Column types that hold the same values on every engine: each says which engine would lose what without it.

Migrations name these types: change what one of them is on an engine only together with a migration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, LargeBinary, String, Text, TypeDecorator
from sqlalchemy.dialects.mysql import DATETIME, LONGBLOB, LONGTEXT, VARCHAR
from sqlalchemy.dialects.oracle import TIMESTAMP
from sqlalchemy.types import TypeEngine

__all__ = ["NAME_LENGTH", "BigId", "Blob", "JsonText", "LongText", "Name", "UtcDateTime", "storable"]

NAME_LENGTH = 255  # The most that MySQL and Oracle can hold in a unique index in every script.
_MYSQL = ("mysql", "mariadb")
_NO_NUL = ("postgresql", "cockroachdb")
_HALF_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = "\x1a"
_ESCAPED = re.compile("\x1a[0\x1a]")
_END = "\x1f"


def storable(text: str) -> str:
    """Return *text* with each NUL and each half of a surrogate pair replaced by U+FFFD."""
    return _HALF_SURROGATE.sub("\ufffd", text).replace("\x00", "\ufffd")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, in UTC, to the microsecond.

    SQLite and MySQL drop an offset without converting by it, MySQL drops fractions too. On Oracle a plain ``DateTime``
    is a DATE, and what its driver sends as a time with a zone has the session's.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in _MYSQL:
            return dialect.type_descriptor(DATETIME(fsp=6))
        if dialect.name == "oracle":
            return dialect.type_descriptor(TIMESTAMP())
        return self.impl_instance

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: memori stores aware times only")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name in ("sqlite", "oracle", *_MYSQL) else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        if dialect.name != "sqlite":
            return super().result_processor(dialect, coltype)
        # One call in place of SQLAlchemy's and ours: an entity's whole memory has tens of thousands of times.
        parsed = datetime.fromisoformat
        return lambda value: None if value is None else parsed(f"{value}+00:00")


class _ExactText(TypeDecorator[str]):
    """A text that comes back as it was, also where the engine refuses it or takes it for another.

    PostgreSQL has no NUL in texts, Oracle takes an empty one for NULL, and to most of the MySQL family 'ann' and 'ann '
    are equal. Such texts, which are rare, are stored with a control character that tells what they are.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        text = _HALF_SURROGATE.sub("\ufffd", value)
        if dialect.name in _NO_NUL and ("\x00" in text or _ESCAPE in text):
            return text.replace(_ESCAPE, _ESCAPE * 2).replace("\x00", f"{_ESCAPE}0")
        return f"{text}{_END}" if text[-1:] in self._marked_ends(dialect) else text

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], str | None] | None:
        first = super().result_processor(dialect, coltype)
        decode = _unescaped if dialect.name in _NO_NUL else _unmarked if self._marked_ends(dialect) else None
        if decode is None or first is None:
            return decode or first
        return lambda value: decode(first(value))

    def _marked_ends(self, dialect: Dialect) -> Collection[str]:
        """Return the last characters ('': of an empty text) that the engine does not keep, and the mark itself."""
        return ("", _END) if dialect.name == "oracle" else ()


def _unescaped(value: str | None) -> str | None:
    if value is None or _ESCAPE not in value:
        return value
    return _ESCAPED.sub(lambda found: "\x00" if found[0][1] == "0" else _ESCAPE, value)


def _unmarked(value: str | None) -> str | None:
    return value[:-1] if value is not None and value[-1:] == _END else value


class Name(_ExactText):
    """A short text that is compared exactly, case included, and can be indexed: at most `NAME_LENGTH` characters."""

    impl = String
    cache_ok = True

    def __init__(self, length: int = NAME_LENGTH) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in _MYSQL:
            # The family has no one collation that compares trailing spaces too.
            return dialect.type_descriptor(VARCHAR(self.length + 1, charset="utf8mb4", collation="utf8mb4_bin"))
        if dialect.name in _NO_NUL:
            return dialect.type_descriptor(String(self.length * 2))
        return dialect.type_descriptor(String(self.length + 1)) if dialect.name == "oracle" else self.impl_instance

    def _marked_ends(self, dialect: Dialect) -> Collection[str]:
        return (" ", _END) if dialect.name in _MYSQL else super()._marked_ends(dialect)


class LongText(_ExactText):
    """A text of any length: MySQL's TEXT ends at 64 KiB."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in _MYSQL:
            return dialect.type_descriptor(LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"))
        return self.impl_instance


class JsonText(TypeDecorator[Mapping[str, Any]]):
    """A JSON object, as text; an empty one is NULL.

    The engines' own JSON types differ in what they refuse (NaN, an escaped NUL) and reorder, and SQLAlchemy's hands the
    work to a serializer that belongs to the user's engine.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in _MYSQL:
            return dialect.type_descriptor(LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"))
        return self.impl_instance

    def process_bind_param(self, value: Mapping[str, Any] | None, dialect: Dialect) -> str | None:
        # What JSON has no form for is kept as its text rather than refused: metadata is the application's own.
        return json.dumps(dict(value), default=str) if value else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, Any] | None:
        return None if value is None else json.loads(value)


# SQLite numbers the rows of INTEGER primary keys only. MySQL's BLOB ends at 64 KiB.
BigId = BigInteger().with_variant(Integer(), "sqlite")
Blob = LargeBinary().with_variant(LONGBLOB(), *_MYSQL)
