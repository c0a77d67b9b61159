"""The example of a provider that memori does not know: installed by its own metadata, and held to its contract."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "own_provider"


def installed(folder: Path) -> Path:
    """Return where the example's modules are importable and its entry points known, as an installation leaves them."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
    for name in project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]:
        (folder / name).write_bytes((EXAMPLE / name).read_bytes())
    lines = []
    for group, entries in project["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    metadata = folder / "parrot_memori-1.0.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot-memori\nVersion: 1.0\n", encoding="utf-8")
    return folder


def run(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MEMORI_", "PYTEST_"))}
    patient = {"MEMORI_RECALL_TIMEOUT_S": "10", "MEMORI_CAPTURE_TIMEOUT_S": "10"}
    finished = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**environment, **patient, "PYTHONPATH": str(folder), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout


def test_the_example_remembers(tmp_path: Path) -> None:
    """Fails when a third party's adapter is not found, or its clients go without memories or cannot be given back."""
    lines = run(installed(tmp_path), str(EXAMPLE / "talk.py")).splitlines()
    said = {line.partition(": ")[0]: line.partition(": ")[2] for line in lines if ": " in line}
    assert said["first parrot"] == "Squawk!"
    assert said["without memory"] == "Squawk!"
    printed = "\n".join(lines)
    second, _, rest = printed.partition("second parrot:")[2].partition("word by word:")
    assert "favorite color is blue" in second
    assert "favorite color is blue" in rest


CONTRACT = """
import gc
from memori.testing.listening import BLOCK, ListeningHooks
from parrot import Parrot
from parrot_memori import adapter

lines = [{"who": "me", "words": "One."}, {"who": "parrot", "words": "Two."}, {"who": "me", "words": "Three."}]
before = [dict(line) for line in lines]
both, client = (ListeningHooks("A."), ListeningHooks("B.")), Parrot()
for hooks in both:
    adapter.register(client, hooks)
    adapter.register(client, hooks)
assert client.say(lines).words == "One. Two. A. B."
assert lines == before
assert [hooks.turn.said for hooks in both] == ["One. Two. A. B."] * 2
assert [message.content for message in both[0].turn.sent] == ["One.", "Two.", "Three."]
stream = client.say(lines, stream=True)
assert next(stream) == "One."
del stream
gc.collect()
assert [(hooks.turns[1].said, hooks.turns[1].partial) for hooks in both] == [("One.", True)] * 2
for hooks in both:
    assert adapter.unregister(client, hooks)
    assert not adapter.unregister(client, hooks)
assert vars(client) == {}
assert [hooks.failures for hooks in both] == [[], []]
"""


def test_the_example_keeps_the_contract(tmp_path: Path) -> None:
    """Fails when the adapter that others copy changes what it is given, counts twice or leaves something behind."""
    run(installed(tmp_path), "-c", CONTRACT)


def test_the_page_shows_what_the_example_has() -> None:
    """Fails when the entry point on the page is another than that which the test installs."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    project = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    shown = page.partition("```toml\n")[2].partition("```")[0]
    assert shown.strip()
    assert shown in project
