"""How OpenAI's requests and replies read: pure, in dicts as in the SDK's own objects."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from memori.capture.openai import ChatReader, ResponsesReader, provider_of
from memori.injection import block as block_of
from memori.types import Message, Recollection, Reply

chat = ChatReader("openai")
responses = ResponsesReader("openai")

PNG = b"\x89PNG not really"
PNG_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
PNG_DIGEST = hashlib.sha256(PNG).hexdigest()[:16]


def user(content: str, **more: Any) -> Message:
    return Message(role="user", content=content, **more)


def assistant(content: str, **more: Any) -> Message:
    return Message(role="assistant", content=content, **more)


def called(content: str) -> Message:
    return Message(role="assistant", kind="tool_call", content=content)


def result(content: str, author: str | None) -> Message:
    return Message(role="tool", kind="tool_result", content=content, author=author)


def sent_by_chat(*messages: Any) -> tuple[Message, ...]:
    return chat.sent({"model": "m", "messages": list(messages)})


def sent_by_responses(*items: Any) -> tuple[Message, ...]:
    return responses.sent({"model": "m", "input": list(items)})


def injected() -> str:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    recalled = Recollection(id=1, kind="fact", content="Likes blue.", score=1.0, at=now, date_created=now)
    made = block_of([recalled], now=now, token_budget=1000)
    assert made is not None
    return made


TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
CUSTOM_CALL = {"id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}

CHAT_MESSAGES: dict[str, tuple[list[Any], list[Message]]] = {
    "text": ([{"role": "user", "content": "Hi."}], [user("Hi.")]),
    "the system's and the developer's word": (
        [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": [{"type": "text", "text": "!"}]}],
        [],
    ),
    "content None": ([{"role": "user", "content": None}], []),
    "no content": ([{"role": "user"}, {"role": "assistant"}], []),
    "blank content": ([{"role": "user", "content": " \n"}], []),
    "no role": ([{"content": "Hi."}], []),
    "not a message": (["Hi.", 7, None], []),
    "an author": ([{"role": "user", "name": "ann", "content": "Hi."}], [user("Hi.", author="ann")]),
    "an author that is none": ([{"role": "user", "name": openai.NOT_GIVEN, "content": "Hi."}], [user("Hi.")]),
    "parts": (
        [{"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]}],
        [user("One\ntwo")],
    ),
    "an image by address": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "low"}},
                ],
            }
        ],
        [user("Look:\n[image: https://example.com/cat.png]")],
    ),
    "an image as data": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG_URL}}]}],
        [user(f"[image: image/png, sha256 {PNG_DIGEST}]")],
    ),
    "an image as data that is broken": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,A"}}]}],
        [user(f"[image: image/png, sha256 {hashlib.sha256(b'A').hexdigest()[:16]}]")],
    ),
    "sound": (
        [
            {
                "role": "user",
                "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}],
            }
        ],
        [user(f"[audio: audio/wav, sha256 {hashlib.sha256(b'RIFF').hexdigest()[:16]}]")],
    ),
    "files": (
        [
            {
                "role": "user",
                "content": [
                    {
                        "type": "file",
                        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,UklGRg=="},
                    },
                    {"type": "file", "file": {"file_id": "file-1"}},
                    {"type": "file", "file": {"file_data": "UklGRg=="}},
                    {"type": "file", "file": {}},
                ],
            }
        ],
        [user(f"[file: a.pdf]\n[file: file-1]\n[file: file, sha256 {hashlib.sha256(b'RIFF').hexdigest()[:16]}]")],
    ),
    "parts unknown": ([{"role": "user", "content": [{"type": "hologram", "hologram": "…"}, {"text": "?"}, 3]}], []),
    "a tool loop": (
        [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL, CUSTOM_CALL]},
            {"role": "tool", "tool_call_id": "call_2", "content": "1"},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
            {"role": "tool", "tool_call_id": "call_9", "content": "from before"},
        ],
        [
            user("Weather?"),
            called('weather({"city":"Oslo"})'),
            called("sql(select 1)"),
            result("1", "sql"),
            result("rain", "weather"),
            result("from before", None),
        ],
    ),
    "a tool call with a word before": (
        [{"role": "assistant", "content": "Let me see.", "tool_calls": [TOOL_CALL]}],
        [assistant("Let me see."), called('weather({"city":"Oslo"})')],
    ),
    "functions, as before there were tools": (
        [
            {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
            {"role": "function", "name": "weather", "content": "rain"},
        ],
        [called("weather({})"), result("rain", "weather")],
    ),
    "a refusal": ([{"role": "assistant", "content": None, "refusal": "No."}], [assistant("No.")]),
    "a refusal in parts": (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
        [assistant("No.")],
    ),
    "several agents": ([{"role": "assistant", "name": "bob", "content": "Hi."}], [assistant("Hi.", author="bob")]),
    "nothing but memori's block": ([{"role": "user", "content": injected()}], []),
    "memori's block among other words": (
        [{"role": "user", "content": [{"type": "text", "text": injected()}, {"type": "text", "text": "Hi."}]}],
        [user("Hi.")],
    ),
    "memori's block told to a tool and by it": (
        [
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "say", "arguments": injected()}}]},
            {"role": "tool", "tool_call_id": "c", "content": f"I saw {injected()}"},
        ],
        [called("say(\n\n)"), result("I saw", "say")],
    ),
}

INPUT_ITEMS: dict[str, tuple[list[Any], list[Message]]] = {
    "easy messages": (
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}],
        [user("Hi."), assistant("Hello.")],
    ),
    "typed messages": (
        [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": "Hel", "annotations": []},
                    {"type": "refusal", "refusal": "no"},
                ],
            },
        ],
        [user("Hi."), assistant("Hel\nno")],
    ),
    "the system's and the developer's word": (
        [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "!"}],
        [],
    ),
    "no content": ([{"role": "user", "content": None}, {"role": "user"}, "Hi.", None], []),
    "images and files": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": "https://example.com/cat.png", "detail": "auto"},
                    {"type": "input_image", "image_url": PNG_URL},
                    {"type": "input_image", "file_id": "file-1"},
                    {"type": "input_file", "file_url": "https://example.com/a.pdf"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,UklGRg=="},
                ],
            }
        ],
        [
            user(
                f"[image: https://example.com/cat.png]\n[image: image/png, sha256 {PNG_DIGEST}]\n[image: file-1]\n"
                "[file: https://example.com/a.pdf]\n[file: a.pdf]"
            )
        ],
    ),
    "a tool loop": (
        [
            {"role": "user", "content": "Weather?"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
            {"type": "custom_tool_call", "call_id": "call_2", "name": "sql", "input": "select 1"},
            {"type": "item_reference", "id": "msg_7"},
            {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "rain"}]},
            {"type": "custom_tool_call_output", "call_id": "call_2", "output": "1"},
        ],
        [
            user("Weather?"),
            called("weather({})"),
            called("sql(select 1)"),
            result("rain", "weather"),
            result("1", "sql"),
        ],
    ),
    "what follows a conversation kept by the provider": (
        [{"type": "function_call_output", "call_id": "call_1", "output": "rain"}],
        [result("rain", None)],
    ),
    "nothing but memori's block": ([{"role": "user", "content": injected()}], []),
}


class TestSent:
    @pytest.mark.parametrize("case", CHAT_MESSAGES)
    def test_messages_read_as(self, case: str) -> None:
        """Fails when a form that chat messages take is misread, or is taken for words when it is none."""
        messages, expected = CHAT_MESSAGES[case]
        before = repr(messages)
        assert sent_by_chat(*messages) == tuple(expected)
        assert repr(messages) == before

    @pytest.mark.parametrize("case", INPUT_ITEMS)
    def test_input_items_read_as(self, case: str) -> None:
        """Fails when a form that input items take is misread, or is taken for words when it is none."""
        items, expected = INPUT_ITEMS[case]
        before = repr(items)
        assert sent_by_responses(*items) == tuple(expected)
        assert repr(items) == before

    def test_input_may_be_a_text(self) -> None:
        """Fails when the commonest input of all is not read."""
        assert responses.sent({"model": "m", "input": "Hi."}) == (user("Hi."),)

    @pytest.mark.parametrize("missing", [{}, {"messages": None, "input": None}, {"messages": "Hi.", "input": 7}])
    def test_nothing_reads_as_nothing(self, missing: dict[str, Any]) -> None:
        """Fails when a request without a conversation, as one from a stored prompt, raises."""
        assert chat.sent(missing) == ()
        assert responses.sent(missing) == ()
        assert chat.with_memory(missing, "B", role="user") is missing
        assert responses.with_memory(missing, "B", role="system") is missing

    def test_images_are_never_their_bytes(self) -> None:
        """Fails when base64 gets into what is stored."""
        for part in (
            {"type": "image_url", "image_url": {"url": PNG_URL}},
            {"type": "input_image", "image_url": PNG_URL},
            {"type": "file", "file": {"file_data": PNG_URL}},
            {"type": "input_file", "file_data": base64.b64encode(PNG).decode()},
            {"type": "input_audio", "input_audio": {"data": base64.b64encode(PNG).decode(), "format": "mp3"}},
        ):
            (message,) = sent_by_chat({"role": "user", "content": [part]})
            assert base64.b64encode(PNG).decode() not in message.content
            assert PNG_DIGEST in message.content

    def test_a_reply_is_read_alike_when_it_is_sent_again(self) -> None:
        """Fails when an application that keeps its own list makes the session hold its replies twice."""
        completion = COMPLETION | {"choices": [choice(content="Let me see.", tool_calls=[TOOL_CALL, CUSTOM_CALL])]}
        replied = chat.reply(ChatCompletion.model_validate(completion))
        assert len(replied.messages) == 3
        assert sent_by_chat(completion["choices"][0]["message"]) == replied.messages
        assert sent_by_chat(ChatCompletion.model_validate(completion).choices[0].message) == replied.messages
        output = RESPONSE | {"output": [REASONING, TEXT_ITEM, CALL_ITEM]}
        answered = responses.reply(Response.model_validate(output))
        assert len(answered.messages) == 2
        assert sent_by_responses(*output["output"]) == answered.messages
        assert sent_by_responses(*Response.model_validate(output).output) == answered.messages


def choice(*, finish: str = "stop", index: int = 0, **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": None, **message}
    return {"index": index, "finish_reason": finish, "logprobs": None, "message": said}


COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini-2024",
    "choices": [choice(content="Blue.")],
}
TEXT_ITEM: dict[str, Any] = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [
        {"type": "output_text", "text": "Blue.", "annotations": []},
        {"type": "output_text", "text": "Or not.", "annotations": []},
    ],
}
CALL_ITEM: dict[str, Any] = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city":"Oslo"}',
    "status": "completed",
}
REASONING: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "gpt-4o-mini-2024",
    "output": [TEXT_ITEM],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "temperature": 1.0,
    "top_p": 1.0,
}


class TestReply:
    @pytest.mark.parametrize("form", ["object", "json"])
    def test_is_the_first_choice(self, form: str) -> None:
        """Fails when another choice than the first is kept, or the SDK's objects read unlike their JSON."""
        body = COMPLETION | {"choices": [choice(content="Blue."), choice(content="Red.", index=1)]}
        read = chat.reply(ChatCompletion.model_validate(body) if form == "object" else body)
        assert read == Reply(messages=(assistant("Blue."),), model="gpt-4o-mini-2024")

    @pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": None}, "<html>", None, {"choices": [{}]}])
    def test_without_a_choice_is_empty(self, body: Any) -> None:
        """Fails when an odd answer of some compatible server raises."""
        assert chat.reply(body) == Reply()
        assert responses.reply(body) == Reply()

    def test_may_be_spoken(self) -> None:
        """Fails when of a spoken reply not even the transcript is kept."""
        spoken = choice(audio={"id": "audio_1", "data": "UklGRg==", "expires_at": 1, "transcript": "Blue."})
        assert chat.reply(COMPLETION | {"choices": [spoken]}).messages == (assistant("Blue."),)

    def test_never_contains_memories(self) -> None:
        """Fails when a model that repeats the block has it learned as new."""
        parroted = COMPLETION | {"choices": [choice(content=f"{injected()}\nBlue.")]}
        assert chat.reply(parroted).messages == (assistant("Blue."),)

    @pytest.mark.parametrize(
        ("status", "partial"),
        [("completed", False), ("incomplete", False), ("queued", True), ("in_progress", True), ("failed", True)],
    )
    def test_of_a_response_tells_whether_it_is_all(self, status: str, partial: bool) -> None:
        """Fails when a response that is still being made, as in the background, passes for a whole one."""
        read = responses.reply(Response.model_validate(RESPONSE | {"status": status}))
        assert read == Reply(messages=(assistant("Blue.\nOr not."),), model="gpt-4o-mini-2024", partial=partial)


