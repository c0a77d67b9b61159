"""What leads to a MongoDB database, and what is refused."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from databases import mongodb, needs_mongodb
from openai import OpenAI

pytest.importorskip("pymongo.database")

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient, MongoClient, ReadPreference, WriteConcern
from pymongo.database import Database

from memori import Memori, StorageError
from memori.errors import ConfigurationError, UnsupportedConnectionError
from memori.storage.choose import storage_from
from memori.storage.mongo import MongoStorage
from memori.testing.provider import ProviderServer
from memori.testing.storage import NOW, exchange, new_fact, revision

Client = MongoClient[dict[str, Any]]


@pytest.fixture
def database() -> Iterator[Database[dict[str, Any]]]:
    with mongodb() as database:
        yield database


def url_of(database: Database[dict[str, Any]]) -> str:
    host, port = database.client.address or ("", 0)
    return f"mongodb://{host}:{port}/{database.name}"


@contextlib.contextmanager
def lent(database: Database[dict[str, Any]]) -> Iterator[Database[dict[str, Any]]]:
    yield database


def made_strange(database: Database[dict[str, Any]]) -> Database[Any]:
    """Return *database* as an application may have it, with settings that memori could not work with."""
    return database.with_options(
        codec_options=CodecOptions(document_class=RawBSONDocument),
        read_preference=ReadPreference.SECONDARY_PREFERRED,
        write_concern=WriteConcern(w=0),
    )


KINDS: dict[str, Callable[[Database[dict[str, Any]]], Any]] = {
    "database": lambda database: database,
    "database with settings of its own": made_strange,
    "URL": url_of,
    "URL with options": lambda database: f"{url_of(database)}?appname=mine&retryWrites=false",
    "factory of a database": lambda database: lambda: database,
    "factory of a database of a new client": lambda database: lambda: MongoClient(url_of(database))[database.name],
    "factory of a new client": lambda database: lambda: MongoClient(url_of(database)),
    "factory of a URL": lambda database: lambda: url_of(database),
    "factory of a pair": lambda database: lambda: (database, lambda: None),
    "context manager": lambda database: lambda: lent(database),
}


@needs_mongodb
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_conn(kind: str, database: Database[dict[str, Any]]) -> None:
    """Fails when something that leads to a MongoDB database is refused, or a client of the user's is closed."""
    with Memori(conn=KINDS[kind](database)) as memori:
        memori.config.storage.build()
        memori.attribution(entity_id="ann")
        memori.remember("Likes tea.")
        assert memori.recall("tea")[0].content == "Likes tea."
        assert memori.augmentation.wait(30)
    assert database["memori_entity_fact"].count_documents({"content": "Likes tea."}) == 1


@needs_mongodb
def test_a_client_whose_url_names_a_database(database: Database[dict[str, Any]]) -> None:
    """Fails when a client that says which database it is for has to say so again, or is closed."""
    with Client(url_of(database)) as client:
        with Memori(conn=client) as memori:
            memori.config.storage.build()
        assert client.get_default_database()["memori_schema"].count_documents({}) == 1


