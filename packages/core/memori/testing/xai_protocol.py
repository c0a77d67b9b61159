"""xAI's protocol: a real gRPC server on this machine, made of the SDK's own servicer.

It answers what a `ProviderServer` is scripted to answer, and notes there what it was asked: HTTP and gRPC requests of
one test are in one list. It needs ``xai-sdk``, which is imported by `XAIServer.start` only.
"""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from memori.errors import MissingExtraError
from memori.testing.provider import ProviderServer
from memori.testing.wire import ProviderRequest, Reply, Turn, fragments

__all__ = ["XAIServer"]

_SERVICE = "/xai_api.Chat/"
_THREADS = 32
# By name, for grpc is imported late.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_ROLES = {1: "user", 2: "assistant", 3: "system", 4: "function", 5: "tool", 6: "developer"}


class XAIServer:
    """xAI's chat service at 127.0.0.1, on a free port: whole replies, streams and deferred ones.

    An error reply is the gRPC status that fits its HTTP status; *cut_after* is UNAVAILABLE, as of a lost connection,
    and *error_after* INTERNAL. The SDK repeats of itself what was UNAVAILABLE before anything came.

    Args:
        provider: Scripted and read as for HTTP; it need not be started itself.
    """

    def __init__(self, provider: ProviderServer) -> None:
        self._provider = provider
        self._server: Any = None
        self._port = 0
        # Set when the server closes, so that no reply is waited for any longer.
        self.closing = threading.Event()

    @property
    def host(self) -> str:
        """Where it listens, as ``api_host`` wants it: ``127.0.0.1:PORT``, without TLS."""
        if self._server is None:
            raise RuntimeError("the xAI server is not running: use it in a with statement, or call start()")
        return f"127.0.0.1:{self._port}"

    def start(self) -> XAIServer:
        """Listen; return this server.

        Raises:
            MissingExtraError: ``xai-sdk`` is not installed.
        """
        try:
            import grpc
            from xai_sdk.proto import chat_pb2_grpc
        except ImportError as error:
            raise MissingExtraError("xai-sdk", extra="xai") from error
        self.closing.clear()
        self._server = grpc.server(futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="xai-server"))
        chat_pb2_grpc.add_ChatServicer_to_server(_servicer(self._provider, self.closing), self._server)
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def close(self) -> None:
        """Stop, and cut off what is still being answered; closing twice is harmless."""
        server, self._server = self._server, None
        if server is not None:
            self.closing.set()
            server.stop(None).wait()

    def __enter__(self) -> XAIServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _servicer(provider: ProviderServer, closing: threading.Event) -> Any:
    """Return the SDK's servicer, its methods answering what *provider* says."""
    import grpc
    from google.protobuf.json_format import MessageToDict
    from xai_sdk.proto import chat_pb2, chat_pb2_grpc, deferred_pb2

    deferred: dict[str, Any] = {}

    def received(method: str, request: Any, context: Any) -> Reply:
        """Return what is to be answered, after its delay; an error is raised here."""
        reply = provider.receive(
            ProviderRequest(
                method="POST",
                path=_SERVICE + method,
                headers={key.lower(): value for key, value in context.invocation_metadata()},
                body=MessageToDict(request, preserving_proto_field_name=True),
                turns=tuple(_turns(request)),
            ),
            "generate",
        )
        wait(reply.delay_s, context)
        if reply.status != 200:
            abort(context, _CODES.get(reply.status, "INTERNAL"), reply.error_message)
        return reply

    def abort(context: Any, code: str, message: str) -> None:
        context.abort(grpc.StatusCode[code], message)

    def wait(seconds: float, context: Any) -> None:
        """Let *seconds* pass; stop here when the client goes."""
        gone = threading.Event()
        if not context.add_callback(gone.set) or (seconds and gone.wait(seconds)):
            context.abort(grpc.StatusCode.CANCELLED, "the client is gone")

    @contextmanager
    def answering(context: Any) -> Iterator[None]:
        """Note that the client cut the answer off, if its call ends before what is done meanwhile does.

        By a callback, for gRPC does not go on with a stream whose client went while a chunk was sent.
        """
        answered = threading.Event()

        def ended() -> None:
            if not answered.is_set() and not closing.is_set():
                provider.note_aborted()

        if not context.add_callback(ended):
            ended()
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException:
            answered.set()
            raise
        answered.set()

    def whole(request: Any, reply: Reply) -> Any:
        response = chat_pb2.GetChatCompletionResponse(id=uuid.uuid4().hex, model=request.model)
        response.created.GetCurrentTime()
        for index in range(max(request.n, 1)):
            output = response.outputs.add(index=index, finish_reason=_finish(reply))
            output.message.role = chat_pb2.MessageRole.ROLE_ASSISTANT
            output.message.content = reply.text if reply.refusal is None else reply.refusal
            output.message.tool_calls.extend(calls(reply))
        _count(response.usage, request, reply)
        return response

    def chunks(request: Any, reply: Reply) -> Iterator[Any]:
        identity = uuid.uuid4().hex
        pieces: list[tuple[str, Sequence[Any]]] = [
            (piece, ()) for piece in fragments(reply.text if reply.refusal is None else reply.refusal)
        ]
        # Unlike text, a call comes in one piece.
        pieces += [("", [call]) for call in calls(reply)]
        for place, (text, called) in enumerate(pieces or [("", ())], start=1):
            chunk = chat_pb2.GetChatCompletionChunk(id=identity, model=request.model)
            chunk.created.GetCurrentTime()
            for index in range(max(request.n, 1)):
                output = chunk.outputs.add(index=index)
                output.delta.role = chat_pb2.MessageRole.ROLE_ASSISTANT
                output.delta.content = text
                output.delta.tool_calls.extend(called)
                if place >= len(pieces):
                    output.finish_reason = _finish(reply)
            _count(chunk.usage, request, reply)
            yield chunk

    def calls(reply: Reply) -> list[Any]:
        made = []
        for wanted in reply.tool_calls:
            call = chat_pb2.ToolCall(id=wanted.id or f"call_{uuid.uuid4().hex}")
            call.type = chat_pb2.ToolCallType.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL
            call.function.name = wanted.name
            call.function.arguments = json.dumps(dict(wanted.arguments), ensure_ascii=False)
            made.append(call)
        return made

    class Servicer(chat_pb2_grpc.ChatServicer):  # type: ignore[misc]
        def GetCompletion(self, request: Any, context: Any) -> Any:
            with answering(context):
                reply = received("GetCompletion", request, context)
                if reply.cut_after == 0:
                    abort(context, "UNAVAILABLE", "Socket closed")
                return whole(request, reply)

        def GetCompletionChunk(self, request: Any, context: Any) -> Iterator[Any]:
            with answering(context):
                reply = received("GetCompletionChunk", request, context)
                stops = [at for at in (reply.error_after, reply.cut_after) if at is not None]
                for place, chunk in enumerate(itertools.islice(chunks(request, reply), min(stops, default=None))):
                    if place:
                        wait(reply.chunk_delay_s, context)
                    yield chunk
                if stops:
                    code = "INTERNAL" if min(stops) == reply.error_after else "UNAVAILABLE"
                    abort(context, code, reply.error_message or "Socket closed")

        def StartDeferredCompletion(self, request: Any, context: Any) -> Any:
            with answering(context):
                reply = received("StartDeferredCompletion", request, context)
            response = whole(request, reply)
            deferred[response.id] = response
            return deferred_pb2.StartDeferredResponse(request_id=response.id)

        def GetDeferredCompletion(self, request: Any, context: Any) -> Any:
            response = deferred.get(request.request_id)
            if response is None:
                abort(context, "NOT_FOUND", f"no deferred completion {request.request_id!r}")
            done = deferred_pb2.DeferredStatus.DONE
            return chat_pb2.GetDeferredCompletionResponse(status=done, response=response)

    return Servicer()


def _finish(reply: Reply) -> Any:
    from xai_sdk.proto import sample_pb2

    reason = sample_pb2.FinishReason
    return reason.REASON_TOOL_CALLS if reply.tool_calls else reason.REASON_STOP


def _count(usage: Any, request: Any, reply: Reply) -> None:
    usage.prompt_tokens = sum(len(turn.text.split()) for turn in _turns(request))
    usage.completion_tokens = len(reply.text.split())
    usage.total_tokens = usage.prompt_tokens + usage.completion_tokens


def _turns(request: Any) -> Iterator[Turn]:
    for message in request.messages:
        asked = [f"{call.function.name}({call.function.arguments})" for call in message.tool_calls]
        said = [content.text for content in message.content if content.text]
        if text := "\n".join([*said, *asked]):
            yield Turn(_ROLES.get(message.role, ""), text)
