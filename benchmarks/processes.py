"""The processes that a measurement is made of: a provider, a caller without memori, callers with it.

Each has an interpreter of its own, so that neither the provider's work nor another variant's threads and garbage are
measured. Times are taken inside, around the call alone.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["ENTITY", "Caller", "caller", "caller_with_memory", "obey", "provider", "running"]

_PATIENCE_S = 300.0
ENTITY = "user_123"
_SYSTEM = "You are a helpful assistant. Answer briefly."

Commands = Mapping[str, Callable[..., Any]]


class Caller:
    """A process that does what it is told, one thing at a time."""

    def __init__(self, serve: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, command: str, *arguments: object) -> Any:
        """Return what the process answers to *command*.

        Raises:
            RuntimeError: It failed, is gone, or took five minutes.
        """
        self._pipe.send((command, arguments))
        if not self._pipe.poll(_PATIENCE_S):
            raise RuntimeError(f"no answer to {command!r} within {_PATIENCE_S:.0f} s")
        try:
            answer, error = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process ended at {command!r}: its error is above") from None
        if error is not None:
            raise RuntimeError(f"{command!r} failed: {error}")
        return answer

    def close(self) -> None:
        """End the process and wait for it."""
        self._pipe.close()
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()


@contextmanager
def provider() -> Iterator[str]:
    """Run the local provider in a process of its own; yield its URL."""
    with running(_serve_provider) as process:
        yield process.ask("url")


@contextmanager
def caller(url: str) -> Iterator[Caller]:
    """Run the OpenAI SDK alone; yield the process: ``call(text)`` and ``burst(texts)`` return seconds."""
    with running(_serve_calls, url) as process:
        yield process


@contextmanager
def caller_with_memory(url: str, database: str) -> Iterator[Caller]:
    """Run the OpenAI SDK with memori on *database*; yield the process.

    Besides ``call`` and ``burst`` it knows ``open(question)``, which comes first and returns the seconds of opening and
    of the first recall, ``recall(question)``, which returns seconds, ``learn(text)`` and ``health``.
    """
    with running(_serve_calls_with_memory, url, database) as process:
        yield process


@contextmanager
def running(serve: Callable[..., None], *arguments: object) -> Iterator[Caller]:
    """Run *serve* in a process of its own, with a pipe to `obey` and the arguments; yield the process."""
    process = Caller(serve, *arguments)
    try:
        process.ask("ready")  # It imports for a second or more, which is not to be in the times of the others.
        yield process
    finally:
        process.close()


def obey(pipe: Connection, commands: Commands) -> None:
    """Do what comes through *pipe* until it is closed, and send back what each command returns."""
    commands = {"ready": lambda: None, **commands}
    while True:
        try:
            command, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((commands[command](*arguments), None))
        except Exception as error:  # noqa: BLE001 - reported to the process that asked
            pipe.send((None, repr(error)))


def _serve_provider(pipe: Connection) -> None:
    from memori.testing.provider import ProviderRequest, ProviderServer

    def answer(request: ProviderRequest) -> str:
        return f"I see: {' '.join(request.turns[-1].text.split()[:8])}"

    with ProviderServer(answer=answer) as server:
        obey(pipe, {"url": lambda: server.url})


def _calls(client: Any) -> tuple[Callable[[str], float], Callable[[list[str]], list[float]]]:
    def call(text: str) -> float:
        messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}]
        begin = time.perf_counter()
        client.chat.completions.create(model="gpt-4o-mini", messages=messages)
        return time.perf_counter() - begin

    return call, lambda texts: [call(text) for text in texts]


def _serve_calls(pipe: Connection, url: str) -> None:
    from openai import OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key="local") as client:
        call, burst = _calls(client)
        obey(pipe, {"call": call, "burst": burst})


def _serve_calls_with_memory(pipe: Connection, url: str, database: str) -> None:
    from openai import OpenAI

    from memori import Memori

    with ExitStack() as stack:
        client = stack.enter_context(OpenAI(base_url=f"{url}/v1", api_key="local"))
        mem: Memori

        def opened(question: str) -> float:
            nonlocal mem
            begin = time.perf_counter()
            mem = stack.enter_context(Memori(database))
            mem.recall(question, entity_id=ENTITY)
            passed = time.perf_counter() - begin
            mem.llm.register(client).attribution(ENTITY, "benchmark")
            return passed

        def quiet(result: Any) -> Any:
            # What is done in the background is not to be in the time of the next variant's call.
            if not mem.augmentation.wait(60):
                raise RuntimeError(f"augmentation is not finished: {mem.augmentation.status()}")
            return result

        def recall(question: str) -> float:
            begin = time.perf_counter()
            mem.recall(question)
            return time.perf_counter() - begin

        def learn(text: str) -> None:
            mem.capture([{"role": "user", "content": text}])
            quiet(None)

        def health() -> tuple[int, str | None]:
            status = mem.status()
            return status.failures, status.last_failure

        call, burst = _calls(client)
        obey(
            pipe,
            {
                "open": opened,
                "call": lambda text: quiet(call(text)),
                "burst": lambda texts: quiet(burst(texts)),
                "recall": recall,
                "learn": learn,
                "health": health,
            },
        )
