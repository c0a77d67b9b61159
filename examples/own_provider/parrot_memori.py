"""What makes memori listen to Parrot's clients: a reader and a client adapter. Named in ``pyproject.toml``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

from parrot import Parrot, Stream

from memori.capture.reading import said
from memori.capture.wrapping import Shape, Streamed, Whole, call, override
from memori.errors import ConfigurationError
from memori.protocols import CallHooks
from memori.types import Message, Reply

Request = Mapping[str, Any]  # The arguments of `Parrot.say`.


class ParrotReader:
    """How the arguments of ``say`` read, and what it returns. Pure: nothing it is given is changed."""

    provider = "parrot"

    def sent(self, request: Request) -> tuple[Message, ...]:
        # `said` leaves out what memori itself has added to an earlier call.
        return tuple(
            message
            for line in request["lines"]
            for message in said("user" if line["who"] == "me" else "assistant", line["words"])
        )

    def with_memory(self, request: Request, block: str, *, role: Literal["user", "system"]) -> Request:
        lines = request["lines"]
        last = max((place for place, line in enumerate(lines) if line["who"] == "me"), default=None)
        if last is None:
            return request
        return {**request, "lines": [*lines[:last], {"who": "me", "words": block}, *lines[last:]]}

    def reply(self, response: Any) -> Reply:
        return Reply(messages=tuple(said("assistant", response.words)), model=response.voice)

    def fold(self) -> ParrotFold:
        return ParrotFold()


class ParrotFold:
    """The words of a stream, as far as they have come."""

    def __init__(self) -> None:
        self._words: list[str] = []

    def add(self, chunk: str) -> None:
        self._words.append(chunk)

    def reply(self, *, ended: bool) -> Reply:
        return Reply(messages=tuple(said("assistant", " ".join(self._words))), partial=not ended)


def shape(response: Any) -> Shape:
    """Return how the reply in what ``say`` returned is to be had: from `Stream._words` bit by bit, or at once."""
    if isinstance(response, Stream):
        words = response._words
        return Streamed(response, "_words", lambda: words, connection=None)
    return Whole(response)


class Registration:
    """What a client has on it as long as anyone listens."""

    def __init__(self, client: Parrot) -> None:
        self.hooks: tuple[CallHooks, ...] = ()
        send = client.say

        @functools.wraps(send)
        def say(lines: Any, **options: Any) -> Any:
            return call(self.hooks, ParrotReader(), {"lines": lines, **options}, lambda request: send(**request), shape)

        self._undo = [override(client, "say", say), override(client, "_memori", self)]

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()


class ParrotAdapter:
    """Listens to `Parrot` clients."""

    def register(self, client: Any, hooks: CallHooks) -> None:
        if not isinstance(client, Parrot):
            raise ConfigurationError(f"got {client!r}: pass a parrot.Parrot()")
        registration = vars(client).get("_memori") or Registration(client)
        if not any(known is hooks for known in registration.hooks):
            registration.hooks = (*registration.hooks, hooks)

    def unregister(self, client: Any, hooks: CallHooks) -> bool:
        registration = vars(client).get("_memori")
        if registration is None or not any(known is hooks for known in registration.hooks):
            return False
        registration.hooks = tuple(known for known in registration.hooks if known is not hooks)
        if not registration.hooks:
            registration.undo()
        return True


adapter = ParrotAdapter()
