"""Many processes at one database: the measurement of ``benchmarks.workers``, made small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from databases import Engine, each, mongodb, needs_mongodb

ROOT = Path(__file__).parents[2]


def processes_store_and_workers_are_killed(url: str) -> None:
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.workers", url),
            *("--processes", "10", "--exchanges", "6", "--workers", "2", "--kills", "3", "--every", "0.5"),
        ],
        cwd=ROOT,
        env={**os.environ, "MEMORI_LEASE_S": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "60" in finished.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", each("sqlite", "postgres", "mariadb", "mysql", "oceanbase"))
def test_each_exchange_is_read_once_while_workers_are_killed(engine: Engine, tmp_path: Path) -> None:
    """Fails when processes that build and store at once meet, or what a killed worker had is lost or read twice."""
    with engine.empty(tmp_path) as url:
        processes_store_and_workers_are_killed(url.render_as_string(hide_password=False))


@pytest.mark.timeout(300)
@needs_mongodb
def test_each_exchange_is_read_once_on_mongodb() -> None:
    """Fails when the same comes of it on MongoDB."""
    with mongodb() as database:
        database.command("ping")  # Only then its address is known.
        host, port = database.client.address or ("", 0)
        processes_store_and_workers_are_killed(f"mongodb://{host}:{port}/{database.name}")
