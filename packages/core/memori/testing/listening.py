"""Hooks that remember nothing and note everything: what an adapter is tried with, without a `Memori` behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from memori.types import Message

__all__ = ["BLOCK", "HeardTurn", "ListeningHooks"]

BLOCK = "Recalled: the favorite color is blue."


class HeardTurn:
    """A `memori.protocols.CallTurn` that notes how it was finished.

    Attributes:
        finishes: How often it was; anything but once is an adapter's fault.
        waited: Whether it was finished where waiting is possible.
    """

    def __init__(self, block: str | None, role: Literal["user", "system"], sent: Sequence[Message], provider: str):
        self.block = block
        self.role: Literal["user", "system"] = role
        self.sent = tuple(sent)
        self.provider = provider
        self.finishes = 0
        self.reply: tuple[Message, ...] = ()
        self.model: str | None = None
        self.partial: bool | None = None
        self.waited: bool | None = None

    def finish(self, reply: Sequence[Message], *, model: str | None, partial: bool = False, wait: bool = True) -> None:
        """Note the reply.

        Raises:
            RuntimeError: It would wait in an event loop.
        """
        if wait:
            _may_wait()
        self.finishes += 1
        self.reply, self.model, self.partial, self.waited = tuple(reply), model, partial, wait

    @property
    def said(self) -> str:
        """What was replied, all in one."""
        return "".join(message.content for message in self.reply)


class ListeningHooks:
    """`memori.protocols.CallHooks` that give every call the same block.

    Attributes:
        turns: Of each call, in order.
        failures: What the adapter reported of itself.
    """

    def __init__(self, block: str | None = BLOCK, role: Literal["user", "system"] = "user") -> None:
        self.block = block
        self.role: Literal["user", "system"] = role
        self.turns: list[HeardTurn] = []
        self.failures: list[Exception] = []

    def begin(self, sent: Sequence[Message], *, provider: str) -> HeardTurn | None:
        """Return the call's turn.

        Raises:
            RuntimeError: It would wait in an event loop.
        """
        _may_wait()
        turn = HeardTurn(self.block, self.role, sent, provider)
        self.turns.append(turn)
        return turn

    def failed(self, error: Exception) -> None:
        """Note *error*."""
        self.failures.append(error)

    @property
    def turn(self) -> HeardTurn:
        """The only turn there was, finished once."""
        assert self.failures == []
        assert [turn.finishes for turn in self.turns] == [1]
        return self.turns[0]


def _may_wait() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("what may take time was done in the event loop")
