"""Pydantic AI's messages → memori's, and memori's block → a request of Pydantic AI's. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextContent,
    UploadedFile,
    UserContent,
    UserPromptPart,
)

from memori.types import Message

__all__ = ["RECALLED", "reply", "sent", "with_block"]

Prompt = str | Sequence[UserContent] | None

RECALLED = {"memori": "recalled"}  # What a tool's result carries, unseen by the model, when it came out of memory.
_OUTPUT = "final_result"  # How Pydantic AI names the tools that give a run's output, unless the application does.


def sent(history: Sequence[ModelMessage], *, prompt: Prompt = None, outputs: Collection[str] = ()) -> list[Message]:
    """Return what the user, the model and the tools said, oldest first.

    Args:
        prompt: The run's own. A user's part beside results of tools is otherwise taken for theirs, and left out.
        outputs: The names of the tools that give the run's output: to call one is to answer.
    """
    said: list[Message] = []
    for message in history:
        if isinstance(message, ModelResponse):
            said += reply(message, outputs=outputs)
            continue
        for part in message.parts:
            if isinstance(part, UserPromptPart):
                if _is_users(message, part, prompt):
                    said.append(Message(role="user", content=_text(part.content)))
            elif isinstance(part, BaseToolReturnPart):
                said += _result(part, outputs)
            elif part.part_kind == "retry-prompt" or part.part_kind == "retry-feedback":
                said.append(Message(role="tool", kind="tool_result", content=part.model_response()))
    return said


def reply(response: ModelResponse, *, outputs: Collection[str] = ()) -> list[Message]:
    """Return what a response says and calls, in order."""
    said: list[Message] = []
    texts: list[str] = []

    def flush() -> None:
        if texts:
            said.append(Message(role="assistant", content="\n".join(texts)))
            texts.clear()

    for part in response.parts:
        if isinstance(part, BaseToolCallPart):
            if _is_output(part.tool_name, outputs):
                texts.append(part.args_as_json_str())
                continue
            flush()
            called = f"{part.tool_name}({part.args_as_json_str()})"
            said.append(Message(role="assistant", kind="tool_call", content=called))
        elif isinstance(part, BaseToolReturnPart):
            flush()
            said += _result(part, outputs)
        elif part.part_kind == "text" or part.part_kind == "speech":
            if part.content:
                texts.append(part.content)
        elif part.part_kind == "file":
            texts.append(_reference(part.content))
    flush()
    return said


def with_block(
    history: Sequence[ModelMessage], block: str, *, role: Literal["user", "system"], prompt: Prompt = None
) -> list[ModelMessage]:
    """Return *history* with *block* in a part of its own before the user's last; as it is when there is none.

    Neither the list nor its messages are changed, for the agent keeps them.
    """
    messages = list(history)
    requests = [(at, message) for at, message in enumerate(messages) if isinstance(message, ModelRequest)]
    for at, request in reversed(requests):
        for place, part in reversed([*enumerate(request.parts)]):
            if not isinstance(part, UserPromptPart) or not _is_users(request, part, prompt):
                continue
            if role == "user":
                # With the time of the user's part: the block of each request of a turn is the same.
                messages[at] = _request_with_block(request, replace(part, content=block), place)
            else:
                first, opening = requests[0]
                after = (n for n, found in enumerate(opening.parts) if not isinstance(found, SystemPromptPart))
                messages[first] = _request_with_block(
                    opening, SystemPromptPart(block, timestamp=part.timestamp), next(after, len(opening.parts))
                )
            return messages
    return messages


def _request_with_block(request: ModelRequest, part: SystemPromptPart | UserPromptPart, place: int) -> ModelRequest:
    return replace(request, parts=[*request.parts[:place], part, *request.parts[place:]])


def _is_users(request: ModelRequest, part: UserPromptPart, prompt: Prompt) -> bool:
    # What a tool returns beside its result goes to the model as a user's part, too: nobody may take it for the user.
    return part.content == prompt or not any(isinstance(found, BaseToolReturnPart) for found in request.parts)


def _result(part: BaseToolReturnPart, outputs: Collection[str]) -> Iterator[Message]:
    if part.metadata == RECALLED or (_is_output(part.tool_name, outputs) and part.outcome == "success"):
        return
    content = "\n".join([text for text in (part.model_response_str(), *map(_reference, part.files)) if text])
    yield Message(role="tool", kind="tool_result", author=part.tool_name, content=content)


def _is_output(tool_name: str, outputs: Collection[str]) -> bool:
    return tool_name in outputs or tool_name == _OUTPUT or tool_name.startswith(f"{_OUTPUT}_")


def _text(content: str | Sequence[UserContent]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(text for item in content if (text := _reference(item)))


def _reference(item: object) -> str:
    """Return an item of a content as text: what is none, as a reference, never the bytes."""
    if isinstance(item, str):
        return item
    if isinstance(item, TextContent):
        return item.content
    if isinstance(item, BinaryContent):
        kind = item.media_type.partition("/")[0]
        kind = kind if kind in ("image", "audio", "video") else "file"
        return f"[{kind}: {item.media_type}, sha256 {hashlib.sha256(item.data).hexdigest()[:16]}]"
    if isinstance(item, UploadedFile):
        return f"[file: {item.file_id}]"
    url = getattr(item, "url", None)  # Of an image, audio, video or document.
    if not isinstance(url, str):
        return ""
    kind = str(getattr(item, "kind", "file")).removesuffix("-url")
    if url.startswith("data:"):
        return f"[{kind}: data, sha256 {hashlib.sha256(url.encode()).hexdigest()[:16]}]"
    return f"[{kind}: {url}]"
