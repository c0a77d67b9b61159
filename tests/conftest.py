"""What holds for every test: nobody talks to another machine."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from databases import HOW_TO_START
from hypothesis import HealthCheck, settings
from servers import SERVERS

# How long an example takes says something of the machine, nothing of the code.
settings.register_profile("memori", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("memori")

_LOCAL_NAMES = {"", "localhost", None}
_attempts: list[str] = []
_engines: dict[str, Counter[str]] = {}


def _is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    # An audit hook sees every connection that Python code makes, whichever library makes it, and cannot be undone.
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not _is_local(host):
        _attempts.append(f"{event} {host!r}")
        raise OSError(f"tests may not reach {host!r}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def no_other_machine() -> Iterator[None]:
    """Fail the test that tried to reach another machine, also when the code under test swallowed the refusal."""
    _attempts.clear()
    yield
    if _attempts:
        pytest.fail(f"tried to reach another machine: {', '.join(_attempts)}")


@pytest.fixture(scope="session", autouse=True)
def grpc_stays_awake() -> None:
    """Let gRPC keep its thread between two channels.

    It joins the thread when the last asynchronous channel goes, which may be the garbage collector's doing, in the
    middle of a test in which nothing may block.
    """
    aio = sys.modules.get("grpc.aio")
    if aio is not None:
        aio.init_grpc_aio()


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's own keys, providers and memori settings."""
    for name in list(os.environ):
        if name.startswith(("MEMORI_", "OPENAI_", "AZURE_OPENAI_", "AWS_")):
            monkeypatch.delenv(name)


def pytest_report_header() -> list[str]:
    """Say on which database servers the tests run, and how to start those that are missing."""
    there = [name for name, server in SERVERS.items() if server.variable in os.environ]
    missing = [name for name in SERVERS if name not in there]
    lines = [f"database servers: {', '.join(there) or 'none'}"]
    if missing:
        lines.append(f"skipped for want of a server: {', '.join(missing)}; to start them: {HOW_TO_START}")
    return lines


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    file, _, rest = report.nodeid.partition("::")
    if file == "tests/conformance/test_storage.py":
        counts = _engines.setdefault(rest.partition("::")[0].removeprefix("Test"), Counter())
        counts["ms"] += round(report.duration * 1000)
        if report.when == "call" or report.outcome != "passed":
            counts[report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how the storage suite went on each engine."""
    if not _engines:
        return
    terminalreporter.section("the storage suite on each engine")
    terminalreporter.write_line(f"{'engine':<22}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for engine, counts in _engines.items():
        outcomes = f"{counts['passed']:>8}{counts['failed']:>8}{counts['skipped']:>9}"
        terminalreporter.write_line(f"{engine:<22}{outcomes}{counts['ms'] / 1000:>9.1f}")
