"""How LangChain's messages read, whichever provider's terms they are in, and where a block goes among them."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core.messages")

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    messages_to_dict,
)
from langchain_core.messages.ai import add_ai_message_chunks

from memori_langchain.messages import RECALLED, model_name, reply, sent, takes_parts, with_block

BLOCK = "what is known"
PNG = "[image: image/png, sha256 8f434346648f6b96]"
CALL = {"name": "weather", "args": {"city": "Zürich"}, "id": "call_1", "type": "tool_call"}


def read(*messages: BaseMessage) -> list[tuple[str, str, str | None, str]]:
    return [(message.role, message.kind, message.author, message.content) for message in sent(messages)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param("Hello.", "Hello.", id="text"),
        pytest.param(["Hello.", {"type": "text", "text": "You."}], "Hello.\nYou.", id="parts"),
        pytest.param(
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}], PNG, id="openai-image"
        ),
        pytest.param(
            [{"type": "image_url", "image_url": {"url": "https://x/a"}}], "[image: https://x/a]", id="openai-url"
        ),
        pytest.param([{"type": "file", "file": {"file_id": "f1"}}], "[file: f1]", id="openai-file"),
        pytest.param(
            [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}],
            PNG,
            id="anthropic-image",
        ),
        pytest.param(
            [
                {"text": "See:"},
                {"image": {"format": "png", "source": {"bytes": b"hi"}}},
                {"cachePoint": {"type": "default"}},
            ],
            f"See:\n{PNG}",
            id="converse",
        ),
        pytest.param([{"type": "image", "base64": "aGk=", "mime_type": "image/png"}], PNG, id="langchain-image"),
        pytest.param(
            [{"type": "text-plain", "text": "Notes", "mime_type": "text/plain"}], "Notes", id="langchain-document"
        ),
        pytest.param(
            [{"type": "image", "base64": "%", "mime_type": "image/png"}], "[image: image/png, sha256 ", id="broken"
        ),
    ],
)
def test_what_a_user_sends_reads_in_every_providers_terms(content: Any, text: str) -> None:
    """Fails when a part of a user's message is lost, or the bytes of one get into memory."""
    ((role, kind, _, found),) = read(HumanMessage(content))
    assert (role, kind) == ("user", "text")
    assert found.startswith(text)
    assert len(found) <= max(len(text), 60)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(AIMessage("Let me see.", tool_calls=[CALL]), id="langchain"),
        pytest.param(
            AIMessage(
                [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "text", "text": "Let me "},
                    {"type": "text", "text": "see."},
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Zürich"}},
                ],
                tool_calls=[CALL],
                response_metadata={"model_provider": "anthropic"},
            ),
            id="anthropic",
        ),
        pytest.param(
            AIMessage(
                [
                    {"type": "reasoning_content", "reasoning_content": {"text": "Hm."}},
                    {"type": "text", "text": "Let me see."},
                ],
                tool_calls=[CALL],
                response_metadata={"model_provider": "bedrock_converse"},
            ),
            id="converse",
        ),
        pytest.param(
            add_ai_message_chunks(
                AIMessageChunk(content="Let me"),
                AIMessageChunk(content=" see."),
                AIMessageChunk(
                    content="", tool_call_chunks=[{"name": "weather", "args": "", "id": "call_1", "index": 0}]
                ),
                AIMessageChunk(
                    content="", tool_call_chunks=[{"name": None, "args": '{"city": "Zü', "id": None, "index": 0}]
                ),
                AIMessageChunk(content="", tool_call_chunks=[{"name": None, "args": 'rich"}', "id": None, "index": 0}]),
            ),
            id="chunks",
        ),
    ],
)
def test_what_a_model_says_and_calls_reads_in_every_providers_terms(message: BaseMessage) -> None:
    """Fails when a reply's text or tool call is lost, doubled or mixed with the model's thoughts."""
    said = [(found.role, found.kind, found.content) for found in reply(message)]
    assert said == [("assistant", "text", "Let me see."), ("assistant", "tool_call", 'weather({"city": "Zürich"})')]


