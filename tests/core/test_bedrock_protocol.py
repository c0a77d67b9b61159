"""The local provider server as Amazon Bedrock: what boto3, LangChain and Anthropic's SDK make of what it says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby
from typing import Any
from urllib.parse import unquote

import boto3  # type: ignore[import-untyped]
import pytest
import urllib3
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError, EventStreamError, ReadTimeoutError  # type: ignore[import-untyped]
from pydantic import BaseModel

from memori.testing.provider import ProviderServer, Reply, ToolCall

CLAUDE = "anthropic.claude-3-5-sonnet-20240620-v1:0"
NOVA = "us.amazon.nova-lite-v1:0"
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6"
KEYS: dict[str, str] = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}

HELLO: dict[str, Any] = {"role": "user", "content": [{"text": "Hello there"}]}
HI: dict[str, Any] = {"role": "assistant", "content": [{"text": "Hi."}]}
USED: dict[str, Any] = {
    "role": "assistant",
    "content": [{"toolUse": {"toolUseId": "t1", "name": "clock", "input": {}}}],
}
RESULT: dict[str, Any] = {"toolResult": {"toolUseId": "t1", "content": [{"json": {"hour": 12}}]}}
RETURNED: dict[str, Any] = {"role": "user", "content": [RESULT]}
TOOLS: dict[str, Any] = {
    "tools": [{"toolSpec": {"name": "clock", "description": "The time.", "inputSchema": {"json": {"type": "object"}}}}]
}
ANTHROPIC_BODY: dict[str, Any] = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "Hello there"}],
}
SEEING = Reply(text="  Let me\nsee. ", tool_calls=(ToolCall("clock", {"zone": "é", "days": [1, 2]}, id="t1"),))


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def client(server: ProviderServer) -> Iterator[Any]:
    with closing(connect(server)) as made:
        yield made


def connect(server: ProviderServer, *, max_attempts: int = 0, **options: Any) -> Any:
    """Return boto3's client of *server*.

    Args:
        max_attempts: How often it may try again.
    """
    config = Config(retries={"mode": "standard", "max_attempts": max_attempts}, **options)
    return boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=server.url, config=config, **KEYS)


def converse(client: Any, *messages: Any, model: str = NOVA, **more: Any) -> Any:
    return client.converse(modelId=model, messages=messages or [HELLO], **more)


def converse_stream(client: Any, *messages: Any, model: str = NOVA, **more: Any) -> Iterator[tuple[str, Any]]:
    """Yield each event's type and what it carries."""
    with closing(client.converse_stream(modelId=model, messages=messages or [HELLO], **more)["stream"]) as events:
        for event in events:
            yield from event.items()


def invoke(client: Any, model: str = CLAUDE, **more: Any) -> Any:
    response = client.invoke_model(modelId=model, body=json.dumps({**ANTHROPIC_BODY, **more}))
    with closing(response["body"]) as body:
        return {**json.load(body), "headers": response["ResponseMetadata"]["HTTPHeaders"]}


def invoke_stream(client: Any, model: str = CLAUDE) -> Iterator[tuple[str, Any]]:
    """Yield the type of each of Anthropic's events and the event."""
    response = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(ANTHROPIC_BODY))
    with closing(response["body"]) as events:
        for event in events:
            data = json.loads(event["chunk"]["bytes"])
            yield data["type"], data


STREAMS: dict[str, Callable[[Any], Iterator[tuple[str, Any]]]] = {
    "converse": converse_stream,
    "invoke": invoke_stream,
}


