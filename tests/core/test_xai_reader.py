"""How xAI's requests and responses read: pure, so without a provider."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from xai_sdk.chat import assistant, file, image, system, text, user
from xai_sdk.proto import chat_pb2, sample_pb2

from memori.capture.xai import CompletionReader
from memori.injection import block
from memori.testing.listening import BLOCK
from memori.types import Message, Recollection

PNG = b"\x89PNG \xff\xfe"
DIGEST = hashlib.sha256(PNG).hexdigest()[:16]
BASE64 = base64.b64encode(PNG).decode()
NOW = datetime(2026, 5, 1, tzinfo=UTC)
STOP = sample_pb2.FinishReason.REASON_STOP
KINDS = chat_pb2.ToolCallType


def request(*messages: Any, **more: Any) -> Any:
    return chat_pb2.GetCompletionsRequest(model="grok-4", messages=messages, **more)


def sent(*messages: Any) -> tuple[Message, ...]:
    return CompletionReader().sent(request(*messages))


def calls(*names: str, kind: Any = KINDS.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL) -> list[Any]:
    return [
        chat_pb2.ToolCall(id=f"call_{name}", type=kind, function=chat_pb2.FunctionCall(name=name, arguments="{}"))
        for name in names
    ]


def calling(*names: str, **more: Any) -> Any:
    return chat_pb2.Message(role=chat_pb2.MessageRole.ROLE_ASSISTANT, tool_calls=calls(*names, **more))


def result(answer: str, **more: Any) -> Any:
    return chat_pb2.Message(role=chat_pb2.MessageRole.ROLE_TOOL, content=[text(answer)], **more)


def returned(answer: str, author: str) -> Message:
    return Message(role="tool", kind="tool_result", content=answer, author=author)


def says(said: str) -> Message:
    return Message(role="assistant", content=said)


def response(*said: str, role: Any = chat_pb2.MessageRole.ROLE_ASSISTANT) -> Any:
    made = chat_pb2.GetChatCompletionResponse(model="grok-4")
    for index, content in enumerate(said):
        made.outputs.add(index=index, message=chat_pb2.CompletionMessage(content=content, role=role))
    return made


def chunk(said: str, *, index: int = 0, finish: Any = 0, tool_calls: Any = ()) -> Any:
    made = chat_pb2.GetChatCompletionChunk(model="grok-4")
    delta = chat_pb2.Delta(content=said, role=chat_pb2.MessageRole.ROLE_ASSISTANT, tool_calls=tool_calls)
    made.outputs.add(index=index, delta=delta, finish_reason=finish)
    return made


class TestSent:
    def test_leaves_out_what_the_application_tells_the_model(self) -> None:
        """Fails when a system prompt is stored as conversation."""
        assert sent(system("Be brief."), user("Color?"), assistant("Blue.")) == (
            Message(role="user", content="Color?"),
            says("Blue."),
        )

    @pytest.mark.parametrize(
        ("part", "reference"),
        [
            (image("https://files/cat.png"), "[image: https://files/cat.png]"),
            (image(f"data:image/png;base64,{BASE64}"), f"[image: image/png, sha256 {DIGEST}]"),
            (image(BASE64), f"[image: image, sha256 {DIGEST}]"),
            (file("file_1"), "[file: file_1]"),
        ],
        ids=lambda value: value if isinstance(value, str) else "part",
    )
    def test_files_are_references_never_bytes(self, part: Any, reference: str) -> None:
        """Fails when a picture's bytes are stored as text, or a file leaves no trace."""
        assert sent(user("What is this?", part)) == (Message(role="user", content=f"What is this?\n{reference}"),)

    @pytest.mark.skipif("data" not in chat_pb2.FileContent.DESCRIPTOR.fields_by_name, reason="this SDK has it not yet")
    def test_files_that_come_along_are_references_too(self) -> None:
        """Fails when an inline file is stored as text, or its name is lost."""
        assert sent(user(file(data=PNG, mime_type="image/png")))[0].content == f"[file: image/png, sha256 {DIGEST}]"
        assert sent(user(file(url="https://files/1", filename="plan.pdf")))[0].content == "[file: plan.pdf]"
        assert sent(user(file(url="https://files/1")))[0].content == "[file: https://files/1]"

    def test_results_have_the_names_of_their_calls(self) -> None:
        """Fails when a tool's result has lost its name, with or without an id that says which call it answers."""
        messages: list[Any] = [user("Weather?"), calling("weather", "time"), result("rain"), result("noon")]
        assert sent(*messages)[-2:] == (returned("rain", "weather"), returned("noon", "time"))
        if "tool_call_id" in chat_pb2.Message.DESCRIPTOR.fields_by_name:
            messages[2:] = [result("noon", tool_call_id="call_time"), result("rain", tool_call_id="call_weather")]
            assert sent(*messages)[-2:] == (returned("noon", "time"), returned("rain", "weather"))

    def test_what_xai_runs_itself_is_not_the_conversation(self) -> None:
        """Fails when a search on xAI's side is taken for a call of the application's."""
        searched = calling("web_search", kind=KINDS.TOOL_CALL_TYPE_WEB_SEARCH_TOOL)
        assert sent(user("News?"), searched, assistant("None.")) == (
            Message(role="user", content="News?"),
            says("None."),
        )

    def test_memoris_own_block_is_left_out(self) -> None:
        """Fails when recalled text that an application sends again is learned as new."""
        fact = Recollection(id=1, kind="fact", content="Likes blue.", score=1.0, at=NOW, date_created=NOW)
        given = block([fact], now=NOW, token_budget=1000)
        assert given is not None
        assert sent(user(given), user(given, "Color?")) == (Message(role="user", content="Color?"),)

    def test_what_is_empty_says_nothing(self) -> None:
        """Fails when a message without content breaks the reading."""
        assert sent(user(), user(""), assistant(""), chat_pb2.Message()) == ()


