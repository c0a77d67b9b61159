"""Print every measurement: ``python -m benchmarks [--quick]``, from the root of the repository."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
from datetime import UTC, datetime
from importlib.metadata import version

from benchmarks.calls import measure_calls
from benchmarks.footprint import import_times, installed_size
from benchmarks.providers import measure_providers

__all__: list[str] = []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What memori costs on this machine.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no installation")
    quick = parser.parse_args().quick
    versions = ", ".join(f"{name} {version(name)}" for name in ("memori-byodb", "openai", "sqlalchemy"))
    # What else the machine does makes all figures larger, and waits for threads of both cores most of all.
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores{load}, {platform.system()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {versions}\n",
        flush=True,
    )
    for table in measure_calls(rounds=30 if quick else 200):
        print(table, flush=True)
    print(measure_providers(rounds=20 if quick else 200), flush=True)
    print(import_times(runs=3 if quick else 10), flush=True)
    if not quick:
        print(installed_size(), flush=True)


if __name__ == "__main__":
    main()
