"""The command line: what it does, what it says, and where."""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from memori import Memori, Settings, cli
from memori.cli import _shown, _signals, commands, main
from memori.errors import ExtractionError
from memori.schema.migrations import HEAD
from memori.types import ExtractedFact, StoredMessage

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
NAMES = ["worker", "migrate", "status", "jobs", "reindex", "import", "doctor"]


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A database with memori's tables and nothing in them."""
    url = f"sqlite:///{tmp_path / 'memori.db'}"
    with Memori(conn=url, worker=False) as mem:
        mem.config.storage.build()
    return url


def capture(database: str, *texts: str) -> None:
    with Memori(conn=database, worker=False) as mem:
        for number, text in enumerate(texts):
            mem.capture([{"role": "user", "content": text}], entity_id="ann", session_id=f"session-{number}")


def fail(database: str, *texts: str) -> None:
    """Leave the work on *texts* given up."""

    def refuse(messages: Sequence[StoredMessage]) -> list[ExtractedFact]:
        raise ExtractionError(f"the model said no to\n{messages[0].content}")

    capture(database, *texts)
    with Memori(conn=database, worker=False, extractor=refuse, settings=Settings(augmentation_attempts=1)) as mem:
        mem.augmentation.run()


def known(database: str) -> list[str]:
    with Memori(conn=database, worker=False) as mem:
        return [fact.content for fact in mem.facts(entity_id="ann")]


