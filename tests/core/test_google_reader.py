"""How google-genai's requests and responses read: pure, so without a provider."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from google.genai import types

from memori.capture.google import GenerateReader
from memori.injection import block
from memori.testing.listening import BLOCK
from memori.types import Message, Recollection

PNG = b"\x89PNG \xff\xfe"
DIGEST = hashlib.sha256(PNG).hexdigest()[:16]
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def sent(*contents: Any) -> tuple[Message, ...]:
    return GenerateReader().sent({"model": "m", "contents": list(contents)})


def response(*parts: Any, **more: Any) -> types.GenerateContentResponse:
    candidate = types.Candidate(content=types.Content(role="model", parts=list(parts)), **more)
    return types.GenerateContentResponse(candidates=[candidate], model_version="gemini-fake")


def says(text: str) -> Message:
    return Message(role="assistant", content=text)


class TestSent:
    @pytest.mark.parametrize(
        ("part", "text"),
        [
            (types.Part.from_bytes(data=PNG, mime_type="image/png"), f"[image: image/png, sha256 {DIGEST}]"),
            (types.Part.from_bytes(data=PNG, mime_type="audio/wav"), f"[audio: audio/wav, sha256 {DIGEST}]"),
            (types.Part.from_bytes(data=PNG, mime_type="application/pdf"), f"[file: application/pdf, sha256 {DIGEST}]"),
            ({"inline_data": {"data": PNG, "mime_type": "image/png"}}, f"[image: image/png, sha256 {DIGEST}]"),
            (types.Part.from_uri(file_uri="gs://b/cat.png", mime_type="image/png"), "[image: gs://b/cat.png]"),
            ({"file_data": {"file_uri": "https://f/1", "mime_type": "video/mp4"}}, "[video: https://f/1]"),
            (types.File(uri="https://f/2", mime_type="text/plain"), "[file: https://f/2]"),
        ],
        ids=lambda value: value if isinstance(value, str) else "part",
    )
    def test_files_are_references_never_bytes(self, part: Any, text: str) -> None:
        """Fails when a file's bytes are stored as text, or a file leaves no trace."""
        (message,) = sent("What is this?", part)
        assert message == Message(role="user", content=f"What is this?\n{text}")

    def test_what_the_model_said_in_pieces_is_one_message(self) -> None:
        """Fails when a streamed reply, which a chat keeps in pieces, is not known as what was recorded."""
        pieces = [types.ModelContent(text) for text in ("Blue", " it", " is.")]
        assert sent("Color?", *pieces, "Thanks.") == (
            Message(role="user", content="Color?"),
            says("Blue it is."),
            Message(role="user", content="Thanks."),
        )

    def test_thoughts_are_not_part_of_the_conversation(self) -> None:
        """Fails when what a model thought is stored as what it said."""
        thought = types.Part(text="The user wants blue.", thought=True)
        assert sent(types.UserContent("Color?"), types.ModelContent([thought, types.Part(text="Blue.")])) == (
            Message(role="user", content="Color?"),
            says("Blue."),
        )

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            ({"result": "rain"}, "rain"),
            ({"output": "rain"}, "rain"),
            ({"result": {"sky": "grey"}}, '{"result": {"sky": "grey"}}'),
            ({"error": "no such city"}, '{"error": "no such city"}'),
            ({"sky": "grå", "degrees": 12}, '{"sky": "grå", "degrees": 12}'),
        ],
        ids=str,
    )
    def test_what_a_function_returns_is_a_tools_message(self, answer: dict[str, Any], text: str) -> None:
        """Fails when a function's response is lost, taken for the user's word, or has lost its name."""
        part = types.Part.from_function_response(name="weather", response=answer)
        expected = Message(role="tool", kind="tool_result", content=text, author="weather")
        assert sent(types.UserContent([part])) == (expected,)
        assert sent(types.UserContent([part, types.Part(text="And tomorrow?")])) == (
            expected,
            Message(role="user", content="And tomorrow?"),
        )

    def test_several_calls_of_one_turn_keep_their_order(self) -> None:
        """Fails when parallel calls are merged, or moved away from what was said between them."""
        calls = [types.Part.from_function_call(name="weather", args={"city": city}) for city in ("Oslo", "Rome")]
        parts = [types.Part(text="Let me look."), *calls, types.Part(text="Done.")]
        assert [message.content for message in sent(types.ModelContent(parts))] == [
            "Let me look.",
            'weather({"city": "Oslo"})',
            'weather({"city": "Rome"})',
            "Done.",
        ]

    def test_memoris_own_block_is_left_out(self) -> None:
        """Fails when recalled text that an application sends again is learned as new."""
        fact = Recollection(id=1, kind="fact", content="Likes blue.", score=1.0, at=NOW, date_created=NOW)
        given = block([fact], now=NOW, token_budget=1000)
        assert given is not None
        assert sent(types.UserContent([given, "Color?"])) == (Message(role="user", content="Color?"),)
        assert sent(types.UserContent(given), "Color?") == (Message(role="user", content="Color?"),)

    @pytest.mark.parametrize("content", [types.Content(), types.Content(role="user", parts=[]), types.UserContent("")])
    def test_what_is_empty_says_nothing(self, content: types.Content) -> None:
        """Fails when a content without parts or text breaks the reading, or is stored as None."""
        assert sent(content) == ()


