"""Storage in any database that SQLAlchemy reaches.

Each write transaction that changes an entity's memory begins by raising the entity's version: that is its lock. Rows
are looked for and then inserted; where another was faster, the unique constraint says so, and the transaction is done
again.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Dialect,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from memori.errors import NotBuiltError
from memori.schema.columns import NAME_LENGTH, UtcDateTime
from memori.schema.migrations import HEAD, schema_version, upgrade
from memori.schema.tables import attribute, edge, entity, fact, job, message, process, session, source
from memori.storage.connect import connect
from memori.storage.history import Known, digest, normal, unknown
from memori.storage.items import SQLItems
from memori.storage.revisions import Reviser
from memori.storage.rows import FACTS, MESSAGES, batches, facts, identifier, messages, sources
from memori.types import (
    Changes,
    Embedding,
    Exchange,
    Fact,
    FactKind,
    FailedJob,
    Job,
    JobCounts,
    Message,
    Revision,
    SchemaVersion,
    Status,
    StoredMessage,
    Version,
)

__all__ = ["SQLStorage"]

# Due whatever the time: exchanges may come with times of their own, and clocks differ.
_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
_ERRORS = 10
_LOST_WITH_WORKERS = 2  # So often taken up and not finished, a job may be what ends its workers.

_NEXT_VERSION = update(entity).values(version=entity.c.version + 1)
_BY_ID = entity.c.external_id == bindparam("entity")
_BY_ROW = entity.c.id == bindparam("entity_row")
_LOCK, _LOCK_ROW = (_NEXT_VERSION.where(key) for key in (_BY_ID, _BY_ROW))
_LOCK_RETURNING, _LOCK_ROW_RETURNING = (
    statement.returning(entity.c.id, entity.c.version) for statement in (_LOCK, _LOCK_ROW)
)
_STATE, _STATE_OF_ROW = (select(entity.c.id, entity.c.version).where(key) for key in (_BY_ID, _BY_ROW))
_NEW = {table: insert(table) for table in (entity, process, session, message, job)}
_VERSION = select(entity.c.generation, entity.c.version).where(_BY_ID)
_PROCESS = select(process.c.id).where(process.c.external_id == bindparam("process"))
_ATTRIBUTES = select(attribute.c.name).where(attribute.c.process_id == bindparam("process_row"))
_SAME = message.c.digest.in_(bindparam("digests", expanding=True))
# What an exchange meets: itself, its process, its session, and of its messages those that the session has; none of
# which need be there. A row for each such message, one row without any.
_MET = (
    select(
        select(job.c.id).where(job.c.exchange_id == bindparam("exchange")).scalar_subquery().label("job"),
        _PROCESS.scalar_subquery().label("process"),
        session.c.id.label("session_row"),
        session.c.next_position,
        session.c.last_active_at,
        message.c.position,
        message.c.digest,
    )
    .select_from(
        entity.outerjoin(
            session, (session.c.entity_id == entity.c.id) & (session.c.uuid == bindparam("session_id"))
        ).outerjoin(message, (message.c.session_id == session.c.id) & _SAME)
    )
    .where(_BY_ROW)
)
_SESSION_ROW = (
    select(session.c.id)
    .join(entity, entity.c.id == session.c.entity_id)
    .where(entity.c.external_id == bindparam("entity"), session.c.uuid == bindparam("session_id"))
)
_CONVERSATION = (
    select(
        session.c.id,
        session.c.uuid,
        session.c.id.label("session_id"),
        entity.c.external_id.label("entity_id"),
        process.c.external_id.label("process_id"),
        session.c.started_at.label("date_created"),
        session.c.last_active_at.label("date_updated"),
    )
    .join(entity, entity.c.id == session.c.entity_id)
    .outerjoin(process, process.c.id == session.c.process_id)
    .where(session.c.id == bindparam("session_row"))
)
_SAID_IN = (
    select(message.c.role, message.c.content)
    .where(message.c.session_id == bindparam("session_row"))
    .order_by(message.c.position)
)
_GROW_SESSION = (
    update(session)
    .where(session.c.id == bindparam("session_row"))
    .values(next_position=bindparam("position_after"), last_active_at=bindparam("active_at"))
)
_KNOWN = select(message.c.position, message.c.digest).where(message.c.session_id == bindparam("session_row"), _SAME)
_PARTIAL = select(message.c.position, message.c.digest, message.c.content).where(
    message.c.session_id == bindparam("session_row"), message.c.partial, message.c.kind == "text"
)
_RECORDED = MESSAGES.where(
    message.c.session_id == bindparam("session_row"), message.c.position >= bindparam("first")
).order_by(message.c.position)

_JOBS_WAITING = (
    select(job.c.id, job.c.state, job.c.attempts, job.c.exchanged_at)
    .where(job.c.state == "waiting", job.c.due_at <= bindparam("now"))
    .order_by(job.c.exchanged_at, job.c.id)
    .limit(bindparam("count"))
)
_JOBS_ABANDONED = (
    select(job.c.id, job.c.state, job.c.attempts, job.c.exchanged_at)
    .where(job.c.state == "running", job.c.due_at <= bindparam("now"))
    .order_by(job.c.exchanged_at, job.c.id)
    .limit(bindparam("count"))
)
_CLAIM = (
    update(job)
    .where(job.c.id == bindparam("job"), job.c.state == bindparam("was"), job.c.attempts == bindparam("tried"))
    .values(state="running", worker=bindparam("by"), attempts=job.c.attempts + 1, due_at=bindparam("until"))
)
_CLAIMED = (
    select(
        job.c.id,
        job.c.exchange_id,
        entity.c.external_id.label("entity_id"),
        process.c.external_id.label("process_id"),
        session.c.uuid.label("session_id"),
        job.c.attempts,
        job.c.exchanged_at,
    )
    .join(session, session.c.id == job.c.session_id)
    .join(entity, entity.c.id == session.c.entity_id)
    .outerjoin(process, process.c.id == job.c.process_id)
    .where(job.c.id.in_(bindparam("jobs", expanding=True)))
    .order_by(job.c.exchanged_at, job.c.id)
)
_CLAIMED_MESSAGES = (
    MESSAGES.join(
        job,
        (job.c.session_id == message.c.session_id)
        & (message.c.position >= job.c.first_position)
        & (message.c.position < job.c.first_position + job.c.messages),
    )
    .where(job.c.id.in_(bindparam("jobs", expanding=True)))
    .order_by(message.c.position)
)
# The attempts tell two leases of one worker apart.
_LEASED = (
    (job.c.id == bindparam("job"))
    & (job.c.state == "running")
    & (job.c.worker == bindparam("by"))
    & (job.c.attempts == bindparam("tried"))
)
_LEASE = select(session.c.entity_id, job.c.process_id).join(session, session.c.id == job.c.session_id).where(_LEASED)
_DONE = update(job).where(_LEASED).values(state="done", last_error=None)
_FAILED = (
    update(job)
    .where(_LEASED)
    .values(
        state=bindparam("becomes"),
        due_at=bindparam("again_at"),
        last_error=bindparam("reason"),
        failed_at=bindparam("failed"),
    )
)
_RELEASED = (
    update(job)
    .where(_LEASED)
    .values(state="waiting", due_at=_AT_ONCE, attempts=case((job.c.attempts > 0, job.c.attempts - 1), else_=0))
)
_GIVEN_UP = (
    select(
        job.c.exchange_id,
        entity.c.external_id.label("entity_id"),
        process.c.external_id.label("process_id"),
        session.c.uuid.label("session_id"),
        job.c.attempts,
        job.c.last_error.label("error"),
        job.c.failed_at,
    )
    .join(session, session.c.id == job.c.session_id)
    .join(entity, entity.c.id == session.c.entity_id)
    .outerjoin(process, process.c.id == job.c.process_id)
    .where(job.c.state == "failed")
    .order_by(job.c.failed_at.desc(), job.c.id.desc())
)
_COUNTS = select(job.c.state, func.count()).group_by(job.c.state)
_ABANDONED = select(func.count()).where(job.c.state == "running", job.c.due_at <= bindparam("now"))
_NEXT_DUE = select(func.min(job.c.due_at)).where(job.c.state == "waiting")
_LAST_ERRORS = (
    select(job.c.last_error)
    .where(job.c.state.in_(("waiting", "failed")), job.c.last_error.is_not(None))
    .order_by(job.c.failed_at.desc(), job.c.id.desc())
    .limit(_ERRORS)
)
_RETRY = update(job).where(job.c.state == "failed").values(state="waiting", attempts=0, due_at=_AT_ONCE)

_ENTITIES = (
    select(entity.c.id, entity.c.external_id)
    .where(entity.c.id > bindparam("after"))
    .order_by(entity.c.id)
    .limit(bindparam("count"))
)
_ENTITY_MESSAGES = MESSAGES.join(entity, entity.c.id == message.c.entity_id).where(
    entity.c.external_id == bindparam("entity")
)
_ENTITY_FACTS = FACTS.where(entity.c.external_id == bindparam("entity"))
_CHANGED_MESSAGES = _ENTITY_MESSAGES.where(message.c.version > bindparam("after")).order_by(message.c.id)
_CHANGED_FACTS = _ENTITY_FACTS.where(fact.c.version > bindparam("after")).order_by(fact.c.id)
_RECALLED_AT = bindparam("recalled_at", type_=UtcDateTime())
_RECALLED = (
    update(fact)
    .where(
        fact.c.entity_id == select(entity.c.id).where(entity.c.external_id == bindparam("entity")).scalar_subquery(),
        fact.c.id.in_(bindparam("facts", expanding=True)),
    )
    .values(
        times_recalled=fact.c.times_recalled + 1,
        last_recalled_at=case(
            (or_(fact.c.last_recalled_at.is_(None), fact.c.last_recalled_at < _RECALLED_AT), _RECALLED_AT),
            else_=fact.c.last_recalled_at,
        ),
    )
)


class _NothingNewError(Exception):
    """Ends a transaction that has nothing to keep."""


class SQLStorage:
    """A `memori.protocols.Storage` in any database that SQLAlchemy reaches.

    Attributes:
        items: The application's own documents there.

    Args:
        conn: What leads to the database; `memori.storage.connect` says what is taken. It is not reached for yet.
        busy_timeout_s: Seconds to wait for a lock on SQLite, or for a turn on a connection that is shared.

    Raises:
        UnsupportedConnectionError: *conn* leads to no database.
        MissingExtraError: The driver that *conn* names is not installed.
    """

    def __init__(self, conn: object, *, busy_timeout_s: float = 5.0) -> None:
        self._database = connect(conn, busy_timeout_s=busy_timeout_s)
        self._busy_timeout_s = busy_timeout_s
        self.items = SQLItems(self._database)

    def build(self) -> None:
        self._database.build(lambda connection: upgrade(connection, timeout_s=self._busy_timeout_s))

    def schema(self) -> SchemaVersion:
        try:
            return self._database.read(schema_version)
        except NotBuiltError:  # There is no file yet.
            return SchemaVersion(found=None, newest=HEAD)

    def close(self) -> None:
        self._database.close()

    def reach(self) -> None:
        """Find out what *conn* leads to, as far as that takes no connection but one that a callable makes.

        Raises:
            NotRelationalError: It leads to MongoDB.
        """
        self._database.reach()

    def pause(self, timeout_s: float) -> None:
        """Let no transaction run until `resume`: to be called before a fork."""
        self._database.pause(timeout_s)

    def resume(self) -> None:
        """Let transactions run again: to be called in the parent after a fork."""
        self._database.resume()

    def reset(self) -> None:
        """Leave open connections to the parent process: to be called in the child after a fork."""
        self._database.reset()

    def record(self, exchange: Exchange, *, read_back: bool = True) -> list[StoredMessage]:
        recording = _Recording(exchange, read_back=read_back)
        try:
            return self._database.write(recording.store)
        except _NothingNewError:
            return []

    def claim(self, worker: str, *, now: datetime, lease: timedelta, limit: int) -> list[Job]:
        def work(connection: Connection) -> list[Job]:
            waiting, abandoned = _JOBS_WAITING, _JOBS_ABANDONED
            if _skips_locked(connection.dialect):
                waiting, abandoned = (statement.with_for_update(skip_locked=True) for statement in (waiting, abandoned))
            due = [
                row
                for statement in (abandoned, waiting)
                for row in connection.execute(statement, {"now": now, "count": limit})
            ]
            due.sort(key=lambda row: (row.exchanged_at, row.id))
            alone = [row for row in due if row.state == "running" and row.attempts >= _LOST_WITH_WORKERS]
            claimed = [
                row.id
                for row in alone[:1] or due[:limit]
                # Without SKIP LOCKED another worker may have been given the same row.
                if connection.execute(
                    _CLAIM,
                    {"job": row.id, "was": row.state, "tried": row.attempts, "by": worker, "until": now + lease},
                ).rowcount
                == 1
            ]
            return _jobs(connection, claimed, worker)

        return self._database.write(work)

    def complete(self, job: Job, revision: Revision, *, now: datetime) -> bool:
        lease = {"job": job.id, "by": job.worker, "tried": job.attempts}

        def work(connection: Connection) -> bool:
            leased = connection.execute(_LEASE, lease).first()
            if leased is None:
                raise _NothingNewError
            locked = _locked(connection, {"entity_row": leased.entity_id})
            if locked is None or connection.execute(_DONE, lease).rowcount != 1:
                raise _NothingNewError
            entity_row, version = locked
            Reviser(connection, entity_row, version, now=now).apply(revision, process_row=leased.process_id)
            return True

        try:
            return self._database.write(work)
        except _NothingNewError:
            return False

    def fail(self, job: Job, error: str, *, retry_at: datetime | None) -> None:
        parameters = {
            "job": job.id,
            "by": job.worker,
            "tried": job.attempts,
            "becomes": "failed" if retry_at is None else "waiting",
            "again_at": retry_at or _AT_ONCE,
            "reason": error,
            "failed": datetime.now(UTC),
        }
        self._database.write(lambda connection: connection.execute(_FAILED, parameters).close())

    def release(self, jobs: Sequence[Job]) -> None:
        def work(connection: Connection) -> None:
            # In one order everywhere, so that two who give back the same jobs do not wait for each other in a ring.
            for given in sorted(jobs, key=lambda given: given.id):
                connection.execute(_RELEASED, {"job": given.id, "by": given.worker, "tried": given.attempts})

        if jobs:
            self._database.write(work)

    def failed(self, *, limit: int) -> list[FailedJob]:
        return self._database.read(
            lambda connection: [FailedJob(**row._mapping) for row in connection.execute(_GIVEN_UP.limit(limit))]
        )

    def retry(self) -> int:
        return self._database.write(lambda connection: connection.execute(_RETRY).rowcount)

    def jobs(self, *, now: datetime) -> JobCounts:
        def work(connection: Connection) -> JobCounts:
            counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(_COUNTS)}
            abandoned = connection.execute(_ABANDONED, {"now": now}).scalar_one()
            return JobCounts(
                pending=counts.get("waiting", 0) + abandoned,
                running=counts.get("running", 0) - abandoned,
                failed=counts.get("failed", 0),
                done=counts.get("done", 0),
                errors=tuple(connection.scalars(_LAST_ERRORS)),
                next_due=now if abandoned else connection.scalar(_NEXT_DUE),
            )

        return self._database.read(work)

    def revise(self, entity_id: str, revision: Revision, *, now: datetime) -> list[Fact]:
        def work(connection: Connection) -> list[Fact]:
            entity_row, version = _entity(connection, entity_id, at=now)
            return Reviser(connection, entity_row, version, now=now).apply(revision, process_row=None)

        identifier("entity_id", entity_id)
        return self._database.write(work)

    def embed(self, entity_id: str, *, messages: Mapping[int, Embedding], facts: Mapping[int, Embedding]) -> int:
        def work(connection: Connection) -> int:
            locked = _locked(connection, {"entity": entity_id})
            if locked is None:
                return 0
            entity_row, version = locked
            count = Reviser(connection, entity_row, version, now=datetime.now(UTC)).embed(messages, facts)
            if not count:
                raise _NothingNewError
            return count

        try:
            return self._database.write(work)
        except _NothingNewError:
            return 0

    def entities(self, *, after: int = 0, limit: int) -> list[tuple[int, str]]:
        def work(connection: Connection) -> list[tuple[int, str]]:
            rows = connection.execute(_ENTITIES, {"after": after, "count": limit})
            return [(number, entity_id) for number, entity_id in rows]

        return self._database.read(work)

    def describe(self, process_id: str, attributes: Mapping[str, str], *, now: datetime) -> int:
        def work(connection: Connection) -> int:
            found = connection.scalar(_PROCESS, {"process": process_id})
            row = _new_process(connection, process_id, at=now) if found is None else found
            known = set(connection.scalars(_ATTRIBUTES, {"process_row": row}))
            new = {name[:NAME_LENGTH]: value for name, value in attributes.items() if name[:NAME_LENGTH] not in known}
            rows = [
                {"process_id": row, "name": name, "value": value, "mentions": 1, "updated_at": now}
                for name, value in new.items()
            ]
            for batch in batches(rows):
                connection.execute(insert(attribute), batch)
            return len(rows)

        identifier("process_id", process_id)
        return self._database.write(work)

    def version(self, entity_id: str) -> Version | None:
        row = self._database.first(_VERSION, {"entity": entity_id})
        return None if row is None else Version(row[0], row[1])

    def changes(self, entity_id: str, *, since: Version | None) -> Changes | None:
        def work(connection: Connection) -> Changes | None:
            # Read first: what is committed while the rest is read is then told again by the next call, never missed.
            row = connection.execute(_VERSION, {"entity": entity_id}).first()
            if row is None:
                return None
            version = Version(row[0], row[1])
            # A lower number is that of an older database put back in place.
            whole = since is None or since.generation != version.generation or since.number > version.number
            after = 0 if since is None or whole else since.number
            if after == version.number:
                return Changes(version=version, whole=False)
            parameters = {"entity": entity_id, "after": after}
            changed = connection.execute(_CHANGED_FACTS, parameters).all()
            return Changes(
                version=version,
                whole=whole,
                messages=tuple(messages(connection.execute(_CHANGED_MESSAGES, parameters).all())),
                facts=tuple(facts(changed, sources(connection, [row.id for row in changed]))),
            )

        return self._database.read(work)

    def facts(
        self,
        entity_id: str,
        *,
        kinds: Sequence[FactKind] | None = None,
        statuses: Sequence[Status] = ("active",),
        as_of: datetime | None = None,
        limit: int | None = None,
    ) -> list[Fact]:
        query = _ENTITY_FACTS.order_by(fact.c.valid_from.desc(), fact.c.id.desc())
        if kinds is not None:
            query = query.where(fact.c.kind.in_(kinds))
        if as_of is not None:
            query = query.where(fact.c.valid_from <= as_of, or_(fact.c.valid_to.is_(None), fact.c.valid_to > as_of))
            statuses = (*statuses, "superseded")
        query = query.where(fact.c.status.in_(statuses)).limit(limit)

        def work(connection: Connection) -> list[Fact]:
            rows = connection.execute(query, {"entity": entity_id}).all()
            return facts(rows, sources(connection, [row.id for row in rows]))

        return self._database.read(work)

    def messages(
        self, entity_id: str, *, session_id: str | None = None, limit: int | None = None
    ) -> list[StoredMessage]:
        query = _ENTITY_MESSAGES.order_by(message.c.said_at.desc(), message.c.position.desc(), message.c.id.desc())
        if session_id is not None:
            query = query.where(session.c.uuid == session_id)

        def work(connection: Connection) -> list[StoredMessage]:
            return messages(connection.execute(query.limit(limit), {"entity": entity_id}).all())[::-1]

        return self._database.read(work)

    def recalled(self, entity_id: str, fact_ids: Sequence[int], *, at: datetime) -> None:
        def work(connection: Connection) -> None:
            # In one order everywhere, so that two who note the same facts do not wait for each other in a ring.
            for batch in batches(sorted(set(fact_ids))):
                connection.execute(_RECALLED, {"entity": entity_id, "facts": batch, "recalled_at": at})

        if fact_ids:
            self._database.write(work)

    def forget(self, entity_id: str, *, fact_id: int | None = None) -> int:
        def work(connection: Connection) -> int:
            locked = _locked(connection, {"entity": entity_id})
            if locked is None:
                return 0
            if fact_id is None:
                return _erase_entity(connection, locked[0])
            if not _erase_fact(connection, locked[0], fact_id):
                raise _NothingNewError
            return 1

        try:
            return self._database.write(work)
        except _NothingNewError:
            return 0

    def session_row(self, entity_id: str, session_id: str) -> int | None:
        """Return the id that a session of an entity has in ``memori_session``; None when nothing of it is stored."""
        parameters = {"entity": entity_id, "session_id": session_id}
        return self._database.read(lambda connection: connection.scalar(_SESSION_ROW, parameters))

    def conversation(self, row: int) -> dict[str, Any] | None:
        """Return a session's id, uuid, entity, process and times by its id; None when there is no such session."""
        return self._database.read(
            lambda connection: next(
                (dict(found._mapping) for found in connection.execute(_CONVERSATION, {"session_row": row})), None
            )
        )

    def said_in(self, row: int) -> list[dict[str, str]]:
        """Return role and content of a session's messages, in order; none when there is no such session."""
        return self._database.read(
            lambda connection: [
                {"role": said.role, "content": said.content}
                for said in connection.execute(_SAID_IN, {"session_row": row})
            ]
        )


