"""One way to ask a provider's SDK, as data: the rows of the tables that say what memori takes part in.

Each provider's own rows are in a module beside this one. What an SDK does not offer is a row of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel

__all__ = ["ANSWER", "CITY_ANSWER", "SHAPES", "City", "NotOffered", "ProviderCall", "Shape", "Ways"]

# stream helper: an object of the SDK's around a stream, or one that holds a conversation.
Shape: TypeAlias = Literal["plain", "stream", "stream helper", "structured", "raw"]
SHAPES: tuple[Shape, ...] = ("plain", "stream", "stream helper", "structured", "raw")
# How a caller reads what a call returns, bit by bit: synchronously and asynchronously.
Ways: TypeAlias = tuple[Callable[[Any], Iterator[str]], Callable[[Any], AsyncIterator[str]]]

ANSWER = "Blue is the one you told me about."
CITY_ANSWER = '{"city": "Oslo"}'


class City(BaseModel):
    """What the rows that ask for structured output ask for."""

    city: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCall:
    """One way to ask, synchronously and asynchronously.

    Attributes:
        id: The call as one would write it.
        shape: The column it belongs to.
        path: What the request's path ends with.
        ask: Makes the call: ``ask(client, question)``.
        ways: How its caller reads what it returns.
        streams: Whether its caller sees the reply bit by bit, and may leave in the middle.
        heard: Whether the SDK itself reads the reply; False where it hands out bytes.
        answer: What the provider should answer.
        begun: After how many chunks of its stream the reply has begun.
        since: The first SDK that has it.
    """

    id: str
    shape: Shape
    path: str
    ask: Callable[[Any, str], Any]
    ways: Ways
    streams: bool = False
    heard: bool = True
    answer: str
    begun: int = 4
    since: tuple[int, int] = (0, 0)

    def run(self, client: Any, question: str) -> Iterator[str]:
        """Make the call and yield the text as its caller sees it. Closed early, it leaves the call in the middle."""
        # Not held by a variable: a stream that is left must be gone when this is.
        yield from self.ways[0](self.ask(client, question))

    async def arun(self, client: Any, question: str) -> AsyncIterator[str]:
        """Do what `run` does with an asynchronous client."""
        asked = self.ask(client, question)
        pieces = self.ways[1](await asked if inspect.isawaitable(asked) else asked)
        del asked
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class NotOffered:
    """A column for which an SDK has no call.

    Attributes:
        why: What it has instead, in a few words.
    """

    shape: Shape
    why: str
