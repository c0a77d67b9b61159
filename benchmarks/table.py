"""A table that reads well in a terminal and in a README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under a title. The first column is aligned to the left, the others to the right."""

    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """Return it as Markdown, padded so that the columns stand in line."""
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        lines = [f"{self.title}: {self.about}" if self.about else self.title, ""]
        if self.rows:
            rule = [f":{'-' * (widths[0] + 1)}", *(f"{'-' * (width + 1)}:" for width in widths[1:])]
            lines += [self._line(self.columns, widths), f"|{'|'.join(rule)}|"]
            lines += [self._line(row, widths) for row in self.rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes), ""])

    @staticmethod
    def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return f"| {' | '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])} |"
