"""What every provider's protocol is made of: the request as it came, the reply that is wanted, the bytes that go out.

A protocol is one module beside this one. It says which requests are its own, what they say, and how a reply reads in
its form; it holds no state and does no I/O, so that a server of any kind (HTTP here, gRPC elsewhere) can drive it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

__all__ = ["Call", "ProviderRequest", "Reply", "Response", "ToolCall", "Turn", "WireProtocol", "event", "fragments"]

# generate: a model's answer is asked for; lookup: anything that is answered without one (embeddings, a list of models).
Call: TypeAlias = Literal["generate", "lookup"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One piece of a request's text and the role that said it, as the provider names roles."""

    role: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """One request as it arrived.

    Attributes:
        path: Without the query.
        query: The last value of each parameter.
        headers: By lower-case name.
        body: The parsed JSON; empty when there was none, or none that is an object.
        turns: What the request says, in order; system prompts and tool results included.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()

    @property
    def text(self) -> str:
        """All that the request says, in order, a line break between one turn and the next."""
        return "\n".join(turn.text for turn in self.turns)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called.

    Attributes:
        id: None: a fresh one.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the provider is to do with one request.

    Attributes:
        text: Streamed word by word.
        refusal: In place of the text.
        status: Other than 200: an error body in the provider's own form, with *error_message* in it.
        error_message: Also what an error in mid-stream says.
        headers: Added to the response's own, or in their place.
        delay_s: Seconds before the first byte.
        chunk_delay_s: Seconds between the chunks of a stream.
        cut_after: Close the connection after so many chunks of a stream; a reply that is not streamed is one chunk.
        error_after: Send an error in place of what follows so many chunks of a stream; without a stream, nothing.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    status: int = 200
    error_message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    cut_after: int | None = None
    error_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The bytes that answer a request: one chunk, or the chunks of a stream."""

    chunks: Sequence[bytes]
    status: int = 200
    streamed: bool = False
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class WireProtocol(Protocol):
    """How one provider's API reads on the wire. Stateless; safe to use from any thread."""

    def recognise(self, method: str, path: str) -> Call | None:
        """Return what is asked by a request to *path*; None when it is not this provider's."""

    def turns(self, path: str, body: Mapping[str, Any]) -> tuple[Turn, ...]:
        """Return what the request says, in order. Never raises: what makes no sense says nothing."""

    def respond(self, request: ProviderRequest, reply: Reply) -> Response:
        """Return *reply* in the provider's form; a lookup is answered from the request, unless the reply is an error.

        Raises:
            ValueError: The request makes no sense; the provider would answer it with status 400.
        """

    def failure(self, status: int, message: str) -> Response:
        """Return an error in the provider's form."""


def event(data: Mapping[str, Any] | str, *, name: str | None = None) -> bytes:
    """Return one server-sent event."""
    line = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {line}\n\n".encode()


_WORD = re.compile(r"\s*\S+|\s+")


def fragments(text: str, *, size: int | None = None) -> Iterator[str]:
    """Yield *text* in the pieces of a stream: word by word, or *size* characters each; joined they are *text* again."""
    if size is None:
        yield from _WORD.findall(text)
    else:
        yield from (text[start : start + size] for start in range(0, len(text), size))
