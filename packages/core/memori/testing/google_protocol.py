"""The Gemini protocol: content generated whole and streamed, tokens counted, texts embedded, at any version's paths."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from memori.testing.wire import Call, ProviderRequest, Reply, Response, Turn, event, fragments

__all__ = ["GoogleProtocol"]

_JSON: TypeAlias = dict[str, Any]

_METHOD = re.compile(r"/(?P<model>[^/:]+):(?P<verb>\w+)$")
_GENERATES = frozenset(("generateContent", "streamGenerateContent"))
_LOOKS_UP = frozenset(("countTokens", "embedContent", "batchEmbedContents"))
_DIMENSIONS = 768
_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class GoogleProtocol:
    """Gemini's API as google-genai speaks it, whatever stands before ``/models/MODEL:verb``."""

    def recognise(self, method: str, path: str) -> Call | None:
        found = _METHOD.search(path)
        if found is None or method != "POST":
            return None
        if found["verb"] in _GENERATES:
            return "generate"
        return "lookup" if found["verb"] in _LOOKS_UP else None

    def turns(self, path: str, body: Mapping[str, Any]) -> tuple[Turn, ...]:
        return tuple(_turns(body))

    def respond(self, request: ProviderRequest, reply: Reply) -> Response:
        found = _METHOD.search(request.path)
        verb = found["verb"] if found else ""
        if verb == "countTokens":
            return _plain({"totalTokens": len(request.text.split())})
        if verb == "embedContent":
            return _plain({"embedding": {"values": _vector()}})
        if verb == "batchEmbedContents":
            return _plain({"embeddings": [{"values": _vector()} for _ in request.body.get("requests", ())]})
        contents = request.body.get("contents")
        if not isinstance(contents, list) or not contents:
            raise ValueError("GenerateContentRequest.contents: contents is not specified")
        if any(not content.get("parts") for content in _mappings(contents)):
            raise ValueError("GenerateContentRequest.contents.parts: must include at least one parts field")
        answer = _Answer(request, reply, found["model"] if found else "")
        return answer.streamed() if verb == "streamGenerateContent" else _plain(answer.whole())

    def failure(self, status: int, message: str) -> Response:
        return Response(status=status, chunks=[_encoded({"error": _error(status, message)})])


class _Answer:
    """One response to ``generateContent``."""

    def __init__(self, request: ProviderRequest, reply: Reply, model: str) -> None:
        self._reply = reply
        self._calls = [
            {"functionCall": {"name": call.name, "args": dict(call.arguments), **({"id": call.id} if call.id else {})}}
            for call in reply.tool_calls
        ]
        sent, received = len(request.text.split()), len(reply.text.split())
        self._head = {"modelVersion": model, "responseId": uuid.uuid4().hex}
        self._usage = {
            "promptTokenCount": sent,
            "candidatesTokenCount": received,
            "totalTokenCount": sent + received,
        }

    def whole(self) -> _JSON:
        texts: list[_JSON] = [{"text": self._reply.text}] if self._reply.text or not self._calls else []
        return self._response([*texts, *self._calls], last=True)

    def streamed(self) -> Response:
        chunks = list(itertools.islice(self._events(), self._reply.error_after))
        if self._reply.error_after is not None:
            chunks.append(event({"error": _error(503, self._reply.error_message)}))
        return Response(chunks=chunks, streamed=True, content_type="text/event-stream")

    def _events(self) -> Iterator[bytes]:
        parts: list[_JSON] = [*({"text": piece} for piece in fragments(self._reply.text)), *self._calls] or [
            {"text": ""}
        ]
        for place, part in enumerate(parts, start=1):
            yield event(self._response([part], last=place == len(parts)))

    def _response(self, parts: Sequence[_JSON], *, last: bool) -> _JSON:
        if self._reply.refusal is not None:
            # Gemini says nothing in place of what it will not answer.
            return {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": self._usage, **self._head}
        candidate: _JSON = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
        if last:
            candidate["finishReason"] = "STOP"
        return {"candidates": [candidate], "usageMetadata": self._usage, **self._head}


def _turns(body: Mapping[str, Any]) -> Iterator[Turn]:
    instruction = body.get("systemInstruction")
    if isinstance(instruction, Mapping):
        yield from _content_turns("system", instruction)
    if isinstance(content := body.get("content"), Mapping):
        yield from _content_turns("user", content)
    for content in _mappings(body.get("contents")):
        yield from _content_turns(str(content.get("role") or "user"), content)


def _content_turns(role: str, content: Mapping[str, Any]) -> Iterator[Turn]:
    """Yield a turn for each part that says something."""
    for part in _mappings(content.get("parts")):
        if isinstance(text := part.get("text"), str) and text:
            yield Turn(role, text)
        elif isinstance(call := part.get("functionCall"), Mapping):
            yield Turn(role, f"{call.get('name')}({json.dumps(call.get('args') or {}, ensure_ascii=False)})")
        elif isinstance(answer := part.get("functionResponse"), Mapping):
            yield Turn("tool", json.dumps(answer.get("response"), ensure_ascii=False))


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))


def _vector() -> list[float]:
    return [1.0] + [0.0] * (_DIMENSIONS - 1)


def _error(status: int, message: str) -> _JSON:
    return {"code": status, "message": message, "status": _STATUS_NAMES.get(status, "INTERNAL")}


def _encoded(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(data: Mapping[str, Any]) -> Response:
    return Response(chunks=[_encoded(data)])
