"""The Bedrock Runtime protocol: InvokeModel with Anthropic's messages, Converse with any model, whole and streamed."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import unquote

from memori.testing import anthropic_protocol
from memori.testing.event_stream import CONTENT_TYPE, event_frame, exception_frame
from memori.testing.wire import Call, ProviderRequest, Reply, Response, Turn, fragments

__all__ = ["BedrockProtocol"]

_JSON: TypeAlias = dict[str, Any]

# A model's id may be an ARN, whose colons and slashes are escaped.
_PATH = re.compile(r"/model/(?P<model>[^/]+)/(?P<verb>invoke|converse|count-tokens)(?P<streams>-.+)?$")
_STREAMS = {"invoke": "-with-response-stream", "converse": "-stream"}
_ARGUMENT_PIECE = 8
_THOUGHT = "The user wants an answer."
_ERROR_TYPES = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}
_LATENCY = {"latencyMs": 1}


class BedrockProtocol:
    """Bedrock's API as boto3 speaks it, and with InvokeModel alone Anthropic's own SDK.

    InvokeModel takes Anthropic's messages, whatever the model's id says; Converse takes any model. A Converse request
    whose additional fields ask for thinking is answered by a thought before the text. The error that a reply's status
    stands for is another when its headers name one: ``{"x-amzn-errortype": "ModelNotReadyException"}``.
    """

    def recognise(self, method: str, path: str) -> Call | None:
        found = _PATH.search(path)
        if found is None or method != "POST":
            return None
        if found["streams"] and found["streams"] != _STREAMS.get(found["verb"]):
            return None
        return "lookup" if found["verb"] == "count-tokens" else "generate"

    def turns(self, path: str, body: Mapping[str, Any]) -> tuple[Turn, ...]:
        match _verb(path):
            case "converse":
                return tuple(_turns(body))
            case "count-tokens":
                return tuple(_counted(body))
            case _:
                return anthropic_protocol.turns(body)

    def respond(self, request: ProviderRequest, reply: Reply) -> Response:
        found = _PATH.search(request.path)
        assert found is not None  # Asked only what `recognise` has recognised.
        if found["verb"] == "count-tokens":
            return _plain({"inputTokens": _word_count(request.text)})
        if found["verb"] == "converse":
            _check(request.body)
            answer = _Answer(request, reply)
            if not found["streams"]:
                return _plain(answer.whole())
            return _streamed([event_frame(kind, data) for kind, data in answer.events()], reply)
        if "anthropic_version" not in request.body:
            raise ValueError("anthropic_version: Field required")
        anthropic_protocol.check(request.body, alternating=True)
        message = anthropic_protocol.AssistantMessage(request, reply, unquote(found["model"]))
        usage = message.usage
        if not found["streams"]:
            counts = {
                f"x-amzn-bedrock-{kind}-token-count": str(usage[f"{kind}_tokens"]) for kind in ("input", "output")
            }
            return _plain(message.whole(), {**counts, "x-amzn-bedrock-invocation-latency": "1"})
        *events, last = message.events()
        last["amazon-bedrock-invocationMetrics"] = {
            "inputTokenCount": usage["input_tokens"],
            "outputTokenCount": usage["output_tokens"],
            "invocationLatency": 1,
            "firstByteLatency": 1,
        }
        return _streamed([_chunk(data) for data in (*events, last)], reply)

    def failure(self, status: int, message: str) -> Response:
        kind = _ERROR_TYPES.get(status, "InternalServerException")
        # The latter is what botocore heeds, the server's own retry-after-ms what Anthropic's SDK does.
        headers = {"x-amzn-errortype": kind, "x-amz-retry-after": "10"}
        return Response(status=status, chunks=[_encoded({"message": message})], headers=_with_id(headers))


def _verb(path: str) -> str | None:
    found = _PATH.search(path)
    return found["verb"] if found else None


def _check(body: Mapping[str, Any]) -> None:
    """Refuse what Converse refuses of every model, as far as it is about the form of the conversation.

    Raises:
        ValueError: Saying what is wrong.
    """
    messages = list(_mappings(body.get("messages")))
    roles = [message.get("role") for message in messages]
    if roles[:1] != ["user"]:
        raise ValueError("A conversation must start with a user message.")
    if any(one == next_ for one, next_ in itertools.pairwise(roles)):
        raise ValueError("A conversation must alternate between user and assistant roles.")
    used: list[object] = []
    for place, message in enumerate(messages):
        blocks = list(_mappings(message.get("content")))
        if not blocks:
            raise ValueError(f"The content field in the Message object at messages.{place} is empty.")
        for number, block in enumerate(blocks):
            if "text" in block and not str(block["text"]).strip():
                raise ValueError(
                    f"The text field in the ContentBlock object at messages.{place}.content.{number} is blank."
                )
        returned = [block["toolResult"].get("toolUseId") for block in blocks if "toolResult" in block]
        if missing := [str(id) for id in used if id not in returned]:
            raise ValueError(
                f"Expected toolResult blocks at messages.{place}.content for the following Ids: {', '.join(missing)}"
            )
        if len(returned) > len(used):
            raise ValueError(
                f"The number of toolResult blocks at messages.{place}.content exceeds the number of toolUse blocks of "
                "previous turn."
            )
        used = [block["toolUse"].get("toolUseId") for block in blocks if "toolUse" in block]
        if (used or returned) and not body.get("toolConfig"):
            raise ValueError("The toolConfig field must be defined when using toolUse and toolResult content blocks.")


class _Answer:
    """One answer of Converse."""

    def __init__(self, request: ProviderRequest, reply: Reply) -> None:
        said = reply.text if reply.refusal is None else reply.refusal
        self._blocks: list[_JSON] = []
        fields = request.body.get("additionalModelRequestFields") or {}
        if dict(fields.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
            thought = {"text": _THOUGHT, "signature": uuid.uuid4().hex}
            self._blocks.append({"reasoningContent": {"reasoningText": thought}})
        if said:
            self._blocks.append({"text": said})
        self._blocks += [
            {"toolUse": {"toolUseId": call.id or _new_id(), "name": call.name, "input": dict(call.arguments)}}
            for call in reply.tool_calls
        ]
        self._stop_reason = (
            "tool_use" if reply.tool_calls else "end_turn" if reply.refusal is None else "content_filtered"
        )
        sent, answered = _word_count(request.text), _word_count(json.dumps(self._blocks))
        self._usage = {"inputTokens": sent, "outputTokens": answered, "totalTokens": sent + answered}

    def whole(self) -> _JSON:
        message = {"role": "assistant", "content": self._blocks}
        return {
            "output": {"message": message},
            "stopReason": self._stop_reason,
            "usage": self._usage,
            "metrics": _LATENCY,
        }

    def events(self) -> Iterator[tuple[str, _JSON]]:
        """Yield each event's type and what it carries."""
        yield "messageStart", {"role": "assistant"}
        for index, block in enumerate(self._blocks):
            at = {"contentBlockIndex": index}
            if used := block.get("toolUse"):
                begun = {"toolUseId": used["toolUseId"], "name": used["name"]}
                yield "contentBlockStart", {"start": {"toolUse": begun}, **at}
            yield from (("contentBlockDelta", {"delta": delta, **at}) for delta in _deltas(block))
            yield "contentBlockStop", at
        yield "messageStop", {"stopReason": self._stop_reason}
        yield "metadata", {"usage": self._usage, "metrics": _LATENCY}


