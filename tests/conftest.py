"""What holds for every test: nobody talks to another machine."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, nothing of the code.
settings.register_profile("memori", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("memori")

_LOCAL_NAMES = {"", "localhost", None}
_attempts: list[str] = []


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


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's own keys, providers and memori settings."""
    for name in list(os.environ):
        if name.startswith(("MEMORI_", "OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)