class TestConverse:
    def test_answers_with_all_that_bedrock_says(self, client: Any, server: ProviderServer) -> None:
        """Fails when the body is no answer of Converse's: message, stop reason, usage, metrics, the request's id."""
        calls = (ToolCall("clock", {"zone": "é"}), ToolCall("clock"))
        server.script(Reply(text="Let me see.", tool_calls=calls), Reply())
        answer = converse(client)
        message = answer["output"]["message"]
        text, first, second = message["content"]
        assert (message["role"], text, answer["stopReason"]) == ("assistant", {"text": "Let me see."}, "tool_use")
        assert (first["toolUse"]["name"], first["toolUse"]["input"]) == ("clock", {"zone": "é"})
        assert second["toolUse"]["input"] == {}
        assert first["toolUse"]["toolUseId"] != second["toolUse"]["toolUseId"]
        assert answer["usage"]["inputTokens"] == 2
        assert answer["usage"]["totalTokens"] == 2 + answer["usage"]["outputTokens"]
        assert answer["metrics"]["latencyMs"] > 0
        empty = converse(client)
        assert (empty["output"]["message"]["content"], empty["stopReason"]) == ([], "end_turn")
        assert empty["ResponseMetadata"]["RequestId"] != answer["ResponseMetadata"]["RequestId"]

    @pytest.mark.parametrize("thinking", [False, True])
    def test_streams_what_it_would_answer_at_once(self, thinking: bool, client: Any, server: ProviderServer) -> None:
        """Fails when the events do not add up to the unstreamed answer, or do not come as Bedrock sends them."""
        fields = {"thinking": {"type": "enabled", "budget_tokens": 1024}} if thinking else {}
        server.script(SEEING, SEEING)
        whole = converse(client, additionalModelRequestFields=fields)
        events = list(converse_stream(client, additionalModelRequestFields=fields))
        kinds = [kind for kind, _ in groupby(kind for kind, _ in events)]
        told = ["contentBlockDelta", "contentBlockStop"]
        used = ["contentBlockStart", *told]
        assert kinds == ["messageStart", *told * (1 + thinking), *used, "messageStop", "metadata"]
        assert [kind for kind, _ in events].count("contentBlockDelta") > 6
        by_kind = dict(events)
        assert by_kind["messageStop"] == {"stopReason": whole["stopReason"]}
        assert by_kind["metadata"]["usage"]["totalTokens"] == whole["usage"]["totalTokens"]
        expected = whole["output"]["message"]["content"]
        assert [next(iter(block)) for block in expected] == [*["reasoningContent"] * thinking, "text", "toolUse"]
        assert unsigned(added_up(events)) == unsigned(expected)

    def test_says_why_it_will_not_answer(self, client: Any, server: ProviderServer) -> None:
        """Fails when a refusal looks like an answer."""
        server.script(Reply(refusal="Not that."))
        answer = converse(client)
        assert answer["output"]["message"]["content"] == [{"text": "Not that."}]
        assert answer["stopReason"] == "content_filtered"

    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            ([HI], "start with a user message"),
            ([HELLO, HELLO], "alternate between user and assistant roles"),
            ([HELLO, HI, HI], "alternate between user and assistant roles"),
            ([{"role": "user", "content": []}], r"content field .* messages\.0 is empty"),
            ([{"role": "user", "content": [{"text": "Hello"}, {"text": " "}]}], r"messages\.0\.content\.1 is blank"),
            ([HELLO, USED, HELLO], r"Expected toolResult blocks at messages\.2\.content for the following Ids: t1"),
            ([HELLO, HI, RETURNED], r"toolResult blocks at messages\.2\.content exceeds"),
        ],
    )
    def test_refuses_what_bedrock_refuses(self, messages: list[Any], reason: str, client: Any) -> None:
        """Fails when a request passes here that would fail there: what puts it together would go untested."""
        for ask in (converse, lambda *arguments, **more: list(converse_stream(*arguments, **more))):
            with pytest.raises(client.exceptions.ValidationException, match=reason):
                ask(client, *messages, toolConfig=TOOLS)

    def test_wants_the_tools_that_a_conversation_used(self, client: Any) -> None:
        """Fails when a conversation with tools passes without them, or is refused with them."""
        with pytest.raises(client.exceptions.ValidationException, match="toolConfig"):
            converse(client, HELLO, USED, RETURNED)
        beside = {"role": "user", "content": [{"text": "Look:"}, RESULT]}
        for returned in (RETURNED, beside):
            assert converse(client, HELLO, USED, returned, toolConfig=TOOLS)["stopReason"] == "end_turn"

    def test_takes_several_blocks_of_one_message(self, client: Any, server: ProviderServer) -> None:
        """Fails when blocks of one message are taken for messages of their own, or their texts are not seen."""
        guarded = {"guardContent": {"text": {"text": "Guard this."}}}
        asked = {"role": "user", "content": [{"text": "Recalled."}, {"cachePoint": {"type": "default"}}, guarded]}
        converse(client, HELLO, USED, RETURNED, HI, asked, system=[{"text": "Be brief."}], toolConfig=TOOLS)
        assert [(turn.role, turn.text) for turn in server.requests[0].turns] == [
            ("system", "Be brief."),
            ("user", "Hello there"),
            ("assistant", "clock({})"),
            ("tool", '{"hour": 12}'),
            ("assistant", "Hi."),
            ("user", "Recalled."),
            ("user", "Guard this."),
        ]


