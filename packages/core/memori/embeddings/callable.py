"""Any function from texts to vectors, as an Embedder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from memori.embeddings.checked import encodable, unit_rows
from memori.errors import ConfigurationError, DimensionError

if TYPE_CHECKING:
    from memori.types import Vector

__all__ = ["CallableEmbedder", "EmbedFunction"]

# Anything numpy reads as one row of numbers a text: lists, arrays, a tensor on the CPU.
EmbedFunction: TypeAlias = Callable[[list[str]], Any]


class CallableEmbedder:
    """The user's own function ``texts -> vectors``. It must be safe to call from any thread.

    Args:
        function: Is given a list of texts, none of them blank; returns one vector a text, all of the same length.
        model: The name of the space; pass one when the function's own name does not tell its model, because vectors
            are compared whenever the names are the same.
    """

    def __init__(self, function: EmbedFunction, *, model: str | None = None) -> None:
        if not callable(function):
            raise ConfigurationError(f"got {function!r}: pass a function that takes a list of texts")
        self._function = function
        self._model = model or _name(function)
        self._dimensions: int | None = None

    @property
    def model(self) -> str:
        """The name of the space."""
        return self._model

    def embed(self, texts: Sequence[str], *, purpose: Literal["query", "document"]) -> Vector:
        """Return one unit vector a text; a zero row for an empty or blank text, which the function is not shown.

        Raises:
            ConfigurationError: The function returned something that is not one row of finite numbers a text.
            DimensionError: Its vectors are not as long as those it returned before.
        """
        worded = [row for row, text in enumerate(texts) if text.strip()]
        if not worded:
            return np.zeros((len(texts), self._dimensions or 0), dtype=np.float32)
        rows = unit_rows(
            self._function([encodable(texts[row]) for row in worded]), expected=len(worded), source=self._model
        )
        if self._dimensions is None:
            self._dimensions = rows.shape[1]
        elif rows.shape[1] != self._dimensions:
            raise DimensionError(f"{self._model}: got vectors of {rows.shape[1]}, before of {self._dimensions}")
        vectors = np.zeros((len(texts), rows.shape[1]), dtype=np.float32)
        vectors[worded] = rows
        return vectors


def _name(function: EmbedFunction) -> str:
    owner = function if hasattr(function, "__qualname__") else type(function)
    return f"{_module(owner.__module__)}.{owner.__qualname__}"


def _module(name: str) -> str:
    """Return the name that a module has when it is imported: a worker imports what the application runs as a script."""
    main = sys.modules.get("__main__")
    if name != "__main__" or main is None:
        return name
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return name if file is None else Path(file).stem
