"""Embeddings from any endpoint that speaks OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from memori.embeddings.checked import encodable, unit_rows
from memori.errors import ConfigurationError, DimensionError, MissingExtraError

if TYPE_CHECKING:
    from openai import OpenAI

    from memori.types import Vector

__all__ = ["DEFAULT_MODEL", "OpenAIEmbedder"]

DEFAULT_MODEL = "text-embedding-3-small"

_BATCH = 256  # Texts a request. OpenAI takes 2,048 but also limits the tokens of one request to 300,000.
_CHARACTER_LIMIT = (
    24_000  # OpenAI refuses texts of more than 8,192 tokens; three characters a token is on the safe side.
)


class OpenAIEmbedder:
    """An OpenAI-compatible embeddings endpoint, called once for every 256 texts.

    Args:
        client: A client of the openai package. None: one is made from *base_url*, *api_key* and the environment.
        dimensions: Asks the endpoint for shorter vectors, where its model can.

    Raises:
        MissingExtraError: The openai package is not installed.
        ConfigurationError: There is neither *client* nor a key.
    """

    def __init__(
        self,
        client: OpenAI | None = None,
        *,
        model: str = DEFAULT_MODEL,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
    ) -> None:
        if client is None:
            try:
                from openai import OpenAI, OpenAIError
            except ImportError as error:
                raise MissingExtraError("openai", extra="openai") from error
            try:
                client = OpenAI(base_url=base_url, api_key=api_key)
            except OpenAIError as error:
                raise ConfigurationError(f"the embedder openai:{model} cannot be had: {error}") from error
        self._client = client
        self._model = model
        self._asked = dimensions
        self._dimensions = dimensions

    @property
    def model(self) -> str:
        """The name of the space: the model's, and its shortened length if one was asked for."""
        return self._model if self._asked is None else f"{self._model}-{self._asked}"

    def embed(self, texts: Sequence[str], *, purpose: Literal["query", "document"]) -> Vector:
        """Return one unit vector a text; a zero row for an empty or blank text, which is not sent.

        Only the first 24,000 characters of a text are sent.

        Raises:
            openai.OpenAIError: The endpoint could not be reached or refused.
            ConfigurationError: It answered with something that is not one vector a text.
            DimensionError: Its vectors are not as long as those it returned before.
        """
        worded = [row for row, text in enumerate(texts) if text.strip()]
        parts = [
            self._request([texts[row] for row in worded[at : at + _BATCH]]) for at in range(0, len(worded), _BATCH)
        ]
        vectors = np.zeros((len(texts), self._dimensions or 0), dtype=np.float32)
        if parts:
            vectors[worded] = np.concatenate(parts)
        return vectors

    def _request(self, texts: list[str]) -> Vector:
        sent = [encodable(text[:_CHARACTER_LIMIT]) for text in texts]
        # "float" is named because the SDK otherwise asks for base64, which several compatible servers do not speak.
        if self._asked is None:
            response = self._client.embeddings.create(model=self._model, input=sent, encoding_format="float")
        else:
            response = self._client.embeddings.create(
                model=self._model, input=sent, encoding_format="float", dimensions=self._asked
            )
        rows = unit_rows(
            [item.embedding for item in sorted(response.data, key=lambda item: item.index)],
            expected=len(texts),
            source=self._model,
        )
        if self._dimensions is None:
            self._dimensions = rows.shape[1]
        elif rows.shape[1] != self._dimensions:
            raise DimensionError(f"{self._model}: got vectors of {rows.shape[1]}, before of {self._dimensions}")
        return rows
