"""LangChain's messages → memori's, and memori's block → messages of LangChain's. Pure."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from memori.types import Message

__all__ = ["RECALLED", "model_name", "reply", "sent", "takes_parts", "with_block"]

RECALLED = {"memori": "recalled"}  # A tool's artifact, unseen by the model, when its result came out of memory.
# Whose providers want the user and the model to take turns, so that two messages of the user's in a row will not do.
_ALTERNATING = frozenset(
    {"langchain_anthropic", "langchain_aws", "langchain_google_genai", "langchain_google_vertexai"}
)


def sent(messages: Iterable[BaseMessage]) -> tuple[Message, ...]:
    """Return what the user, the model and the tools said, oldest first; no system prompts, summaries or thoughts."""
    return tuple(_messages(messages))


def reply(message: BaseMessage) -> tuple[Message, ...]:
    """Return what a model's message, whole or merged from chunks, says and calls."""
    return tuple(_assistant(message, {}))


def model_name(message: BaseMessage) -> str | None:
    """Return the name of the model that answered, where its message tells."""
    metadata = message.response_metadata
    return next(
        (name for key in ("model_name", "model", "model_id") if isinstance(name := metadata.get(key), str)), None
    )


def takes_parts(model: object) -> bool:
    """Return whether *model* is given memories in a content part of the user's message, not in a message of its own."""
    modules = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if modules.isdisjoint(_ALTERNATING):
        return False
    # What Bedrock's InvokeModel turns into a prompt of one text takes no parts.
    converses = getattr(model, "beta_use_converse_api", True)
    provider = getattr(model, "_get_provider", None)
    return bool(converses) or provider is None or provider() == "anthropic"


def with_block(
    messages: Sequence[BaseMessage], block: str, *, role: Literal["user", "system"], in_parts: bool = False
) -> list[BaseMessage]:
    """Return *messages* with *block* just before the user's last one; as they are when there is none.

    Neither the list nor its messages are changed.

    Args:
        role: ``system`` puts it behind the system prompt.
        in_parts: Whether it becomes a content part of a message that is there; see `takes_parts`. Where messages have
            cache breakpoints it goes behind the user's parts: what is cached is then what the next request repeats.
    """
    last = max((place for place, message in enumerate(messages) if _is_users(message)), default=-1)
    if last < 0:
        return list(messages)
    if role == "system":
        return _with_system(messages, block, in_parts=in_parts)
    if not in_parts:
        return [*messages[:last], HumanMessage(block), *messages[last:]]
    parts = _parts(messages[last])
    place = max((at for at, part in enumerate(parts, start=1) if _type(part) == "tool_result"), default=0)
    if any(_is_breakpoint(part) for message in messages for part in _parts(message)):
        place = len(parts)
    enriched = _with_parts(messages[last], [*parts[:place], _text_part(block), *parts[place:]])
    return [*messages[:last], enriched, *messages[last + 1 :]]


def _with_system(messages: Sequence[BaseMessage], block: str, *, in_parts: bool) -> list[BaseMessage]:
    after = next(place for place, message in enumerate(messages) if not isinstance(message, SystemMessage))
    if not after:
        return [SystemMessage(block), *messages]
    prompt = messages[after - 1]
    if in_parts:
        enriched = _with_parts(prompt, [*_parts(prompt), _text_part(block)])
        return [*messages[: after - 1], enriched, *messages[after:]]
    # OpenAI calls some of them the developer's, and takes only one of the two in one request.
    return [
        *messages[:after],
        SystemMessage(block, additional_kwargs=dict(prompt.additional_kwargs)),
        *messages[after:],
    ]


def _with_parts(message: BaseMessage, parts: list[Any]) -> BaseMessage:
    return message.model_copy(update={"content": parts})


def _text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _parts(message: BaseMessage) -> list[Any]:
    """Return the parts of a message's content, which may be a mere text."""
    content = message.content
    if isinstance(content, str):
        return [_text_part(content)] if content else []
    return list(content)


def _type(part: object) -> str:
    return str(part.get("type", "")) if isinstance(part, Mapping) else ""


def _is_breakpoint(part: object) -> bool:
    return isinstance(part, Mapping) and any(part.get(name) for name in ("cache_control", "cachePoint", "cache_point"))


def _is_users(message: BaseMessage) -> bool:
    """Return whether the user says something; what only carries tools' results, or a summary, is not the user's."""
    if isinstance(message, ChatMessage):
        return message.role in ("user", "human")
    if not isinstance(message, HumanMessage) or "lc_source" in message.additional_kwargs:
        return False
    return isinstance(message.content, str) or any(_type(part) != "tool_result" for part in message.content)