@contextmanager
def running(*arguments: str, folder: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m memori`` in a process of its own; end it with the block."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "memori", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def await_line(process: subprocess.Popen[str], words: str) -> str:
    """Return the first line on standard error that has these words."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return line
    raise AssertionError(f"{words!r} never came: {lines}")


@pytest.mark.parametrize("name", ["", *NAMES])
def test_the_page_shows_what_help_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when a command's help is not on the page as it is printed."""
    with pytest.raises(SystemExit) as ended:
        main([*filter(None, [name]), "--help"])
    assert ended.value.code == 0
    assert f"$ memori {name} --help".replace("  ", " ") + "\n" + capsys.readouterr().out in PAGE


def test_every_command_is_tried_here() -> None:
    """Fails when a command was added that is not documented."""
    assert re.findall(r"^    (\w+)  ", commands().format_help(), re.MULTILINE) == NAMES


def test_the_script_and_the_module_are_the_same(tmp_path: Path) -> None:
    """Fails when ``memori`` is not installed as a command, or either prints a traceback."""
    script = Path(sys.executable).with_name("memori")
    for start in ([str(script)], [sys.executable, "-m", "memori"]):
        finished = subprocess.run(
            [*start, "status", "--database", str(tmp_path / "none" / "memori.db")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (finished.returncode, finished.stdout) == (1, "")
        assert re.fullmatch(r"memori status: .*build.*\n", finished.stderr), finished.stderr


@pytest.mark.parametrize("line", ["", "nonsense", "worker --poll soon", "migrate --database", "jobs --limit many"])
def test_what_cannot_be_understood(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when a wrong command line does anything, or ends with another code than 2."""
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line))
    assert ended.value.code == 2
    assert "usage: memori" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("worker --once --poll 0", "poll_s=0.0: must be greater than 0"),
        ("jobs --limit 0", "--limit 0: must be from 1 to 2147483647"),
        ("jobs --limit 9223372036854775808", "must be from 1 to 2147483647"),
        (f"import --from-memori {'x' * 300}", "File name too long"),
        ("status --database nonsense://x", "SQLAlchemy has no dialect 'nonsense'"),
        ("worker --once --app shop", "write MODULE:NAME"),
        ("worker --once --app no_such_module:mem", "No module named 'no_such_module'"),
        ("worker --once --app os:sep", "is a str"),
        ("worker --once --app os:getcwd --database x.db", "leave out --database"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    line: str, words: str, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when a mistake ends in a traceback, in code 0, or does not say what it was."""
    monkeypatch.setenv("MEMORI_DATABASE_URL", database)
    assert main(shlex.split(line)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert words in printed.err


def test_interrupting_is_no_traceback(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when Ctrl-C ends a command in a traceback, or with another code than shells expect."""

    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            signal.raise_signal(signal.SIGINT)
            return 0

    monkeypatch.setattr(sys, "stdout", Interrupted())
    # Shells let what runs in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["status", "--database", database]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "memori status: interrupted\n"


def test_nobody_reads_what_is_printed(database: str) -> None:
    """Fails when ``memori … | head`` ends in a traceback."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "memori", "status", "--database", database]
    finished = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (finished.returncode, finished.stderr) == (1, "")


def test_what_the_terminal_cannot_print_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a letter that standard output does not know ends a command in a traceback."""
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii"))
    with Memori(conn=tmp_path / "käse.db", worker=False) as mem:
        mem.config.storage.build()
    assert main(["status", "--database", str(tmp_path / "käse.db")]) == 0
    assert b"k\\xe4se.db\n" in out.getvalue()


def test_migrate_says_from_what_to_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when the tables are not made, ``--check`` changes something, or what is printed is not what was done."""
    monkeypatch.setenv("MEMORI_DATABASE_URL", f"sqlite:///{tmp_path / 'memori.db'}")
    assert main(["migrate", "--check"]) == 1
    assert not (tmp_path / "memori.db").exists()
    assert main(["migrate"]) == 0
    assert main(["migrate", "--check"]) == 0
    assert main(["migrate"]) == 0
    assert capsys.readouterr() == (
        f"no tables, to become {HEAD}\nno tables -> {HEAD}\nup to date: {HEAD}\nup to date: {HEAD}\n",
        "",
    )


def test_tables_of_a_newer_memori(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when a command takes tables that it does not know for its own."""
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE memori_alembic_version SET version_num = '9999'")
    connection.close()
    assert main(["migrate", "--check", "--database", database]) == 1
    assert "9999: made by a newer memori" in capsys.readouterr().out
    for command in (["migrate"], ["worker"], ["worker", "--once"]):
        assert main([*command, "--database", database]) == 1
        assert "upgrade memori" in capsys.readouterr().err
    assert main(["status", "--database", database]) == 0
    assert "tables    9999, of a newer memori" in capsys.readouterr().out


def test_status_counts_the_work(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when status says something else than the outbox holds."""
    fail(database, "I live in Rome.")
    capture(database, "I like tea.", "I like milk.")
    assert main(["status", "--database", database]) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^(waiting|running|failed|done) +(\d+)$", printed, re.MULTILINE) == [
        ("waiting", "2"),
        ("running", "0"),
        ("failed", "1"),
        ("done", "0"),
    ]
    assert f"tables    {HEAD}, up to date" in printed
    assert "the model said no to I live in Rome." in printed


def test_a_password_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when a command prints the password of the database's URL."""
    main(["doctor", "--database", "postgresql://user:hush@127.0.0.1:1/shop?password=hush"])
    printed = capsys.readouterr()
    assert "database  postgresql://127.0.0.1:1/shop\n" in printed.out
    assert "hush" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:hu/sh#hu?sh@db:5432/shop?sslmode=require", "postgresql://db:5432/shop"),
        ("postgresql+psycopg://user:hush@[::1]:5432/shop", "postgresql+psycopg://[::1]:5432/shop"),
        ("mysql://user:hush@hush@db/shop", "mysql://…"),
        ("mysql://us/er:hush@db/shop", "mysql://…"),
        ("postgresql://user:hush[@db/shop", "postgresql://db/shop"),
        ("postgresql://user:hush@[db/shop", "postgresql://[db/shop"),
        ("postgresql://user:hush/db/shop", "postgresql://…"),
        ("mongodb://user:hush@one:1,two:2/shop", "mongodb://…"),
        ("sqlite:///data/memori.db?timeout=3", "sqlite:///data/memori.db"),
        ("data/memori.db", "data/memori.db"),
    ],
)
def test_what_is_shown_of_an_address(url: str, shown: str) -> None:
    """Fails when a part of a password is shown, or an address that cannot be read ends in a traceback."""
    assert _shown(argparse.Namespace(database=url)) == shown


def test_what_was_given_up_is_listed_and_done_again(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when work that failed for good cannot be found, or not be put back."""
    fail(database, "I live in Rome.", "I live in Oslo.")
    assert main(["jobs", "--limit", "1", "--database", database]) == 0
    printed = capsys.readouterr().out
    assert "1 attempts, entity 'ann', session 'session-1'" in printed
    assert "ExtractionError: the model said no to I live in Oslo." in printed
    assert printed.endswith("2 failed, the latest 1 are above\n")
    assert main(["worker", "--once", "--database", database]) == 1
    assert "2 exchanges could not be read: 'memori jobs' says why" in capsys.readouterr().err
    assert main(["jobs", "--retry", "--database", database]) == 0
    assert main(["worker", "--once", "--database", database]) == 0
    assert main(["jobs", "--database", database]) == 0
    assert capsys.readouterr().out == "2 exchanges are to be read again\n0 failed\n"
    assert known(database) == ["The user lives in Oslo."]


def test_a_worker_that_drains_and_ends(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when ``worker --once`` leaves work, writes to standard output, or changes the program's logging."""
    capture(database, "I live in Rome.", "I like tea.")
    before = logging.getLogger("memori").level, list(logging.getLogger("memori").handlers)
    assert main(["worker", "--once", "--database", database]) == 0
    assert (logging.getLogger("memori").level, logging.getLogger("memori").handlers) == before
    assert len(known(database)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "INFO memori.cli: at work on" in printed.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_goes_on_until_it_is_told_to_end(database: str, number: signal.Signals) -> None:
    """Fails when a worker does not find new work, or a signal ends it in another way than of itself, with code 0."""
    with running("worker", "--poll", "0.05", "--database", database) as worker:
        await_line(worker, "at work on")
        capture(database, "I live in Rome.")
        with Memori(conn=database, worker=False) as mem:
            assert mem.augmentation.wait(60)
        worker.send_signal(number)
        out, err = worker.communicate(timeout=60)
    assert (worker.returncode, out) == (0, "")
    assert err.endswith("INFO memori.cli: stopped\n")
    assert known(database) == ["The user lives in Rome."]


def test_a_worker_waits_for_the_tables(tmp_path: Path) -> None:
    """Fails when a worker that was started before the application built its tables gives up."""
    database = f"sqlite:///{tmp_path / 'memori.db'}"
    with running("worker", "--poll", "0.05", "--database", database) as worker:
        assert "memori migrate" in await_line(worker, "waiting: ")
        assert main(["migrate", "--database", database]) == 0
        await_line(worker, "at work on")
        worker.terminate()
        assert worker.wait(60) == 0


def test_reindexing_is_told_by_which_embedder(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when an application's embeddings are replaced by the default's unasked, or the count is wrong."""
    capture(database, "I live in Rome.")
    with pytest.raises(SystemExit):
        main(["reindex", "--database", database])
    assert "one of the arguments --app --embedder is required" in capsys.readouterr().err
    arguments = ["reindex", "--embedder", "static", "--database", database]
    for counted in ("1", "0"):
        assert main(arguments) == 0
        assert capsys.readouterr().out == f"{counted} facts and messages embedded by wordllama-l2_supercat-128\n"
    assert main([*arguments, "--entity", "bob"]) == 0


def test_an_embedder_that_fails_is_named(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when reindexing by an embedder that does not work ends with a traceback, or with success."""
    capture(database, "I live in Rome.")
    (tmp_path / "broken_shop.py").write_text(
        "from memori import Memori\n\n\n"
        "def embed(texts):\n    raise ConnectionError('no route\\nto it')\n\n\n"
        f"mem = Memori(conn={database!r}, embedder=embed, worker=False)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["reindex", "--app", "broken_shop:mem"]) == 1
    assert "embed failed: ConnectionError: no route to it" in capsys.readouterr().err
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["reindex", "--embedder", "openai:text-embedding-3-small", "--database", database]) == 1
    assert "memori reindex: the embedder openai:text-embedding-3-small cannot be had: " in capsys.readouterr().err


def test_a_signal_that_does_not_wake_the_main_thread_is_heeded(database: str) -> None:
    """Fails when a worker hangs whose main thread sleeps on: another thread got the signal, or it came just before."""
    before = signal.getsignal(signal.SIGTERM)

    def end() -> None:
        for _ in range(600):
            if signal.getsignal(signal.SIGTERM) is not before:
                break
            time.sleep(0.1)
        else:
            return
        time.sleep(1)  # Until the main thread sleeps; should it not yet, the signal is heeded all the more.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    assert main(["worker", "--database", database]) == 0
    ending.join()


def test_a_signal_that_comes_at_the_wrong_moment_is_heeded() -> None:
    """Fails when a worker hangs that is told to end just as it begins to wait for that."""
    with _signals() as stop:
        with stop._cond:  # type: ignore[attr-defined]
            signal.raise_signal(signal.SIGTERM)
        assert stop.wait(60)


SLOW = """
import os, time
from memori import Memori, Settings
from memori.types import ExtractedFact

def slow(messages):
    open("begun", "w").close()
    while not os.path.exists("go on"):
        time.sleep(0.01)
    return [ExtractedFact(kind="fact", content=messages[0].content)]

def mem():
    settings = Settings(close_timeout_s=0.2)
    return Memori(conn="sqlite:///memori.db", extractor=slow, worker=False, settings=settings)
"""


def test_a_worker_that_is_told_to_end_hands_back_the_job_at_hand(database: str, tmp_path: Path) -> None:
    """Fails when a job that takes too long at the end keeps its lease, counts as an attempt, or is done twice."""
    (tmp_path / "shop.py").write_text(SLOW, encoding="utf-8")
    capture(database, "I live in Rome.")
    with running("worker", "--app", "shop:mem", folder=tmp_path) as worker:
        deadline = threading.Event()
        while not (tmp_path / "begun").exists():
            assert worker.poll() is None
            deadline.wait(0.01)
        worker.terminate()
        worker.communicate(timeout=60)
    assert worker.returncode == 0
    with Memori(conn=database, worker=False) as mem:
        assert (mem.augmentation.status().pending, mem.augmentation.status().running) == (1, 0)
    (tmp_path / "go on").touch()
    with running("worker", "--once", "--app", "shop:mem", folder=tmp_path) as worker:
        worker.communicate(timeout=60)
    assert worker.returncode == 0
    assert known(database) == ["I live in Rome."]
    with sqlite3.connect(tmp_path / "memori.db") as connection:
        assert connection.execute("SELECT attempts FROM memori_augmentation_job").fetchall() == [(1,)]
    connection.close()


def test_the_doctor_finds_nothing_wrong(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when a sound installation is called ill, or what is installed is not told."""
    assert main(["doctor", "--database", database]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^memori    \d+\.\d+\.\d+ in .*memori$", printed, re.MULTILINE)
    assert re.search(r"^extras    .*\bopenai \(openai \d", printed, re.MULTILINE)
    assert f"tables    {HEAD}, up to date" in printed
    assert printed.endswith("all is well\n")


def test_the_doctor_of_a_copy_that_was_never_installed(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when the doctor needs the installer's notes."""
    monkeypatch.setattr(cli, "DISTRIBUTION", "no-such-distribution")
    assert main(["doctor", "--database", database]) == 0
    printed = capsys.readouterr().out
    assert "memori    missing in " in printed
    assert "extras    none\n" in printed


def test_the_doctor_says_what_is_wrong(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when the other distribution named memori, missing tables or failed work go unnoticed."""
    other = tmp_path / "site" / "memori-3.3.6.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: memori\nVersion: 3.3.6\n", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(other.parent))
        assert main(["doctor", "--database", str(tmp_path / "none.db")]) == 1
    printed = capsys.readouterr().out
    assert "wrong     the distribution 'memori' of PyPI is installed too" in printed
    assert "wrong     tables: none: 'memori migrate' makes them" in printed
    assert printed.endswith("2 to put right\n")
    fail(database, "I live in Rome.")
    assert main(["doctor", "--database", database]) == 1
    assert "wrong     1 exchanges could not be read" in capsys.readouterr().out
