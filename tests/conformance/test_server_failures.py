"""Servers that stop, stall, hang up or fill their disk while people talk: every call is answered, nothing is lost."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import ENGINES, Engine, each, needs, needs_mongodb
from openai import OpenAI
from servers import ROOT, SERVERS, Server
from sqlalchemy import URL, create_engine, text

from memori import Memori, Settings, StorageError
from memori.storage.sql import SQLStorage
from memori.testing.provider import ProviderServer
from memori.testing.storage import exchange

QUICK = Settings(retry_max_s=0.5)
SERVER_ENGINES = ("postgres", "mariadb", "mysql", "oceanbase")


@pytest.fixture
def client() -> Iterator[OpenAI]:
    with (
        ProviderServer() as server,
        OpenAI(base_url=server.url + "/v1", api_key="local", max_retries=0) as client,
    ):
        yield client


class Conversation:
    """Someone who talks to a model that has memory, in whatever state the database is."""

    def __init__(self, memori: Memori, client: OpenAI) -> None:
        self.memori = memori
        self._client = client
        memori.llm.register(client)
        memori.attribution(entity_id="ann", process_id="support")
        self.said: list[str] = []

    def talk(self, about: str, *, times: int = 3) -> None:
        for _ in range(times):
            self.said.append(f"{len(self.said)}: this is about {about}.")
            answer = self._client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": self.said[-1]}]
            )
            assert answer.choices[0].message.content

    def has_failed(self, how: str) -> None:
        """Wait until something of memori's failed in that way."""
        end = time.monotonic() + 60
        while how not in (self.memori.status().last_failure or ""):
            assert time.monotonic() < end, self.memori.status()
            time.sleep(0.02)

    def remembered(self) -> list[str]:
        """Return what the database holds of the user's own words once all is written, oldest first."""
        assert self.memori.augmentation.wait(90), self.memori.status()
        return [item.content for item in self.memori.messages() if item.role == "user"]


@contextlib.contextmanager
def conversation(conn: Any, client: OpenAI) -> Iterator[Conversation]:
    with Memori(conn=conn, settings=QUICK) as memori:
        memori.config.storage.build()
        yield Conversation(memori, client)


@pytest.fixture
def private(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of this test's own, which it may stop."""
    # Not in pytest's folder, which lets other users not pass.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    server = SERVERS[request.param](folder / "server")
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "private",
    [
        *(pytest.param(name, marks=needs(name)) for name in ("postgres", "mariadb", "mysql")),
        pytest.param("mongodb", marks=needs_mongodb),
    ],
    indirect=True,
)
def test_a_server_that_is_restarted(private: Server, client: OpenAI) -> None:
    """Fails when a call fails while the server is down, or an exchange of before, meanwhile or after is missing."""
    url = private.start()
    with conversation(url, client) as talking:
        talking.talk("before")
        private.stop()
        talking.talk("meanwhile")
        private.start()
        talking.talk("after")
        assert talking.remembered() == talking.said


def hang_up(engine: Engine, url: URL) -> None:
    """Have the server end all connections to a database."""
    administrator = create_engine(engine.server_url, isolation_level="AUTOCOMMIT")
    name = {"name": url.database}
    with administrator.connect() as connection:
        if engine.server == "postgres":
            ended = connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), name
            ).all()
        else:
            ended = connection.execute(
                text("SELECT id FROM information_schema.processlist WHERE db = :name"), name
            ).all()
            for (number,) in ended:
                connection.exec_driver_sql(f"KILL {number}")
    administrator.dispose()
    assert ended


@pytest.mark.parametrize("engine", each(*SERVER_ENGINES))
def test_connections_that_the_server_ends(engine: Engine, client: OpenAI, tmp_path: Path) -> None:
    """Fails when a connection that the server ended fails a call, or loses an exchange."""
    with engine.empty(tmp_path) as url, conversation(url, client) as talking:
        talking.talk("before")
        assert talking.remembered() == talking.said
        hang_up(engine, url)
        talking.talk("after")
        hang_up(engine, url)
        talking.talk("after that")
        assert talking.remembered() == talking.said