def chunk(*choices: Any, **more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": choices} | more


def delta(*, finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    return chunk({"index": index, "delta": fields, "finish_reason": finish})


def folded(reader: ChatReader | ResponsesReader, chunks: Sequence[Any], *, ended: bool = False) -> Reply:
    fold = reader.fold()
    for one in chunks:
        fold.add(one)
    return fold.reply(ended=ended)


def fragment(index: int | None, arguments: str, *, name: str | None = None, call_id: str | None = None) -> Any:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


class TestChatFold:
    @pytest.mark.parametrize("form", ["object", "json"])
    def test_joins_what_comes_in_pieces(self, form: str) -> None:
        """Fails when words or a tool call's fragments are not put together as they were said."""
        chunks: list[Any] = [
            chunk(model="", prompt_filter_results=[{"prompt_index": 0}]),  # Azure's first.
            delta(role="assistant", content=""),
            delta(content="Let me"),
            delta(content=" see."),
            delta(tool_calls=[fragment(0, "", name="weather", call_id="call_1")]),
            delta(tool_calls=[fragment(0, '{"city"'), fragment(1, "{", name="time", call_id="call_2")]),
            delta(tool_calls=[fragment(0, ':"Oslo"}')]),
            delta(tool_calls=[fragment(1, "}")]),
            delta(content="Not this.", index=1),
            delta(finish="tool_calls"),
            chunk(usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
        ]
        if form == "object":
            chunks = [ChatCompletionChunk.model_validate(one) for one in chunks]
        assert folded(chat, chunks) == Reply(
            messages=(assistant("Let me see."), called('weather({"city":"Oslo"})'), called("time({})")), model="m-1"
        )

    def test_tells_calls_apart_that_are_numbered_alike(self) -> None:
        """Fails when a compatible server that numbers every call 0 has them run into one."""
        calls = [fragment(0, '{"a":1}', name="one", call_id="c1"), fragment(0, '{"b":2}', name="two", call_id="c2")]
        read = folded(chat, [delta(tool_calls=[call]) for call in calls], ended=True)
        assert read.messages == (called('one({"a":1})'), called('two({"b":2})'))

    def test_reads_functions_as_before_there_were_tools(self) -> None:
        """Fails when the fragments of an old function call are lost."""
        chunks = [
            delta(function_call={"name": "weather", "arguments": ""}),
            delta(function_call={"arguments": "{}"}),
            delta(finish="function_call"),
        ]
        assert folded(chat, chunks).messages == (called("weather({})"),)

    def test_is_whole_by_the_finish_reason_or_the_end(self) -> None:
        """Fails when a reply passes for whole that was cut off, or the other way round."""
        assert folded(chat, [delta(content="Blue")]) == Reply(messages=(assistant("Blue"),), model="m-1", partial=True)
        assert not folded(chat, [delta(content="Blue"), delta(finish="stop")]).partial
        assert not folded(chat, [delta(content="Blue")], ended=True).partial
        assert folded(chat, [delta(finish="stop", index=1)]).partial
        assert folded(chat, []) == Reply(partial=True)

    def test_reads_refusals_and_speech(self) -> None:
        """Fails when a streamed refusal or transcript is lost."""
        assert folded(chat, [delta(refusal="I "), delta(refusal="won't.")]).messages == (assistant("I won't."),)
        spoken = [
            delta(audio={"transcript": "Bl"}),
            delta(audio={"data": "UklGRg=="}),
            delta(audio={"transcript": "ue"}),
        ]
        assert folded(chat, spoken).messages == (assistant("Blue"),)

    def test_reads_content_in_parts(self) -> None:
        """Fails when a compatible server that streams its content in parts has line breaks put between them."""
        pieces = [delta(content=[{"type": "text", "text": text}]) for text in ("Bl", "ue")]
        assert folded(chat, pieces).messages == (assistant("Blue"),)


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "sequence_number": 0, **fields}


def text_events(place: int, *texts: str) -> list[dict[str, Any]]:
    """The events of a message whose parts are *texts*, each in two pieces, up to its last word."""
    begun = {**TEXT_ITEM, "content": [], "status": "in_progress"}
    events = [event("output_item.added", output_index=place, item=begun)]
    for index, text in enumerate(texts):
        inner = {"output_index": place, "content_index": index, "item_id": "msg_1"}
        events += [event("output_text.delta", **inner, delta=piece) for piece in (text[:2], text[2:])]
    return events


CREATED = event("created", response=RESPONSE | {"status": "in_progress", "output": []})


class TestResponseFold:
    def test_takes_the_whole_from_the_last_event(self) -> None:
        """Fails when what the provider says at the end differs from what is kept."""
        full = RESPONSE | {"output": [REASONING, TEXT_ITEM, CALL_ITEM]}
        read = folded(responses, [CREATED, *text_events(1, "Bl"), event("completed", response=full)])
        assert read == responses.reply(full)
        assert not read.partial

    def test_keeps_what_came_before_it_was_left(self) -> None:
        """Fails when a response that was left in the middle loses its words or its tool calls."""
        call_begun = {**CALL_ITEM, "arguments": "", "status": "in_progress"}
        events = [
            CREATED,
            event("output_item.done", output_index=0, item=REASONING),
            *text_events(1, "Blue.", "Or not."),
            event("output_item.done", output_index=1, item=TEXT_ITEM),
            event("output_item.added", output_index=2, item=call_begun),
            event("function_call_arguments.delta", output_index=2, delta='{"city"'),
        ]
        read = folded(responses, events)
        assert read == Reply(
            messages=(assistant("Blue.\nOr not."), called('weather({"city")')), model="gpt-4o-mini-2024", partial=True
        )
        assert folded(responses, events[:-3]).messages == read.messages[:1]
        assert folded(responses, events[:1]) == Reply(model="gpt-4o-mini-2024", partial=True)

    def test_reads_custom_calls_and_refusals(self) -> None:
        """Fails when the input of a custom tool or a refusal is lost in a stream."""
        begun = {"type": "custom_tool_call", "id": "ct_1", "call_id": "call_1", "name": "sql", "input": ""}
        events = [
            event("refusal.delta", output_index=0, content_index=0, delta="No"),
            event("refusal.delta", output_index=0, content_index=0, delta="."),
            event("output_item.added", output_index=1, item=begun),
            event("custom_tool_call_input.delta", output_index=1, delta="select "),
            event("custom_tool_call_input.delta", output_index=1, delta="1"),
        ]
        assert folded(responses, events, ended=True) == Reply(messages=(assistant("No."), called("sql(select 1)")))

    def test_survives_an_end_without_output(self) -> None:
        """Fails when a compatible server whose last event has no output loses what it streamed."""
        events = [CREATED, *text_events(0, "Blue."), event("completed", response=RESPONSE | {"output": []})]
        assert folded(responses, events) == Reply(messages=(assistant("Blue."),), model="gpt-4o-mini-2024")

    @pytest.mark.parametrize(
        "last", [{"type": "error", "message": "overloaded"}, event("failed", response=RESPONSE | {"status": "failed"})]
    )
    def test_of_a_failure_is_partial(self, last: dict[str, Any]) -> None:
        """Fails when a response that failed passes for a whole one since its stream ended well."""
        assert folded(responses, [CREATED, *text_events(0, "Blue."), last], ended=True).partial


texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
parts = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "input_text", "output_text"]), "text": texts}),
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": texts})}),
    json_values,
)
turns = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "developer", "tool"]),
        "content": st.none() | texts | st.lists(parts, max_size=3),
    },
    optional={
        "name": json_values,
        "tool_calls": json_values | st.lists(st.just(TOOL_CALL), max_size=2),
        "tool_call_id": json_values,
        "type": st.just("message"),
        "refusal": json_values,
    },
)
conversations = st.lists(turns | json_values, max_size=6)
extras = st.dictionaries(texts.filter(lambda name: name not in ("messages", "input")), json_values, max_size=3)
roles: st.SearchStrategy[Literal["user", "system"]] = st.sampled_from(["user", "system"])