class _Recording:
    """One exchange on its way in."""

    def __init__(self, exchange: Exchange, *, read_back: bool) -> None:
        self._exchange = exchange
        self._read_back = read_back
        who = exchange.attribution
        identifier("entity_id", who.entity_id)
        identifier("session_id", who.session_id)
        identifier("process_id", who.process_id or "")
        self._sent_digests = [digest(said) for said in exchange.sent]

    def store(self, connection: Connection) -> list[StoredMessage]:
        exchange, who = self._exchange, self._exchange.attribution
        entity_row, version = _entity(connection, who.entity_id, at=exchange.at)
        asked, *more = batches(dict.fromkeys(self._sent_digests)) or [[]]
        rows = connection.execute(
            _MET,
            {
                "entity_row": entity_row,
                "exchange": exchange.id,
                "process": who.process_id,
                "session_id": who.session_id,
                "digests": asked,
            },
        ).all()
        met = rows[0]
        if met.job is not None:
            raise _NothingNewError
        known = [Known(row.position, row.digest) for row in rows if row.position is not None]
        new = self._unknown(connection, met.session_row, known, more)
        if not new and not exchange.reply:
            raise _NothingNewError
        said = [(exchange.sent[index], self._sent_digests[index], False) for index in new]
        said += [(answer, digest(answer), exchange.partial) for answer in exchange.reply]
        process_row = met.process
        if process_row is None and who.process_id is not None:
            process_row = _new_process(connection, who.process_id, at=exchange.at)
        if met.session_row is None:
            first = 0
            session_row = _inserted(
                connection,
                session,
                uuid=who.session_id,
                entity_id=entity_row,
                process_id=process_row,
                started_at=exchange.at,
                last_active_at=exchange.at,
                next_position=len(said),
            )
        else:
            first, session_row = met.next_position, met.session_row
            connection.execute(
                _GROW_SESSION,
                {
                    "session_row": session_row,
                    "position_after": first + len(said),
                    "active_at": max(exchange.at, met.last_active_at),
                },
            )
        added = [
            {
                "session_id": session_row,
                "entity_id": entity_row,
                "process_id": process_row,
                "exchange_id": exchange.id,
                "position": position,
                "role": item.role,
                "author": item.author,
                "kind": item.kind,
                "content": item.content,
                "said_at": item.at or exchange.at,
                "partial": partial,
                "metadata": item.metadata,
                "digest": key,
                "version": version,
            }
            for position, (item, key, partial) in enumerate(said, start=first)
        ]
        for batch in batches(added):
            connection.execute(_NEW[message], batch)
        _inserted(
            connection,
            job,
            exchange_id=exchange.id,
            session_id=session_row,
            process_id=process_row,
            provider=exchange.provider,
            model=exchange.model,
            exchanged_at=exchange.at,
            first_position=first,
            messages=len(added),
            state="waiting",
            attempts=0,
            due_at=_AT_ONCE,
        )
        if not self._read_back:
            return []
        return messages(connection.execute(_RECORDED, {"session_row": session_row, "first": first}))

    def _unknown(
        self, connection: Connection, session_row: int | None, known: list[Known], more: Sequence[Sequence[str]]
    ) -> list[int]:
        """Return which of the sent messages are new to the session.

        Args:
            known: The session's, as far as they were looked for.
            more: The digests that were not looked for yet.
        """
        sent = self._exchange.sent
        if session_row is None:
            return list(range(len(sent)))
        for batch in more:
            found = connection.execute(_KNOWN, {"session_row": session_row, "digests": batch})
            known += (Known(position, key) for position, key in found)
        new = unknown(sent, known, digests=self._sent_digests)
        if not any(_may_be_whole(sent, index) for index in new):
            return new
        # A reply that was cut off here may be whole in the application's list.
        partial = [
            Known(position, key, normal(content))
            for position, key, content in connection.execute(_PARTIAL, {"session_row": session_row})
        ]
        return unknown(sent, [*known, *partial], digests=self._sent_digests) if partial else new


