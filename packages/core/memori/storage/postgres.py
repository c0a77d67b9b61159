"""PostgreSQL's protocol, spoken by CockroachDB too, whose version SQLAlchemy's dialects cannot read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

__all__ = ["DRIVERS", "Psycopg2Dialect", "PsycopgDialect"]

# SQLAlchemy's name of a dialect and driver → ours of the same.
DRIVERS = {"postgresql+psycopg": "postgresql+memori_psycopg", "postgresql+psycopg2": "postgresql+memori_psycopg2"}

# The version whose features CockroachDB has had since long before its versions that are still maintained.
_LIKE_POSTGRESQL = (13, 0)


def _version(connection: Connection) -> str:
    return str(connection.exec_driver_sql("SELECT pg_catalog.version()").scalar())


class PsycopgDialect(PGDialect_psycopg):
    """Through psycopg 3."""

    supports_statement_cache = True

    def _get_server_version_info(self, connection: Connection) -> Any:
        if _version(connection).startswith("CockroachDB"):
            return _LIKE_POSTGRESQL
        return super()._get_server_version_info(connection)  # type: ignore[no-untyped-call]


class Psycopg2Dialect(PGDialect_psycopg2):
    """Through psycopg2."""

    supports_statement_cache = True

    def on_connect(self) -> None:
        """Leave the connection as it is: types that memori does not use would be made known to it."""

    def _get_server_version_info(self, connection: Connection) -> Any:
        if _version(connection).startswith("CockroachDB"):
            return _LIKE_POSTGRESQL
        return super()._get_server_version_info(connection)  # type: ignore[no-untyped-call]


for _dialect in (PsycopgDialect, Psycopg2Dialect):
    registry.register(f"postgresql.memori_{_dialect.driver}", __name__, _dialect.__name__)
