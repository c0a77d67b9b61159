"""Print the oldest supported version of each direct dependency as pip constraints, for `make test-oldest`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("openai",)

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
requirements = [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]
for requirement in requirements:
    found = re.match(r"([\w.-]+)(?:\[[^]]*\])?>=([\w.]+)", requirement)
    if found is None:
        sys.exit(f"{requirement!r} has no floor")
    sys.stdout.write(f"{found[1]}=={found[2]}\n")