def test_a_call_that_broke_off_keeps_what_came_of_it() -> None:
    """Fails when the arguments of a tool call that was not finished are made up."""
    cut = AIMessageChunk(content="", tool_call_chunks=[{"name": "weather", "args": '{"ci', "id": "call_1", "index": 0}])
    assert [found.content for found in reply(cut)] == ['weather({"ci)']


@pytest.mark.parametrize("kwargs", [{"refusal": "I will not."}, {"audio": {"transcript": "I will not."}}])
def test_what_is_said_beside_the_content_counts(kwargs: dict[str, Any]) -> None:
    """Fails when a refusal, or what a model spoke, is taken for silence."""
    assert [found.content for found in reply(AIMessage("", additional_kwargs=kwargs))] == ["I will not."]


def test_what_a_providers_own_tools_find_is_kept_by_its_place() -> None:
    """Fails when a search that the provider made itself is lost, or the pages it found are stored whole."""
    found = {"type": "web_search_result", "url": "https://x/a", "title": "A", "encrypted_content": "…" * 1000}
    message = AIMessage(
        [
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [found]},
            {"type": "text", "text": "It is A."},
        ],
        response_metadata={"model_provider": "anthropic"},
    )
    assert read(message) == [
        ("assistant", "tool_call", None, 'web_search({"query": "x"})'),
        ("tool", "tool_result", "web_search", "[https://x/a]"),
        ("assistant", "text", None, "It is A."),
    ]


def test_a_conversation_reads_in_order_and_without_what_nobody_said() -> None:
    """Fails when roles, names or order are wrong, or prompts, summaries and recalled memories count as said."""
    summary = HumanMessage("Here is a summary: …", additional_kwargs={"lc_source": "summarization"})
    messages = [
        SystemMessage("Be nice."),
        summary,
        HumanMessage("Hi.", name="Ann"),
        AIMessage("", tool_calls=[CALL]),
        ToolMessage("Sunny.", tool_call_id="call_1"),
        ToolMessage("You like rain.", tool_call_id="call_2", artifact=RECALLED),
        FunctionMessage(content="7", name="count"),
        ChatMessage(content="Thanks.", role="user"),
        ChatMessage(content="Welcome.", role="assistant"),
        HumanMessage([{"type": "tool_result", "tool_use_id": "call_1", "content": "Still sunny."}]),
    ]
    before = messages_to_dict(messages)
    assert read(*messages) == [
        ("user", "text", "Ann", "Hi."),
        ("assistant", "tool_call", None, 'weather({"city": "Zürich"})'),
        ("tool", "tool_result", "weather", "Sunny."),
        ("tool", "tool_result", "count", "7"),
        ("user", "text", None, "Thanks."),
        ("assistant", "text", None, "Welcome."),
        ("tool", "tool_result", "weather", "Still sunny."),
    ]
    assert messages_to_dict(messages) == before


def contents(messages: list[BaseMessage]) -> list[Any]:
    return [message.content for message in messages]


