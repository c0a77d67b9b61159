"""Empty databases for tests, on every server that the environment names. See `servers.py` for how to start them."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from servers import SERVERS
from sqlalchemy import URL, create_engine, make_url

if TYPE_CHECKING:
    from pymongo.database import Database

__all__ = ["ENGINES", "HOW_TO_START", "SERVER_ENGINES", "Engine", "each", "mongodb", "needs", "needs_mongodb"]

HOW_TO_START = 'eval "$(python3 tests/services/servers.py start)"'


@dataclass(frozen=True, slots=True)
class Engine:
    """A database engine reached by one driver.

    Attributes:
        server: The server's name in `servers.SERVERS`; None for SQLite.
        drivername: SQLAlchemy's name of the dialect and the driver.
    """

    name: str
    server: str | None
    drivername: str

    @property
    def variable(self) -> str | None:
        """The variable that names the server."""
        return None if self.server is None else SERVERS[self.server].variable

    @property
    def missing(self) -> bool:
        """Whether the environment names no such server."""
        return self.variable is not None and self.variable not in os.environ

    @property
    def server_url(self) -> URL:
        """The URL of the server's own database, through this driver."""
        url = make_url(os.environ[str(self.variable)])
        # mysql-connector has another name for the charset that it uses anyway.
        query = {key: value for key, value in url.query.items() if self.pymysql or key != "charset"}
        return url.set(drivername=self.drivername, query=query)

    @property
    def pymysql(self) -> bool:
        """Whether the driver is PyMySQL."""
        return self.drivername.endswith("+pymysql")

    @contextlib.contextmanager
    def empty(self, folder: Path, *, options: str = "") -> Iterator[URL]:
        """Make an empty database; give its URL until the ``with`` block ends.

        Args:
            folder: Where SQLite's file is to be.
            options: What follows CREATE DATABASE and its name.
        """
        if self.server is None:
            yield URL.create("sqlite", database=str(folder / "memori.db"))
            return
        name = f"memori_{uuid.uuid4().hex}"
        administrator = create_engine(self.server_url, isolation_level="AUTOCOMMIT")
        try:
            with administrator.connect() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE {name} {options}")
            yield self.server_url.set(database=name)
            with administrator.connect() as connection:
                force = " WITH (FORCE)" if self.server == "postgres" else ""
                connection.exec_driver_sql(f"DROP DATABASE {name}{force}")
        finally:
            administrator.dispose()


SERVER_ENGINES = (
    Engine("postgres", "postgres", "postgresql+psycopg"),
    Engine("postgres-psycopg2", "postgres", "postgresql+psycopg2"),
    Engine("mariadb", "mariadb", "mariadb+pymysql"),
    Engine("mariadb-connector", "mariadb", "mariadb+mysqlconnector"),
    Engine("mysql", "mysql", "mysql+pymysql"),
    Engine("mysql-connector", "mysql", "mysql+mysqlconnector"),
    Engine("oceanbase", "oceanbase", "mysql+pymysql"),
)
ENGINES = {engine.name: engine for engine in (Engine("sqlite", None, "sqlite"), *SERVER_ENGINES)}


def needs(name: str) -> pytest.MarkDecorator:
    """Return the mark that skips what needs the engine *name* where the environment names no such server."""
    engine = ENGINES[name]
    return pytest.mark.skipif(
        engine.missing, reason=f"{engine.variable} names no server: {HOW_TO_START} starts one and says where it is"
    )


def each(*names: str) -> list[Any]:
    """Return parameters for a test that runs on each of these engines; on each there is unless given."""
    return [pytest.param(ENGINES[name], id=name, marks=needs(name)) for name in names or ENGINES]


needs_mongodb = pytest.mark.skipif(
    SERVERS["mongodb"].variable not in os.environ,
    reason=f"{SERVERS['mongodb'].variable} names no server: {HOW_TO_START} starts one and says where it is",
)


@contextlib.contextmanager
def mongodb(**options: Any) -> Iterator[Database[dict[str, Any]]]:
    """Make room for an empty MongoDB database; give it until the ``with`` block ends.

    Args:
        options: Of its client.
    """
    from pymongo import MongoClient

    client: MongoClient[dict[str, Any]] = MongoClient(os.environ[SERVERS["mongodb"].variable], **options)
    with client:
        database = client[f"memori_{uuid.uuid4().hex}"]
        yield database
        client.drop_database(database)
