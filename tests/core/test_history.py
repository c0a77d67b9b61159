"""Which of the sent messages are new to their session."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memori.storage.history import Known, digest, normal, unknown
from memori.types import Message


def message(shorthand: str) -> Message:
    """Return what *shorthand* stands for: ``u:`` user, ``a:`` assistant, ``c:`` tool call, ``t:`` its result."""
    sign, _, content = shorthand.partition(":")
    if sign == "c":
        return Message(role="assistant", kind="tool_call", content=content)
    if sign == "t":
        return Message(role="tool", kind="tool_result", content=content)
    return Message(role="user" if sign == "u" else "assistant", content=content)


def known(stored: list[str], partial: tuple[int, ...] = ()) -> list[Known]:
    return [
        Known(position, digest(message(item)), normal(message(item).content) if position in partial else None)
        for position, item in enumerate(stored)
    ]


def news(stored: list[str], sent: list[str], partial: tuple[int, ...] = ()) -> list[str]:
    return [sent[index] for index in unknown([message(item) for item in sent], known(stored, partial))]


@dataclass(frozen=True)
class Case:
    """What a session holds, what is sent, and what of that is new."""

    stored: list[str]
    sent: list[str]
    new: list[str]
    partial: tuple[int, ...] = ()


CASES = {
    "nothing stored": Case([], ["u:hi"], ["u:hi"]),
    "no list, said twice": Case(["u:yes", "a:ok"], ["u:yes"], ["u:yes"]),
    "own list": Case(["u:1", "a:2"], ["u:1", "a:2", "u:3"], ["u:3"]),
    "own list, same word again": Case(["u:yes", "a:ok"], ["u:yes", "a:ok", "u:yes"], ["u:yes"]),
    "own list, same answers throughout": Case(
        ["u:go", "a:ok", "u:go", "a:ok"], ["u:go", "a:ok", "u:go", "a:ok", "u:go"], ["u:go"]
    ),
    "trimmed window, same answers throughout": Case(["u:go", "a:ok", "u:go", "a:ok"], ["a:ok", "u:go"], ["u:go"]),
    "trimmed window": Case(["u:1", "a:2", "u:3", "a:4"], ["u:3", "a:4", "u:5"], ["u:5"]),
    "another answer wanted": Case(["u:1", "a:2", "u:3", "a:4"], ["u:1", "a:2", "u:3"], []),
    "another answer wanted, window trimmed": Case(["u:1", "a:2", "u:3", "a:4"], ["a:2", "u:3"], []),
    "another answer wanted, same answers throughout": Case(
        ["u:1", "a:ok", "u:2", "a:ok", "u:3", "a:ok"], ["u:1", "a:ok", "u:2"], []
    ),
    "another answer wanted, or a trimmed window of a conversation that repeats itself: nobody can tell": Case(
        ["u:go", "a:ok", "u:go", "a:ok"], ["u:go", "a:ok", "u:go"], ["u:go"]
    ),
    "question changed": Case(["u:1", "a:2", "u:3", "a:4"], ["u:1", "a:2", "u:other"], ["u:other"]),
    "question changed in the middle": Case(
        ["u:1", "a:2", "u:3", "a:4"], ["u:1", "a:2", "u:other", "a:4", "u:5"], ["u:other", "u:5"]
    ),
    "asked again with more": Case(["u:1", "a:2", "u:3"], ["u:1", "a:2", "u:3", "u:more"], ["u:more"]),
    "answered anew, then on": Case(["u:1", "a:2", "u:3", "a:4", "a:4b"], ["u:1", "a:2", "u:3", "a:4b", "u:5"], ["u:5"]),
    "history never seen": Case([], ["u:1", "a:2", "u:3"], ["u:1", "a:2", "u:3"]),
    "history partly seen": Case(["u:1", "a:2"], ["u:0", "a:0", "u:1", "a:2", "u:3"], ["u:0", "a:0", "u:3"]),
    "history with more of the same than stored": Case(["u:ok", "a:1"], ["u:ok", "a:1", "u:ok", "a:2"], ["u:ok", "a:2"]),
    "tool loop": Case(["u:1", "c:f()"], ["u:1", "c:f()", "t:42"], ["t:42"]),
    "tool loop, repeated": Case(["u:1", "c:f()", "t:42", "a:it is 42"], ["u:1", "c:f()", "t:42"], []),
    "the same result again": Case(
        ["u:1", "c:f()", "t:wait", "c:f()"], ["u:1", "c:f()", "t:wait", "c:f()", "t:wait"], ["t:wait"]
    ),
    "the same result again, window trimmed": Case(
        ["u:1", "c:f()", "t:wait", "c:f()", "t:wait", "c:f()"], ["c:f()", "t:wait"], ["t:wait"]
    ),
    "results without their history": Case(["u:1", "c:f()", "t:42", "a:ok"], ["t:42"], []),
    "two equal results without their history": Case(["u:1", "c:f()", "t:42"], ["t:42", "t:42"], ["t:42"]),
    "white space and form": Case(
        ["u:caf\u00e9  au lait", "a:ok\n"], ["u: cafe\u0301 au\tlait", "a:ok", "u:2"], ["u:2"]
    ),
    "another role": Case(["u:hi", "a:hi"], ["a:hello"], ["a:hello"]),
    "a reply cut off": Case(["u:1", "a:Once upon"], ["u:1", "a:Once upon a time", "u:2"], ["u:2"], partial=(1,)),
    "a reply cut off, asked for again": Case(
        ["u:1", "a:Once upon", "u:2", "a:x"], ["u:1", "a:Once upon a time", "u:2"], [], partial=(1,)
    ),
    "a reply cut off elsewhere": Case(
        ["u:1", "a:Once upon"], ["u:0", "a:Once upon a time", "u:2"], ["u:0", "a:Once upon a time", "u:2"], partial=(1,)
    ),
    "not the reply that was cut off": Case(
        ["u:1", "a:Once"], ["u:1", "a:Twice", "u:2"], ["a:Twice", "u:2"], partial=(1,)
    ),
    "only what was said before": Case(["u:1", "a:2"], ["u:1", "a:2"], []),
    "nothing": Case(["u:1"], [], []),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_new(case: Case) -> None:
    """Fails when a message is stored twice, or is lost."""
    assert news(case.stored, case.sent, case.partial) == case.new


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), max_size=12), st.integers(0, 8))
@example([("a", "x")] * 6, 3)
@example([("a", "x")] * 6, 4)
@settings(deadline=None, max_examples=300)
def test_an_own_list_is_stored_once_whatever_is_said(turns: list[tuple[str, str]], window: int) -> None:
    """Fails when a list, whole or with its beginning cut off, stores anything twice or loses anything."""
    stored: list[str] = []
    own: list[str] = []
    for asked, answered in turns:
        own.append(f"u:{asked}")
        sent = own if window == 0 else own[-max(window, 2) :]
        stored += [*news(stored, sent), f"a:{answered}"]
        own.append(f"a:{answered}")
    assert stored == own


@pytest.mark.parametrize(
    "other",
    [
        Message(role="assistant", content="hi"),
        Message(role="user", kind="tool_result", content="hi"),
        Message(role="user", content="hi", author="bob"),
        Message(role="user", content="Hi"),
        Message(role="user", content="h i"),
    ],
)
def test_digests_tell_messages_apart(other: Message) -> None:
    """Fails when messages that differ in role, kind, author or words are taken for the same."""
    assert digest(Message(role="user", content="hi")) != digest(other)
    assert len(digest(other)) == 32


def test_digests_know_what_is_the_same() -> None:
    """Fails when metadata, times, white space or the form of a letter keep a message from being recognised."""
    one = Message(role="user", content="Caf\u00e9 au lait", metadata={"a": 1})
    assert digest(one) == digest(Message(role="user", content="\n Cafe\u0301  au\u00a0lait\t"))
    assert digest(Message(role="user", content="a\x00\ud800b")) == digest(
        Message(role="user", content="a\ufffd\ufffdb")
    )


@pytest.mark.parametrize("answer", ["a:ok", "a:ok {}"])
def test_a_long_list_is_quick(answer: str) -> None:
    """Fails when the work grows faster than the list."""
    own = [text.format(turn) for turn in range(5_000) for text in ("u:message {}", answer)]
    stored = known(own)
    sent = [message(item) for item in [*own, "u:new"]]
    began = time.perf_counter()
    assert unknown(sent, stored) == [10_000]
    assert time.perf_counter() - began < 2.0
