"""Django's databases: found by its connections, reached by connections of memori's own."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["database_of", "is_django", "new_connection"]

# What Django has its connections turn values into is meant for its models.
_FOR_MODELS = ("context", "conv", "cursor_factory", "detect_types")


def is_django(conn: object) -> bool:
    """Return whether *conn* is ``django.db.connection``, or one of ``django.db.connections``."""
    utilities, backends = (
        sys.modules.get(name) for name in ("django.utils.connection", "django.db.backends.base.base")
    )
    return (utilities is not None and isinstance(conn, utilities.ConnectionProxy)) or (
        backends is not None and isinstance(conn, backends.BaseDatabaseWrapper)
    )


def database_of(conn: Any) -> tuple[str, str | None]:
    """Return the alias of a Django connection's database, and the path of its file if it is one of SQLite's."""
    alias: str = conn.alias
    name = str(conn.settings_dict["NAME"])
    in_a_file = conn.vendor == "sqlite" and name != ":memory:" and not name.startswith("file:")
    return alias, name if in_a_file else None


def new_connection(alias: str) -> Any:
    """Return a new DB-API connection to one of Django's databases, which Django knows nothing of.

    Django's own connections belong to their thread, to the request at hand and to its transaction.
    """
    from django.db import connections

    wrapper = connections.create_connection(alias)
    parameters = wrapper.get_connection_params()
    if wrapper.vendor == "oracle":
        return wrapper.get_new_connection(parameters)
    for name in _FOR_MODELS:
        parameters.pop(name, None)
    return wrapper.Database.connect(**parameters)