def impatient(engine: Engine, url: URL) -> URL:
    """Return *url* with a bound of a second on what a statement may take, set as users do."""
    if engine.server == "postgres":
        return url.update_query_dict({"options": "-c statement_timeout=1000"})
    return url.update_query_dict({"init_command": "SET SESSION innodb_lock_wait_timeout = 1"})


@contextlib.contextmanager
def locked(url: URL) -> Iterator[None]:
    """Hold the lock that whoever stores an exchange needs."""
    holder = create_engine(url)
    with holder.connect() as connection:
        connection.exec_driver_sql("UPDATE memori_entity SET version = version")
        yield
        connection.rollback()
    holder.dispose()


@pytest.mark.parametrize("engine", each("postgres", "mariadb", "mysql"))
def test_statements_that_time_out(engine: Engine, client: OpenAI, tmp_path: Path) -> None:
    """Fails when a statement that timed out leaves its connection unusable, or loses an exchange."""
    with engine.empty(tmp_path) as url, conversation(impatient(engine, url), client) as talking:
        talking.talk("before")
        assert talking.remembered() == talking.said
        storage = SQLStorage(impatient(engine, url), busy_timeout_s=0.5)
        with locked(url):
            with pytest.raises(StorageError):
                storage.record(exchange("Too late.", entity="ann"))
            talking.talk("meanwhile")
        talking.talk("after")
        assert talking.remembered() == talking.said
        assert len(storage.record(exchange("In time.", entity="bob"))) == 2
        storage.close()


@pytest.mark.parametrize("engine", each("mariadb", "oceanbase"))
def test_a_text_that_the_server_does_not_take(engine: Engine, tmp_path: Path) -> None:
    """Fails when nobody says what to do about a text over max_allowed_packet, or it stands in the way of others."""
    with engine.empty(tmp_path) as url:
        storage = SQLStorage(url)
        storage.build()
        with pytest.raises(StorageError, match="max_allowed_packet"):
            storage.record(exchange("x" * 20_000_000))
        assert len(storage.record(exchange("Hi."))) == 2
        storage.close()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A folder on a disk of 40 MB."""
    if not ROOT:
        pytest.skip("only root can mount a small disk")
    folder = Path(tempfile.mkdtemp())
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=40m,mode=777", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("this machine lets us mount no small disk")
    folder.chmod(0o777)
    yield folder
    subprocess.run(["/bin/umount", "-l", folder], check=True)
    folder.rmdir()


def fill(folder: Path) -> Path:
    """Write until *folder* has no room left; return the file."""
    file = folder / "full"
    with file.open("wb", buffering=0) as written, contextlib.suppress(OSError):
        while True:
            written.write(bytes(4096))
    return file


def test_sqlite_on_a_full_disk(small_disk: Path, client: OpenAI) -> None:
    """Fails when a disk that is full fails a call, or what was said meanwhile is lost when there is room again."""
    with conversation(small_disk / "memori.db", client) as talking:
        talking.talk("before")
        assert talking.remembered() == talking.said
        filler = fill(small_disk)
        talking.talk(secrets.token_hex(20_000))
        talking.has_failed("full")
        filler.unlink()
        talking.talk("after")
        assert talking.remembered() == talking.said


@needs("postgres")
def test_postgres_on_a_full_disk(small_disk: Path, client: OpenAI) -> None:
    """Fails when a server whose disk is full fails a call, or what was said meanwhile is lost."""
    folder = small_disk / "tables"
    folder.mkdir()
    shutil.chown(folder, "postgres")
    administrator = create_engine(ENGINES["postgres"].server_url, isolation_level="AUTOCOMMIT")

    def run(statement: str) -> None:
        with administrator.connect() as connection:
            connection.exec_driver_sql(statement)

    run("DROP TABLESPACE IF EXISTS small")
    run(f"CREATE TABLESPACE small LOCATION '{folder}'")
    with (
        ENGINES["postgres"].empty(small_disk, options="TABLESPACE small") as url,
        conversation(url, client) as talking,
    ):
        talking.talk("before")
        assert talking.remembered() == talking.said
        filler = fill(small_disk)
        # PostgreSQL would make a page of words short enough to fit.
        talking.talk(secrets.token_hex(20_000))
        talking.has_failed("No space left")
        filler.unlink()
        talking.talk("after")
        assert talking.remembered() == talking.said
    run("DROP TABLESPACE small")
    administrator.dispose()
