"""Agno's messages → memori's, and memori's block → a request of Agno's. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from agno.models.message import Message as AgnoMessage
from agno.models.response import ModelResponse

from memori.types import Message

__all__ = ["RECALLED", "own_words", "reply", "sent", "spoken_by", "with_block"]

SEARCHES = ("search_memory", "known_facts")
RECALLED = '{"recalled": '  # How their results begin: what came out of memory is not learned again.

# What Agno appends to the user's words, and what it says in their name.
_ADDED = (
    "\n\nUse the following references from the knowledge base if it helps:\n<references>",
    "\n\n<additional context>\n",
)


def sent(messages: Sequence[AgnoMessage], run: Any = None) -> list[Message]:
    """Return what the user, the model and the tools said in *run*, oldest first.

    History is left out: it was stored when it was said, and Agno may replay one user's to another.

    Args:
        run: The run that the request is a part of; None: a model is asked by itself, and all is the user's.
    """
    given = getattr(getattr(run, "input", None), "input_content", None)
    left = _inputs(given)
    examples = {id(message) for message in getattr(run, "additional_input", None) or ()}
    said: list[Message] = []
    for message in messages:
        if message.from_history or message.temporary or id(message) in examples:
            continue
        if message.role == "user":
            # More than the run was given is Agno's own: files that tools made, guidance for another try.
            if run is None or left > 0:
                left -= 1
                said += _users(message, given)
        elif message.role == "assistant":
            left -= isinstance(given, list)
            said += _assistants(message.get_content_string(), message.tool_calls)
        elif message.role == "tool":
            said += _result(message)
    return said


def reply(response: ModelResponse) -> list[Message]:
    """Return what a response says and calls, in order."""
    text = response.content if isinstance(response.content, str) else ""
    if not text and response.audio is not None:
        text = getattr(response.audio, "transcript", None) or ""
    if not text and response.parsed is not None:
        text = str(response.parsed)
    return [*_assistants(text, response.tool_calls)]


def spoken_by(author: str, messages: Sequence[Message]) -> list[Message]:
    """Return *messages* with what stands there as the user's word as that of *author*, the model that wrote it."""
    return [
        Message(role="assistant", content=message.content, author=author or None) if message.role == "user" else message
        for message in messages
    ]


def own_words(content: str) -> str:
    """Return the user's words without what Agno adds to them for the model."""
    return content[: min((at for mark in _ADDED if (at := content.find(mark)) >= 0), default=len(content))]


def with_block(
    messages: Sequence[AgnoMessage], block: str, *, role: Literal["user", "system"], inside: bool = False
) -> list[AgnoMessage]:
    """Return *messages* with *block* before the run's last words of the user's; as they are when there are none.

    Neither the list nor its messages are changed, for the run keeps them.

    Args:
        inside: Whether to put it into the user's message, as a part of its own: where roles have to alternate.
    """
    changed = list(messages)
    spoken = [at for at, message in enumerate(changed) if message.role == "user" and not message.temporary]
    # What follows a tool's result is not the user's, but what Agno says for the tool.
    own = [at for at in spoken if not at or changed[at - 1].role != "tool" or changed[at - 1].from_history]
    if not own:
        return changed
    last = changed[own[-1]]
    if role == "system":
        first = changed[0]
        if first.role in ("system", "developer") and isinstance(first.content, str):
            changed[0] = first.model_copy(update={"content": f"{first.content}\n\n{block}"})
        else:
            changed.insert(0, AgnoMessage(role="system", content=block))
    elif inside:
        parts = last.content if isinstance(last.content, list) else [{"text": last.content or ""}]
        changed[own[-1]] = last.model_copy(update={"content": [{"text": block}, *parts]})
    else:
        changed.insert(own[-1], AgnoMessage(role="user", content=block))
    return changed


def _inputs(given: Any) -> int:
    """Return how many messages a run was given."""
    if isinstance(given, list) and given and (isinstance(given[0], AgnoMessage) or _is_message(given[0])):
        return len(given)
    return 1


def _is_message(given: Any) -> bool:
    return isinstance(given, dict) and "role" in given


def _users(message: AgnoMessage, given: Any) -> Iterator[Message]:
    text = given if isinstance(given, str) else own_words(_text(message.content))
    content = "\n".join(part for part in (text, *_files(message)) if part)
    if content:
        yield Message(role="user", content=content, author=message.name)


def _assistants(text: str, calls: Sequence[Any] | None) -> Iterator[Message]:
    if text:
        yield Message(role="assistant", content=text)
    for call in calls or ():
        function = call.get("function", call) if isinstance(call, dict) else {}
        if name := function.get("name"):
            arguments = function.get("arguments") or "{}"
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
            yield Message(role="assistant", kind="tool_call", content=f"{name}({text})")


def _result(message: AgnoMessage) -> Iterator[Message]:
    content = _text(message.content)
    if content and not (message.tool_name in SEARCHES and content.startswith(RECALLED)):
        yield Message(role="tool", kind="tool_result", author=message.tool_name, content=content)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content if part)
    return content or ""


def _files(message: AgnoMessage) -> Iterator[str]:
    """Yield what stands for the files that came along: never their bytes."""
    for kind, files in (
        ("image", message.images),
        ("audio", message.audio),
        ("video", message.videos),
        ("file", message.files),
    ):
        yield from (_reference(kind, file) for file in files or ())


def _reference(kind: str, file: Any) -> str:
    if url := getattr(file, "url", None):
        return f"[{kind}: {url}]"
    if path := getattr(file, "filepath", None):
        return f"[{kind}: {path}]"
    data = getattr(file, "content", None)
    if isinstance(data, (str, bytes)):
        data = data.encode() if isinstance(data, str) else data
        return f"[{kind}: {getattr(file, 'mime_type', None) or kind}, sha256 {hashlib.sha256(data).hexdigest()[:16]}]"
    return ""