def _may_be_whole(sent: Sequence[Message], index: int) -> bool:
    return sent[index].role == "assistant" and sent[index].kind == "text"


def _inserted(connection: Connection, table: Any, **values: Any) -> int:
    key = connection.execute(_NEW[table], values).inserted_primary_key
    row: int = key[0]  # type: ignore[index] # An INSERT of one row has one.
    return row


def _locked(connection: Connection, who: dict[str, Any]) -> tuple[int, int] | None:
    """Raise the version of an entity, given by its row or its id; return its row and version, None without one."""
    by_row = "entity_row" in who
    if connection.dialect.update_returning:
        row = connection.execute(_LOCK_ROW_RETURNING if by_row else _LOCK_RETURNING, who).first()
    elif connection.execute(_LOCK_ROW if by_row else _LOCK, who).rowcount == 0:
        row = None
    else:
        row = connection.execute(_STATE_OF_ROW if by_row else _STATE, who).first()
    return None if row is None else (row[0], row[1])


def _entity(connection: Connection, entity_id: str, *, at: datetime) -> tuple[int, int]:
    """Return the row and the new version of an entity, locked, made if there was none."""
    locked = _locked(connection, {"entity": entity_id})
    if locked is not None:
        return locked
    row = _inserted(connection, entity, external_id=entity_id, version=1, generation=_new_generation(), created_at=at)
    return row, 1


