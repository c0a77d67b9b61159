"""What memori costs before it does anything: import time, and space on the disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Table

__all__ = ["import_times", "installed_size"]

_ROOT = Path(__file__).parents[1]
_PROGRAMS = {
    "an empty interpreter": "pass",
    "import sqlalchemy": "import sqlalchemy",
    "import openai": "import openai",
    "import memori": "import memori",
    "import memori, open a database": "from memori import Memori; Memori('sqlite://', worker=False).close()",
}


def import_times(runs: int) -> Table:
    """Return how long fresh interpreters take, the best of *runs* each: what else the machine does only adds to it."""
    best = dict.fromkeys(_PROGRAMS, float("inf"))
    for _ in range(runs + 1):  # The first run of each may have to compile and to read from the disk.
        for name, program in _PROGRAMS.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, cwd=tempfile.gettempdir())  # noqa: S603
            best[name] = min(best[name], time.perf_counter() - begin)
    empty, *_ = best.values()
    return Table(
        title="Starting",
        about=f"a fresh interpreter, the best of {runs}",
        columns=("", "ms", "beyond empty"),
        rows=[
            (name, f"{seconds * 1e3:.0f}", f"{(seconds - empty) * 1e3:.0f}" if number else "")
            for number, (name, seconds) in enumerate(best.items())
        ],
    )


def installed_size() -> Table:
    """Return by how much an empty environment grows when the core is installed into it, compiled files included."""
    title, about = "Installed", "growth of an empty virtual environment, compiled files included"
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        _run(sys.executable, "-m", "venv", str(environment))
        # pip is in the empty environment, too, and compiled there.
        python = str(environment / ("Scripts" if sys.platform == "win32" else "bin") / "python")
        _run(python, "-m", "compileall", "-q", str(environment))
        before = _sizes(environment)
        installed = _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(_ROOT))
        if installed.returncode != 0:
            reason = (installed.stderr.strip().splitlines() or ["it did not say why"])[-1]
            return Table(
                title=title, about=about, columns=(), rows=(), notes=[f"Skipped: pip installs nothing here ({reason})."]
            )
        _run(python, "-m", "compileall", "-q", str(environment))
        grown = {name: size - before.get(name, 0) for name, size in _sizes(environment).items()}
    largest = sorted((name for name in grown if grown[name] > 1e6), key=lambda name: -grown[name])
    rows = [("memori and all that it needs", f"{sum(grown.values()) / 1e6:.0f}")]
    rows += [(f"of that {name}", f"{grown[name] / 1e6:.1f}") for name in largest[:6]]
    return Table(title=title, about=about, columns=("", "MB"), rows=rows)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def _sizes(environment: Path) -> dict[str, int]:
    """Return the bytes of what stands in site-packages, by name, and of all else under another."""
    sizes: dict[str, int] = {}
    for path in environment.rglob("*"):
        if path.is_file() and not path.is_symlink():
            _, found, inside = path.as_posix().partition("/site-packages/")
            name = inside.partition("/")[0] if found else "the rest"
            sizes[name] = sizes.get(name, 0) + path.stat().st_size
    return sizes
