"""A provider on this machine: a real HTTP server that speaks providers' protocols to their real SDKs.

Tests script it, examples and the demo run against it. It needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import http
import http.server
import json
import logging
import re
import socket
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from memori.testing.anthropic_protocol import AnthropicProtocol
from memori.testing.bedrock_protocol import BedrockProtocol
from memori.testing.google_protocol import GoogleProtocol
from memori.testing.openai_protocol import OpenAIProtocol
from memori.testing.wire import Call, ProviderRequest, Reply, Response, ToolCall, Turn, WireProtocol

__all__ = ["ProviderRequest", "ProviderServer", "Reply", "ToolCall", "answer_from_context"]

log = logging.getLogger(__name__)

# The first that recognises a path has it.
_PROTOCOLS: tuple[WireProtocol, ...] = (OpenAIProtocol(), GoogleProtocol(), BedrockProtocol(), AnthropicProtocol())


class ProviderServer:
    """A provider at 127.0.0.1, on a free port. Safe to use from any thread.

    Each request that asks a model takes the next scripted reply, or the answer to it when none is left. Requests are
    kept as they came. Error replies ask the SDK to retry after 10 ms, so that its retries cost no time.

    Args:
        answer: What to say when nothing is scripted. A text is a `Reply` with it. When it raises, the client is
            answered with status 500 and the reason.
    """

    def __init__(self, answer: Callable[[ProviderRequest], Reply | str] | None = None) -> None:
        self._answer = answer or (lambda request: "Understood.")
        self._lock = threading.Lock()
        self._requests: list[ProviderRequest] = []
        self._scripted: deque[tuple[str | None, Reply]] = deque()
        self._aborted = 0
        self._http: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a path: ``http://127.0.0.1:PORT``."""
        if self._http is None:
            raise RuntimeError("the provider server is not running: use it in a with statement, or call start()")
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def requests(self) -> list[ProviderRequest]:
        """A copy of what was received so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def aborted(self) -> int:
        """How many responses the client cut off: it was gone before the last of them was sent."""
        with self._lock:
            return self._aborted

    def script(self, *replies: Reply, path: str | None = None) -> None:
        """Line up what is to be answered next, first in first out.

        Args:
            replies: Each answers one request.
            path: Only for requests whose path ends with it. Without, a reply waits for a request that asks a model,
                so that embeddings and lists of models take none of them.
        """
        with self._lock:
            self._scripted.extend((path, reply) for reply in replies)

    def start(self) -> ProviderServer:
        """Listen; return this server."""
        if self._http is not None:
            raise RuntimeError("the provider server is running already")
        self._http = _Server(self)
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, name="provider-server", daemon=True
        )
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop, and cut off what is still being answered. Requests stay readable; closing twice is harmless."""
        server, thread = self._http, self._thread
        if server is None or thread is None:
            return
        self._http = self._thread = None
        server.shutdown()
        thread.join()
        server.server_close()
        server.hang_up()

    def __enter__(self) -> ProviderServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def receive(self, request: ProviderRequest, call: Call) -> Reply:
        """Note *request* and return what is to be answered. What a server of another transport calls, too."""
        with self._lock:
            self._requests.append(request)
            for position, (path, reply) in enumerate(self._scripted):
                if request.path.endswith(path) if path is not None else call == "generate":
                    del self._scripted[position]
                    return reply
        if call == "lookup":
            return Reply()
        try:
            answer = self._answer(request)
        except Exception as error:
            log.exception("the answer function of the provider server failed")
            return Reply(status=500, error_message=f"the answer function failed: {error!r}")
        return Reply(text=answer) if isinstance(answer, str) else answer

    def note_aborted(self) -> None:
        """Count a response that the client cut off."""
        with self._lock:
            self._aborted += 1


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, provider: ProviderServer) -> None:
        self.provider = provider
        self.closing = False
        self._handlers: dict[socket.socket, threading.Thread] = {}
        self._handlers_lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def enter(self, connection: socket.socket) -> None:
        with self._handlers_lock:
            if self.closing:
                raise _ClientGoneError
            self._handlers[connection] = threading.current_thread()

    def leave(self, connection: socket.socket) -> None:
        with self._handlers_lock:
            self._handlers.pop(connection, None)

    def hang_up(self) -> None:
        """End every connection and wait for their threads."""
        with self._handlers_lock:
            self.closing = True
            handlers = list(self._handlers.items())
        for connection, _ in handlers:
            with contextlib.suppress(OSError):  # The client may have closed it meanwhile.
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in handlers:
            thread.join(timeout=5.0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away is what half of the tests are about, not an error of this server.
        if not isinstance(sys.exception(), ConnectionError):
            log.exception("the provider server failed")


class _ClientGoneError(ConnectionError):
    """The client closed the connection before it had its response."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.enter(self.connection)

    def finish(self) -> None:
        self.server.leave(self.connection)
        super().finish()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    def _serve(self) -> None:
        url = urlsplit(self.path)
        protocol, call = _recognised(self.command, url.path)
        length = self.headers.get("content-length", "0")
        raw = self.rfile.read(int(length)) if length.isdecimal() else b""
        body = _json_object(raw)
        request = ProviderRequest(
            method=self.command,
            path=url.path,
            query=dict(parse_qsl(url.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body or {},
            turns=protocol.turns(url.path, body) if body and call else (),
        )
        reply = self.server.provider.receive(request, call or "lookup")
        if reply.status != 200:
            response = protocol.failure(reply.status, reply.error_message)
        elif call is None:
            response = protocol.failure(404, f"Unknown request URL: {self.command} {url.path}")
        elif body is None and self.command == "POST":
            response = protocol.failure(400, "The body of the request is not a JSON object.")
        else:
            try:
                response = protocol.respond(request, reply)
            except ValueError as error:
                response = protocol.failure(400, str(error))
        try:
            self._send(response, reply)
        except ConnectionError:
            self.close_connection = True
            if not self.server.closing:
                self.server.provider.note_aborted()

    def _send(self, response: Response, reply: Reply) -> None:
        self._wait(reply.delay_s)
        chunks = list(response.chunks)
        kept = chunks if reply.cut_after is None else chunks[: reply.cut_after]
        pieces = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in kept] if response.streamed else kept
        if len(kept) < len(chunks):
            self.close_connection = True
        elif response.streamed:
            # In one segment with the last chunk: a client that stops at the last event has then read the end, too.
            pieces = [*pieces[:-1], b"".join([*pieces[-1:], b"0\r\n\r\n"])]
        head = self._head(response, reply, size=None if response.streamed else sum(map(len, chunks)))
        self.connection.sendall(head + b"".join(pieces[:1]))
        for piece in pieces[1:]:
            self._wait(reply.chunk_delay_s)
            self.connection.sendall(piece)

    def _head(self, response: Response, reply: Reply, *, size: int | None) -> bytes:
        headers = {
            "content-type": response.content_type,
            "transfer-encoding" if size is None else "content-length": "chunked" if size is None else str(size),
            "x-request-id": f"req_{uuid.uuid4().hex}",
        }
        if response.status != 200:
            headers["retry-after-ms"] = "10"
        headers |= response.headers
        headers |= {name.lower(): value for name, value in reply.headers.items()}
        lines = [
            f"HTTP/1.1 {response.status} {_phrase(response.status)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _wait(self, seconds: float) -> None:
        """Let *seconds* pass; return at once, by `_ClientGoneError`, when the client goes."""
        end = time.monotonic() + seconds
        self.connection.settimeout(seconds)
        try:
            gone = self.connection.recv(1, socket.MSG_PEEK) == b""
        except (TimeoutError, BlockingIOError):
            return
        finally:
            self.connection.settimeout(None)
        if gone:
            raise _ClientGoneError
        # It has sent its next request already: nothing tells any more whether it goes.
        time.sleep(max(end - time.monotonic(), 0.0))


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def _recognised(method: str, path: str) -> tuple[WireProtocol, Call | None]:
    for protocol in _PROTOCOLS:
        if call := protocol.recognise(method, path):
            return protocol, call
    return _PROTOCOLS[0], None


def _json_object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


_QUESTION_MARK = re.compile("[?\uff1f\u061f]")  # Latin, full-width, Arabic.
_ASKS = re.compile(
    r"(?:what|who|whom|whose|where|when|which|why|how|do|does|did|is|are|was|were|am|can|could|should|would|will|has|have"
    r"|had|tell|remind|name|list|show)\b",
    re.IGNORECASE,
)
_STOP_WORD_LIST = (
    "a about am an and any are as at be been but by can could did do does for from had has have he her his how i if in"
    " is it its list me mine my of on or our please remind s she should show so tell that the their them they this to"
    " was we were what when where which who whom whose why will with would you your user"
)
_STOP_WORDS = frozenset(_STOP_WORD_LIST.split())
_BULLET = re.compile(r"^(?:[-*•>]|\d+[.)])\s+")


def answer_from_context(request: ProviderRequest) -> str:
    """Return what a small, honest model would answer: only what it was told in this very request.

    A question is answered by the line, among all that comes before it, that shares the most content words with it;
    of equals the one that says the least else, then the latest said. Its label is left out, and questions answer
    nothing. When no line shares a word: "I don't know." A statement is acknowledged.
    """
    last = max((place for place, turn in enumerate(request.turns) if turn.role == "user"), default=None)
    if last is None:
        return "Hello."
    question = request.turns[last].text
    if not (_QUESTION_MARK.search(question) or _ASKS.match(question.strip())):
        return "Thank you, noted."
    asked = _content_words(question)
    ranked = [
        (len(shared), len(shared) / len(words), place, -number, line)
        for place, number, line in _lines(request.turns[:last])
        if (words := _content_words(line)) and (shared := words & asked) and not _QUESTION_MARK.match(line[-1])
    ]
    return _unlabelled(max(ranked)[-1], asked) if ranked else "I don't know."


def _unlabelled(line: str, asked: frozenset[str]) -> str:
    """Return *line* without its label (``2026-05-01, fact: …``), unless the label is a part of the answer."""
    label, _, rest = line.partition(": ")
    return rest if rest and not _content_words(label) & asked else line


def _lines(turns: Iterable[Turn]) -> Iterable[tuple[int, int, str]]:
    for place, turn in enumerate(turns):
        for number, line in enumerate(turn.text.splitlines()):
            if text := _BULLET.sub("", line.strip()):
                yield place, number, text


def _content_words(text: str) -> frozenset[str]:
    words = re.findall(r"\w+", text.casefold())
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in words if word not in _STOP_WORDS)
