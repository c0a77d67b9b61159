"""Exchanges on disk while the database cannot be reached: one JSON file each, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from memori.errors import ConfigurationError
from memori.failures import Failures
from memori.types import Attribution, Exchange, Message

__all__ = ["Spool"]


class Spool:
    """A folder of exchanges still to be stored.

    Several processes may share it: what two of them store is stored once, as an exchange's id is unique.

    Raises:
        ConfigurationError: The folder cannot be made or written to.
    """

    def __init__(self, folder: Path, failures: Failures) -> None:
        self._folder = folder
        self._failures = failures
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"spool={str(folder)!r}: {error}: name a folder that can be written to") from error
        if not os.access(folder, os.W_OK):
            raise ConfigurationError(f"spool={str(folder)!r}: name a folder that can be written to")

    def save(self, exchange: Exchange) -> None:
        """Write *exchange* so that it survives a crash of this process and of the machine.

        Raises:
            OSError: The disk did not take it.
        """
        target = self._path(exchange)
        part = target.with_suffix(".part")
        with open(part, "w", encoding="utf-8", opener=_private) as file:
            json.dump(asdict(exchange), file, default=_plain)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)

    def discard(self, exchange: Exchange) -> None:
        """Remove *exchange*; one that is not there is no error."""
        self._path(exchange).unlink(missing_ok=True)

    def load(self) -> Iterator[Exchange]:
        """Yield what is there, oldest first, and pass over what cannot be read.

        What is not an exchange is renamed to ``.unreadable``; what the system does not let be read stays, and is noted.
        """
        found = []
        for path in self._folder.glob("*.json"):
            try:
                try:
                    found.append(_exchange(json.loads(path.read_text(encoding="utf-8"))))
                except (ValueError, KeyError, TypeError):
                    path.replace(path.with_suffix(".unreadable"))
            except FileNotFoundError:
                continue  # Another process stored it meanwhile.
            except OSError as error:
                self._failures.note(f"reading {path}", error)
        yield from sorted(found, key=lambda exchange: (exchange.at, exchange.id))

    def count(self) -> int:
        """Return how many exchanges are there."""
        return sum(1 for _ in self._folder.glob("*.json"))

    def _path(self, exchange: Exchange) -> Path:
        return self._folder / f"{exchange.id}.json"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # Conversations are nobody else's to read.


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)  # Metadata that JSON does not know must not cost the message.


def _exchange(plain: dict[str, Any]) -> Exchange:
    return Exchange(
        **{
            **plain,
            "attribution": Attribution(**plain["attribution"]),
            "sent": tuple(map(_message, plain["sent"])),
            "reply": tuple(map(_message, plain["reply"])),
            "at": datetime.fromisoformat(plain["at"]),
        }
    )


def _message(plain: dict[str, Any]) -> Message:
    at = plain["at"]
    return Message(**{**plain, "at": None if at is None else datetime.fromisoformat(at)})
