"""Documents and the paths they lie under, as text that every database takes and gives back unchanged."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from memori.errors import ConfigurationError
from memori.types import Namespace

__all__ = ["decoded", "digest", "encoded", "escaped", "unescaped"]

_HALVES = re.compile("[\ud800-\udfff]")


def encoded(value: Mapping[str, Any] | Namespace) -> str:
    """Return *value* as JSON text without NUL and without halves of surrogate pairs, which not every database takes.

    Raises:
        ConfigurationError: It is nothing that JSON has a form for.
    """
    try:
        return _json(dict(value) if isinstance(value, Mapping) else value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"the value cannot be stored, JSON has no form for it: {error}") from error


def decoded(text: str) -> Any:
    """Return what `encoded` made *text* of."""
    return json.loads(text)


def escaped(key: str) -> str:
    """Return *key* as it stands in a JSON string: itself, unless it has quotes, backslashes or control characters."""
    return _json(key)[1:-1]


def unescaped(text: str) -> str:
    """Return what `escaped` made *text* of."""
    if "\\" not in text:
        return text
    key: str = json.loads(f'"{text}"')
    return key


def digest(path: Namespace | str) -> str:
    """Return 64 characters that stand for *path*, of any length, and for no other."""
    return hashlib.sha256(_json(path).encode()).hexdigest()


def _json(value: object) -> str:
    # Readable to whoever looks into the database: only what it may not take is escaped.
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() else _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
