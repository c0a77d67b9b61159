"""An imaginary SDK that knows nothing of memori: a client, its answers and its streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, overload


class Line(TypedDict):
    """What somebody said."""

    who: Literal["me", "parrot"]
    words: str


@dataclass
class Answer:
    """What the parrot says to the last line."""

    voice: str
    words: str


class Stream:
    """The words of an answer, one by one."""

    def __init__(self, words: Iterator[str]) -> None:
        self._words = words

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        return next(self._words)


class Parrot:
    """A client. Its model repeats whatever it was told before the last line."""

    @overload
    def say(self, lines: Sequence[Line], *, stream: Literal[False] = False) -> Answer: ...
    @overload
    def say(self, lines: Sequence[Line], *, stream: Literal[True]) -> Stream: ...
    def say(self, lines: Sequence[Line], *, stream: bool = False) -> Answer | Stream:
        """Return what the parrot says to *lines*."""
        words = " ".join(line["words"] for line in lines[:-1]) or "Squawk!"
        return Stream(iter(words.split())) if stream else Answer(voice="grey", words=words)
