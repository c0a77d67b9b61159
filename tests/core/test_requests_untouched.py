"""What reaches a provider is what was asked plus exactly memori's block; what the caller holds stays as it is.

The same conversations in every SDK's own words, once without memori and once with it, over real HTTP or gRPC.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from memori.capture.registry import client_adapter
from memori.testing.anthropic_calls import ANTHROPIC_MODEL
from memori.testing.listening import BLOCK, ListeningHooks
from memori.testing.litellm_calls import LITELLM_MODEL
from memori.testing.provider import ProviderServer
from memori.testing.providers import PROVIDERS, ProviderSDK

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
IMAGE = base64.b64encode(PNG).decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


@dataclass(frozen=True)
class Said:
    """What the user says: one text, or parts of which some may be images."""

    parts: tuple[str | None, ...]  # None: an image.
    as_text: bool


@dataclass(frozen=True)
class Answered:
    """What the assistant says, and for how many cities it looks up the weather."""

    text: str
    lookups: int


@dataclass(frozen=True)
class Conversation:
    turns: tuple[Said | Answered, ...]
    system: str | None = None
    developer: str | None = None
    tools: bool = False


def chat(conversation: Conversation) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [
        {"role": role, "content": content}
        for role, content in (("system", conversation.system), ("developer", conversation.developer))
        if content is not None
    ]
    for number, turn in enumerate(conversation.turns):
        if isinstance(turn, Said):
            image = {
                "type": "image_url",
                "image_url": {"url": f"data:image/png;base64,{IMAGE}"},
            }
            parts = [image if part is None else {"type": "text", "text": part} for part in turn.parts]
            messages.append({"role": "user", "content": turn.parts[0] if turn.as_text else parts})
            continue
        ids = [f"call_{number}_{place}" for place in range(turn.lookups)]
        function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
        calls = [{"id": call_id, "type": "function", "function": dict(function)} for call_id in ids]
        asked = {"tool_calls": calls, "content": turn.text or None} if calls else {"content": turn.text}
        messages.append({"role": "assistant", **asked})
        messages += [{"role": "tool", "tool_call_id": call_id, "content": "rain"} for call_id in ids]
    tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    return {"model": "gpt-4o-mini", "messages": messages} | ({"tools": [tool]} if conversation.tools else {})


def responses(conversation: Conversation) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    if conversation.developer is not None:
        items.append({"role": "developer", "content": conversation.developer})
    for number, turn in enumerate(conversation.turns):
        if isinstance(turn, Said):
            image = {"type": "input_image", "image_url": "https://example.com/cat.png", "detail": "auto"}
            parts = [image if part is None else {"type": "input_text", "text": part} for part in turn.parts]
            items.append({"role": "user", "content": turn.parts[0] if turn.as_text else parts})
            continue
        items.append({"role": "assistant", "content": turn.text})
        for place in range(turn.lookups):
            known = {"call_id": f"call_{number}_{place}"}
            items.append({"type": "function_call", "name": "weather", "arguments": '{"city": "Oslo"}', **known})
            items.append({"type": "function_call_output", "output": "rain", **known})
    tool = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
    more = {"tools": [tool]} if conversation.tools else {}
    instructions = {} if conversation.system is None else {"instructions": conversation.system}
    return {"model": "gpt-4o-mini", "input": items, **more, **instructions}


def anthropic(conversation: Conversation) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(conversation.turns):
        if isinstance(turn, Said):
            source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
            image = {"type": "image", "source": source}
            parts = [image if part is None else {"type": "text", "text": part} for part in turn.parts]
            messages.append({"role": "user", "content": turn.parts[0] if turn.as_text else parts})
            continue
        ids = [f"call_{number}_{place}" for place in range(turn.lookups)]
        calls = [{"type": "tool_use", "id": call_id, "name": "weather", "input": {"city": "Oslo"}} for call_id in ids]
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.text}, *calls]})
        if results := [{"type": "tool_result", "tool_use_id": call_id, "content": "rain"} for call_id in ids]:
            messages.append({"role": "user", "content": results})
    system = [] if conversation.system is None else [{"type": "text", "text": conversation.system}]
    tools = [{"name": "weather", "input_schema": SCHEMA}] if conversation.tools else []
    more = ({"system": system} if system else {}) | ({"tools": tools} if tools else {})
    return {"model": ANTHROPIC_MODEL, "max_tokens": 100, "messages": messages, **more}


def google(conversation: Conversation) -> dict[str, Any]:
    from google.genai import types

    contents: list[Any] = []
    for turn in conversation.turns:
        if isinstance(turn, Said):
            image = types.Part.from_bytes(data=PNG, mime_type="image/png")
            parts = [image if part is None else types.Part(text=part) for part in turn.parts]
            contents.append(types.Content(role="user", parts=parts))
            continue
        calls = [types.Part.from_function_call(name="weather", args={"city": "Oslo"})] * turn.lookups
        contents.append(types.Content(role="model", parts=[types.Part(text=turn.text), *calls]))
        if results := [types.Part.from_function_response(name="weather", response={"result": "rain"})] * turn.lookups:
            contents.append(types.Content(role="user", parts=results))
    declared = [{"name": "weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}]
    config: dict[str, Any] = {"tools": [{"function_declarations": declared}]} if conversation.tools else {}
    if conversation.system is not None:
        config["system_instruction"] = conversation.system
    return {"model": "gemini-2.5-flash", "contents": contents, "config": config}


def xai(conversation: Conversation) -> dict[str, Any]:
    from xai_sdk import chat as parts
    from xai_sdk.chat import assistant, image, system, text, tool, tool_result, user

    messages = [] if conversation.system is None else [system(conversation.system)]
    if conversation.developer is not None:
        # The oldest SDK has no such role.
        messages.append(getattr(parts, "developer", system)(conversation.developer))
    for turn in conversation.turns:
        if isinstance(turn, Said):
            picture = image("https://example.com/cat.png")
            messages.append(user(*[picture if part is None else text(part) for part in turn.parts]))
            continue
        said = assistant(turn.text)
        for _ in range(turn.lookups):
            called = said.tool_calls.add(id="call_1")
            called.function.name, called.function.arguments = "weather", '{"city": "Oslo"}'
        messages += [said, *[tool_result("rain")] * turn.lookups]
    tools = {"tools": [tool("weather", "The weather.", SCHEMA)]} if conversation.tools else {}
    return {"model": "grok-4", "messages": messages, **tools}


@dataclass(frozen=True)
class Dialect:
    """How conversations are held with one SDK: the arguments of a call, and the call."""

    sdk: str
    arguments: Callable[[Conversation], dict[str, Any]]
    ask: Callable[[Any, dict[str, Any]], Any]


DIALECTS = {
    "chat completions": Dialect("OpenAI", chat, lambda client, given: client.chat.completions.create(**given)),
    "responses": Dialect("OpenAI", responses, lambda client, given: client.responses.create(**given)),
    "messages": Dialect("Anthropic", anthropic, lambda client, given: client.messages.create(**given)),
    "generate_content": Dialect("Google Gemini", google, lambda client, given: client.models.generate_content(**given)),
    "chat": Dialect("xAI", xai, lambda client, given: client.chat.create(**given).sample()),
    "LiteLLM": Dialect(
        "LiteLLM", lambda held: {**chat(held), "model": LITELLM_MODEL}, lambda client, given: client.completion(**given)
    ),
}


def without_block(value: Any) -> Any:
    """Return *value* without the messages, contents and parts that are nothing but the block."""
    if isinstance(value, dict):
        return {name: without_block(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_block(inner) for inner in value if not is_block(inner)]
    return value


def is_block(value: Any) -> bool:
    match value:
        case {"content": str(text), **rest} if rest.keys() <= {"role", "type"}:
            return text == BLOCK
        case {"content": [inner], **rest} if rest.keys() <= {"role"}:
            return is_block(inner)
        case {"text": str(text), **rest} if rest.keys() <= {"type"}:
            return text == BLOCK
    return False


def with_parts(value: Any) -> Any:
    """Return *value* with a text that stands for one part as that part: a block beside it makes it one."""
    if isinstance(value, dict):
        opened = {name: with_parts(inner) for name, inner in value.items()}
        if value.get("role") == "user" and isinstance(value.get("content"), str):
            opened["content"] = [{"type": "text", "text": value["content"]}]
        return opened
    return [with_parts(inner) for inner in value] if isinstance(value, list) else value


def snapshot(value: Any) -> bytes:
    """Return all that *value* holds, byte by byte."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return (
            value.SerializeToString() if hasattr(value, "SerializeToString") else value
        )  # xAI's are protocol buffers.

    return pickle.dumps(plain(value))


