"""How Anthropic's requests and replies read: pure, in dicts as in the SDK's own objects."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from anthropic.types import Message as AnthropicMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from memori.capture.anthropic import MessagesReader, provider_of
from memori.injection import block as block_of
from memori.types import Message, Recollection, Reply

reader = MessagesReader("anthropic")
Place = Literal["user", "system"]

PNG = b"\x89PNG not really"
PNG_DATA = base64.b64encode(PNG).decode()
PNG_DIGEST = hashlib.sha256(PNG).hexdigest()[:16]
CACHED = {"cache_control": {"type": "ephemeral"}}


def user(content: str) -> Message:
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    return Message(role="assistant", content=content)


def called(content: str) -> Message:
    return Message(role="assistant", kind="tool_call", content=content)


def result(content: str, author: str | None) -> Message:
    return Message(role="tool", kind="tool_result", content=content, author=author)


def text(content: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": content, **more}


def says(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


def injected() -> str:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    recalled = Recollection(id=1, kind="fact", content="Likes blue.", score=1.0, at=now, date_created=now)
    made = block_of([recalled], now=now, token_budget=1000)
    assert made is not None
    return made


def file(kind: str, **source: Any) -> dict[str, Any]:
    return {"type": kind, "source": source}


TOOL_CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
TOOL_RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
THOUGHT = {"type": "thinking", "thinking": "They want the weather.", "signature": "c2ln"}
HIDDEN_THOUGHT = {"type": "redacted_thinking", "data": "b3BhcXVl"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Oslo"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {
            "type": "web_search_result",
            "url": "https://example.com",
            "title": "Oslo",
            "encrypted_content": "b3BhcXVl",
            "page_age": None,
        }
    ],
}

MESSAGES: dict[str, tuple[list[Any], list[Message]]] = {
    "text": ([{"role": "user", "content": "Hi."}], [user("Hi.")]),
    "blocks": ([says(text("One"), text("two", **CACHED))], [user("One\ntwo")]),
    "the system's word in between": (
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}],
        [user("Hi.")],
    ),
    "content None": ([{"role": "user", "content": None}], []),
    "no content": ([{"role": "user"}, {"role": "assistant"}], []),
    "blank content": ([{"role": "user", "content": " \n"}, says(text(""))], []),
    "no role": ([{"content": "Hi."}], []),
    "not a message": (["Hi.", 7, None], []),
    "blocks unknown": ([says({"type": "hologram", "hologram": "…"}, {"text": "?"}, 3, "Hi.")], []),
    "images": (
        [
            says(
                text("Look:"),
                file("image", type="base64", media_type="image/png", data=PNG_DATA),
                file("image", type="url", url="https://example.com/cat.png"),
                file("image", type="file", file_id="file_1"),
            )
        ],
        [
            user(
                f"Look:\n[image: image/png, sha256 {PNG_DIGEST}]\n[image: https://example.com/cat.png]\n[image: file_1]"
            )
        ],
    ),
    "an image as data that is broken": (
        [says(file("image", type="base64", media_type="image/png", data="A"))],
        [user(f"[image: image/png, sha256 {hashlib.sha256(b'A').hexdigest()[:16]}]")],
    ),
    "an image that is still a file": (
        [says(file("image", type="base64", media_type="image/png", data=object()))],
        [user("[image: image/png]")],
    ),
    "documents": (
        [
            says(
                {**file("document", type="base64", media_type="application/pdf", data=PNG_DATA), "title": "Report"},
                file("document", type="base64", media_type="application/pdf", data=PNG_DATA),
                file("document", type="text", media_type="text/plain", data="A whole book."),
                file("document", type="content", content=[text("A whole book.")]),
                file("document", type="url", url="https://example.com/a.pdf"),
                {"type": "container_upload", "file_id": "file_2"},
                {"type": "search_result", "source": "https://example.com", "title": "Oslo", "content": [text("…")]},
            )
        ],
        [
            user(
                f"[document: Report]\n[document: application/pdf, sha256 {PNG_DIGEST}]\n"
                f"[document: text/plain, sha256 {hashlib.sha256(b'A whole book.').hexdigest()[:16]}]\n"
                f"[document: document, sha256 {hashlib.sha256(b'A whole book.').hexdigest()[:16]}]\n"
                "[document: https://example.com/a.pdf]\n[file: file_2]\n[search result: https://example.com]"
            )
        ],
    ),
    "a tool loop": (
        [
            {"role": "user", "content": "Weather?"},
            says(THOUGHT, HIDDEN_THOUGHT, text("Let me see."), TOOL_CALL, role="assistant"),
            says(TOOL_RESULT),
        ],
        [user("Weather?"), assistant("Let me see."), called('weather({"city": "Oslo"})'), result("rain", "weather")],
    ),
    "several tools and a word behind their results": (
        [
            says(TOOL_CALL, {**TOOL_CALL, "id": "toolu_2", "name": "time", "input": {}}, role="assistant"),
            says(
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [text("noon"), text("sharp")]},
                {**TOOL_RESULT, "is_error": True},
                text("Go on."),
            ),
        ],
        [
            called('weather({"city": "Oslo"})'),
            called("time({})"),
            result("noon\nsharp", "time"),
            result("rain", "weather"),
            user("Go on."),
        ],
    ),
    "what tools return besides text": (
        [
            says(
                {"type": "tool_result", "tool_use_id": "toolu_9"},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_9",
                    "content": [file("image", type="base64", media_type="image/png", data=PNG_DATA)],
                },
            )
        ],
        [result(f"[image: image/png, sha256 {PNG_DIGEST}]", None)],
    ),
    "Anthropic's own tools": (
        [
            says(
                text("I look."),
                SEARCH,
                FOUND,
                text("It is "),
                text("a city."),
                {
                    "type": "bash_code_execution_tool_result",
                    "tool_use_id": "srvtoolu_7",
                    "content": {"type": "bash_code_execution_result", "stdout": "1\n", "stderr": "", "return_code": 0},
                },
                {
                    "type": "web_fetch_tool_result",
                    "tool_use_id": "srvtoolu_8",
                    "content": {"type": "web_fetch_tool_result_error", "error_code": "unavailable"},
                },
                role="assistant",
            )
        ],
        [
            assistant("I look."),
            called('web_search({"query": "Oslo"})'),
            result("[web search: https://example.com]", "web_search"),
            assistant("It is a city."),
            result("1\n", "bash_code_execution"),
            result("[error: unavailable]", "web_fetch"),
        ],
    ),
    "tools of an MCP server": (
        [
            says(
                {"type": "mcp_tool_use", "id": "mcp_1", "name": "echo", "server_name": "s", "input": {"a": 1}},
                {"type": "mcp_tool_result", "tool_use_id": "mcp_1", "is_error": False, "content": [text("1")]},
                role="assistant",
            )
        ],
        [called('echo({"a": 1})'), result("1", "echo")],
    ),
    "a call without a name": ([says({"type": "tool_use", "id": "t", "input": {}}, role="assistant")], []),
    "the beginning of an answer": (
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "{"}],
        [user("Hi."), assistant("{")],
    ),
    "nothing but memori's block": ([says(text(injected()))], []),
    "memori's block before the question": ([says(text(injected()), text("Hi."))], [user("Hi.")]),
    "memori's block behind the question": ([says(text("Hi."), text(injected()))], [user("Hi.")]),
    "memori's block told to a tool and by it": (
        [
            says({**TOOL_CALL, "input": {"texts": ["Hi.", f"{injected()} Blue."]}}, role="assistant"),
            says({**TOOL_RESULT, "content": f"I saw {injected()}"}),
        ],
        [called('weather({"texts": ["Hi.", "Blue."]})'), result("I saw", "weather")],
    ),
}


class TestSent:
    @pytest.mark.parametrize("case", MESSAGES)
    def test_messages_read_as(self, case: str) -> None:
        """Fails when a form that messages take is misread, or is taken for words when it is none."""
        messages, expected = MESSAGES[case]
        before = repr(messages)
        assert reader.sent({"model": "m", "messages": messages}) == tuple(expected)
        assert repr(messages) == before

    @pytest.mark.parametrize("missing", [{}, {"messages": None}, {"messages": "Hi."}, {"messages": []}])
    def test_nothing_reads_as_nothing(self, missing: dict[str, Any]) -> None:
        """Fails when a request without a conversation raises."""
        assert reader.sent(missing) == ()
        assert reader.with_memory(missing, "B", role="user") is missing
        assert reader.with_memory(missing, "B", role="system") is missing

    def test_files_are_never_their_bytes(self) -> None:
        """Fails when base64 gets into what is stored."""
        for kind in ("image", "document"):
            block = file(kind, type="base64", media_type="image/png", data=PNG_DATA)
            for message in (says(block), says({**TOOL_RESULT, "content": [block]})):
                (read,) = reader.sent({"messages": [message]})
                assert PNG_DATA not in read.content
                assert PNG_DIGEST in read.content

    def test_a_reply_is_read_alike_when_it_is_sent_again(self) -> None:
        """Fails when an application that keeps its own list makes the session hold its replies twice."""
        content = [THOUGHT, text("Let me see.", citations=None), SEARCH, FOUND, text("It is"), TOOL_CALL]
        body = MESSAGE | {"content": content}
        replied = reader.reply(AnthropicMessage.model_validate(body))
        assert len(replied.messages) == 5
        assert replied == reader.reply(body)
        assert reader.sent({"messages": [says(*content, role="assistant")]}) == replied.messages
        parts = AnthropicMessage.model_validate(body).content
        assert reader.sent({"messages": [{"role": "assistant", "content": parts}]}) == replied.messages
        assert reader.sent({"messages": [AnthropicMessage.model_validate(body)]}) == replied.messages


MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-1",
    "content": [text("Blue.", citations=None)],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


class TestReply:
    @pytest.mark.parametrize("form", ["object", "json"])
    def test_is_what_the_message_says(self, form: str) -> None:
        """Fails when the SDK's objects read unlike their JSON."""
        body = MESSAGE | {"content": [THOUGHT, text("Blue", citations=None), text(".", citations=None), TOOL_CALL]}
        read = reader.reply(AnthropicMessage.model_validate(body) if form == "object" else body)
        assert read == Reply(messages=(assistant("Blue."), called('weather({"city": "Oslo"})')), model="claude-1")

    @pytest.mark.parametrize("body", [{}, {"content": []}, {"content": None}, "<html>", None, {"content": [{}]}])
    def test_without_content_is_empty(self, body: Any) -> None:
        """Fails when an odd answer of some gateway raises."""
        assert reader.reply(body) == Reply()

    @pytest.mark.parametrize("reason", ["max_tokens", "stop_sequence", "refusal", "pause_turn"])
    def test_that_ends_at_a_limit_is_whole(self, reason: str) -> None:
        """Fails when what ended by the caller's own limits, or the model's, passes for cut off."""
        assert reader.reply(MESSAGE | {"stop_reason": reason}) == Reply(
            messages=(assistant("Blue."),), model="claude-1"
        )

    def test_never_contains_memories(self) -> None:
        """Fails when a model that repeats the block has it learned as new."""
        assert reader.reply(MESSAGE | {"content": [text(f"{injected()}\nBlue.")]}).messages == (assistant("Blue."),)


