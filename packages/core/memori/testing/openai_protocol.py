"""The OpenAI protocol: chat completions, responses, embeddings and models, at OpenAI's paths and at Azure's."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from memori.testing.wire import Call, ProviderRequest, Reply, Response, ToolCall, Turn, event, fragments

__all__ = ["OpenAIProtocol"]

_JSON: TypeAlias = dict[str, Any]

# The default of text-embedding-3-small.
_DIMENSIONS = 1536
_ARGUMENT_PIECE = 8
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
}


class OpenAIProtocol:
    """OpenAI's API as its SDK speaks it, whatever stands before the last part of the path."""

    def recognise(self, method: str, path: str) -> Call | None:
        if method == "POST" and path.endswith(("/chat/completions", "/responses")):
            return "generate"
        if (method == "POST" and path.endswith("/embeddings")) or (method == "GET" and path.endswith("/models")):
            return "lookup"
        return None

    def turns(self, path: str, body: Mapping[str, Any]) -> tuple[Turn, ...]:
        if path.endswith("/chat/completions"):
            return tuple(_chat_turns(body))
        if path.endswith("/responses"):
            return tuple(_response_turns(body))
        try:
            return tuple(Turn("user", text) for text in _embedding_inputs(body))
        except ValueError:
            return ()

    def respond(self, request: ProviderRequest, reply: Reply) -> Response:
        if request.path.endswith("/models"):
            return _plain(_models())
        model = request.body.get("model")
        if not isinstance(model, str) or not model:
            raise ValueError("you must provide a model parameter")
        if request.path.endswith("/embeddings"):
            return _plain(_embeddings(request.body, model))
        if request.path.endswith("/chat/completions"):
            if not isinstance(request.body.get("messages"), list) or not request.body["messages"]:
                raise ValueError("'messages' must be a list of at least one message")
            chat = _Chat(request, reply, model)
            return _streamed(chat.events(), reply, chat.failure) if request.body.get("stream") else _plain(chat.whole())
        if "input" not in request.body and "prompt" not in request.body:
            raise ValueError("one of 'input' or 'prompt' must be provided")
        answer = _Answer(request, reply, model)
        return (
            _streamed(answer.events(), reply, answer.failure) if request.body.get("stream") else _plain(answer.whole())
        )

    def failure(self, status: int, message: str) -> Response:
        return Response(status=status, chunks=[_encoded({"error": _error(status, message)})])


def _error(status: int, message: str) -> _JSON:
    kind = _ERROR_TYPES.get(status, "rate_limit_error" if status == 429 else "server_error")
    return {"message": message, "type": kind, "param": None, "code": None}


def _encoded(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(data: Mapping[str, Any]) -> Response:
    return Response(chunks=[_encoded(data)])


def _streamed(events: Iterator[bytes], reply: Reply, failure: Callable[[], bytes]) -> Response:
    chunks = list(itertools.islice(events, reply.error_after))
    if reply.error_after is not None:
        chunks.append(failure())
    return Response(chunks=chunks, streamed=True, content_type="text/event-stream; charset=utf-8")


def _new_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4().hex}"


def _word_count(text: str) -> int:
    """Return how many tokens *text* is counted as: real enough that more text costs more."""
    return len(text.split())


def _call_texts(calls: Sequence[ToolCall]) -> list[tuple[str, ToolCall, str]]:
    """Return each call with its id and its arguments as JSON."""
    return [(call.id or _new_id("call_"), call, json.dumps(dict(call.arguments), ensure_ascii=False)) for call in calls]