class TestWithMemory:
    def test_changes_nothing_it_is_given(self) -> None:
        """Fails when the request, its list, a content or a part of the caller's is changed."""
        contents = [types.UserContent("Hello."), types.ModelContent("Hi!"), types.UserContent("Color?")]
        config = types.GenerateContentConfig(system_instruction="Be brief.", temperature=0.5)
        request = {"model": "m", "contents": contents, "config": config}
        before = [content.model_dump_json() for content in (*contents, config)]
        for role in ("user", "system"):
            enriched = GenerateReader().with_memory(request, BLOCK, role=role)
            assert BLOCK in str(enriched)
            assert enriched["model"] == "m"
        assert [content.model_dump_json() for content in (*contents, config)] == before
        assert request == {"model": "m", "contents": contents, "config": config}
        assert len(contents) == 3

    def test_returns_the_request_itself_where_there_is_nothing_to_lead(self) -> None:
        """Fails when a request without a user's content is copied or changed."""
        request = {"model": "m", "contents": [types.ModelContent("I think")]}
        assert GenerateReader().with_memory(request, BLOCK, role="user") is request


class TestReply:
    def test_is_the_first_candidates(self) -> None:
        """Fails when further candidates are mixed into the first, or the model's name is lost."""
        several = response(types.Part(text="Blue."))
        several.candidates = [*(several.candidates or ()), *(response(types.Part(text="Red.")).candidates or ())]
        reply = GenerateReader().reply(several)
        assert reply.messages == (says("Blue."),)
        assert reply.model == "gemini-fake"
        assert reply.partial is False

    @pytest.mark.parametrize("form", ["object", "json"])
    def test_reads_the_same_as_object_and_as_json(self, form: str) -> None:
        """Fails when a raw response, or one of its parts, reads otherwise than the SDK's object."""
        parts = [
            types.Part(text="I ponder.", thought=True),
            types.Part(text="Here "),
            types.Part(text="it is:"),
            types.Part.from_bytes(data=PNG, mime_type="image/png"),
            types.Part.from_function_call(name="weather", args={"city": "Oslo"}),
        ]
        given: Any = response(*parts)
        if form == "json":
            given = json.loads(given.model_dump_json(by_alias=True, exclude_none=True))
            assert "modelVersion" in given
        assert GenerateReader().reply(given).messages == (
            says(f"Here it is:\n[image: image/png, sha256 {DIGEST}]"),
            Message(role="assistant", kind="tool_call", content='weather({"city": "Oslo"})'),
        )

    def test_of_nothing_is_empty(self) -> None:
        """Fails when a response without candidates, or a candidate without content, breaks the reading."""
        for given in (
            types.GenerateContentResponse(),
            types.GenerateContentResponse(candidates=[types.Candidate()]),
            types.GenerateContentResponse(candidates=[types.Candidate(content=types.Content())]),
        ):
            assert GenerateReader().reply(given).messages == ()

    def test_counts_only_what_functions_said_since_the_question(self) -> None:
        """Fails when a loop that the caller began, and the SDK went on with, is recorded twice."""
        call = types.Part.from_function_call(name="weather", args={"city": "Oslo"})
        answer = types.Part.from_function_response(name="weather", response={"result": "rain"})
        asked = [types.UserContent("Weather?"), types.ModelContent(call), types.UserContent([answer])]
        reader = GenerateReader()
        reader.sent({"contents": asked})
        given = response(types.Part(text="Rain."))
        given.automatic_function_calling_history = [*asked, types.ModelContent(call), types.UserContent([answer])]
        assert [message.content for message in reader.reply(given).messages] == [
            'weather({"city": "Oslo"})',
            "rain",
            "Rain.",
        ]


class TestFold:
    def test_is_partial_until_it_is_finished(self) -> None:
        """Fails when a reply that was cut off counts as whole, or a whole one as cut off."""
        fold = GenerateReader().fold()
        assert fold.reply(ended=False).partial is True
        fold.add(response(types.Part(text="Blue")))
        assert fold.reply(ended=False).partial is True
        assert fold.reply(ended=True).partial is False
        fold.add(response(types.Part(text="."), finish_reason="STOP"))
        assert fold.reply(ended=False).partial is False
        assert fold.reply(ended=False).messages == (says("Blue."),)

    def test_keeps_the_calls_of_a_hop_that_was_left(self) -> None:
        """Fails when a stream that is left while functions are called forgets what was asked of them."""
        reader = GenerateReader()
        reader.sent({"contents": "Weather?"})
        fold = reader.fold()
        call = types.Part.from_function_call(name="weather", args={})
        fold.add(response(call, finish_reason="STOP"))
        assert [message.content for message in fold.reply(ended=False).messages] == ["weather({})"]
        answer = types.Part.from_function_response(name="weather", response={"result": "rain"})
        next_hop = response(types.Part(text="Ra"))
        history = [types.UserContent("Weather?"), types.ModelContent(call), types.UserContent([answer])]
        next_hop.automatic_function_calling_history = history
        fold.add(next_hop)
        reply = fold.reply(ended=False)
        assert [message.content for message in reply.messages] == ["weather({})", "rain", "Ra"]
        assert reply.partial is True
