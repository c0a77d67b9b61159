"""The Anthropic protocol: messages and their tokens, at Anthropic's paths and at Vertex AI's."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import unquote

from memori.testing.wire import Call, ProviderRequest, Reply, Response, Turn, event, fragments

__all__ = ["AnthropicProtocol", "AssistantMessage", "check", "turns"]

_JSON: TypeAlias = dict[str, Any]

_ON_VERTEX = re.compile(r"/publishers/anthropic/models/(?P<model>[^/:]+):(?P<streams>stream)?[rR]awPredict$")
_ARGUMENT_PIECE = 8
_THOUGHT = "The user wants an answer."
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicProtocol:
    """Anthropic's API as its SDK speaks it, whatever stands before the last part of the path.

    A request that asks for thinking is answered by a thought before the text.
    """

    def recognise(self, method: str, path: str) -> Call | None:
        if method != "POST":
            return None
        if path.endswith("/v1/messages") or _ON_VERTEX.search(path):
            return "generate"
        return "lookup" if path.endswith("/v1/messages/count_tokens") else None

    def turns(self, path: str, body: Mapping[str, Any]) -> tuple[Turn, ...]:
        return turns(body)

    def respond(self, request: ProviderRequest, reply: Reply) -> Response:
        found = _ON_VERTEX.search(request.path)
        model = unquote(found["model"]) if found else request.body.get("model")
        generates = not request.path.endswith("/count_tokens")
        if not isinstance(model, str) or not model:
            raise ValueError("model: Field required")
        if found and "anthropic_version" not in request.body:
            raise ValueError("anthropic_version: Field required")
        check(request.body, generates=generates)
        if not generates:
            return _plain({"input_tokens": _word_count(request.text)})
        message = AssistantMessage(request, reply, model)
        if not (found["streams"] if found else request.body.get("stream")):
            return _plain(message.whole())
        chunks = [event(data, name=data["type"]) for data in itertools.islice(message.events(), reply.error_after)]
        if reply.error_after is not None:
            chunks.append(event({"type": "error", "error": _error(529, reply.error_message)}, name="error"))
        return Response(chunks=chunks, streamed=True, content_type="text/event-stream; charset=utf-8")

    def failure(self, status: int, message: str) -> Response:
        error = {"type": "error", "error": _error(status, message), "request_id": _new_id("req_")}
        return Response(status=status, chunks=[_encoded(error)])


def check(body: Mapping[str, Any], *, generates: bool = True, alternating: bool = False) -> None:
    """Refuse what Anthropic refuses, as far as it is about the form of the conversation.

    Args:
        generates: Whether a message is asked for.
        alternating: Whether user and assistant have to take turns. Anthropic itself joins messages of one role.

    Raises:
        ValueError: Saying what is wrong.
    """
    if generates and not isinstance(body.get("max_tokens"), int):
        raise ValueError("max_tokens: Field required")
    messages = list(_mappings(body.get("messages")))
    if not messages:
        raise ValueError("messages: at least one message is required")
    if alternating and any(one.get("role") == next_.get("role") for one, next_ in itertools.pairwise(messages)):
        raise ValueError('messages: roles must alternate between "user" and "assistant"')
    wanted: set[object] = set()
    for place, message in enumerate(messages):
        blocks = list(_blocks(message.get("content")))
        if not blocks or any(block.get("type") == "text" and not block.get("text") for block in blocks):
            raise ValueError(f"messages.{place}: content and text content blocks must be non-empty")
        results = list(itertools.takewhile(lambda block: block.get("type") == "tool_result", blocks))
        if wanted - {block.get("tool_use_id") for block in results}:
            raise ValueError(f"messages.{place}: each `tool_use` block must have a `tool_result` block right after it")
        wanted = {block.get("id") for block in blocks if block.get("type") == "tool_use"}


class AssistantMessage:
    """One message of the assistant's.

    Attributes:
        usage: How many tokens were sent and answered.
    """

    def __init__(self, request: ProviderRequest, reply: Reply, model: str) -> None:
        said = reply.text if reply.refusal is None else reply.refusal
        self._blocks: list[_JSON] = []
        if dict(request.body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
            self._blocks.append({"type": "thinking", "thinking": _THOUGHT, "signature": _new_id("sig")})
        if said or not reply.tool_calls:
            self._blocks.append({"type": "text", "text": said, "citations": None})
        self._blocks += [
            {"type": "tool_use", "id": call.id or _new_id("toolu_"), "name": call.name, "input": dict(call.arguments)}
            for call in reply.tool_calls
        ]
        self._stop_reason = "tool_use" if reply.tool_calls else "end_turn" if reply.refusal is None else "refusal"
        self.usage = {
            "input_tokens": _word_count(request.text),
            "output_tokens": _word_count(json.dumps(self._blocks)),
        }
        self._head = {"id": _new_id("msg_"), "type": "message", "role": "assistant", "model": model}

    def whole(self) -> _JSON:
        stopped = {"stop_reason": self._stop_reason, "stop_sequence": None}
        return {**self._head, "content": self._blocks, **stopped, "usage": self.usage}

    def events(self) -> Iterator[_JSON]:
        begun = {**self.whole(), "content": [], "stop_reason": None, "usage": {**self.usage, "output_tokens": 1}}
        yield {"type": "message_start", "message": begun}
        yield {"type": "ping"}
        for index, block in enumerate(self._blocks):
            empty, deltas = _pieces(block)
            yield {"type": "content_block_start", "index": index, "content_block": {**block, **empty}}
            yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
            yield {"type": "content_block_stop", "index": index}
        delta = {"stop_reason": self._stop_reason, "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": self.usage["output_tokens"]}}
        yield {"type": "message_stop"}


def _pieces(block: _JSON) -> tuple[_JSON, list[_JSON]]:
    """Return what a block begins without, and the deltas that bring it."""
    if block["type"] == "text":
        return {"text": ""}, [{"type": "text_delta", "text": piece} for piece in fragments(block["text"])]
    if block["type"] == "thinking":
        thoughts: list[_JSON] = [
            {"type": "thinking_delta", "thinking": piece} for piece in fragments(block["thinking"])
        ]
        return {"thinking": "", "signature": ""}, [
            *thoughts,
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    arguments = json.dumps(block["input"], ensure_ascii=False) if block["input"] else ""
    pieces = ["", *fragments(arguments, size=_ARGUMENT_PIECE)]
    return {"input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def _error(status: int, message: str) -> _JSON:
    return {"type": _ERROR_TYPES.get(status, "api_error"), "message": message}


def _encoded(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(data: Mapping[str, Any]) -> Response:
    return Response(chunks=[_encoded(data)])


def _new_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4().hex}"


def _word_count(text: str) -> int:
    """Return how many tokens *text* is counted as: real enough that more text costs more."""
    return len(text.split())


def turns(body: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Return a turn for each block that says something, in order."""
    return tuple(_turns(body))


def _turns(body: Mapping[str, Any]) -> Iterator[Turn]:
    yield from (Turn("system", text) for text in _texts(body.get("system")))
    for message in _mappings(body.get("messages")):
        role = str(message.get("role", ""))
        for block in _blocks(message.get("content")):
            kind = block.get("type")
            if kind == "tool_use":
                yield Turn(role, f"{block.get('name')}({json.dumps(block.get('input'), ensure_ascii=False)})")
            elif kind == "tool_result":
                yield Turn("tool", "\n".join(_texts(block.get("content"))))
            else:
                yield from (Turn(role, text) for text in _texts([block]))


def _texts(content: object) -> Iterator[str]:
    for block in _blocks(content):
        if block.get("type") == "text" and isinstance(text := block.get("text"), str) and text:
            yield text


def _blocks(content: object) -> Sequence[Mapping[str, Any]]:
    """Return the blocks of a content, of which a mere text is the short form."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(_mappings(content))


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))
