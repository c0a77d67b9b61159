"""The examples run as they stand, each as a program of its own, against the local provider."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
# What an example needs that cannot be had beside the oldest of everything else.
NEEDS = {
    "agno_agent.py": "agno.models.openai",
    "agno_team.py": "agno.models.openai",
    "bedrock_chat.py": "langchain_aws.chat_models",
    "langchain_agent.py": "langchain_openai",
    "pydantic_ai_agent.py": "pydantic_ai.models.openai",
}


def run(example: Path, folder: Path) -> str:
    theirs = ("AWS_", "BEDROCK_", "MEMORI_", "OPENAI_", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=folder,
        # A busy machine must not change what the examples show.
        env={**environment, "TMPDIR": str(folder), "MEMORI_RECALL_TIMEOUT_S": "10", "MEMORI_CAPTURE_TIMEOUT_S": "10"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs_by_itself(example: Path, tmp_path: Path) -> None:
    """Fails when an example raises, warns or says nothing."""
    if example.name in NEEDS:
        pytest.importorskip(NEEDS[example.name], exc_type=ImportError)
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


def test_the_pydantic_ai_example_remembers_between_runs(tmp_path: Path) -> None:
    """Fails when the second run's answer does not come from the first, or the run's history holds what was recalled."""
    pytest.importorskip(NEEDS["pydantic_ai_agent.py"], exc_type=ImportError)
    printed = run(EXAMPLES / "pydantic_ai_agent.py", tmp_path)
    suggested, _, rest = printed.partition("What is known of the user:")
    known, _, stored = rest.partition("What was stored of the second run:")
    assert "Suggested: Zermatt, by the train at 09:28. The user loves the mountains." in suggested
    assert "asked for a train to Zermatt" in known
    assert "user (text): Suggest a trip: mountains or sea, whichever I love more." in stored
    assert "assistant (tool_call): train_to(" in stored
    assert "tool (tool_result): 09:28" in stored
    assert "history: False" in stored


def test_the_langchain_example_remembers_between_threads(tmp_path: Path) -> None:
    """Fails when a second thread's answer does not come from the first, or is another user's, or a thread holds it."""
    pytest.importorskip(NEEDS["langchain_agent.py"], exc_type=ImportError)
    printed = run(EXAMPLES / "langchain_agent.py", tmp_path)
    suggested, _, rest = printed.partition("What is known of ann:")
    known, _, stored = rest.partition("What was stored of her second run:")
    assert "Suggested to ann: Zermatt, by the train at 09:28: sunny" in suggested
    assert "Suggested to bob: Venice, by the train at 10:02: rain" in suggested
    assert "The user loves the mountains." in known
    assert "sea" not in known
    assert "user (text): Suggest a trip: mountains or sea, whichever I love more." in stored
    assert 'assistant (tool_call): train_to({"city": "Zermatt"})' in stored
    assert "tool (tool_result): 09:28" in stored
    assert "own messages: False" in stored


def test_the_bedrock_example_remembers_each_user_by_themselves(tmp_path: Path) -> None:
    """Fails when an answer does not come from what its user said before, or one user is told what another said."""
    pytest.importorskip(NEEDS["bedrock_chat.py"], exc_type=ImportError)
    printed = run(EXAMPLES / "bedrock_chat.py", tmp_path)
    _, _, later = printed.partition("only memory connects the calls.")
    assert "ann: What is my favorite food?\n  The user's favorite food is ramen.\n" in later
    assert "ben: What is my favorite food?\n  The user's favorite food is pizza.\n" in later
    assert "of ann: The user's favorite food is ramen." in later
    assert "of ben: The user's favorite food is pizza." in later


def test_the_agno_agent_remembers_each_user(tmp_path: Path) -> None:
    """Fails when a user's second session knows nothing or another's, or Agno's own holds what was recalled."""
    pytest.importorskip(NEEDS["agno_agent.py"], exc_type=ImportError)
    printed = run(EXAMPLES / "agno_agent.py", tmp_path)
    suggested, _, rest = printed.partition("What is known:")
    known, _, stored = rest.partition("What was stored of ann's second run:")
    assert "To ann: Take the train to Zermatt at 09:28: you love the mountains." in suggested
    assert "To bob: Take the train to Venice at 10:02: you love the sea." in suggested
    assert known.split("\n")[1:3] == ["  of ann: The user loves the mountains.", "  of bob: The user loves the sea."]
    assert "assistant (tool_call): train_to(" in stored
    assert "tool (tool_result): 09:28" in stored
    assert "Memories in Agno's own session: False" in stored


def test_the_agno_team_takes_no_task_for_the_users_word(tmp_path: Path) -> None:
    """Fails when the leader is not told what matters, or its task to a member becomes a fact about the user."""
    pytest.importorskip(NEEDS["agno_team.py"], exc_type=ImportError)
    printed = run(EXAMPLES / "agno_team.py", tmp_path)
    told, _, rest = printed.partition("What was stored of the second run:")
    stored, _, known = rest.partition("What is known of the user, of which the leader's task is no part:")
    assert "The cook proposes: Shoyu ramen with mushrooms in place of pork." in told
    assert stored.count("user (text)") == 1
    assert "The user's favorite food is ramen." in stored
    assert "tool (tool_result): Shoyu ramen with mushrooms in place of pork." in stored
    assert "preference: The user's favorite food is ramen." in known
    assert "Propose" not in known