def _messages(messages: Iterable[BaseMessage]) -> Iterator[Message]:
    names: dict[str, str] = {}
    for message in messages:
        if isinstance(message, AIMessage) or (isinstance(message, ChatMessage) and message.role == "assistant"):
            yield from _assistant(message, names)
        elif isinstance(message, ToolMessage):
            if message.artifact != RECALLED:
                yield from _result(names.get(message.tool_call_id) or message.name, _text(message))
        elif isinstance(message, FunctionMessage):
            yield from _result(message.name, _text(message))
        elif isinstance(message, HumanMessage) or _is_users(message):
            for part in _parts(message):
                if _type(part) == "tool_result":
                    content = part.get("content")
                    text = content if isinstance(content, str) else "\n".join(map(_part, content or ()))
                    yield from _result(names.get(str(part.get("tool_use_id"))), text)
            if _is_users(message):
                yield from _said("user", _text(message), author=message.name)


def _assistant(message: BaseMessage, names: dict[str, str]) -> Iterator[Message]:
    """Yield what a model's message says and calls; note the names of the tools it calls by the calls' ids."""
    texts: list[str] = []
    for block in _blocks(message):
        match block["type"]:
            case "server_tool_call" | "server_tool_call_chunk":
                yield from _said("assistant", "".join(texts))
                texts.clear()
                names[str(block.get("id"))] = str(block.get("name") or "")
                yield from _called(block.get("name"), block.get("args"))
            case "server_tool_result":
                yield from _result(names.get(str(block.get("tool_call_id"))), _output(block.get("output")))
            case _:
                texts.append(_part(block))
    text = "".join(texts) or _aside(message)
    yield from _said("assistant", text, author=message.name)
    if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
        calls: Sequence[Any] = message.tool_call_chunks
    elif isinstance(message, AIMessage):
        calls = [*message.tool_calls, *message.invalid_tool_calls]
    else:
        return
    for call in calls:
        names[str(call["id"])] = call["name"] or ""
        yield from _called(call["name"], call["args"])


def _aside(message: BaseMessage) -> str:
    """Return what OpenAI's models say beside the content: a refusal, or what they spoke."""
    kwargs = message.additional_kwargs
    audio = kwargs.get("audio")
    spoken = audio.get("transcript") if isinstance(audio, Mapping) else None
    return next((text for text in (kwargs.get("refusal"), spoken) if isinstance(text, str)), "")


def _said(role: Literal["user", "assistant"], text: str, *, author: str | None = None) -> Iterator[Message]:
    if text:
        yield Message(role=role, content=text, author=author or None)


def _called(name: str | None, arguments: Any) -> Iterator[Message]:
    if name:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False, default=str)
        yield Message(role="assistant", kind="tool_call", content=f"{name}({text})")


def _result(name: str | None, text: str) -> Iterator[Message]:
    if text:
        yield Message(role="tool", kind="tool_result", content=text, author=name or None)


def _text(message: BaseMessage) -> str:
    return "\n".join(text for block in _blocks(message) if (text := _part(block)))


def _blocks(message: BaseMessage) -> Sequence[Mapping[str, Any]]:
    """Return a content in LangChain's own terms, whatever the provider's are."""
    if isinstance(message.content, str):
        return [_text_part(message.content)]
    return message.content_blocks


def _part(block: Any) -> str:
    """Return one part of a content as text: what is none, as a reference, never the bytes."""
    if isinstance(block, str):
        return block
    match kind := _type(block):
        case "text" | "text-plain" | "refusal":
            return str(block.get(kind if kind == "refusal" else "text") or "")
        case "image" | "audio" | "video" | "file":
            return _reference(kind, block)
    return ""


def _reference(kind: str, block: Mapping[str, Any]) -> str:
    target = block.get("url") or block.get("file_id")
    data = block.get("base64")
    if isinstance(target, str) and not target.startswith("data:"):
        return f"[{kind}: {target}]"
    if isinstance(target, str):
        data = target.partition(",")[2]
    if not isinstance(data, str):
        return ""
    try:
        content = b64decode(data)
    except ValueError:
        content = data.encode()
    return f"[{kind}: {block.get('mime_type') or kind}, sha256 {hashlib.sha256(content).hexdigest()[:16]}]"


def _output(output: Any) -> str:
    """Return what a provider's own tool returned; of what it found, where it is."""
    if isinstance(output, str):
        return output
    items = output if isinstance(output, list) else [output]
    found = [item for item in items if isinstance(item, Mapping)]
    texts = [
        f"[{item['url']}]" if isinstance(item.get("url"), str) else str(item.get("stdout") or "") for item in found
    ]
    return "\n".join(filter(None, texts))