class TestInvokeModel:
    @pytest.mark.parametrize("model", [CLAUDE, PROFILE])
    def test_speaks_as_anthropic(self, model: str, client: Any, server: ProviderServer) -> None:
        """Fails when the body is none of Anthropic's messages, or the tokens that LangChain counts are missing."""
        server.script(SEEING)
        message = invoke(client, model, system="Be brief.")
        assert (message["type"], message["model"], message["stop_reason"]) == ("message", model, "tool_use")
        assert [block["type"] for block in message["content"]] == ["text", "tool_use"]
        counts = {kind: message["headers"][f"x-amzn-bedrock-{kind}-token-count"] for kind in ("input", "output")}
        assert counts == {kind: str(message["usage"][f"{kind}_tokens"]) for kind in ("input", "output")}
        assert [turn.text for turn in server.requests[0].turns] == ["Be brief.", "Hello there"]

    def test_streams_what_it_would_answer_at_once(self, client: Any, server: ProviderServer) -> None:
        """Fails when the chunks are none of Anthropic's events, or the last brings no metrics."""
        server.script(SEEING, SEEING)
        whole = invoke(client)
        events = list(invoke_stream(client))
        texts = [data["delta"].get("text", "") for kind, data in events if kind == "content_block_delta"]
        assert "".join(texts) == whole["content"][0]["text"]
        assert [kind for kind, _ in events][-2:] == ["message_delta", "message_stop"]
        assert events[-1][1]["amazon-bedrock-invocationMetrics"]["inputTokenCount"] == 2

    def test_refuses_what_bedrock_refuses(self, client: Any) -> None:
        """Fails when a body of another provider's, or one whose roles do not alternate, passes."""
        for more in ({"anthropic_version": None}, {"messages": ANTHROPIC_BODY["messages"] * 2}):
            body = {key: value for key, value in {**ANTHROPIC_BODY, **more}.items() if value is not None}
            with pytest.raises(client.exceptions.ValidationException, match=r"anthropic_version|alternate"):
                client.invoke_model(modelId=CLAUDE, body=json.dumps(body))


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "name"),
        [
            (400, "ValidationException"),
            (403, "AccessDeniedException"),
            (404, "ResourceNotFoundException"),
            (408, "ModelTimeoutException"),
            (424, "ModelErrorException"),
            (429, "ThrottlingException"),
            (500, "InternalServerException"),
            (503, "ServiceUnavailableException"),
        ],
    )
    def test_are_boto3s_own(self, status: int, name: str, client: Any, server: ProviderServer) -> None:
        """Fails when an error's status, headers or body do not tell boto3 which of its errors it is."""
        asking: list[Callable[[Any], Any]] = [
            converse,
            invoke,
            lambda client: next(converse_stream(client)),
            lambda client: next(invoke_stream(client)),
        ]
        for ask in asking:
            server.script(Reply(status=status, error_message="not now"))
            with pytest.raises(getattr(client.exceptions, name), match="not now") as raised:
                ask(client)
            assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status

    def test_may_be_named(self, client: Any, server: ProviderServer) -> None:
        """Fails when one of several errors with one status cannot be scripted."""
        server.script(Reply(status=429, headers={"x-amzn-errortype": "ModelNotReadyException"}))
        with pytest.raises(client.exceptions.ModelNotReadyException):
            converse(client)

    def test_that_may_pass_are_tried_again(self, server: ProviderServer) -> None:
        """Fails when boto3 does not take throttling and trouble of the server's for what they are."""
        server.script(Reply(status=429), Reply(status=503), Reply(text="At last."))
        with closing(connect(server, max_attempts=2)) as client:
            answer = converse(client)
        assert answer["output"]["message"]["content"] == [{"text": "At last."}]
        assert answer["ResponseMetadata"]["RetryAttempts"] == 2
        assert len(server.requests) == 3

    @pytest.mark.parametrize("api", STREAMS)
    def test_in_mid_stream_come_after_what_came(self, api: str, client: Any, server: ProviderServer) -> None:
        """Fails when an exception in mid-stream is no frame of AWS's, or swallows what was sent before it."""
        server.script(Reply(text="One two three", error_after=3, error_message="it broke"))
        stream = STREAMS[api](client)
        came = [next(stream) for _ in range(3)]
        with pytest.raises(EventStreamError, match=r"modelStreamErrorException.*it broke"):
            next(stream)
        assert len(came) == 3

    @pytest.mark.parametrize("api", STREAMS)
    def test_of_the_connection_are_seen(self, api: str, client: Any, server: ProviderServer) -> None:
        """Fails when a connection cut in mid-stream looks like the end of the answer."""
        server.script(Reply(text="One two three", cut_after=3))
        stream = STREAMS[api](client)
        came = [next(stream) for _ in range(3)]
        with pytest.raises(urllib3.exceptions.ProtocolError):
            next(stream)
        assert len(came) == 3

    def test_to_answer_in_time_are_seen(self, server: ProviderServer) -> None:
        """Fails when a slow model cannot be had."""
        server.script(Reply(delay_s=60))
        with closing(connect(server, read_timeout=0.1)) as client, pytest.raises(ReadTimeoutError):
            converse(client)

    def test_of_a_caller_to_stay_are_counted(self, client: Any, server: ProviderServer) -> None:
        """Fails when the server streams on to nobody."""
        server.script(Reply(text="One two three", chunk_delay_s=60))
        with closing(client.converse_stream(modelId=NOVA, messages=[HELLO])["stream"]) as events:
            assert next(iter(events)) == {"messageStart": {"role": "assistant"}}
        client.close()
        deadline = time.monotonic() + 30
        while not server.aborted and time.monotonic() < deadline:
            time.sleep(0.001)
        assert server.aborted == 1

    def test_to_know_a_request_say_so(self, client: Any) -> None:
        """Fails when an operation that the server does not know is answered as if it asked a model."""
        with pytest.raises(ClientError, match="404"):
            client.apply_guardrail(
                guardrailIdentifier="g", guardrailVersion="1", source="INPUT", content=[{"text": {"text": "Hello"}}]
            )


