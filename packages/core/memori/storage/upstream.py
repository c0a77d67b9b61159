"""A database that MemoriLabs' `memori` 3 made: recognised, read, and never changed.

Its tables share five names with ours, and its ids of rows mean nothing here. Times there have no zone; they are taken
for UTC, which is what SQLite writes and servers are usually set to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Select, column, func, inspect, make_url, select, table
from sqlalchemy import exc as sqlalchemy_errors

from memori.errors import ConfigurationError, NotBuiltError, StorageError
from memori.schema.tables import VERSION_TABLE
from memori.storage.connect import connect
from memori.types import ExtractedFact, KnownFact, Message, Role

__all__ = ["Triple", "UpstreamDatabase", "UpstreamSession"]

T = TypeVar("T")

_PAGE = 500


def _table(name: str, *columns: str) -> Any:
    return table(name, *map(column, columns))


_entity = _table("memori_entity", "id", "external_id")
_process = _table("memori_process", "id", "external_id")
_session = _table("memori_session", "id", "uuid", "entity_id", "process_id", "date_created")
_conversation = _table("memori_conversation", "id", "session_id", "summary")
_message = _table("memori_conversation_message", "id", "conversation_id", "role", "content", "date_created")
_fact = _table("memori_entity_fact", "id", "entity_id", "content", "num_times", "date_created", "date_last_time")
_attribute = _table("memori_process_attribute", "id", "process_id", "content")
_edge = _table(
    "memori_knowledge_graph",
    *("id", "entity_id", "subject_id", "predicate_id", "object_id", "num_times", "date_created", "date_last_time"),
)
_subject = _table("memori_subject", "id", "name", "type")
_predicate = _table("memori_predicate", "id", "content")
_object = _table("memori_object", "id", "name", "type")
_READ = (_entity, _process, _session, _conversation, _message, _fact, _attribute, _edge, _subject, _predicate, _object)
_NEEDED = {"memori_schema_version", *(read.name for read in _READ)}

_ROLES: dict[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Triple:
    """One edge of the graph there."""

    subject: str
    subject_type: str | None
    predicate: str
    object: str
    object_type: str | None
    mentions: int
    first_at: datetime
    last_at: datetime

    @property
    def text(self) -> str:
        """The sentence that is made of a triple there."""
        return f"{self.subject} {self.predicate} {self.object}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSession:
    """One session there, with its conversation.

    Attributes:
        conversation: The row of its conversation.
        summary: What its conversation was summed up as.
    """

    uuid: str
    process_id: str | None
    started_at: datetime
    conversation: int
    summary: str | None


class UpstreamDatabase:
    """What such a database holds, in pages, each read in a transaction that cannot write.

    Args:
        conn: What leads to it, as `memori.Memori` takes it. A SQLite file is opened for reading only.

    Raises:
        UnsupportedConnectionError: *conn* leads to no relational database.
    """

    def __init__(self, conn: object) -> None:
        self._database = connect(_for_reading(conn))

    def close(self) -> None:
        """Close what was opened."""
        self._database.close()

    def check(self) -> None:
        """Do nothing if this is such a database.

        Raises:
            ConfigurationError: It is another, or has not all of the tables.
            StorageError: It cannot be reached.
        """
        present = set(self._read(lambda connection: inspect(connection).get_table_names()))
        if VERSION_TABLE in present:
            raise ConfigurationError(
                "the database to import from is one of this memori's own: name one that MemoriLabs' memori made"
            )
        if missing := _NEEDED - present:
            raise ConfigurationError(
                "the database to import from was not made by MemoriLabs' memori 3: it has no table "
                f"{', '.join(sorted(missing))}"
            )

    def entities(self) -> Iterator[tuple[int, str]]:
        """Return the rows and the ids of all entities."""
        yield from ((row.id, row.external_id) for row in self._pages(select(_entity), _entity))

    def processes(self) -> Iterator[tuple[int, str]]:
        """Return the rows and the ids of all processes."""
        yield from ((row.id, row.external_id) for row in self._pages(select(_process), _process))

    def attributes(self, process: int) -> list[str]:
        """Return what is known of the process of this row."""
        query = select(_attribute).where(_attribute.c.process_id == process)
        return [row.content for row in self._pages(query, _attribute)]

    def sessions(self, entity: int) -> Iterator[UpstreamSession]:
        """Return the sessions of the entity of this row, oldest first, those without a conversation left out."""
        query = (
            select(
                _session.c.id,
                _session.c.uuid,
                _session.c.date_created,
                _process.c.external_id,
                _conversation.c.id.label("conversation"),
                _conversation.c.summary,
            )
            .select_from(_session)
            .join(_conversation, _conversation.c.session_id == _session.c.id)
            .outerjoin(_process, _process.c.id == _session.c.process_id)
            .where(_session.c.entity_id == entity)
        )
        for row in self._pages(query, _session):
            yield UpstreamSession(
                uuid=row.uuid,
                process_id=row.external_id,
                started_at=_moment(row.date_created, "memori_session.date_created"),
                conversation=row.conversation,
                summary=row.summary,
            )

    def nobodys_sessions(self) -> int:
        """Return how many sessions there are of no entity."""
        query = select(func.count()).select_from(_session).where(_session.c.entity_id.is_(None))
        return self._read(lambda connection: connection.execute(query).scalar_one())

    def messages(self, conversation: int) -> list[Message]:
        """Return the messages of the conversation of this row, in order."""
        query = select(_message).where(_message.c.conversation_id == conversation)
        return [
            Message(
                role=_ROLES.get(str(row.role).lower(), "user"),
                content=row.content,
                at=_moment(row.date_created, "memori_conversation_message.date_created"),
            )
            for row in self._pages(query, _message)
        ]

    def facts(self, entity: int) -> Iterator[list[KnownFact]]:
        """Return the facts of the entity of this row, oldest first, a page at a time."""
        page: list[KnownFact] = []
        for row in self._pages(select(_fact).where(_fact.c.entity_id == entity), _fact):
            page.append(
                KnownFact(
                    fact=ExtractedFact(kind="fact", content=row.content),
                    mentions=max(int(row.num_times), 1),
                    first_at=_moment(row.date_created, "memori_entity_fact.date_created"),
                    last_at=_moment(row.date_last_time, "memori_entity_fact.date_last_time"),
                )
            )
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    def triples(self, entity: int) -> Iterator[Triple]:
        """Return the edges of the entity of this row, oldest first."""
        query = (
            select(
                _edge.c.id,
                _edge.c.num_times,
                _edge.c.date_created,
                _edge.c.date_last_time,
                _subject.c.name.label("subject"),
                _subject.c.type.label("subject_type"),
                _predicate.c.content.label("predicate"),
                _object.c.name.label("object"),
                _object.c.type.label("object_type"),
            )
            .select_from(_edge)
            .join(_subject, _subject.c.id == _edge.c.subject_id)
            .join(_predicate, _predicate.c.id == _edge.c.predicate_id)
            .join(_object, _object.c.id == _edge.c.object_id)
            .where(_edge.c.entity_id == entity)
        )
        for row in self._pages(query, _edge):
            yield Triple(
                subject=row.subject,
                subject_type=row.subject_type,
                predicate=row.predicate,
                object=row.object,
                object_type=row.object_type,
                mentions=max(int(row.num_times), 1),
                first_at=_moment(row.date_created, "memori_knowledge_graph.date_created"),
                last_at=_moment(row.date_last_time, "memori_knowledge_graph.date_last_time"),
            )

    def _pages(self, query: Select[Any], of: Any) -> Iterator[Any]:
        """Return the rows of *query* by the id of *of*, read a page at a time."""
        after = 0
        while True:
            rows = self._rows(query.where(of.c.id > after).order_by(of.c.id).limit(_PAGE))
            yield from rows
            if len(rows) < _PAGE:
                return
            after = rows[-1].id

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        return self._read(lambda connection: connection.execute(query).all())

    def _read(self, work: Callable[[Connection], T]) -> T:
        def read(connection: Connection) -> T:
            _forbid_writing(connection)
            return work(connection)

        try:
            return self._database.read(read)
        except NotBuiltError as error:  # Whose message tells how to make memori's own tables.
            raise StorageError("a table of the database to import from is not there, or cannot be read") from error


def _for_reading(conn: object) -> object:
    """Return *conn*, or what opens the SQLite file that it names for reading only."""
    if isinstance(conn, URL) or (isinstance(conn, str) and "://" in conn):
        try:
            url = make_url(conn)
        except (sqlalchemy_errors.ArgumentError, ValueError):
            return conn
        if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
            return conn
        if url.query:
            raise ConfigurationError(
                "the SQLite file to import from is opened for reading only, and takes no options: leave out the ? and "
                "what follows it"
            )
        conn = url.database
    if not isinstance(conn, str | Path) or conn == ":memory:":
        return conn
    try:
        file = Path(conn).expanduser().absolute()
        found = file.exists()
    except (OSError, RuntimeError) as error:
        raise StorageError(f"the database file to import from cannot be read: {error}") from error
    if not found:
        raise StorageError(f"there is no database file {file} to import from")
    return lambda: sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, check_same_thread=False)


def _forbid_writing(connection: Connection) -> None:
    if connection.dialect.name in ("postgresql", "oracle"):
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def _moment(value: Any, where: str) -> datetime:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise StorageError(f"{where} in the database to import from is no date: {value!r}") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
