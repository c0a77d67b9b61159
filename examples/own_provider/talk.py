"""A parrot with a memory. Install this folder beside memori first: ``pip install examples/own_provider``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from parrot import Parrot

from memori import Memori


def main() -> None:
    """Tell one parrot something, ask another."""
    with tempfile.TemporaryDirectory() as folder, Memori(conn=Path(folder) / "memori.db") as mem:
        mem.config.storage.build()
        mem.attribution(entity_id="ann")

        first = Parrot()
        mem.llm.register(first)
        print("first parrot:", first.say([{"who": "me", "words": "My favorite color is blue."}]).words)
        mem.augmentation.wait(timeout=30)

        second = Parrot()
        mem.llm.register(second)
        question = "What is my favorite color?"
        print("second parrot:", second.say([{"who": "me", "words": question}]).words)
        print("word by word:", *second.say([{"who": "me", "words": question}], stream=True))

        mem.llm.unregister(second)
        print("without memory:", second.say([{"who": "me", "words": question}]).words)


if __name__ == "__main__":
    main()