class TestWithMemory:
    @pytest.mark.parametrize("role", ["user", "system"])
    def test_changes_nothing_it_is_given(self, role: Literal["user", "system"]) -> None:
        """Fails when the request is changed, or its copy is more than it and the block."""
        given = request(system("Be brief."), user("Hello."), assistant("Hi!"), user("Color?"), temperature=0.5)
        before = given.SerializeToString()
        enriched = CompletionReader().with_memory(given, BLOCK, role=role)
        assert given.SerializeToString() == before
        place = 3 if role == "user" else 1
        assert enriched.messages[place].content[0].text == BLOCK
        del enriched.messages[place]
        assert enriched == given

    def test_returns_the_request_itself_where_there_is_nothing_to_lead(self) -> None:
        """Fails when a request without a user's message is copied or changed."""
        given = request(system("Begin."))
        assert CompletionReader().with_memory(given, BLOCK, role="user") is given

    def test_does_not_lead_a_compacted_conversation(self) -> None:
        """Fails when the block is put where xAI does not read it: before what stands for a conversation."""
        compacted = chat_pb2.Message(role=chat_pb2.MessageRole.ROLE_USER, encrypted_content="…")
        enriched = CompletionReader().with_memory(request(compacted, user("Color?")), BLOCK, role="user")
        assert [bool(message.encrypted_content) for message in enriched.messages] == [True, False, False]
        alone = request(compacted)
        assert CompletionReader().with_memory(alone, BLOCK, role="user") is alone


class TestReply:
    def test_of_several_alternatives_is_the_first(self) -> None:
        """Fails when the answers of a batch are mixed."""
        reader = CompletionReader()
        reader.sent(request(user("Color?"), n=2))
        assert reader.reply(response("Blue.", "Red.")).messages == (says("Blue."),)
        fold = reader.fold()
        for said, index in (("Bl", 0), ("Re", 1), ("ue.", 0), ("d.", 1)):
            fold.add(chunk(said, index=index))
        assert fold.reply(ended=True).messages == (says("Blue."),)

    def test_made_with_tools_of_xais_is_all_that_was_said(self) -> None:
        """Fails when the answer that follows a search on xAI's side is lost, or what the search found is its answer."""
        made = response("Let me look.", "Found: rain.", "It rains.")
        made.outputs[0].message.tool_calls.extend(calls("web", kind=KINDS.TOOL_CALL_TYPE_WEB_SEARCH_TOOL))
        made.outputs[1].message.role = chat_pb2.MessageRole.ROLE_TOOL
        reader = CompletionReader()
        reader.sent(request(user("Weather?"), n=1))
        assert reader.reply(made).messages == (says("Let me look."), says("It rains."))

    def test_says_which_model_answered(self) -> None:
        """Fails when the model's name is lost, or the empty one stored."""
        assert CompletionReader().reply(response("Blue.")).model == "grok-4"
        empty = CompletionReader().reply(chat_pb2.GetChatCompletionResponse())
        assert (empty.messages, empty.model) == ((), None)


class TestFold:
    def test_is_partial_until_it_is_finished(self) -> None:
        """Fails when a reply that was cut off counts as whole, or a whole one as cut off."""
        fold = CompletionReader().fold()
        assert fold.reply(ended=False).partial is True
        fold.add(chunk("Blue"))
        assert fold.reply(ended=False).partial is True
        assert fold.reply(ended=True).partial is False
        fold.add(chunk(".", finish=STOP))
        assert fold.reply(ended=False).partial is False
        assert fold.reply(ended=False).messages == (says("Blue."),)
        assert fold.reply(ended=False).model == "grok-4"

    def test_keeps_calls_as_they_come(self) -> None:
        """Fails when a streamed tool call is lost."""
        fold = CompletionReader().fold()
        fold.add(chunk("Let me look."))
        fold.add(chunk("", tool_calls=calls("weather", "time")))
        assert [message.content for message in fold.reply(ended=True).messages] == [
            "Let me look.",
            "weather({})",
            "time({})",
        ]
