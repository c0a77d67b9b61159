"""What readers of every provider have in common: how something said, called or attached becomes a message's text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memori.injection import OPENING, strip
from memori.types import Message, MessageKind, Role

__all__ = ["called", "data_reference", "get", "mapping", "own_json", "reference", "said", "sequence", "text_of"]


def said(role: Role, text: str, *, kind: MessageKind = "text", author: str | None = None) -> Iterator[Message]:
    """Yield the message, unless nothing is left of it without memori's own block."""
    own = strip(text)
    if own.strip():
        yield Message(role=role, content=own, kind=kind, author=author or None)


def called(name: str, arguments: Any) -> Iterator[Message]:
    """Yield the message that calls a tool; *arguments* are JSON, or what is to become it."""
    if name:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
        yield from said("assistant", f"{name}({own_json(text)})", kind="tool_call")


def own_json(text: str) -> str:
    """Return *text* without memori's own block in any text of its JSON, where escapes would hide it; else as it is."""
    if OPENING not in text:
        return text
    try:
        given = json.loads(text)
        own = _own(given)
        return text if own == given else json.dumps(own, ensure_ascii=False)
    except (ValueError, RecursionError):  # No JSON, or nested deeper than Python follows.
        return text


def _own(value: Any) -> Any:
    if isinstance(value, str):
        return strip(value)
    if isinstance(value, list):
        return [_own(item) for item in value]
    return {name: _own(item) for name, item in value.items()} if isinstance(value, dict) else value


def reference(kind: str, target: str) -> str:
    """Return what stands for a file that is elsewhere; empty without a *target*."""
    return f"[{kind}: {target}]" if target else ""


def data_reference(kind: str, mime_type: str, data: bytes) -> str:
    """Return what stands for a file that came along: its type and digest, never the bytes."""
    return f"[{kind}: {mime_type or kind}, sha256 {hashlib.sha256(data).hexdigest()[:16]}]"


def get(thing: Any, name: str) -> Any:
    """Return a field of a dict or of one of an SDK's objects; None when there is none."""
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def text_of(thing: Any, name: str) -> str:
    """Return a field that is a text; empty when there is none, or it is none."""
    value = get(thing, name)
    return value if isinstance(value, str) else ""


def sequence(value: Any) -> Sequence[Any]:
    """Return *value* if it is a list or a tuple; otherwise an empty one."""
    return value if isinstance(value, list | tuple) else ()


def mapping(value: Any) -> Mapping[str, Any]:
    """Return *value* if it is a mapping; otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}
