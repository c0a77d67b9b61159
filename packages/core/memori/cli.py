"""The command line: ``memori`` and ``python -m memori``. It reads and acts through `Memori` only.

What was asked for goes to standard output, logs and errors to standard error. The exit code is 0 when all is well, 1
when something failed or is not as it should be, 2 when the command cannot be understood, 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from memori import ConfigurationError, Memori, MemoriError, Settings, StorageError
from memori.errors import ForeignSchemaError
from memori.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memori.types import SchemaVersion

__all__ = ["commands", "main"]

log = logging.getLogger("memori.cli")

DISTRIBUTION = "memori-byodb"
_MOST_JOBS = 2**31 - 1  # Databases count with no more.
# Between two looks at whether all is done, while another worker has the rest; and at whether to end: Python handles a
# signal in the main thread, which sleeps on without a bound when the signal came just before it fell asleep.
_LOOK_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: Those of the command line. None: ``sys.argv``.
    """
    parser = commands()
    given = parser.parse_args(arguments)
    try:
        with _logging():
            code: int = given.run(given)
        sys.stdout.flush()
    except MemoriError as error:
        sys.stderr.write(f"memori {given.command}: {_line(str(error))}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"memori {given.command}: interrupted\n")
        return 130
    except BrokenPipeError:
        # Whoever read this has gone; Python must not try once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def commands() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="memori", description="Look after the memory in your database.", formatter_class=_Help
    )
    listed = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")

    def command(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        added = listed.add_parser(
            name, help=about, description=f"{about[0].upper()}{about[1:]}.", formatter_class=_Help
        )
        added.add_argument(
            "--database",
            metavar="URL",
            help="where the memory is: a URL or a SQLite file (MEMORI_DATABASE_URL; else sqlite:///memori.db)",
        )
        added.set_defaults(run=run)
        return added

    worker = command("worker", _worker, "read facts out of what was stored, beside the programs that store it")
    worker.add_argument(
        "--app",
        metavar="MODULE:NAME",
        help="the program's own Memori, or a function that returns it: for its extractor, embedder and settings",
    )
    worker.add_argument("--once", action="store_true", help="end when nothing is left to be done")
    worker.add_argument("--poll", type=float, metavar="SECONDS", help="how often to look for work (MEMORI_POLL_S; 15)")
    migrate = command("migrate", _migrate, "make memori's tables, or bring them up to date")
    migrate.add_argument("--check", action="store_true", help="change nothing; exit with 1 if there is something to do")
    command("status", _status, "say how much work waits, runs, has failed and is done")
    jobs = command("jobs", _jobs, "list the work that was given up, with its errors")
    jobs.add_argument("--limit", type=int, default=20, metavar="N", help="at most that many, the latest first (20)")
    jobs.add_argument("--retry", action="store_true", help="put all of it back to be done")
    reindex = command("reindex", _reindex, "embed again what another embedder embedded, or none did")
    by = reindex.add_mutually_exclusive_group(required=True)
    by.add_argument(
        "--app", metavar="MODULE:NAME", help="by the embedder of the program's own Memori, or of what returns it"
    )
    by.add_argument(
        "--embedder", metavar="NAME", help="by this one: 'static', or whatever Memori(embedder=…) knows by name"
    )
    reindex.add_argument("--entity", metavar="ID", help="of this entity only")
    bring = command("import", _import, "bring over what MemoriLabs' memori 3 stored in another database")
    bring.add_argument(
        "--from-memori", metavar="URL", required=True, help="the database to read; nothing is changed there"
    )
    command("doctor", _doctor, "say what is installed, what the database is like, and what is wrong")
    return parser


class _Help(argparse.HelpFormatter):
    """As wide everywhere, so that the documentation can show it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def _worker(given: argparse.Namespace) -> int:
    with _signals() as stop, _opened(given) as mem:
        if given.poll is not None:
            mem.config.poll_s = given.poll
        _await_tables(mem, stop, once=given.once)
        mem.augmentation.start()
        log.info("at work on %s", _shown(given))
        failed = 0
        while not stop.is_set():
            if not given.once:
                stop.wait(_LOOK_S)
                continue
            mem.augmentation.wait(_LOOK_S)
            counts = mem.augmentation.status()
            if not counts.pending and not counts.running:
                failed = counts.failed
                break
    log.info("stopped")
    if failed:
        sys.stderr.write(f"memori worker: {failed} exchanges could not be read: 'memori jobs' says why\n")
    return 1 if failed else 0


def _await_tables(mem: Memori, stop: threading.Event, *, once: bool) -> None:
    """Return when memori's tables are there, or *stop* is set.

    Raises:
        StorageError: They will not be there by waiting; or with *once*, they are not.
    """
    told = ""
    while not stop.is_set():
        try:
            schema = mem.config.storage.schema()
        except ForeignSchemaError:
            raise
        except StorageError as error:
            if once:
                raise
            missing = str(error)
        else:
            if schema is None or (schema.found is not None and not schema.newer):
                return
            if schema.newer:
                mem.config.storage.build()  # Says what is to be done.
            missing = "memori's tables are not in this database: 'memori migrate' makes them"
            if once:
                raise StorageError(missing)
        if missing != told:
            log.warning("waiting: %s", missing)
        told = missing
        stop.wait(min(mem.config.retry_max_s, mem.config.poll_s))


def _migrate(given: argparse.Namespace) -> int:
    with _opened(given) as mem:
        before = mem.config.storage.schema()
        if given.check:
            return _checked(before)
        mem.config.storage.build()
        after = mem.config.storage.schema()
    if before is None or after is None or before.found == after.found:
        _say(f"up to date{_at(before)}")
    else:
        _say(f"{before.found or 'no tables'} -> {after.found}")
    return 0


def _checked(schema: SchemaVersion | None) -> int:
    if schema is None or schema.found == schema.newest:
        _say(f"up to date{_at(schema)}")
        return 0
    if schema.newer:
        _say(f"{schema.found}: made by a newer memori than this one, which knows {schema.newest}")
    else:
        _say(f"{schema.found or 'no tables'}, to become {schema.newest}")
    return 1


def _at(schema: SchemaVersion | None) -> str:
    return "" if schema is None or schema.found is None else f": {schema.found}"


def _status(given: argparse.Namespace) -> int:
    with _opened(given) as mem:
        schema = mem.config.storage.schema()
        counts = mem.augmentation.status()
    _say(f"database  {_shown(given)}")
    if schema is not None:
        _say(f"tables    {_described(schema)}")
    _say(f"waiting   {counts.pending}")
    _say(f"running   {counts.running}")
    _say(f"failed    {counts.failed}")
    _say(f"done      {counts.done}")
    for error in dict.fromkeys(counts.errors):
        _say(f"error     {_line(error)}")
    return 0


def _described(schema: SchemaVersion) -> str:
    if schema.found is None:
        return "none: 'memori migrate' makes them"
    if schema.newer:
        return f"{schema.found}, of a newer memori: upgrade memori"
    if schema.found != schema.newest:
        return f"{schema.found}: 'memori migrate' brings them to {schema.newest}"
    return f"{schema.found}, up to date"


def _jobs(given: argparse.Namespace) -> int:
    if not 1 <= given.limit <= _MOST_JOBS:
        raise ConfigurationError(f"--limit {given.limit}: must be from 1 to {_MOST_JOBS}")
    with _opened(given) as mem:
        if given.retry:
            _say(f"{mem.augmentation.retry()} exchanges are to be read again")
            return 0
        counts, failed = mem.augmentation.status(), mem.augmentation.failed(limit=given.limit)
    for job in failed:
        when = "" if job.failed_at is None else f"{job.failed_at:%Y-%m-%d %H:%M:%S} UTC, "
        _say(f"{job.exchange_id}  {when}{job.attempts} attempts, entity {job.entity_id!r}, session {job.session_id!r}")
        _say(f"    {_line(job.error or 'no error was noted')}")
    _say(f"{counts.failed} failed{'' if len(failed) == counts.failed else f', the latest {len(failed)} are above'}")
    return 0


def _reindex(given: argparse.Namespace) -> int:
    with _opened(given) as mem:
        count = mem.augmentation.reindex(given.entity)
        _say(f"{count} facts and messages embedded by {mem.config.embeddings.model}")
    return 0


def _import(given: argparse.Namespace) -> int:
    with _opened(given) as mem:
        for kind in mem.import_from(given.from_memori, build=True):
            _say(f"{kind.kind:<11} {kind.found} found, {kind.new} new")
        left = mem.augmentation.status().pending
    if left:
        _say(f"{left} exchanges wait for a worker, which embeds what was said")
    return 0


def _doctor(given: argparse.Namespace) -> int:
    wrong: list[str] = []
    _say(f"memori    {_version(DISTRIBUTION)} in {Path(__file__).parent}")
    _say(f"python    {platform.python_version()} on {platform.system()} {platform.machine()}")
    _say(f"extras    {', '.join(_extras()) or 'none'}")
    if any(_normal(found.name) == "memori" for found in metadata.distributions()):
        wrong.append(
            "the distribution 'memori' of PyPI is installed too, another program with a package of the same name: "
            f"pip uninstall memori; pip install --force-reinstall {DISTRIBUTION}"
        )
    _say(f"database  {_shown(given)}")
    try:
        with _opened(given) as mem:
            try:
                _say(f"embedder  {mem.config.embeddings.model}, {len(mem.embed_texts('memory')[0])} numbers a vector")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what the doctor was asked for
                wrong.append(f"the embedder does not work: {type(error).__name__}: {error}")
            schema = mem.config.storage.schema()
            if schema is not None:
                _say(f"tables    {_described(schema)}")
            if schema is not None and schema.found != schema.newest:
                wrong.append(f"tables: {_described(schema)}")
            else:
                counts = mem.augmentation.status()
                _say(f"work      {counts.pending} waiting, {counts.running} running, {counts.failed} failed")
                if counts.failed:
                    wrong.append(f"{counts.failed} exchanges could not be read: 'memori jobs' says why")
    except MemoriError as error:
        wrong.append(f"database: {error}")
    for problem in wrong:
        _say(f"wrong     {problem}")
    _say("all is well" if not wrong else f"{len(wrong)} to put right")
    return 1 if wrong else 0


def _extras() -> Iterable[str]:
    """Return the extras of which everything is installed, with its versions."""
    needed: dict[str, list[str]] = {}
    try:
        requirements = metadata.requires(DISTRIBUTION) or ()
    except metadata.PackageNotFoundError:  # It is run from where it was copied to.
        return
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", requirement)
        if name and extra and extra[1] not in ("all", "tests", "dev"):
            needed.setdefault(extra[1], []).append(name[0])
    for title, names in sorted(needed.items()):
        versions = [f"{package} {_version(package)}" for package in names if package != DISTRIBUTION]
        if versions and not any(entry.endswith(" missing") for entry in versions):
            yield f"{title} ({', '.join(versions)})"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"


def _normal(name: str | None) -> str:
    return re.sub(r"[-_.]+", "-", name or "").lower()


def _opened(given: argparse.Namespace) -> Memori:
    """Return the `Memori` that a command is about, its worker not started yet."""
    app = getattr(given, "app", None)
    if app is None:
        return Memori(
            conn=given.database or database_url(),
            settings=Settings.from_environment(),
            embedder=getattr(given, "embedder", None),
            worker=False,
        )
    if given.database is not None:
        raise ConfigurationError("--app names a Memori that has its database: leave out --database")
    return _found(app)


def _found(app: str) -> Memori:
    module, colon, name = app.partition(":")
    if not module or not colon or not name:
        raise ConfigurationError(f"--app {app!r}: write MODULE:NAME, e.g. shop.memory:mem")
    # As `python -m` would: what is in the current folder can be imported.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = import_module(module)
        value = getattr(found, name)
        if callable(value) and not isinstance(value, Memori):
            value = value()
    except MemoriError:
        raise
    except Exception as error:
        raise ConfigurationError(f"--app {app!r} cannot be had: {type(error).__name__}: {error}") from error
    if not isinstance(value, Memori):
        raise ConfigurationError(f"--app {app!r} is a {type(value).__name__}: it must be a Memori, or return one")
    return value


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        # In a thread: the one that is interrupted may hold the event's lock, just about to wait for it.
        threading.Thread(target=stop.set, name="memori-stop").start()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _logging() -> Iterator[None]:
    """Have memori's log on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("memori")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _OneLine(logging.Formatter):
    """One line for each thing that happened, whatever went wrong."""

    def format(self, record: logging.LogRecord) -> str:
        return _line(f"{self.formatTime(record)} {record.levelname} {record.name}: {record.getMessage()}")


def _shown(given: argparse.Namespace) -> str:
    """Return the database's address without user, password and options."""
    if getattr(given, "app", None):
        return f"the database of {given.app}"
    url = given.database or database_url()
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError

    from memori.storage.connect import is_dsn

    if "://" not in url:
        return "(a connection string)" if is_dsn(url) else str(url)

    try:
        read = make_url(url)
        shown = URL.create(read.drivername, host=read.host, port=read.port, database=read.database).render_as_string()
    except (ArgumentError, ValueError):
        shown = ""
    # An @ that is left is one of a password that was not written as it must be.
    return shown if shown and "@" not in shown and "%40" not in shown else f"{url.partition('://')[0]}://…"


def _line(text: str) -> str:
    return " ".join(text.split())


def _say(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
