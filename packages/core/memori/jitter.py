"""Pauses of unequal length, so that many who wait for the same do not come back in step."""

from __future__ import annotations

from random import SystemRandom

__all__ = ["jittered"]

# Not the module's own generator: its state is the application's, which may have seeded it.
_CHANCE = SystemRandom()


def jittered(pause_s: float, *, least: float) -> float:
    """Return a part of *pause_s* by chance, at least the share *least*, in [0, 1], of it."""
    return pause_s * _CHANCE.uniform(least, 1.0)
