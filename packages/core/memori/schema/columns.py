"""Column types that hold the same values on every engine: each says which engine would lose what without it.

Migrations name these types: change what one of them is on an engine only together with a migration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, LargeBinary, String, Text, TypeDecorator
from sqlalchemy.dialects.mysql import DATETIME, LONGBLOB, LONGTEXT, VARCHAR
from sqlalchemy.dialects.oracle import TIMESTAMP
from sqlalchemy.types import TypeEngine

__all__ = ["NAME_LENGTH", "BigId", "Blob", "JsonText", "LongText", "Name", "UtcDateTime", "storable"]

NAME_LENGTH = 255  # The most that MySQL and Oracle can hold in a unique index in every script.
_MYSQL = ("mysql", "mariadb")
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """Return *text* with each NUL and each half of a surrogate pair replaced by U+FFFD.

    PostgreSQL takes no NUL in text, and no driver can encode half a surrogate pair; replies contain both.
    """
    return _NOT_STORABLE.sub("\ufffd", text)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, in UTC, to the microsecond.

    SQLite and MySQL drop an offset without converting by it, MySQL drops fractions too, and on Oracle a plain
    ``DateTime`` is a DATE.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in _MYSQL:
            return dialect.type_descriptor(DATETIME(fsp=6))
        if dialect.name == "oracle":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return self.impl_instance

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: memori stores aware times only")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name in ("sqlite", *_MYSQL) else moment

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


class Name(TypeDecorator[str]):
    """A short text that is compared exactly, case included, and can be indexed: at most `NAME_LENGTH` characters."""

    impl = String
    cache_ok = True

    def __init__(self, length: int = NAME_LENGTH) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in _MYSQL:
            return dialect.type_descriptor(VARCHAR(self.length, charset="utf8mb4", collation="utf8mb4_bin"))
        return self.impl_instance

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


class LongText(TypeDecorator[str]):
    """A text of any length: MySQL's TEXT ends at 64 KiB."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in _MYSQL:
            return dialect.type_descriptor(LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"))
        return self.impl_instance

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


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
