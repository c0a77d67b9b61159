"""The local provider server as Anthropic: what it takes, what it refuses, and how its replies reach the real SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AnthropicBedrock

from memori.testing.event_stream import event_frame, exception_frame
from memori.testing.provider import ProviderServer, Reply, ToolCall

HELLO: dict[str, Any] = {"role": "user", "content": "Hello there"}
USED: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "clock", "input": {}}
RETURNED: dict[str, Any] = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "noon"}
TEXT: dict[str, Any] = {"type": "text", "text": "And now?"}


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def client(server: ProviderServer) -> Iterator[Anthropic]:
    with Anthropic(api_key="local", base_url=server.url, max_retries=0) as made:
        yield made


def ask(client: Any, *messages: Any, **more: Any) -> Any:
    return client.messages.create(**{"model": "local", "max_tokens": 9, "messages": messages or [HELLO], **more})


def test_a_message_has_all_that_anthropic_says(client: Anthropic, server: ProviderServer) -> None:
    """Fails when the body is no message: id, model, content, stop reason, usage."""
    server.script(Reply(text="Let me see.", tool_calls=(ToolCall("clock", {"zone": "é"}), ToolCall("clock"))), Reply())
    message = ask(client)
    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", "local")
    assert (message.stop_reason, message.stop_sequence) == ("tool_use", None)
    text, first, second = message.content
    assert (text.type, text.text) == ("text", "Let me see.")
    assert (first.name, first.input, second.input) == ("clock", {"zone": "é"}, {})
    assert first.id.startswith("toolu_")
    assert first.id != second.id
    assert (message.usage.input_tokens, message.usage.output_tokens > 0) == (2, True)
    assert ask(client).id != message.id


@pytest.mark.parametrize("thinking", [False, True])
def test_the_sdk_makes_the_same_of_a_stream(thinking: bool, client: Anthropic, server: ProviderServer) -> None:
    """Fails when the events do not add up to the message that an unstreamed reply is."""
    reply = Reply(text="  Let me\nsee. ", tool_calls=(ToolCall("clock", {"zone": "é", "days": [1, 2]}, id="toolu_1"),))
    server.script(reply, reply)
    more: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}} if thinking else {}
    whole = ask(client, **more)
    with client.messages.stream(model="local", max_tokens=9, messages=[HELLO], **more) as stream:  # type: ignore[list-item]
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert [block.type for block in final.content] == [*["thinking"] * thinking, "text", "tool_use"]
    varying = {"id": None, "signature": None}
    assert [{**block.to_dict(), **varying} for block in final.content] == [
        {**block.to_dict(), **varying} for block in whole.content
    ]
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert kinds[0] == "message_start"
    assert kinds.count("input_json") > 3
    assert kinds[-2:] == ["message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, anthropic.AuthenticationError),
        (429, anthropic.RateLimitError),
        (529, anthropic.APIStatusError),
        (500, anthropic.InternalServerError),
    ],
)
def test_errors_are_the_sdks_own(
    status: int, error: type[anthropic.APIStatusError], client: Anthropic, server: ProviderServer
) -> None:
    """Fails when an error's status or body is none of Anthropic's."""
    server.script(Reply(status=status, error_message="not now"))
    with pytest.raises(error, match="not now") as raised:
        ask(client)
    assert raised.value.status_code == status
    assert raised.value.body["type"] == "error"  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"model": ""}, "model"),
        ({"extra_body": {"max_tokens": None}}, "max_tokens"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty"),
        ({"messages": [{"role": "user", "content": [TEXT, {"type": "text", "text": ""}]}]}, "non-empty"),
        ({"messages": [HELLO, {"role": "assistant", "content": [USED]}, HELLO]}, "tool_result"),
        (
            {
                "messages": [
                    HELLO,
                    {"role": "assistant", "content": [USED]},
                    {"role": "user", "content": [TEXT, RETURNED]},
                ]
            },
            "tool_result",
        ),
    ],
)
def test_what_anthropic_refuses_is_refused(arguments: dict[str, Any], reason: str, client: Anthropic) -> None:
    """Fails when a request passes here that would fail there: what puts it together would go untested."""
    with pytest.raises(anthropic.BadRequestError, match=reason):
        ask(client, **arguments)


def test_what_anthropic_takes_is_taken(client: Anthropic) -> None:
    """Fails when tools' results before a text, or two messages of one role, are refused."""
    ask(client, HELLO, {"role": "assistant", "content": [USED]}, {"role": "user", "content": [RETURNED, TEXT]})
    ask(client, HELLO, HELLO)


def test_on_bedrock_roles_alternate(server: ProviderServer) -> None:
    """Fails when a request passes that some of Bedrock's models refuse."""
    keys: Any = {"aws_access_key": "a", "aws_secret_key": "b"}
    with AnthropicBedrock(aws_region="us-east-1", base_url=server.url, max_retries=0, **keys) as client:
        assert ask(client, HELLO, {"role": "assistant", "content": "Hi."}, HELLO).content[0].text == "Understood."
        with pytest.raises(anthropic.BadRequestError, match="alternate"):
            ask(client, HELLO, HELLO)
    # Bedrock gets the model by its path.
    assert "model" not in server.requests[0].body


def test_frames_are_those_of_aws() -> None:
    """Fails when AWS's own parser does not take a frame for what it is."""
    from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped]

    buffer = EventStreamBuffer()
    buffer.add_data(event_frame("chunk", {"bytes": "é"}) + exception_frame("throttlingException", "too many"))
    event, error = (frame.to_response_dict() for frame in buffer)
    assert (event["status_code"], event["headers"][":event-type"]) == (200, "chunk")
    assert event["body"] == b'{"bytes": "\\u00e9"}'
    assert (error["status_code"], error["headers"][":exception-type"]) == (400, "throttlingException")
    assert error["body"] == b'{"message": "too many"}'