@pytest.mark.parametrize("model", [CLAUDE, NOVA, PROFILE, "amazon.nova-micro-v1"])
def test_every_models_id_fits_into_a_path(model: str, client: Any, server: ProviderServer) -> None:
    """Fails when an id with colons and slashes, such as an inference profile's, is not recognised."""
    converse(client, model=model)
    assert list(converse_stream(client, model=model))
    invoke(client, model)
    assert list(invoke_stream(client, model))
    assert [unquote(request.path) for request in server.requests] == [
        f"/model/{model}/{verb}" for verb in ("converse", "converse-stream", "invoke", "invoke-with-response-stream")
    ]


def test_tokens_are_counted_without_an_answer(client: Any, server: ProviderServer) -> None:
    """Fails when counting takes a scripted reply, or counts nothing."""
    if not hasattr(client, "count_tokens"):
        pytest.skip("not offered by this boto3")
    server.script(Reply(text="Still here."))
    for asked in ({"converse": {"messages": [HELLO]}}, {"invokeModel": {"body": json.dumps(ANTHROPIC_BODY)}}):
        assert client.count_tokens(modelId=CLAUDE, input=asked)["inputTokens"] == 2
    assert converse(client)["output"]["message"]["content"] == [{"text": "Still here."}]


class City(BaseModel):
    """Where somebody lives."""

    name: str


