"""A run's model, below which memori stands aside: the SDK's client may be registered, too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from memori import Memori

__all__ = ["AnsweringModel"]


class AnsweringModel(WrapperModel):
    """Asks *wrapped*, and keeps *memori* out of the calls that this makes: the conversation has its turn already."""

    def __init__(self, wrapped: Model, memori: Memori) -> None:
        super().__init__(wrapped)
        self._memori = memori

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        with self._memori.answering():
            return await self.wrapped.request(messages, model_settings, model_request_parameters)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncGenerator[StreamedResponse, None]:
        async with AsyncExitStack() as stack:
            # Only while the stream is opened: what its reader asks of other models meanwhile is heard.
            with self._memori.answering():
                response = await stack.enter_async_context(
                    self.wrapped.request_stream(messages, model_settings, model_request_parameters, run_context)
                )
            yield response
