#!/usr/bin/env python3
"""Real database servers for the tests, reachable from this machine only, gone when they are stopped.

    eval "$(python3 tests/services/servers.py start)"     # installs what is missing, prints export TEST_…_URL=…
    make test
    python3 tests/services/servers.py stop

``start`` and ``stop`` take names of servers (all unless given) and ``--folder`` for their data, which ``stop``
removes. Needs nothing but Python and, to install, root on Debian or Ubuntu; what cannot be started is told and left
out. Programs that no package of the system brings are kept in ``~/.cache/memori-servers``.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

__all__ = ["SERVERS", "MariaDB", "Mongo", "MySQL", "Postgres", "Seekdb", "Server"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memori-servers"
START_S = 120.0  # Machines that test are busy.
ROOT = os.geteuid() == 0


class CannotStartError(Exception):
    """A server cannot be installed or started here."""


class Server(ABC):
    """One server, with its data in a folder of its own. It keeps its port and its data while it is stopped.

    Args:
        folder: Where its data is; made when it is needed.
    """

    name: ClassVar[str]
    variable: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @abstractmethod
    def installed(self) -> bool:
        """Return whether its programs are on this machine."""

    @abstractmethod
    def install(self) -> None:
        """Put its programs on this machine."""

    def running(self) -> bool:
        """Return whether it runs."""
        pid = self.pid()
        return pid is not None and _alive(pid)

    @abstractmethod
    def start(self) -> str:
        """Start it; return the URL of its database."""

    def stop(self) -> None:
        """Let it end in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def pid(self) -> int | None:
        """Return the number of its process; None when it has none."""
        try:
            return int((self.folder / "pid").read_text().split()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return None

    @functools.cached_property
    def port(self) -> int:
        """The port that it listens on, at 127.0.0.1: one that was free when it was first started."""
        file = self.folder / "port"
        if not file.exists():
            with socket.socket() as any_socket:
                any_socket.bind(("127.0.0.1", 0))
                file.write_text(str(any_socket.getsockname()[1]))
        return int(file.read_text())

    def _end(self, how: signal.Signals) -> None:
        pid = self.pid()
        if pid is not None and _alive(pid):
            os.kill(pid, how)
            _wait(lambda: not _alive(pid), f"{self.name} does not end")

    def _log(self) -> str:
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(line for file in files for line in file.read_text(errors="replace").splitlines()[-10:])


class Postgres(Server):
    """PostgreSQL, from the system's packages."""

    name = "postgres"
    variable = "TEST_POSTGRES_URL"

    def installed(self) -> bool:
        return self._programs() is not None

    def install(self) -> None:
        _apt_install("postgresql")

    def pid(self) -> int | None:
        try:
            return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        except (OSError, IndexError, ValueError):
            return None

    def start(self) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        if ROOT:
            shutil.chown(self.folder, "postgres", "postgres")
            for parent in self.folder.parents:
                if not parent.stat().st_mode & 0o001:
                    raise CannotStartError(f"{parent} lets the user postgres not pass: give another --folder")
        address = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -p {self.port}"
        if not (self.folder / "data").exists():
            self._run(
                *("initdb", "-D", "data", "-U", "test", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
            )
        log = str(self.folder / "server.log")
        # They outlive no power cut, which no test makes.
        quick = "-c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-D", "data", "-w", "-t", "60", "-l", log, "-o", f"{address} {quick}", "start")
        with contextlib.suppress(CannotStartError):  # It is there since the first start.
            self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "test", "memori")
        return f"postgresql+psycopg://test@127.0.0.1:{self.port}/memori"

    def stop(self) -> None:
        if self.running():
            self._run("pg_ctl", "-D", "data", "-w", "-m", "fast", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        programs = self._programs()
        assert programs is not None
        _run(
            [str(programs / program), *arguments],
            self.folder,
            # PostgreSQL refuses to run as root.
            before=("runuser", "-u", "postgres", "--") if ROOT else (),
        )

    def _programs(self) -> Path | None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        if found:
            return found[-1].parent
        other = shutil.which("initdb")
        return None if other is None else Path(other).parent


class _MySQLProtocol(Server):
    """A server of the MySQL family on a port."""

    dialect: ClassVar[str]

    def _url(self) -> str:
        return f"{self.dialect}+pymysql://test:test@127.0.0.1:{self.port}/memori?charset=utf8mb4"

    def _arguments(self) -> list[str]:
        return [
            f"--datadir={self.folder}/data",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            f"--log-error={self.folder}/server.log",
            # What is committed outlives the server, not a power cut.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-doublewrite=0",
        ]

    def _launch(self, command: Sequence[str]) -> None:
        (self.folder / "socket").unlink(missing_ok=True)
        _detach(command, self.folder)
        _wait(lambda: self.running() and _answers(self.port), f"{self.name} does not start", self._log)


_ACCOUNT = "create user test@'127.0.0.1' identified by 'test';\ngrant all on *.* to test@'127.0.0.1';\n"


class MariaDB(_MySQLProtocol):
    """MariaDB, from the system's packages. Its default character set is latin1, as many users' is."""

    name = "mariadb"
    variable = "TEST_MARIADB_URL"
    dialect = "mariadb"

    def installed(self) -> bool:
        return _program("mariadbd") is not None and _program("mariadb-install-db") is not None

    def install(self) -> None:
        _apt_install("mariadb-server")

    def start(self) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        user = ["--user=root"] if ROOT else []
        server = [str(_program("mariadbd")), "--no-defaults", *user, *self._arguments()]
        if not (self.folder / "data").exists():
            install = [str(_program("mariadb-install-db")), "--no-defaults", *user, f"--datadir={self.folder}/data"]
            _run([*install, "--auth-root-authentication-method=normal", "--skip-test-db"], self.folder)
            first = self.folder / "first.sql"
            first.write_text(f"create database memori character set latin1;\n{_ACCOUNT}")
            server.append(f"--init-file={first}")
        self._launch([*server, "--character-set-server=latin1"])
        return self._url()


class MySQL(_MySQLProtocol):
    """MySQL, from Debian unstable: unpacked into the cache and run with its own libraries, beside the system's."""

    name = "mysql"
    variable = "TEST_MYSQL_URL"
    dialect = "mysql"
    program = CACHE / "mysql" / "usr" / "sbin" / "mysqld"

    def installed(self) -> bool:
        return self.program.exists()

    def install(self) -> None:
        _unpack_from_debian("sid", "mysql-server-core", CACHE / "mysql")

    def start(self) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "data").exists():
            first = self.folder / "first.sql"
            first.write_text(f"create database memori character set utf8mb4;\n{_ACCOUNT}")
            _run([*self._command(), "--initialize-insecure", f"--init-file={first}"], self.folder)
        self._launch(self._command())
        return self._url()

    def _command(self) -> list[str]:
        root = CACHE / "mysql"
        (loader,) = root.glob("usr/lib*/ld-linux-*.so.*")
        (library,) = root.glob("usr/lib/*/libc.so.6")
        return [
            str(loader),
            "--library-path",
            str(library.parent),
            str(self.program),
            "--no-defaults",
            *(["--user=root"] if ROOT else []),
            f"--basedir={root}/usr",
            f"--lc-messages-dir={root}/usr/share/mysql",
            f"--character-sets-dir={root}/usr/share/mysql/charsets",
            f"--plugin-dir={root}/usr/lib/mysql/plugin",
            "--secure-file-priv=NULL",
            "--mysqlx=OFF",
            "--skip-log-bin",
            "--performance-schema=OFF",
            *self._arguments(),
        ]


