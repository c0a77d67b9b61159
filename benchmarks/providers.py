"""What memori adds to a call of each provider's SDK."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.calls import Memory, alternately, fill, milliseconds, say
from benchmarks.conversations import Speaker
from benchmarks.processes import ENTITY, Caller, obey, running
from benchmarks.table import Table
from memori.testing.calls import Shape
from memori.testing.provider import ProviderServer
from memori.testing.providers import PROVIDERS, ProviderSDK

__all__ = ["measure_providers"]

SHAPES: tuple[Shape, ...] = ("plain", "stream")
MEMORY = Memory(1_000, 1_000)
_SEED = 21


def measure_providers(rounds: int) -> Table:
    """Return the table of all SDKs that are installed, each figure from *rounds* calls."""
    rows: list[tuple[str, ...]] = []
    missing: list[str] = []
    notes: list[str] = [
        "Whatever speaks OpenAI's protocol is called by OpenAI's SDK: what it adds there, it adds everywhere."
    ]
    with tempfile.TemporaryDirectory() as folder:
        say("filling a database for each provider's SDK …")
        filled = Path(folder) / "filled.db"
        fill(filled, MEMORY)
        for sdk in PROVIDERS:
            try:
                name = f"{sdk.name} ({sdk.distribution} {version(sdk.distribution)})"
            except PackageNotFoundError:
                missing.append(sdk.name)
                continue
            say(f"calling {sdk.name} …")
            database = Path(folder) / f"{sdk.distribution}.db"
            shutil.copy(filled, database)
            measured, failed = _measure(sdk, database, rounds)
            rows += [(f"{name}, {shape}", *cells) for shape, cells in measured.items()]
            if failed:
                notes.append(f"Not to be trusted: {sdk.name}, where memori failed: {failed}")
    if missing:
        notes.append(f"Not installed, so not measured: {', '.join(missing)}.")
    return Table(
        title="One call of each provider's SDK",
        about=f"to a provider on this machine that speaks its protocol (xAI's is gRPC), over {MEMORY}",
        columns=("", "alone p50 ms", "p95 ms", "with memori p50 ms", "p95 ms", "added to p50", "times p50"),
        rows=rows,
        notes=notes,
    )


def _measure(sdk: ProviderSDK, database: Path, rounds: int) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """Return the cells of each shape of a call, and what went wrong with memori meanwhile."""
    speaker = Speaker(_SEED)
    cells: dict[str, tuple[str, ...]] = {}
    with ExitStack() as stack:
        address = stack.enter_context(running(_serve_provider, sdk.name)).ask("address")
        variants = {
            "alone": stack.enter_context(running(_serve_calls, sdk.name, address, None)),
            "with memori": stack.enter_context(running(_serve_calls, sdk.name, address, str(database))),
        }
        for shape in SHAPES:
            draws = cycle((speaker.sentence, speaker.question))
            measured = alternately(variants, partial(_call, shape=shape), partial(_next, draws), rounds=rounds)
            alone, remembering = (statistics.median(measured[name]) for name in variants)
            cells[shape] = (
                *milliseconds(measured["alone"]),
                *milliseconds(measured["with memori"]),
                f"{(remembering - alone) * 1e3:+.2f}",
                f"{remembering / alone:.2f}",
            )
        return cells, variants["with memori"].ask("failed")


def _next(draws: Iterator[Callable[[], str]]) -> str:
    return next(draws)()


def _call(process: Caller, text: str, *, shape: Shape) -> float:
    return float(process.ask("call", shape, text))


def _sdk(name: str) -> ProviderSDK:
    return next(sdk for sdk in PROVIDERS if sdk.name == name)


def _serve_provider(pipe: Connection, name: str) -> None:
    server = ProviderServer(answer=lambda request: f"I see: {' '.join(request.turns[-1].text.split()[:8])}")
    with server, _sdk(name).serve(server) as address:
        obey(pipe, {"address": lambda: address})


def _serve_calls(pipe: Connection, name: str, address: str, database: str | None) -> None:
    """Call one SDK, with memori if there is a *database*."""
    warnings.simplefilter("ignore")  # The SDKs' own.
    sdk = _sdk(name)
    calls = {shape: next(call for call in sdk.calls if call.shape == shape) for shape in SHAPES}
    with ExitStack() as stack:
        client = stack.enter_context(sdk.client(address))
        mem: Any = None
        if database is not None:
            from memori import Memori

            mem = stack.enter_context(Memori(database))
            mem.llm.register(client).attribution(ENTITY, "benchmark")
            mem.recall("What is known?")  # The first of a process reads all that there is.

        def call(shape: Shape, text: str) -> float:
            begin = time.perf_counter()
            for _ in calls[shape].run(client, text):
                pass
            passed = time.perf_counter() - begin
            # What is done in the background is not to be in the time of the next variant's call.
            if mem is not None and not mem.augmentation.wait(60):
                raise RuntimeError(f"augmentation is not finished: {mem.augmentation.status()}")
            return passed

        obey(pipe, {"call": call, "failed": lambda: None if mem is None else mem.status().last_failure})
