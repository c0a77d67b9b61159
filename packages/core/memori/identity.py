"""Whom a call is for: the default, the scope that the calling task or thread is in, and its session."""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import uuid4

from memori.errors import AttributionError
from memori.settings import Settings
from memori.types import Attribution

__all__ = ["Identity"]

REMEMBERED_SESSIONS = 10_000  # Of users not seen for longest, the running session is forgotten: they begin a new one.


@dataclass(slots=True)
class _Scope:
    entity_id: str | None = None
    process_id: str | None = None
    session_id: str | None = None


# One variable for all instances, keyed by instance: a context variable is never freed, so none is made for each Memori.
_scopes: ContextVar[Mapping[int, _Scope]] = ContextVar("memori_scopes")
_keys = itertools.count()


class Identity:
    """Who is who for one `Memori`. Safe to use from any thread and task.

    A session that nobody named belongs to one entity and process, and is renewed after a pause
    (``session_timeout_minutes``); a named one lasts until the entity changes.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = next(_keys)
        self._default = _Scope()
        # An adapter may ask in the midst of it: when Python collects a run that was left, its turn is recorded.
        self._lock = threading.RLock()
        self._sessions: OrderedDict[tuple[str, str | None], tuple[str, float]] = OrderedDict()

    def set_default(self, entity_id: str, process_id: str | None) -> None:
        """Set whom calls are for where no scope is open.

        Raises:
            TypeError: An id is not a string.
            ValueError: An id is empty.
        """
        entity_id, process_id = checked("entity_id", entity_id), _optional("process_id", process_id)
        with self._lock:
            previous = self._default
            keeps_session = previous.entity_id is None or previous.entity_id == entity_id
            self._default = _Scope(entity_id, process_id, previous.session_id if keeps_session else None)

    @contextmanager
    def scope(self, entity_id: str, process_id: str | None, session_id: str | None) -> Iterator[None]:
        """Set whom calls are for within the ``with`` block, in this task or thread and the tasks that it starts.

        Args:
            process_id: None: the process that is current where the block begins.
        """
        inner = _Scope(
            checked("entity_id", entity_id),
            _optional("process_id", process_id) or self._scope.process_id,
            _optional("session_id", session_id),
        )
        token = _scopes.set({**_scopes.get({}), self._key: inner})
        try:
            yield
        finally:
            with suppress(ValueError):  # A generator that goes on in another context: nothing to restore.
                _scopes.reset(token)

    def current(self) -> Attribution | None:
        """Return whom a call made here and now is for, its session begun if need be; None when no entity is set."""
        scope = self._scope
        if scope.entity_id is None:
            return None
        session_id = scope.session_id or self._running_session(scope.entity_id, scope.process_id)
        return Attribution(scope.entity_id, scope.process_id, session_id)

    def entity(self, entity_id: str | None = None) -> str:
        """Return *entity_id* if given, else the current entity.

        Raises:
            AttributionError: There is none.
        """
        if entity_id is not None:
            return checked("entity_id", entity_id)
        current = self._scope.entity_id
        if current is None:
            raise AttributionError(
                "no entity: call mem.attribution(entity_id=...), or work within `with mem.scope(entity_id=...):`"
            )
        return current

    @property
    def entity_id(self) -> str | None:
        """The current entity; None when none is set."""
        return self._scope.entity_id

    @property
    def process_id(self) -> str | None:
        """The current process; None when none is set."""
        return self._scope.process_id

    @property
    def session_id(self) -> str | None:
        """The session that was named for the current scope; None when none was."""
        return self._scope.session_id

    def set_session(self, session_id: str) -> None:
        """Name the session of the current scope, or of the default where no scope is open."""
        self._scope.session_id = checked("session_id", session_id)

    def new_session(self) -> str:
        """Begin a new session in the current scope, or in the default, and return its id."""
        session_id = str(uuid4())
        scope = self._scope
        if scope.session_id is not None or scope.entity_id is None:
            scope.session_id = session_id
        else:
            with self._lock:
                self._sessions[scope.entity_id, scope.process_id] = (session_id, time.monotonic())
        return session_id

    @property
    def _scope(self) -> _Scope:
        return _scopes.get({}).get(self._key, self._default)

    def _running_session(self, entity_id: str, process_id: str | None) -> str:
        moment = time.monotonic()
        pair = (entity_id, process_id)
        with self._lock:
            session_id, active = self._sessions.pop(pair, (None, 0.0))
            if session_id is None or moment - active > self._settings.session_timeout_minutes * 60:
                session_id = str(uuid4())
            self._sessions[pair] = (session_id, moment)
            if len(self._sessions) > REMEMBERED_SESSIONS:
                self._sessions.popitem(last=False)
        return session_id


def checked(name: str, value: str) -> str:
    """Return *value*, an id, as it is.

    Raises:
        TypeError: It is not a string.
        ValueError: It is empty or blank.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: must be a string, not {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{name}={value!r}: must not be empty")
    return value


def _optional(name: str, value: str | None) -> str | None:
    return None if value is None else checked(name, value)
