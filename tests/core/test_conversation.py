"""Conversations that the application hands in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from memori.capture.conversation import conversation, exchange_id
from memori.errors import ConfigurationError
from memori.types import Attribution, Message

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALICE = Attribution("alice", None, "s")


def test_mappings_and_messages_become_messages_in_order() -> None:
    """Fails when a field is dropped or the order changes."""
    read = conversation(
        [
            {"role": "user", "content": "hi", "name": "Ann", "metadata": {"id": 1}},
            Message(role="assistant", content="hello"),
            {"role": "user", "content": "later", "at": NOON + timedelta(hours=1)},
        ],
        at=NOON,
    )
    assert [(message.role, message.content, message.author, message.at) for message in read] == [
        ("user", "hi", "Ann", NOON),
        ("assistant", "hello", None, NOON),
        ("user", "later", None, NOON + timedelta(hours=1)),
    ]
    assert read[0].metadata == {"id": 1}


def test_times_are_kept_in_utc() -> None:
    """Fails when an offset is dropped without converting."""
    (message,) = conversation([{"role": "user", "content": "x"}], at=NOON.astimezone(timezone(timedelta(hours=5))))
    assert message.at == NOON
    assert message.at.tzinfo is UTC


def test_system_messages_are_left_out() -> None:
    """Fails when the application's own instructions are taken for conversation."""
    assert conversation([{"role": "system", "content": "You are kind."}], at=None) == ()


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ("hello", "a list of messages"),
        ({"role": "user", "content": "x"}, "a list of messages"),
        ([{"role": "king", "content": "x"}], r"messages\[0\]\['role'\]='king'"),
        ([{"role": "user", "content": "x"}, {"role": "user"}], r"messages\[1\]\['content'\] is a NoneType"),
        ([{"role": "user", "content": "x", "mood": 1}], "put your own into 'metadata'"),
        ([{"role": "user", "content": "x", "metadata": {"a": object()}}], "JSON"),
        ([{"role": "user", "content": "x", "at": datetime(2026, 1, 1)}], "time zone"),  # noqa: DTZ001
        ([{"role": "user", "content": "x", "at": "today"}], "must be a datetime"),
        ([{"role": "user", "content": "x", "author": 3}], "author"),
        ([7], "is a int"),
    ],
)
def test_what_cannot_be_read_is_refused_by_place(messages: Any, says: str) -> None:
    """Fails when a bad message is stored, dropped in silence, or refused without saying which and why."""
    with pytest.raises(ConfigurationError, match=says):
        conversation(messages, at=None)


def test_a_dated_conversation_has_one_id_and_an_undated_one_never_twice() -> None:
    """Fails when an import that is run again is stored again, or when saying the same again is not."""
    dated = conversation([{"role": "user", "content": "x"}], at=NOON)
    undated = conversation([{"role": "user", "content": "x"}], at=None)
    assert exchange_id(ALICE, dated) == exchange_id(ALICE, dated)
    assert exchange_id(ALICE, dated) != exchange_id(Attribution("bob", None, "s"), dated)
    assert exchange_id(ALICE, undated) != exchange_id(ALICE, undated)