class _Chat:
    """One chat completion; each of the n choices is the reply."""

    def __init__(self, request: ProviderRequest, reply: Reply, model: str) -> None:
        self._reply = reply
        self._body = request.body
        self._choices = range(max(int(request.body.get("n") or 1), 1))
        self._calls = _call_texts(reply.tool_calls)
        self._finish = "tool_calls" if reply.tool_calls else "stop"
        self._head = {"id": _new_id("chatcmpl-"), "created": int(time.time()), "model": model}
        sent = _word_count(request.text)
        received = len(self._choices) * sum(
            map(_word_count, [reply.refusal or reply.text, *(text for _, _, text in self._calls)])
        )
        self._usage = {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}

    def failure(self) -> bytes:
        return event({"error": _error(500, self._reply.error_message)})

    def whole(self) -> _JSON:
        said = self._reply.refusal is None and (self._reply.text or not self._calls)
        message: _JSON = {
            "role": "assistant",
            "content": self._reply.text if said else None,
            "refusal": self._reply.refusal,
            "annotations": [],
        }
        if self._calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
                for call_id, call, arguments in self._calls
            ]
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": self._finish}
            for index in self._choices
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage}

    def events(self) -> Iterator[bytes]:
        counts = bool((self._body.get("stream_options") or {}).get("include_usage"))
        for delta, finish in self._deltas():
            for index in self._choices:
                choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
                # With the usage asked for, every chunk has the key, and only the last one the value.
                yield self._chunk([choice], {"usage": None} if counts else {})
        if counts:
            yield self._chunk([], {"usage": self._usage})
        yield event("[DONE]")

    def _chunk(self, choices: Sequence[_JSON], more: _JSON) -> bytes:
        return event({**self._head, "object": "chat.completion.chunk", "choices": choices, **more})

    def _deltas(self) -> Iterator[tuple[_JSON, str | None]]:
        reply = self._reply
        said = reply.refusal is None and (reply.text or not self._calls)
        yield {"role": "assistant", "content": "" if said else None, "refusal": None}, None
        if reply.refusal is not None:
            yield from (({"refusal": piece}, None) for piece in fragments(reply.refusal))
        else:
            yield from (({"content": piece}, None) for piece in fragments(reply.text))
        for index, (call_id, call, arguments) in enumerate(self._calls):
            function = {"name": call.name, "arguments": ""}
            yield {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}, None
            for piece in fragments(arguments, size=_ARGUMENT_PIECE):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, None
        yield {}, self._finish


class _Answer:
    """One response of the Responses API."""

    # What a response repeats of its request, and what it says when the request does not.
    _ECHOED: Mapping[str, Any] = {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
    }

    def __init__(self, request: ProviderRequest, reply: Reply, model: str) -> None:
        self._reply = reply
        calls = _call_texts(reply.tool_calls)
        self._items: list[_JSON] = []
        if reply.refusal is not None or reply.text or not calls:
            part = (
                {"type": "refusal", "refusal": reply.refusal}
                if reply.refusal is not None
                else {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
            )
            self._items.append(
                {
                    "id": _new_id("msg_"),
                    "type": "message",
                    "role": "assistant",
                    "status": "completed",
                    "content": [part],
                }
            )
        self._items += [
            {
                "id": _new_id("fc_"),
                "type": "function_call",
                "call_id": call_id,
                "name": call.name,
                "arguments": arguments,
                "status": "completed",
            }
            for call_id, call, arguments in calls
        ]
        sent = _word_count(request.text)
        received = sum(map(_word_count, [reply.refusal or reply.text, *(text for _, _, text in calls)]))
        self._usage = {
            "input_tokens": sent,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": received,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sent + received,
        }
        self._head: _JSON = {
            "id": _new_id("resp_"),
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "error": None,
            "incomplete_details": None,
            **{name: request.body.get(name, default) for name, default in self._ECHOED.items()},
        }
        self._numbers = itertools.count()

    def failure(self) -> bytes:
        # The reference says that the error's fields are the event's own; the live service nests them, as here, and the
        # SDK raises only for that.
        error = _error(500, self._reply.error_message)
        return self._event("error", {"error": error})

    def whole(self) -> _JSON:
        return {**self._head, "status": "completed", "output": self._items, "usage": self._usage}

    def events(self) -> Iterator[bytes]:
        begun = {**self._head, "status": "in_progress", "output": [], "usage": None}
        yield self._event("response.created", {"response": begun})
        yield self._event("response.in_progress", {"response": begun})
        for index, item in enumerate(self._items):
            emptied: _JSON = {"content": []} if item["type"] == "message" else {"arguments": ""}
            added = {**item, **emptied, "status": "in_progress"}
            yield self._event("response.output_item.added", {"output_index": index, "item": added})
            place = {"item_id": item["id"], "output_index": index}
            yield from self._message(item, place) if item["type"] == "message" else self._function_call(item, place)
            yield self._event("response.output_item.done", {"output_index": index, "item": item})
        yield self._event("response.completed", {"response": self.whole()})

    def _message(self, item: _JSON, place: _JSON) -> Iterator[bytes]:
        for index, part in enumerate(item["content"]):
            inner = {**place, "content_index": index}
            kind, name = ("refusal", "refusal") if part["type"] == "refusal" else ("output_text", "text")
            # Only events of texts carry log probabilities.
            logprobs: _JSON = {} if kind == "refusal" else {"logprobs": []}
            yield self._event("response.content_part.added", {**inner, "part": {**part, name: ""}})
            for piece in fragments(part[name]):
                yield self._event(f"response.{kind}.delta", {**inner, "delta": piece, **logprobs})
            yield self._event(f"response.{kind}.done", {**inner, name: part[name], **logprobs})
            yield self._event("response.content_part.done", {**inner, "part": part})

    def _function_call(self, item: _JSON, place: _JSON) -> Iterator[bytes]:
        for piece in fragments(item["arguments"], size=_ARGUMENT_PIECE):
            yield self._event("response.function_call_arguments.delta", {**place, "delta": piece})
        done = {**place, "name": item["name"], "arguments": item["arguments"]}
        yield self._event("response.function_call_arguments.done", done)

    def _event(self, kind: str, data: _JSON) -> bytes:
        return event({"type": kind, "sequence_number": next(self._numbers), **data}, name=kind)


def _chat_turns(body: Mapping[str, Any]) -> Iterator[Turn]:
    for message in _mappings(body.get("messages")):
        role = str(message.get("role", ""))
        text = _joined(message.get("content"))
        calls = [
            call["function"] for call in _mappings(message.get("tool_calls")) if isinstance(call.get("function"), dict)
        ]
        asked = [f"{call.get('name')}({call.get('arguments')})" for call in calls]
        if said := "\n".join(part for part in (text, *asked) if part):
            yield Turn(role, said)


def _response_turns(body: Mapping[str, Any]) -> Iterator[Turn]:
    if isinstance(instructions := body.get("instructions"), str):
        yield Turn("system", instructions)
    if isinstance(given := body.get("input"), str):
        yield Turn("user", given)
        return
    for item in _mappings(given):
        kind = item.get("type", "message")
        if kind == "function_call":
            yield Turn("assistant", f"{item.get('name')}({item.get('arguments')})")
        elif kind == "function_call_output":
            yield Turn("tool", _joined(item.get("output")))
        elif text := _joined(item.get("content")):
            yield Turn(str(item.get("role", "")), text)


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _joined(content: object) -> str:
    """Return the text of a content: a string, or a list of parts of which some are texts."""
    if isinstance(content, str):
        return content
    texts = (part.get("text", part.get("refusal")) for part in _mappings(content))
    return "\n".join(text for text in texts if isinstance(text, str))


def _models() -> _JSON:
    names = ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small")
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 1700000000, "owned_by": "memori"} for name in names],
    }