def part(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


PROMPT, EARLIER = SystemMessage("Be nice."), AIMessage("Hello.")


@pytest.mark.parametrize(
    ("messages", "in_parts", "expected"),
    [
        pytest.param(
            [PROMPT, EARLIER, HumanMessage("Hi.")],
            False,
            ["Be nice.", "Hello.", BLOCK, "Hi."],
            id="a message of its own",
        ),
        pytest.param(
            [PROMPT, EARLIER, HumanMessage("Hi.")],
            True,
            ["Be nice.", "Hello.", [part(BLOCK), part("Hi.")]],
            id="a part of the user's",
        ),
        pytest.param(
            [HumanMessage("Hi."), AIMessage("", tool_calls=[CALL]), ToolMessage("Sunny.", tool_call_id="call_1")],
            False,
            [BLOCK, "Hi.", "", "Sunny."],
            id="within a tool loop",
        ),
        pytest.param(
            [HumanMessage([{"type": "tool_result", "tool_use_id": "1", "content": "x"}, part("Hi.")])],
            True,
            [[{"type": "tool_result", "tool_use_id": "1", "content": "x"}, part(BLOCK), part("Hi.")]],
            id="behind the results of tools",
        ),
        pytest.param(
            [HumanMessage([part("Hi.", cache_control={"type": "ephemeral"})])],
            True,
            [[part("Hi.", cache_control={"type": "ephemeral"}), part(BLOCK)]],
            id="behind Anthropic's cache breakpoint",
        ),
        pytest.param(
            [HumanMessage([part("Hi."), {"cachePoint": {"type": "default"}}])],
            True,
            [[part("Hi."), {"cachePoint": {"type": "default"}}, part(BLOCK)]],
            id="behind Bedrock's cache point",
        ),
        pytest.param([PROMPT, EARLIER], False, ["Be nice.", "Hello."], id="nowhere"),
    ],
)
def test_a_block_goes_before_the_users_last_words(
    messages: list[BaseMessage], in_parts: bool, expected: list[Any]
) -> None:
    """Fails when memories are put elsewhere, so that a provider refuses them or its prompt cache is lost."""
    before = messages_to_dict(messages)
    assert contents(with_block(messages, BLOCK, role="user", in_parts=in_parts)) == expected
    assert messages_to_dict(messages) == before


@pytest.mark.parametrize(
    ("messages", "in_parts", "expected"),
    [
        pytest.param([HumanMessage("Hi.")], False, [BLOCK, "Hi."], id="no prompt"),
        pytest.param([PROMPT, HumanMessage("Hi.")], False, ["Be nice.", BLOCK, "Hi."], id="a message of its own"),
        pytest.param([PROMPT, HumanMessage("Hi.")], True, [[part("Be nice."), part(BLOCK)], "Hi."], id="a part"),
    ],
)
def test_a_block_in_the_systems_name_goes_behind_the_prompt(
    messages: list[BaseMessage], in_parts: bool, expected: list[Any]
) -> None:
    """Fails when the prompt's beginning changes, or there is a second system message where only one will do."""
    enriched = with_block(messages, BLOCK, role="system", in_parts=in_parts)
    assert contents(enriched) == expected
    assert enriched[0].type == "system"


def test_a_developers_prompt_stays_the_only_kind_of_prompt() -> None:
    """Fails when OpenAI is sent system and developer messages in one request, which it refuses."""
    prompt = SystemMessage("Be nice.", additional_kwargs={"__openai_role__": "developer"})
    enriched = with_block([prompt, HumanMessage("Hi.")], BLOCK, role="system")
    assert [message.additional_kwargs for message in enriched[:2]] == [{"__openai_role__": "developer"}] * 2


def test_the_model_is_named_as_it_names_itself() -> None:
    """Fails when exchanges are stored without their model's name."""
    assert model_name(AIMessage("x", response_metadata={"model_name": "gpt-5"})) == "gpt-5"
    assert model_name(AIMessage("x", response_metadata={"model": "claude"})) == "claude"
    assert model_name(AIMessage("x")) is None


@pytest.mark.parametrize(
    ("model", "options", "in_parts"),
    [
        ("ChatBedrock", {"model": "eu.anthropic.claude-test-v1:0"}, True),
        ("ChatBedrock", {"model": "amazon.nova-lite-v1:0"}, True),
        ("ChatBedrock", {"model": "meta.llama3-8b-instruct-v1:0"}, False),
        ("ChatBedrock", {"model": "meta.llama3-8b-instruct-v1:0", "beta_use_converse_api": True}, True),
        ("ChatBedrockConverse", {"model": "meta.llama3-8b-instruct-v1:0"}, True),
    ],
)
def test_only_what_becomes_one_text_on_bedrock_takes_no_parts(
    model: str, options: dict[str, Any], in_parts: bool
) -> None:
    """Fails when a model that is prompted by one text is sent a list's representation, or roles do not alternate."""
    aws = pytest.importorskip("langchain_aws.chat_models")
    client = object()  # Never asked for anything.
    made = getattr(aws, model)(client=client, bedrock_client=client, region_name="us-east-1", **options)
    assert takes_parts(made) is in_parts