def outcome(dialect: Dialect, client: Any, given: dict[str, Any]) -> type[Exception] | None:
    """Make the call; return how it was refused: some providers take no empty text, and say so."""
    try:
        dialect.ask(client, given)
    except Exception as error:  # noqa: BLE001 - each SDK has its own
        return type(error)
    return None


@dataclass(frozen=True)
class Pair:
    """Two clients of one server: only to the second somebody listens."""

    server: ProviderServer
    plain: Any
    remembering: Any
    hooks: ListeningHooks

    def check(self, dialect: Dialect, conversation: Conversation, *, injected: Literal["once", "at most once"]) -> None:
        given = dialect.arguments(conversation)
        before = snapshot(given)
        asked = len(self.server.requests)
        refused = outcome(dialect, self.plain, given)
        assert snapshot(given) == before
        assert outcome(dialect, self.remembering, given) == refused
        assert snapshot(given) == before
        original, enriched = (request.body for request in self.server.requests[asked:])
        assert self.hooks.failures == []
        times = json.dumps(enriched).count(BLOCK)
        assert times == 1 if injected == "once" else times <= 1
        if times == 0:
            assert enriched == original
        elif without_block(enriched) != original:
            # Anthropic's platforms want roles to alternate: there the block is a part of the user's own message.
            assert dialect.sdk == "Anthropic"
            assert without_block(with_parts(enriched)) == with_parts(original)