def _embeddings(body: Mapping[str, Any], model: str) -> _JSON:
    texts = _embedding_inputs(body)
    dimensions = body.get("dimensions", _DIMENSIONS)
    if not isinstance(dimensions, int) or dimensions < 1:
        raise ValueError("'dimensions' must be a whole number greater than 0")
    packed = body.get("encoding_format", "float") == "base64"
    data = []
    for index, text in enumerate(texts):
        vector = _vector(text, dimensions)
        # Little-endian float32, as the SDK unpacks it.
        embedding = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode() if packed else vector
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    count = sum(map(_word_count, texts))
    return {"object": "list", "model": model, "data": data, "usage": {"prompt_tokens": count, "total_tokens": count}}


def _embedding_inputs(body: Mapping[str, Any]) -> list[str]:
    """Return the texts to embed; tokens count as words.

    Raises:
        ValueError: There is none, or one is empty, which OpenAI refuses, too.
    """
    given = body.get("input")
    inputs = given if isinstance(given, list) and not all(isinstance(item, int) for item in given) else [given]
    joined = [" ".join(map(str, item)) if isinstance(item, list) else item for item in inputs]
    texts = [text for text in joined if isinstance(text, str) and text]
    if len(texts) < len(inputs):
        raise ValueError("'input' must be a text or a list of texts, none of them empty")
    return texts


def _vector(text: str, dimensions: int) -> list[float]:
    """Return a unit vector that only the text decides: texts that share words are closer than those that do not."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.casefold()) or [text]:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        # Several places a word, so that two words seldom share them all.
        for (number,) in struct.iter_unpack("<I", digest):
            vector[(number >> 1) % dimensions] += 1.0 if number & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    # In a space of very few dimensions the places of a word may cancel each other out.
    return [value / length for value in vector] if length else [1.0, *vector[1:]]
