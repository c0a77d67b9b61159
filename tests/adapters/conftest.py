"""What holds for the tests with frameworks' models and agents."""

from __future__ import annotations

from pathlib import Path

import pytest

# Nothing in a framework's interface closes the clients of its models: the garbage collector does, in whichever test it
# happens to run, and takes the connections as they come.
_UNCLOSED = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <(socket|function _SelectorTransport):pytest.PytestUnraisableExceptionWarning"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(_UNCLOSED, append=False)
