"""Imported once by the process that others are forked from: all that a `Memori` loads when it is first used."""

from memori import Memori
from memori.cli import commands

__all__: list[str] = []

commands()
with Memori("sqlite://", worker=False) as _mem:
    _mem.config.storage.build()
    _mem.capture([{"role": "user", "content": "I like tea."}], entity_id="nobody")
    _mem.augmentation.run()