def chat_models(server: ProviderServer) -> dict[str, Callable[[], Any]]:
    pytest.importorskip("langchain_aws.chat_models", exc_type=ImportError)
    from langchain_aws import ChatBedrock, ChatBedrockConverse

    options: dict[str, Any] = {"region_name": "us-east-1", **KEYS}
    return {
        "ChatBedrock": lambda: ChatBedrock(model=CLAUDE, endpoint_url=server.url, **options),
        "ChatBedrock of a profile": lambda: ChatBedrock(
            model=PROFILE, base_model=CLAUDE, provider="anthropic", endpoint_url=server.url, **options
        ),
        "ChatBedrock by Converse": lambda: ChatBedrock(model=NOVA, endpoint_url=server.url, **options),
        "ChatBedrockConverse": lambda: ChatBedrockConverse(model=CLAUDE, base_url=server.url, **options),
    }


@pytest.mark.parametrize(
    "kind", ["ChatBedrock", "ChatBedrock of a profile", "ChatBedrock by Converse", "ChatBedrockConverse"]
)
def test_langchains_models_are_answered(kind: str, server: ProviderServer) -> None:
    """Fails when what LangChain makes of an answer, a stream, a tool call or an output is not what was scripted."""
    model = chat_models(server)[kind]()
    server.script(Reply(text="Hello to you."), Reply(text="Hello to you."), SEEING, SEEING)
    whole = model.invoke("Hello there")
    assert whole.content == "Hello to you."
    assert whole.usage_metadata["input_tokens"] == 2
    pieces = list(model.stream("Hello there"))
    assert "".join(piece.text for piece in pieces) == "Hello to you."
    assert len(pieces) > 3

    def clock(zone: str, days: list[int]) -> str:
        """Tell the time."""
        return f"noon in {zone}"

    with_tools = model.bind_tools([clock])
    expected = [("clock", {"zone": "é", "days": [1, 2]}, "t1")]
    assert [(call["name"], call["args"], call["id"]) for call in with_tools.invoke("When?").tool_calls] == expected
    first, *rest = with_tools.stream("When?")
    for piece in rest:
        first += piece
    assert [(call["name"], call["args"], call["id"]) for call in first.tool_calls] == expected
    server.script(Reply(tool_calls=(ToolCall("City", {"name": "Oslo"}),)))
    assert model.with_structured_output(City).invoke("Where?") == City(name="Oslo")


def added_up(events: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Return the blocks of a stream."""
    blocks: dict[int, dict[str, Any]] = {}
    for kind, data in events:
        if kind == "contentBlockStart":
            blocks[data["contentBlockIndex"]] = {"toolUse": {**data["start"]["toolUse"], "input": ""}}
        elif kind == "contentBlockDelta":
            delta, block = data["delta"], blocks.setdefault(data["contentBlockIndex"], {})
            if "text" in delta:
                block["text"] = block.get("text", "") + delta["text"]
            elif "toolUse" in delta:
                block["toolUse"]["input"] += delta["toolUse"]["input"]
            else:
                thought = block.setdefault("reasoningContent", {"reasoningText": {"text": "", "signature": ""}})
                for name, piece in delta["reasoningContent"].items():
                    thought["reasoningText"][name] += piece
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
    return list(blocks.values())


def unsigned(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return *blocks* with no signature but its place: it is another each time."""
    return [
        {"reasoningContent": {"reasoningText": {**block["reasoningContent"]["reasoningText"], "signature": ""}}}
        if "reasoningContent" in block
        else block
        for block in blocks
    ]