def _new_generation() -> int:
    # Random: what was erased and comes back must not look like what someone still remembers of it.
    return secrets.randbits(62)


def _new_process(connection: Connection, process_id: str, *, at: datetime) -> int:
    return _inserted(connection, process, external_id=process_id, created_at=at)


def _skips_locked(dialect: Dialect) -> bool:
    version = dialect.server_version_info or ()
    if dialect.name in ("mysql", "mariadb"):
        return version >= ((10, 6) if getattr(dialect, "is_mariadb", False) else (8, 0, 1))
    return dialect.name in ("postgresql", "cockroachdb")


def _jobs(connection: Connection, claimed: Sequence[int], worker: str) -> list[Job]:
    if not claimed:
        return []
    by_exchange: dict[str, list[StoredMessage]] = {}
    rows: list[Any] = []
    for batch in batches(claimed):
        for item in messages(connection.execute(_CLAIMED_MESSAGES, {"jobs": batch})):
            by_exchange.setdefault(item.exchange_id, []).append(item)
        rows += connection.execute(_CLAIMED, {"jobs": batch}).all()
    return [
        Job(
            id=row.id,
            exchange_id=row.exchange_id,
            entity_id=row.entity_id,
            process_id=row.process_id,
            session_id=row.session_id,
            attempts=row.attempts,
            worker=worker,
            at=row.exchanged_at,
            messages=tuple(by_exchange.get(row.exchange_id, ())),
        )
        for row in rows
    ]


