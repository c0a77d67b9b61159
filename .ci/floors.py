"""Print the oldest supported version of each direct dependency as pip constraints, for `make test-oldest`.

Of the extras named as arguments; without any, of those that the tests are installed with.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
# The tests' own tools stay new: only what memori itself is installed with there has its floor tried.
own = next(line for line in extras["tests"] if line.startswith(project["name"]))
tested = sys.argv[1:] or re.findall(r"[\w-]+", own.partition("[")[2])
for requirement in [*project["dependencies"], *(line for name in tested for line in extras[name])]:
    if requirement.startswith(project["name"]):  # Another extra, which is named, too.
        continue
    found = re.match(r"([\w.-]+)(?:\[[^]]*\])?>=([\w.]+)", requirement)
    if found is None:
        sys.exit(f"{requirement!r} has no floor")
    sys.stdout.write(f"{found[1]}=={found[2]}\n")
