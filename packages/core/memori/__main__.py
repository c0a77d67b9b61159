"""``python -m memori``: the command line."""

from memori.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    raise SystemExit(main())