class Seekdb(Server):
    """OceanBase's engine for one machine, from its Python package, on a socket of its own."""

    name = "oceanbase"
    variable = "TEST_OCEANBASE_URL"
    python = CACHE / "seekdb" / "bin" / "python"

    def installed(self) -> bool:
        return (CACHE / "seekdb" / "complete").exists()

    def install(self) -> None:
        # In an environment of its own: it is big, and none of memori's business.
        _run([sys.executable, "-m", "venv", "--clear", str(CACHE / "seekdb")], CACHE)
        _run([str(self.python), "-m", "pip", "install", "--quiet", "pylibseekdb>=1.4,<2"], CACHE)
        (CACHE / "seekdb" / "complete").touch()

    def start(self) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("socket", "pid"):
            (self.folder / name).unlink(missing_ok=True)
        _detach([str(self.python), str(Path(__file__).absolute()), "keep-seekdb", str(self.folder)], self.folder)
        _wait((self.folder / "socket").exists, f"{self.name} does not start", self._log)
        address = (self.folder / "socket").read_text()
        return f"mysql+pymysql://root@localhost/test?unix_socket={address}&charset=utf8mb4"


def keep_seekdb(folder: Path) -> None:
    """Run seekdb until this process is told to end: the server ends with the last process that holds it open."""
    import pylibseekdb  # type: ignore[import-not-found] # It is in an environment of its own.

    (folder / "pid").write_text(str(os.getpid()))
    instance = pylibseekdb.open(str(folder / "data"))
    half = folder / "half"
    half.write_text(instance.connection_options()["unix_socket"])
    half.rename(folder / "socket")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        while True:
            signal.pause()
    finally:
        instance.close()


