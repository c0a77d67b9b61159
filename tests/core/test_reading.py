"""What readers of all providers share: how something called becomes a message."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from memori.capture.reading import called
from memori.injection import block as block_of
from memori.types import Message, Recollection

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def injected() -> str:
    recalled = Recollection(id=1, kind="fact", content="Likes blue.", score=1.0, at=NOW, date_created=NOW)
    made = block_of([recalled], now=NOW, token_budget=1000)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"city": "Århus"}, 'weather({"city": "Århus"})'),
        ('{"city":"Oslo"}', 'weather({"city":"Oslo"})'),
        ('{"text":"a < b"}', 'weather({"text":"a < b"})'),
        ("select 1 < 2", "weather(select 1 < 2)"),
        ("", "weather()"),
        ({"at": NOW}, 'weather({"at": "2026-01-02 00:00:00+00:00"})'),
    ],
)
def test_a_call_is_its_name_and_its_arguments(arguments: Any, text: str) -> None:
    """Fails when arguments are rewritten that need not be, or break what reads them."""
    assert list(called("weather", arguments)) == [Message(role="assistant", kind="tool_call", content=text)]
    assert list(called("", arguments)) == []


@pytest.mark.parametrize("written", [False, True])
def test_a_call_never_contains_memories(written: bool) -> None:
    """Fails when a model that hands its memories to a tool has them learned as new, escaped as JSON has them."""
    given = {"note": f"{injected()}\nHi.", "more": [{"deep": injected()}, 7, None]}
    (message,) = called("save", json.dumps(given) if written else given)
    assert message.content == 'save({"note": "Hi.", "more": [{"deep": ""}, 7, null]})'