@pytest.fixture(scope="module", params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


@pytest.fixture(scope="module")
def pair(dialect: Dialect) -> Iterator[Pair]:
    sdk: ProviderSDK = next(sdk for sdk in PROVIDERS if sdk.name == dialect.sdk)
    try:
        assert sdk.version
    except PackageNotFoundError:
        pytest.skip(f"{sdk.distribution} is not installed here")
    hooks = ListeningHooks()
    with (
        ProviderServer() as server,
        sdk.serve(server) as address,
        sdk.client(address) as plain,
        sdk.client(address) as remembering,
    ):
        client_adapter(remembering).register(remembering, hooks)
        yield Pair(server, plain, remembering, hooks)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
spoken = texts.filter(lambda text: text.strip() and text != BLOCK)
said = st.one_of(
    st.builds(Said, st.tuples(texts), st.just(True)),
    st.builds(Said, st.lists(st.none() | texts, min_size=1, max_size=3).map(tuple), st.just(False)),
)
answered = st.builds(Answered, texts, st.integers(0, 2))
last = st.builds(Said, st.tuples(spoken), st.booleans())
conversations = st.builds(
    lambda turns, end, *rest: Conversation((*turns, end), *rest),
    st.lists(said | answered, max_size=4),
    last,
    st.none() | spoken,
    st.none() | spoken,
    st.booleans(),
)

LONG = "The quick brown fox. " * 5_000
HELLO = Said(("Hello.",), as_text=True)


@pytest.mark.filterwarnings(*{noise for sdk in PROVIDERS for noise in sdk.noise})
class TestRequests:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(conversation=conversations)
    @example(Conversation((Said((LONG,), as_text=True),)))
    @example(Conversation((Said(("Look:", None, LONG), as_text=False),), system=LONG, developer=LONG, tools=True))
    @example(Conversation((HELLO, Answered("", 2), Answered("Rain.", 0), HELLO), "Be kind.", "Be brief.", tools=True))
    @example(Conversation((HELLO, Answered("", 0), Said((None,), as_text=False), HELLO)))
    def test_reach_the_provider_with_the_block_and_nothing_else(
        self, pair: Pair, dialect: Dialect, conversation: Conversation
    ) -> None:
        """Fails when anything but the block is added, lost or reordered, or an object of the caller's is changed."""
        pair.check(dialect, conversation, injected="once")

    @pytest.mark.parametrize(
        "turns",
        [
            (Said(("",), as_text=True),),
            (Said(("",), as_text=False),),
            (Said((None,), as_text=False),),
            (HELLO, Answered("", 1)),
            (HELLO, Answered("Hi.", 0)),
        ],
        ids=["empty", "empty part", "image alone", "tool results last", "assistant last"],
    )
    def test_that_end_otherwise_are_left_whole(
        self, pair: Pair, dialect: Dialect, turns: tuple[Said | Answered, ...]
    ) -> None:
        """Fails when a request in which the user says nothing last is damaged."""
        pair.check(dialect, Conversation(turns, tools=True), injected="at most once")
