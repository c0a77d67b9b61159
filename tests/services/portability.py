"""What every statement must be for the databases that no test can reach: Oracle and CockroachDB."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Dialect, Engine, Select, event
from sqlalchemy.dialects.oracle import oracledb
from sqlalchemy.sql import ClauseElement, operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, ColumnClause, Label, UnaryExpression

from memori.schema.columns import JsonText, LongText
from memori.storage.postgres import PsycopgDialect

__all__ = ["cockroachdb", "excesses", "oracle", "portable", "problems"]

_MOST = 1000  # Values in one IN that Oracle takes; rows in one statement that memori allows itself.
# Oracle's reserved words that SQLAlchemy does not know to be, and so does not quote, and some that it does.
_WORDS = "access|audit|by|column|comment|current|file|group|immediate|initial|level|lock|mode|order|row|rows|session"
_WORDS += "|share|size|start|to|uid|user|validate"
_TYPES = "char|date|float|integer|long|number|raw"
# What Oracle refuses, or takes only where `memori` does not use it.
_REFUSED = {
    "LIMIT": r"\bLIMIT\b",
    "rows in one VALUES": r"VALUES \([^()]*\), \(",
    "a limited FOR UPDATE": r"(?s)\bFETCH FIRST\b.*\bFOR UPDATE\b",
    "ON CONFLICT": r"\bON CONFLICT\b",
    "a name that is a word of Oracle's, unquoted": rf"(?:[.:](?:{_WORDS}|{_TYPES})|\bAS (?:{_WORDS}))\b",
}
_seen: set[Any] = set()


def oracle(version: tuple[int, ...] = (19, 0)) -> Dialect:
    """Return Oracle's dialect as it is when it is connected to a server of that version."""
    dialect = oracledb.dialect()  # type: ignore[no-untyped-call]
    dialect.server_version_info = version
    dialect.supports_native_boolean = version >= (23,)
    dialect._supports_oracle_json = version >= (21,)
    return dialect


def cockroachdb() -> Dialect:
    """Return the dialect that memori speaks to CockroachDB."""
    return PsycopgDialect()  # type: ignore[no-untyped-call]


_DIALECTS = (oracle(), oracle((23, 4)), cockroachdb())


def _is_long(element: Any) -> bool:
    return isinstance(element, ColumnClause | Label) and isinstance(element.type, LongText | JsonText)


def problems(statement: ClauseElement) -> Iterator[str]:
    """Say what Oracle or CockroachDB would refuse of *statement*."""
    for dialect in _DIALECTS:
        text = str(statement.compile(dialect=dialect))
        if dialect.name == "oracle":
            yield from (f"{what}: {text}" for what, form in _REFUSED.items() if re.search(form, text, re.IGNORECASE))
    for element in visitors.iterate(statement):
        # ORA-00932: a CLOB is compared with nothing, and puts nothing in order.
        if isinstance(element, BinaryExpression) and element.operator not in (operators.is_, operators.is_not):
            yield from (f"compares {side}: {element}" for side in (element.left, element.right) if _is_long(side))
        if isinstance(element, Select):
            ordered = [
                item.element if isinstance(item, UnaryExpression) else item
                for item in (*element._order_by_clauses, *element._group_by_clauses)
            ]
            yield from (f"orders or groups by {item}" for item in ordered if _is_long(item))
            if element._distinct:
                yield from (f"makes {item} distinct" for item in element.selected_columns if _is_long(item))


def excesses(statement: ClauseElement, parameters: Sequence[Any]) -> Iterator[str]:
    """Say of what *statement* is given too many at once."""
    if len(parameters) > _MOST:
        yield f"{len(parameters)} rows at once: {statement}"
    for name, value in dict(parameters[0]).items() if parameters else ():
        if isinstance(value, list | tuple) and len(value) > _MOST:
            yield f"{len(value)} values for {name} in one IN: {statement}"


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Fail when what is executed until the ``with`` block ends holds a statement that has `problems`."""
    found: list[str] = []

    def look(_: Any, statement: Any, several: Any, one: Any, __: Any) -> None:
        if isinstance(statement, ClauseElement):
            found.extend(excesses(statement, several or ([one] if one else [])))
            key = statement._generate_cache_key()
            if key is None or key.key not in _seen:
                _seen.add(None if key is None else key.key)
                found.extend(problems(statement))

    event.listen(Engine, "before_execute", look)
    try:
        yield
    finally:
        event.remove(Engine, "before_execute", look)
    assert not found, "\n".join(found)
    assert _seen, "no statement was seen"