def _deltas(block: _JSON) -> Iterator[_JSON]:
    if used := block.get("toolUse"):
        arguments = json.dumps(used["input"], ensure_ascii=False)
        yield from ({"toolUse": {"input": piece}} for piece in fragments(arguments, size=_ARGUMENT_PIECE))
    elif reasoning := block.get("reasoningContent"):
        thought = reasoning["reasoningText"]
        yield from ({"reasoningContent": {"text": piece}} for piece in fragments(thought["text"]))
        yield {"reasoningContent": {"signature": thought["signature"]}}
    else:
        yield from ({"text": piece} for piece in fragments(block["text"]))


def _chunk(data: Mapping[str, Any]) -> bytes:
    return event_frame("chunk", {"bytes": base64.b64encode(_encoded(data)).decode()})


def _streamed(frames: Sequence[bytes], reply: Reply) -> Response:
    chunks = list(frames[: reply.error_after])
    if reply.error_after is not None:
        chunks.append(exception_frame("modelStreamErrorException", reply.error_message))
    headers = _with_id({"x-amzn-bedrock-content-type": "application/json"})
    return Response(chunks=chunks, streamed=True, content_type=CONTENT_TYPE, headers=headers)


def _plain(data: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(chunks=[_encoded(data)], headers=_with_id(headers or {}))


def _with_id(headers: Mapping[str, str]) -> dict[str, str]:
    return {"x-amzn-requestid": str(uuid.uuid4()), **headers}


def _encoded(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _new_id() -> str:
    return f"tooluse_{uuid.uuid4().hex}"


def _word_count(text: str) -> int:
    """Return how many tokens *text* is counted as: real enough that more text costs more."""
    return len(text.split())


def _turns(body: Mapping[str, Any]) -> Iterator[Turn]:
    """Yield a turn for each block that says something."""
    for block in _mappings(body.get("system")):
        yield from (Turn("system", text) for text in _texts(block))
    for message in _mappings(body.get("messages")):
        role = str(message.get("role", ""))
        for block in _mappings(message.get("content")):
            if isinstance(used := block.get("toolUse"), Mapping):
                yield Turn(role, f"{used.get('name')}({json.dumps(used.get('input'), ensure_ascii=False)})")
            elif isinstance(result := block.get("toolResult"), Mapping):
                said = (text for item in _mappings(result.get("content")) for text in _texts(item))
                yield Turn("tool", "\n".join(said))
            else:
                yield from (Turn(role, text) for text in _texts(block))


def _texts(block: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(guarded := block.get("guardContent"), Mapping):
        block = dict(guarded.get("text") or {})
    if isinstance(text := block.get("text"), str) and text:
        yield text
    elif "json" in block:
        yield json.dumps(block["json"], ensure_ascii=False)


def _counted(body: Mapping[str, Any]) -> Iterator[Turn]:
    """Yield what a request that only counts would say if it were sent."""
    asked = body.get("input")
    asked = asked if isinstance(asked, Mapping) else {}
    if isinstance(conversed := asked.get("converse"), Mapping):
        yield from _turns(conversed)
    elif isinstance(invoked := asked.get("invokeModel"), Mapping):
        try:
            inner = json.loads(base64.b64decode(str(invoked.get("body"))))
        except (ValueError, binascii.Error):
            return
        if isinstance(inner, Mapping):
            yield from anthropic_protocol.turns(inner)


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))