events: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)

START = {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}}
STOPS = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 1},
}
END = {"type": "message_stop"}


def opens(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def adds(index: int, kind: str, **piece: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", **piece}}


def closes(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def folded(chunks: Sequence[Any], *, ended: bool = False) -> Reply:
    fold = reader.fold()
    for one in chunks:
        fold.add(one)
    return fold.reply(ended=ended)


class TestFold:
    @pytest.mark.parametrize("form", ["object", "json"])
    def test_joins_what_comes_in_pieces(self, form: str) -> None:
        """Fails when words or a tool's input are not put together as they came, or thoughts are taken for words."""
        chunks: list[Any] = [
            START,
            opens(0, {"type": "thinking", "thinking": "", "signature": ""}),
            adds(0, "thinking", thinking="Hm."),
            adds(0, "signature", signature="c2ln"),
            closes(0),
            opens(1, text("", citations=None)),
            adds(1, "text", text="Let me"),
            adds(1, "text", text=" see."),
            closes(1),
            opens(2, {**TOOL_CALL, "input": {}}),
            adds(2, "input_json", partial_json=""),
            adds(2, "input_json", partial_json='{"city"'),
            adds(2, "input_json", partial_json=':"Oslo"}'),
            closes(2),
            opens(3, {**TOOL_CALL, "id": "toolu_2", "name": "time", "input": {}}),
            closes(3),
            STOPS,
            END,
        ]
        if form == "object":
            chunks = [events.validate_python(one) for one in chunks]
        assert folded(chunks) == Reply(
            messages=(assistant("Let me see."), called('weather({"city": "Oslo"})'), called("time({})")),
            model="claude-1",
        )

    def test_reads_as_the_whole_message_does(self) -> None:
        """Fails when a streamed reply that is sent again is not known by what it says."""
        content = [text("It is ", citations=None), SEARCH, FOUND, text("Oslo.", citations=None), TOOL_CALL]
        chunks: list[Any] = [START]
        for index, block in enumerate(content):
            if block["type"] == "text":
                chunks += [opens(index, {**block, "text": ""}), adds(index, "text", text=block["text"])]
            elif "input" in block:
                given = json.dumps(block["input"], separators=(",", ":"))
                chunks += [opens(index, {**block, "input": {}}), adds(index, "input_json", partial_json=given)]
            else:
                chunks += [opens(index, block)]
        assert folded([*chunks, STOPS, END]) == reader.reply(MESSAGE | {"content": content})

    def test_keeps_what_came_before_it_was_left(self) -> None:
        """Fails when a message that was left in the middle loses its words or its tool calls."""
        chunks = [
            START,
            opens(0, text("")),
            adds(0, "text", text="Let me see."),
            closes(0),
            opens(1, {**TOOL_CALL, "input": {}}),
            adds(1, "input_json", partial_json='{"city"'),
        ]
        read = folded(chunks)
        assert read.messages == (assistant("Let me see."), called('weather({"city")'))
        assert read.partial
        assert folded(chunks[:3]).messages == read.messages[:1]
        assert folded(chunks[:1]) == Reply(model="claude-1", partial=True)
        assert folded([]) == Reply(partial=True)

    def test_is_whole_by_the_stop_reason_or_the_end(self) -> None:
        """Fails when a reply passes for whole that was cut off, or the other way round."""
        said = [START, opens(0, text("")), adds(0, "text", text="Blue")]
        assert folded(said).partial
        assert folded([*said, {**STOPS, "delta": {"stop_reason": None}}]).partial
        assert not folded([*said, STOPS]).partial
        assert not folded([*said, END]).partial
        assert not folded(said, ended=True).partial

    def test_passes_over_what_it_does_not_know(self) -> None:
        """Fails when an event of a newer API breaks the stream."""
        odd = [
            {"type": "ping"},
            {"type": "news", "index": 0},
            {},
            adds(7, "text", text="lost"),
            adds(0, "news", news=1),
        ]
        said = [START, *odd, opens(0, text("")), adds(0, "text", text="Blue"), END]
        assert folded(said) == Reply(messages=(assistant("Blue"),), model="claude-1")


class TestInjection:
    def place(self, *messages: Any, role: Place = "user", **more: Any) -> list[Any]:
        """Return the messages with a block in them."""
        enriched = reader.with_memory({"messages": list(messages), **more}, "B", role=role)
        assert {name: value for name, value in enriched.items() if name != "messages"} == more
        return list(enriched["messages"])

    def test_is_a_block_of_its_own_before_the_question(self) -> None:
        """Fails when two messages of one role follow each other, which Bedrock may refuse, or the question changes."""
        assert self.place({"role": "user", "content": "Hi."}) == [says(text("B"), text("Hi."))]
        assert self.place(says(text("Hi."), text("You."))) == [says(text("B"), text("Hi."), text("You."))]

    def test_keeps_the_other_fields_of_the_message(self) -> None:
        """Fails when a field of the message's that memori knows nothing of is lost."""
        message = {"role": "user", "content": "Hi.", "id": "1"}
        assert self.place(message) == [{"role": "user", "id": "1", "content": [text("B"), text("Hi.")]}]

    def test_passes_over_messages_that_only_carry_results(self) -> None:
        """Fails when the hops of a tool loop get blocks in other places, or one comes between a call and its result."""
        loop = [{"role": "user", "content": "Weather?"}, says(TOOL_CALL, role="assistant"), says(TOOL_RESULT)]
        assert self.place(*loop) == [says(text("B"), text("Weather?")), *loop[1:]]

    def test_comes_behind_results_that_share_a_message_with_the_question(self) -> None:
        """Fails when anything is put before a tool's result, which Anthropic refuses."""
        both = says(TOOL_RESULT, {**TOOL_RESULT, "tool_use_id": "toolu_2"}, text("And Rome?"))
        (message,) = self.place(both)
        assert [block.get("text", "result") for block in message["content"]] == ["result", "result", "B", "And Rome?"]

    @pytest.mark.parametrize(
        "marked",
        [
            says(text("Hi.", **CACHED)),
            says(file("image", type="url", url="u"), text("Hi.", **CACHED)),
            says(text("Hi."), text("You.", **CACHED), text("And you.")),
        ],
    )
    def test_comes_behind_what_is_cached(self, marked: dict[str, Any]) -> None:
        """Fails when the block is in a prefix that is cached: the next request, without it, would never find that."""
        assert self.place(marked) == [says(*marked["content"], text("B"))]

    def test_keeps_its_place_while_a_breakpoint_moves_on(self) -> None:
        """Fails when the hops of one tool loop get the block in two places, which loses what the first has cached."""
        asked = says(text("Weather?", **CACHED))
        hop = [says(text("Weather?")), says(TOOL_CALL, role="assistant")]
        first = self.place(asked)[0]["content"]
        for cached in ({**TOOL_RESULT, **CACHED}, {**TOOL_RESULT, "content": [text("rain", **CACHED)]}):
            second = self.place(*hop, says(cached))[0]["content"]
            assert [block["text"] for block in first] == [block["text"] for block in second] == ["Weather?", "B"]

    def test_of_a_breakpoint_that_is_none_does_not_move_it(self) -> None:
        """Fails when a cache_control of None counts."""
        assert self.place(says(text("Hi.", cache_control=None)))[0]["content"][0] == text("B")

    def test_of_a_second_instance_comes_behind_that_of_the_first(self) -> None:
        """Fails when two instances on one client get into each other's way."""
        for message, expected in (
            (says(text("Hi.")), ["first", "second", "Hi."]),
            (says(text("Hi.", **CACHED)), ["Hi.", "first", "second"]),
        ):
            request: Any = {"messages": [message]}
            for name in ("first", "second"):
                request = reader.with_memory(request, name, role="user")
            assert [block["text"] for block in request["messages"][0]["content"]] == expected

    @pytest.mark.parametrize(
        ("system", "expected"),
        [
            (None, "B"),
            ("", "B"),
            (object(), "B"),  # What the SDK has in place of an argument that is not given.
            ("Be brief.", "Be brief.\n\nB"),
            ([text("Be brief.", **CACHED)], [text("Be brief.", **CACHED), text("B")]),
            ([], [text("B")]),
        ],
    )
    def test_in_the_system_role_is_the_end_of_the_system_prompt(self, system: Any, expected: Any) -> None:
        """Fails when the system prompt's form changes, or a breakpoint in it no longer holds."""
        request = {"messages": [{"role": "user", "content": "Hi."}], "system": system}
        enriched = reader.with_memory(request, "B", role="system")
        assert enriched == {**request, "system": expected}
        without = {"messages": request["messages"]}
        assert reader.with_memory(without, "B", role="system") == {**without, "system": "B"}

    def test_in_the_system_role_spares_the_fixed_prompt_of_a_thread(self) -> None:
        """Fails when a message thread that goes on is made a request that Anthropic refuses."""
        message = {"role": "user", "content": "Hi."}
        going_on = {"type": "continue", "previous_message_id": "msg_1"}
        assert self.place(message, role="system", thread=going_on) == [says(text("B"), text("Hi."))]
        begun = reader.with_memory({"messages": [message], "thread": {"type": "create"}}, "B", role="system")
        assert begun["system"] == "B"


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.anthropic.com", "anthropic"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com", "bedrock"),
        ("https://bedrock-mantle.us-east-1.api.aws/anthropic", "bedrock"),
        ("https://us-east5-aiplatform.googleapis.com/v1", "vertex"),
        ("https://aiplatform.eu.rep.googleapis.com/v1", "vertex"),
        ("https://acme.services.ai.azure.com/anthropic/", "azure"),
        ("http://localhost:8080", "localhost"),
        ("https://anthropic.com.example.org", "anthropic.com.example.org"),
        ("", ""),
    ],
)
def test_the_provider_is_told_by_the_host(base_url: str, provider: str) -> None:
    """Fails when exchanges are stored under another provider than the one that answered."""
    assert provider_of(base_url) == provider


texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
marks = {"cache_control": st.none() | st.just({"type": "ephemeral"})}
parts = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}, optional=marks),
    st.fixed_dictionaries(
        {"type": st.just("tool_result"), "tool_use_id": texts, "content": texts | st.just([text("rain")])},
        optional=marks,
    ),
    st.sampled_from([THOUGHT, HIDDEN_THOUGHT, TOOL_CALL, SEARCH, FOUND]),
    st.just(file("image", type="base64", media_type="image/png", data=PNG_DATA)),
    json_values,
)
turns = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system"]),
        "content": st.none() | texts | st.lists(parts, max_size=4),
    },
    optional={"id": json_values},
)
conversations = st.lists(turns | json_values, max_size=6)
extras = st.dictionaries(
    texts.filter(lambda name: name not in ("messages", "system", "thread")), json_values, max_size=3
)
systems = st.none() | texts | st.lists(st.just(text("Be brief.", **CACHED)), max_size=2)
roles: st.SearchStrategy[Place] = st.sampled_from(["user", "system"])


def said_by_user(turn: Any) -> bool:
    if not isinstance(turn, dict) or turn.get("role") != "user":
        return False
    content = turn["content"]
    blocks = [text(content)] if isinstance(content, str) else content or []
    # A search's results come as a block of a type of their own, and are nobody's words either.
    return any(not (isinstance(block, dict) and str(block.get("type")).endswith("tool_result")) for block in blocks)