@pytest.mark.parametrize("key", ["messages", "input"])
class TestInjection:
    @given(conversation=conversations, extra=extras, role=roles)
    def test_adds_exactly_the_block_and_changes_nothing(
        self, key: str, conversation: list[Any], extra: dict[str, Any], role: Literal["user", "system"]
    ) -> None:
        """Fails when a request loses, changes or reorders anything, or the caller's own objects are touched."""
        reader = chat if key == "messages" else responses
        request = {**extra, key: conversation}
        before = json.dumps(request)
        enriched = reader.with_memory(request, "BLOCK", role=role)
        assert json.dumps(request) == before
        if not any(isinstance(turn, dict) and turn.get("role") == "user" for turn in conversation):
            assert enriched is request
            return
        assert {name: value for name, value in enriched.items() if name != key} == extra
        added = [
            place
            for place, turn in enumerate(enriched[key])
            if isinstance(turn, dict) and turn.get("content") == "BLOCK"
        ]
        (place,) = added
        assert enriched[key][:place] + enriched[key][place + 1 :] == conversation
        assert all(any(kept is turn for turn in conversation) for kept in enriched[key] if kept != enriched[key][place])
        following = [turn.get("role") if isinstance(turn, dict) else None for turn in enriched[key][place + 1 :]]
        if role == "user":
            assert enriched[key][place]["role"] == "user"
            assert following[0] == "user"
            assert "user" not in following[1:]
        else:
            assert enriched[key][place]["role"] in ("system", "developer")
            assert following[0] not in ("system", "developer")

    @given(conversation=conversations)
    def test_is_not_captured_again(self, key: str, conversation: list[Any]) -> None:
        """Fails when what memori put into a request comes back as something that was said."""
        reader = chat if key == "messages" else responses
        request = {key: conversation}
        for role in ("user", "system"):
            enriched = reader.with_memory(request, injected(), role=role)
            assert reader.sent(enriched) == reader.sent(request)


