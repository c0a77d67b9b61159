"""What importing costs and needs."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

import memori.capture

HEAVY = {"alembic", "chromadb", "numpy", "openai", "pytest", "sqlalchemy", "sqlmodel", "wordllama"}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level packages that a fresh Python has loaded after *statement*."""
    script = f"{statement}\nimport sys\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


LIGHT = ["memori", "memori.types", "memori.errors", "memori.settings", "memori.protocols", "memori.injection"]
CAPTURE = [f"memori.capture.{module.name}" for module in pkgutil.iter_modules(memori.capture.__path__)]
# Each of which is nothing without its framework.
ADAPTERS = {"memori_langchain": "langchain_core", "memori_agno": "agno", "memori_pydantic_ai": "pydantic_ai"}


@pytest.mark.parametrize("module", [*LIGHT, *CAPTURE, *ADAPTERS])
def test_importing_loads_nothing_heavy(module: str) -> None:
    """Fails when a package that takes long to load is imported before it is needed."""
    if module in ADAPTERS and find_spec(ADAPTERS[module]) is None:
        pytest.skip(f"{ADAPTERS[module]} is not installed")
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_every_public_name_can_be_had() -> None:
    """Fails when a name in ``memori.__all__`` is not there, or one is missing from ``dir(memori)``."""
    assert memori.__all__ == sorted(memori.__all__)
    for name in memori.__all__:
        assert getattr(memori, name) is not None
    assert set(memori.__all__) <= set(dir(memori))


def test_the_local_provider_needs_no_test_tools() -> None:
    """Fails when the demo could not run where only memori and openai are installed."""
    assert loaded_by("import memori.testing.provider") & {"pytest", "hypothesis", "blockbuster"} == set()
