"""The examples run as they stand, each as a program of its own, against the local provider."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(example: Path, folder: Path) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "MEMORI_", "PYTEST_"))
    }
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=folder,
        env={**environment, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs_by_itself(example: Path, tmp_path: Path) -> None:
    """Fails when an example raises, warns or says nothing."""
    assert run(example, tmp_path)


def test_the_quick_example_shows_the_whole_path(tmp_path: Path) -> None:
    """Fails when the second client's answer does not come from what the first was told, or a step is not shown."""
    printed = run(EXAMPLES / "quickstart.py", tmp_path)
    assert "OPENAI_API_KEY is not set" in printed
    captured, _, rest = printed.partition("Facts that came out:")
    facts, _, rest = rest.partition("What the model was sent:")
    request, _, answer = rest.partition("It answered:")
    assert "user: My favorite color is blue." in captured
    assert "assistant: " in captured
    assert "blue" in facts
    assert "user" in facts
    assert "<memories " in request
    assert "blue" in request
    assert request.rstrip().endswith("user: What is my favorite color?")
    assert "blue" in answer.splitlines()[0]
