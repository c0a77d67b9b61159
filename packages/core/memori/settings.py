"""Every tunable, with its unit and default. The only place that reads the environment."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_type_hints

from memori.errors import ConfigurationError

__all__ = ["DEFAULT_DATABASE_URL", "Settings", "database_url"]

DEFAULT_DATABASE_URL = "sqlite:///memori.db"


@dataclass(slots=True, kw_only=True)
class Settings:
    """What can be tuned: here, as ``mem.config.<name> = …``, or as ``MEMORI_<NAME>`` in the environment.

    Values are checked whenever they are set; one that cannot be used raises `ConfigurationError` and changes nothing.

    Attributes:
        on_error: What a failure of ours does to the user's call: ``log`` it, or ``raise`` it.
        recall_facts_limit: How many recollections `recall` returns and a call is given, unless told otherwise.
        recall_relevance_threshold: The least score, in [0, 1], with which something is injected into a call.
        recall_timeout_s: Seconds a call waits for its memories before it goes without them.
        recall_message_limit: How many of the recollections given to a call may be whole messages.
        capture_timeout_s: Seconds a call waits for its exchange to be stored before that goes on in the background.
        pending_limit: How many exchanges are held in memory while the database cannot be reached.
        retry_min_s: Seconds until the first retry of what failed; doubles with each failure.
        retry_max_s: Seconds between retries at most.
        session_timeout_minutes: Minutes without an exchange after which the next one begins a new session.
        injection_role: ``user``: a quoted block before the last user message. ``system``: a system message.
        injection_token_budget: Tokens the injected block may take, counted as four characters each.
        augmentation_attempts: How often the work on one exchange is tried before it is given up.
        augmentation_batch: Exchanges that a worker leases at once.
        lease_s: Seconds after which the work of a worker that went silent is given to another.
        poll_s: Seconds between a worker's looks at the database for work that others left.
        close_timeout_s: Seconds that `close` and the interpreter's exit wait for what is still being written.
        cache_bytes: Bytes of entities' indexes kept in memory; the least recently used go first.
        redact: Whether secrets (keys, card numbers, passwords) are masked before facts are stored.
    """

    on_error: Literal["log", "raise"] = "log"
    recall_facts_limit: int = 5
    recall_relevance_threshold: float = 0.1
    recall_timeout_s: float = 0.1
    recall_message_limit: int = 3
    capture_timeout_s: float = 0.1
    pending_limit: int = 1000
    retry_min_s: float = 0.25
    retry_max_s: float = 30.0
    session_timeout_minutes: float = 30.0
    injection_role: Literal["user", "system"] = "user"
    injection_token_budget: int = 1000
    augmentation_attempts: int = 5
    augmentation_batch: int = 16
    lease_s: float = 60.0
    poll_s: float = 15.0
    close_timeout_s: float = 5.0
    cache_bytes: int = 256 * 1024 * 1024
    redact: bool = True

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, _checked(name, value) if name in _TYPES else value)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Return the defaults, overridden by each ``MEMORI_<NAME>`` that *environment* has.

        Raises:
            ConfigurationError: One of them cannot be used.
        """
        values = {
            item.name: environment[f"MEMORI_{item.name.upper()}"]
            for item in fields(cls)
            if environment.get(f"MEMORI_{item.name.upper()}", "") != ""
        }
        return cls(**{name: _parsed(name, text) for name, text in values.items()})


def database_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return where memories are kept when no connection is given: ``MEMORI_DATABASE_URL``, or a file here."""
    return environment.get("MEMORI_DATABASE_URL") or DEFAULT_DATABASE_URL


_TYPES: dict[str, Any] = get_type_hints(Settings)
_CHOICES: dict[str, tuple[str, ...]] = {"on_error": ("log", "raise"), "injection_role": ("user", "system")}
_MOST_S = min(1e9, threading.TIMEOUT_MAX)  # Decades; with more, waits and dates overflow.
_MAY_BE_ZERO = {
    "recall_timeout_s",
    "capture_timeout_s",
    "close_timeout_s",
    "recall_message_limit",
    "recall_relevance_threshold",
    "cache_bytes",
}


def _checked(name: str, value: Any) -> Any:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ConfigurationError(f"{name}={value!r}: choose one of {', '.join(map(repr, _CHOICES[name]))}")
        return value
    expected = _TYPES[name]
    if expected is bool:
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name}={value!r}: must be True or False")
        return value
    if isinstance(value, bool) or not isinstance(value, int if expected is int else (int, float)):
        kind = "a whole number" if expected is int else "a number"
        raise ConfigurationError(f"{name}={value!r}: must be {kind}, not {type(value).__name__}")
    if value < 0 or (value == 0 and name not in _MAY_BE_ZERO) or value != value:
        least = "0 or more" if name in _MAY_BE_ZERO else "greater than 0"
        raise ConfigurationError(f"{name}={value!r}: must be {least}")
    if name.endswith("_s") and value > _MOST_S:
        raise ConfigurationError(f"{name}={value!r}: must be at most {_MOST_S:.0f} seconds")
    return value


def _parsed(name: str, text: str) -> Any:
    expected = _TYPES[name]
    try:
        if expected is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        return expected(text) if expected in (int, float) else text
    except (KeyError, ValueError):
        raise ConfigurationError(f"MEMORI_{name.upper()}={text!r}: must be a {expected.__name__}") from None