class TestInjectionIntoResponses:
    def test_makes_a_list_of_a_text(self) -> None:
        """Fails when memories are glued to the user's own text, or replace it."""
        enriched = responses.with_memory({"model": "m", "input": "Hi."}, "BLOCK", role="user")
        assert enriched["input"] == [{"role": "user", "content": "BLOCK"}, {"role": "user", "content": "Hi."}]

    def test_is_of_the_kind_of_what_it_stands_beside(self) -> None:
        """Fails when a typed list gets an untyped item."""
        typed = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}
        enriched = responses.with_memory({"input": [REASONING, typed]}, "BLOCK", role="user")
        assert enriched["input"] == [REASONING, {"type": "message", "role": "user", "content": "BLOCK"}, typed]


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.openai.com/v1/", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com/openai/", "azure"),
        ("https://mine.services.ai.azure.com/openai/v1/", "azure"),
        ("https://mine.openai.azure.us/openai/", "azure"),
        ("https://api.studio.nebius.com/v1/", "nebius"),
        ("https://api.tokenfactory.nebius.com/v1/", "nebius"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://integrate.api.nvidia.com/v1", "nvidia"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://127.0.0.1:11434/v1", "ollama"),
        ("http://[::1]:1234/v1", "lmstudio"),
        ("http://localhost:8000/v1", "localhost"),
        ("http://gpu-box:11434/v1", "gpu-box"),
        ("https://mydeepseek.com", "mydeepseek.com"),
        ("https://openai.com.evil.example/v1", "openai.com.evil.example"),
    ],
)
def test_the_provider_is_who_answers(base_url: str, provider: str) -> None:
    """Fails when exchanges are put down to another provider than the one that was asked."""
    assert provider_of(base_url) == provider