@needs_mongodb
def test_what_a_factory_made_is_closed_and_called_for_work_only(database: Database[dict[str, Any]]) -> None:
    """Fails when clients that a factory made stay open, or it is called before anything is asked of the database."""
    made: list[Client] = []

    def factory() -> Any:
        made.append(MongoClient(url_of(database)))
        return made[-1][database.name]

    storage = storage_from(factory)
    storage.pause(1.0)
    storage.resume()
    assert made == []
    storage.build()
    assert len(storage.record(exchange("Hi."))) == 2
    storage.close()
    assert made
    for client in made:
        with pytest.raises(Exception, match="after close"):
            client.admin.command("ping")


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no database in the URL": (lambda: "mongodb://localhost", "names no database"),
    "no database in the other URL": (lambda: "mongodb+srv://me:hunter2@cluster.example", "names no database"),
    "no URL": (lambda: "mongodb://me:hunter2@:no:/x", "cannot be read"),
    "a password that is not escaped": (lambda: "mongodb://me:hunter2/@host/x", "quote_plus|names no"),
    "a client without a database": (lambda: MongoClient("localhost", connect=False), r"client\['memori'\]"),
    "a collection": (lambda: MongoClient("localhost", connect=False)["x"]["y"], "Database"),
    "an asynchronous client": (lambda: AsyncMongoClient("localhost", connect=False), r"AsyncMongoClient.*MongoClient"),
    "an asynchronous database": (
        lambda: AsyncMongoClient("localhost", connect=False)["x"],
        r"asynchronous.*AsyncDatabase.*pymongo.MongoClient",
    ),
    "Motor's client": (lambda: type("AsyncIOMotorClient", (), {"__module__": "motor.motor_asyncio"})(), "asynchronous"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore:Unclosed .*MongoClient:ResourceWarning")
def test_anything_else_is_refused_at_once(kind: str) -> None:
    """Fails when what leads to no MongoDB database is taken, or the message does not say what does."""
    make, message = REFUSED[kind]
    conn = make()
    with pytest.raises(UnsupportedConnectionError, match=message) as caught:
        Memori(conn=conn)
    assert isinstance(caught.value, ConfigurationError)
    assert "hunter2" not in str(caught.value)
    if isinstance(conn, MongoClient):
        conn.close()


def test_the_database_of_a_url_is_found_without_asking_for_hosts() -> None:
    """Fails when a URL that names hosts by a DNS entry is looked up when the storage is made."""
    MongoStorage("mongodb+srv://me:secret@cluster.example/the%20base?retryWrites=true").close()


def test_pymongo_that_is_missing_is_named() -> None:
    """Fails when whoever lacks PyMongo is not told what to install."""
    program = (
        "import sys; sys.modules['pymongo'] = None\n"
        "from memori import Memori\n"
        "try: Memori(conn='mongodb://localhost/x')\n"
        "except ImportError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "pymongo is not installed: pip install 'memori-byodb[mongodb]'"


class TestUnreachable:
    """No server there: nothing listens on port 1."""

    URL = "mongodb://127.0.0.1:1/x"

    def test_it_takes_as_long_as_memori_waits(self) -> None:
        """Fails when the client's own bound, 30 s unless set, is what a thread waits."""
        with Client(self.URL) as client:
            for conn in (self.URL, client, client["x"]):
                storage = MongoStorage(conn, busy_timeout_s=0.1)
                for work in (storage.build, partial(storage.version, "ann"), partial(storage.jobs, now=NOW)):
                    began = time.monotonic()
                    with pytest.raises(StorageError, match="did not answer within"):
                        work()
                    assert time.monotonic() - began < 20
                storage.close()

    def test_calls_get_through(self) -> None:
        """Fails when a database that is down makes a call, or the constructor, raise."""
        with (
            ProviderServer() as server,
            OpenAI(base_url=server.url + "/v1", api_key="local", max_retries=0) as client,
            Memori(conn=self.URL).llm.register(client) as memori,
        ):
            memori.attribution(entity_id="ann")
            answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi."}])
            assert answer.choices[0].message.content
            assert memori.status().pending == 1
            memori.config.close_timeout_s = 0.1


@needs_mongodb
def test_a_closed_client_says_so(database: Database[dict[str, Any]]) -> None:
    """Fails when a client that the user closed looks like a server that is down."""
    client: Client = MongoClient(url_of(database))
    storage = MongoStorage(client[database.name])
    storage.build()
    client.close()
    with pytest.raises(StorageError, match=r"closed.*URL or a callable"):
        storage.revise("ann", revision(new_fact("x")), now=NOW)


@needs_mongodb
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["URL", "factory"])
def test_a_forked_process_has_a_client_of_its_own(kind: str, database: Database[dict[str, Any]]) -> None:
    """Fails when the child of a server that forks hangs, talks on its parent's connections, or stops the parent."""
    url = url_of(database)
    with Memori(conn=url if kind == "URL" else lambda: MongoClient(url)) as memori:
        memori.config.storage.build()
        memori.attribution(entity_id="ann")
        memori.capture([{"role": "user", "content": "I live in Rome."}])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                memori.capture([{"role": "user", "content": "I like tea."}])
                code = 0 if memori.augmentation.wait(30) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        memori.capture([{"role": "user", "content": "I like rain."}])
        assert memori.augmentation.wait(30)
        assert [item.content for item in memori.messages()] == ["I live in Rome.", "I like tea.", "I like rain."]
        assert {fact.object for fact in memori.facts()} == {"Rome", "tea", "rain"}
