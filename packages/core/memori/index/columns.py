"""Arrays that grow at their end in amortised constant time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Column"]

_LEAST_CAPACITY = 64


class Column:
    """One growing column of numbers, or of vectors when *width* is given. Not safe for threads by itself."""

    def __init__(self, dtype: npt.DTypeLike, *, width: int | None = None) -> None:
        self._shape: tuple[int, ...] = () if width is None else (width,)
        self._buffer = np.zeros((_LEAST_CAPACITY, *self._shape), dtype=dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> npt.NDArray[Any]:
        """The numbers, without a copy: writing to it changes them; the next `extend` may leave it behind."""
        return self._buffer[: self._size]

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return self._buffer.nbytes

    def extend(self, values: npt.ArrayLike) -> None:
        """Add *values* at the end."""
        added = np.asarray(values, dtype=self._buffer.dtype)
        size = self._size + len(added)
        if size > len(self._buffer):
            buffer = np.zeros((max(size, self._size * 3 // 2), *self._shape), dtype=self._buffer.dtype)
            buffer[: self._size] = self.values
            self._buffer = buffer
        self._buffer[self._size : size] = added
        self._size = size