SEARCHED: list[Any] = [
    {"type": "tool_result", "tool_use_id": "t", "content": [text("rain")]},
    {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
]


@example(conversation=[{"role": "user", "content": SEARCHED}], system=None, extra={}, role="user")
@given(conversation=conversations, system=systems, extra=extras, role=roles)
def test_injection_adds_exactly_the_block_and_changes_nothing(
    conversation: list[Any], system: Any, extra: dict[str, Any], role: Place
) -> None:
    """Fails when a request loses, changes or reorders anything, or the caller's own objects are touched."""
    request = {**extra, "system": system, "messages": conversation}
    before = json.dumps(request)
    reader.sent(request)
    enriched = reader.with_memory(request, "BLOCK", role=role)
    assert json.dumps(request) == before
    place = max((place for place, turn in enumerate(conversation) if said_by_user(turn)), default=None)
    if place is None:
        assert enriched is request
        return
    if role == "system":
        assert {**enriched, "system": system} == request
        given = system or ""
        added = [*given, text("BLOCK")] if isinstance(system, list) else f"{given}\n\nBLOCK".strip("\n")
        assert enriched["system"] == (added if isinstance(system, list) or system else "BLOCK")
        return
    assert {**enriched, "messages": conversation} == request
    kept, changed = list(enriched["messages"]), enriched["messages"][place]
    original = conversation[place]
    assert {**changed, "content": original["content"]} == original
    assert all(one is other for at, (one, other) in enumerate(zip(kept, conversation, strict=True)) if at != place)
    content = original["content"]
    blocks = [text(content)] if isinstance(content, str) else content
    (at,) = (at for at, block in enumerate(changed["content"]) if block == text("BLOCK"))
    assert changed["content"][:at] + changed["content"][at + 1 :] == blocks
    behind = changed["content"][at + 1 :]
    assert not any(isinstance(block, dict) and block.get("type") == "tool_result" for block in behind)
    assert not any(isinstance(block, dict) and isinstance(block.get("cache_control"), dict) for block in behind)