def _erase_fact(connection: Connection, entity_row: int, fact_id: int) -> bool:
    """Erase one fact, with what points to it; return whether the entity had it."""
    own = (fact.c.id == fact_id) & (fact.c.entity_id == entity_row)
    if connection.execute(select(fact.c.id).where(own)).first() is None:
        return False
    connection.execute(delete(source).where(source.c.fact_id == fact_id))
    connection.execute(delete(edge).where(edge.c.fact_id == fact_id))
    connection.execute(update(fact).where(fact.c.superseded_by == fact_id).values(superseded_by=None))
    connection.execute(delete(fact).where(own))
    connection.execute(update(entity).where(entity.c.id == entity_row).values(generation=_new_generation()))
    return True


def _erase_entity(connection: Connection, entity_row: int) -> int:
    """Erase an entity and all that is its own; return how many facts and messages went.

    Children go first: that is cheaper than cascades, and holds where foreign keys are not enforced.
    """
    own_facts = select(fact.c.id).where(fact.c.entity_id == entity_row)
    own_sessions = select(session.c.id).where(session.c.entity_id == entity_row)
    connection.execute(delete(source).where(source.c.fact_id.in_(own_facts)))
    connection.execute(delete(edge).where(edge.c.entity_id == entity_row))
    connection.execute(delete(job).where(job.c.session_id.in_(own_sessions)))
    connection.execute(update(fact).where(fact.c.entity_id == entity_row).values(superseded_by=None))
    gone = connection.execute(delete(fact).where(fact.c.entity_id == entity_row)).rowcount
    gone += connection.execute(delete(message).where(message.c.entity_id == entity_row)).rowcount
    connection.execute(delete(session).where(session.c.entity_id == entity_row))
    connection.execute(delete(entity).where(entity.c.id == entity_row))
    return gone