class Mongo(Server):
    """A server of MongoDB's protocol: mongo-java-server, from Maven's repository, over a file.

    MongoDB's own is in no package. This one has no transactions, no sessions and no pipelines in updates, none of which
    memori needs.
    """

    name = "mongodb"
    variable = "TEST_MONGODB_URL"
    sources = Path(__file__).absolute().parent / "mongo"
    programs = CACHE / "mongodb"

    def installed(self) -> bool:
        made = self.programs / "complete"
        newest = max(source.stat().st_mtime for source in self.sources.iterdir())
        return made.exists() and made.stat().st_mtime > newest

    def install(self) -> None:
        if shutil.which("mvn") is None or shutil.which("javac") is None:
            _apt_install("maven", "default-jdk-headless")
        shutil.rmtree(self.programs, ignore_errors=True)
        self.programs.mkdir(parents=True)
        jars = ["dependency:copy-dependencies", f"-DoutputDirectory={self.programs}/jars"]
        _run(["mvn", "--batch-mode", "--quiet", "-f", str(self.sources / "pom.xml"), *jars], self.programs)
        _run(
            ["javac", "-cp", "jars/*", "-d", "jars", str(self.sources / "MongoServerLauncher.java")],
            self.programs,
        )
        (self.programs / "complete").touch()

    def start(self) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "ready").unlink(missing_ok=True)
        jars = f"{self.programs}/jars"
        java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{jars}:{jars}/*", "MongoServerLauncher"]
        _detach([*java, str(self.folder), str(self.port)], self.folder)
        _wait((self.folder / "ready").exists, f"{self.name} does not start", self._log)
        return f"mongodb://127.0.0.1:{self.port}/memori"


SERVERS: dict[str, type[Server]] = {server.name: server for server in (Postgres, MariaDB, MySQL, Seekdb, Mongo)}


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/usr/bin")


def _run(command: Sequence[str], folder: Path, *, before: Sequence[str] = (), **environment: str) -> str:
    result = subprocess.run(
        [*before, *command],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        said = "\n".join((result.stdout + result.stderr).splitlines()[-10:])
        raise CannotStartError(f"{shlex.join(command)} ended with {result.returncode}:\n{said}")
    return result.stdout


def _detach(command: Sequence[str], folder: Path) -> None:
    """Start *command* as nobody's child, with no part in what this process prints."""
    subprocess.run(
        ["sh", "-c", '"$@" </dev/null >output.log 2>&1 &', "sh", *command],
        cwd=folder,
        # seekdb would report to its maker.
        env={**os.environ, "TELEMETRY_ENABLED": "false"},
        start_new_session=True,
        check=True,
    )


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _answers(port: int) -> bool:
    """Return whether a server of the MySQL family greets whoever connects."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(5)
            return len(connection.recv(5)) == 5
    except OSError:
        return False


def _wait(what: Callable[[], bool], otherwise: str, log: Callable[[], str] = str) -> None:
    end = time.monotonic() + START_S
    while not what():
        if time.monotonic() > end:
            raise CannotStartError(f"{otherwise} in {START_S:.0f} s\n{log()}")
        time.sleep(0.05)


def _apt_install(*packages: str) -> None:
    if not ROOT or shutil.which("apt-get") is None:
        raise CannotStartError(
            f"it is not installed, and only root on Debian can: apt-get install {' '.join(packages)}"
        )
    with _no_services():
        for attempt in ("first", "with new lists"):
            try:
                install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
                _run(install, Path("/"), DEBIAN_FRONTEND="noninteractive")
            except CannotStartError:
                if attempt != "first":
                    raise
                _run(["apt-get", "update", "--quiet"], Path("/"))
            else:
                return


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Let packages start no service when they are installed."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


# Programs that packages ask for when they are installed, which is not done here.
_NOT_NEEDED = re.compile(
    "(perl|debconf|cdebconf|dpkg|tar|libperl|install-info|init-system|systemd|opensysusers|adduser|passwd|login|sysvinit|base-)"
)


def _unpack_from_debian(suite: str, package: str, target: Path) -> None:
    """Unpack *package* and all libraries that it needs, libc included, from Debian's *suite* into *target*."""
    keys = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if shutil.which("apt-get") is None or not keys.exists():
        raise CannotStartError("it is fetched with Debian's apt-get, which is not here")
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("lists/partial", "cache/archives/partial", "unpacked"):
            (folder / part).mkdir(parents=True)
        (folder / "sources.list").write_text(f"deb [signed-by={keys}] {_mirror()} {suite} main\n")
        (folder / "apt.conf").write_text(
            f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "-";\n'
            f'Dir::State::lists "{folder}/lists";\nDir::Cache "{folder}/cache";\n'
            # A mirror may be days behind.
            'Acquire::Check-Valid-Until "false";\nAPT::Sandbox::User "root";\n'
        )
        apt = functools.partial(_run, folder=folder / "cache" / "archives", APT_CONFIG=str(folder / "apt.conf"))
        apt(["apt-get", "update", "--quiet"])
        others = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
        needed = apt(["apt-cache", "depends", "--recurse", *others, package]).splitlines()
        packages = sorted({line for line in needed if re.match("[a-z]", line) and not _NOT_NEEDED.match(line)})
        apt(["apt-get", "download", "--quiet", *packages])
        for archive in (folder / "cache" / "archives").glob("*.deb"):
            _run(["dpkg-deb", "-x", str(archive), str(folder / "unpacked")], folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder / "unpacked", target, symlinks=True)


def _mirror() -> str:
    """Return where this machine gets Debian from."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(file.read_text() for file in files if file.is_file())
    found = re.search(r"^(?:URIs:|deb )[^\n]*?(https?://\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
    if found is None:
        raise CannotStartError("no source of Debian's packages is configured on this machine")
    return found[1]


def _started(server: Server) -> str:
    CACHE.mkdir(parents=True, exist_ok=True)
    # Two who test at once share what is installed.
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not server.installed():
            print(f"installing {server.name} …", file=sys.stderr, flush=True)
            server.install()
    url = server.folder / "url"
    if not (url.exists() and server.running()):
        url.unlink(missing_ok=True)
        address = server.start()
        url.write_text(address)
    return url.read_text()


def main() -> int:
    if sys.argv[1:2] == ["keep-seekdb"]:
        keep_seekdb(Path(sys.argv[2]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("start", "stop", "list"))
    parser.add_argument("server", nargs="*", choices=[[], *SERVERS], help=", ".join(SERVERS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / f"memori-servers-{os.geteuid()}")
    arguments = parser.parse_args()
    names: list[str] = arguments.server or list(SERVERS)
    if arguments.command == "list":
        for name in names:
            server = SERVERS[name](arguments.folder / name)
            print(f"{name}: {'runs' if server.running() else 'stopped' if server.installed() else 'not installed'}")
        return 0
    if arguments.command == "start":
        # PostgreSQL, which refuses to run as root, must get through.
        arguments.folder.mkdir(parents=True, exist_ok=True)
        arguments.folder.chmod(0o755)
    missing = 0
    for name in names:
        server = SERVERS[name](arguments.folder / name)
        if arguments.command == "stop":
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)
            continue
        began = time.monotonic()
        try:
            url = _started(server)
        except (CannotStartError, OSError) as error:
            missing += 1
            print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
        else:
            print(f"export {server.variable}={shlex.quote(url)}", flush=True)
            print(f"{name} runs, after {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    if arguments.command == "stop":
        with contextlib.suppress(OSError):
            arguments.folder.rmdir()
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
