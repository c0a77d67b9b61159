"""What is shipped, and what is promised about installing it."""

from __future__ import annotations

import ast
import email
import re
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

from memori import Memori, MissingExtraError

ROOT = Path(__file__).parent.parent
PACKAGES = ROOT / "packages"
IMPORT_PACKAGES = {"memori", "memori_langchain", "memori_agno", "memori_pydantic_ai"}
SOURCES = sorted(path for path in PACKAGES.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

# The names as they will stay: what users write in their own requirements may not change under them.
PROMISED_EXTRAS = {
    *("openai", "anthropic", "gemini", "xai", "litellm"),
    *("langchain", "bedrock", "agno", "pydantic-ai"),
    *("postgres", "mysql", "mariadb", "oceanbase", "oracle", "mongodb", "cockroachdb", "chroma"),
    *("all", "tests", "dev"),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("sdist")), versions=["standard"])
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers() if member.isfile()}
        return {name.partition("/")[2]: file.read() for name, file in files.items() if file is not None}


@pytest.fixture(scope="module")
def metadata(wheel: dict[str, bytes]) -> Message:
    return email.message_from_bytes(next(data for name, data in wheel.items() if name.endswith(".dist-info/METADATA")))


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: dict[str, bytes]) -> None:
    """Fails when a source file (a migration, a ``py.typed``) is not shipped, or something else is."""
    shipped = {name for name in wheel if not name.partition("/")[0].endswith(".dist-info")}
    assert shipped == {str(Path(*path.relative_to(PACKAGES).parts[1:])) for path in SOURCES}
    assert {name.partition("/")[0] for name in shipped} == IMPORT_PACKAGES
    assert {f"{package}/py.typed" for package in IMPORT_PACKAGES} <= shipped


def test_migrations_are_shipped(wheel: dict[str, bytes], sdist: dict[str, bytes]) -> None:
    """Fails when ``config.storage.build()`` would find no migrations once memori is installed."""
    migration = re.compile(r"memori/schema/migrations/versions/\w+\.py$")
    assert any(migration.search(name) for name in wheel)
    assert any(migration.search(name) for name in sdist)


def test_the_sdist_builds_the_same_wheel(sdist: dict[str, bytes]) -> None:
    """Fails when something that the build needs is missing, or tests and benchmark data are shipped."""
    assert {str(path.relative_to(ROOT)) for path in SOURCES} <= set(sdist)
    beside = {name for name in sdist if not name.startswith("packages/")}
    assert beside == {"CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", ".gitignore"}


def test_no_file_names_the_machine_it_was_made_on(wheel: dict[str, bytes], sdist: dict[str, bytes]) -> None:
    """Fails when a path of the developer's machine is shipped."""
    here = re.compile(rb"|".join(re.escape(str(folder).encode()) + rb"\b" for folder in (ROOT, Path.home())))
    assert [name for name, data in {**wheel, **sdist}.items() if here.search(data)] == []


def test_the_licence_is_whole_and_shipped(wheel: dict[str, bytes], metadata: Message) -> None:
    """Fails when the licence text is missing or cut."""
    text = next(data for name, data in wheel.items() if name.endswith("/licenses/LICENSE"))
    assert text == (ROOT / "LICENSE").read_bytes()
    assert b"Version 2.0, January 2004" in text
    assert b"END OF TERMS AND CONDITIONS" in text
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_extras_are_the_promised_ones(metadata: Message) -> None:
    """Fails when an extra is renamed, added without being named here, or dropped."""
    assert set(EXTRAS) == PROMISED_EXTRAS
    assert set(metadata.get_all("Provides-Extra", [])) == PROMISED_EXTRAS


def test_all_has_every_extra_that_holds_nothing_back() -> None:
    """Fails when a new extra is forgotten in ``all``."""
    named = {extra for line in EXTRAS["all"] for extra in Requirement(line).extras}
    assert named == PROMISED_EXTRAS - {"all", "tests", "dev", "litellm"}


@pytest.mark.parametrize(
    "line", sorted({*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)})
)
def test_every_dependency_has_a_floor_and_a_ceiling(line: str) -> None:
    """Fails when a release that nobody has seen yet could be installed, or one that was never tried."""
    requirement = Requirement(line)
    if requirement.name == PROJECT["name"]:
        assert requirement.extras <= set(EXTRAS)
    else:
        assert {clause.operator for clause in requirement.specifier} == {">=", "<"}


def test_every_extra_that_an_error_names_exists() -> None:
    """Fails when a user is told to install an extra that is not there, or one that does not bring the package."""
    for path in SOURCES:
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "MissingExtraError":
                written = [*node.args, *(word.value for word in node.keywords)]
                if all(isinstance(value, ast.Constant) for value in written):
                    package, extra = (ast.literal_eval(value) for value in written)
                    assert package in brought_by(extra), f"the extra {extra!r} does not bring {package!r}"


@pytest.mark.parametrize("dialect", ["postgresql", "mysql", "mariadb", "oracle"])
def test_a_missing_driver_is_named_with_the_extra_that_brings_it(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a database URL without its driver does not say what to install."""
    for driver in ("psycopg", "pymysql", "oracledb"):
        monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(MissingExtraError) as caught:
        Memori(conn=f"{dialect}://user@127.0.0.1/memories", worker=False)
    assert caught.value.package in brought_by(caught.value.extra)


def brought_by(extra: str) -> set[str]:
    """Return the names of the distributions that *extra* installs beside core."""
    names = set()
    for line in EXTRAS[extra]:
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            names |= {name for other in requirement.extras for name in brought_by(other)}
        else:
            names.add(requirement.name)
    return names


def test_every_client_entry_point_can_be_loaded() -> None:
    """Fails when ``llm.register`` would not find a provider that memori itself brings."""
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    from memori import MissingExtraError

    declared = PROJECT["entry-points"]["memori.clients"]
    found = {entry.name: entry for entry in entry_points(group="memori.clients")}
    assert set(declared) <= set(found)
    for name in declared:
        assert found[name].value == declared[name]
        try:
            assert found[name].load() is not None
        except MissingExtraError:
            assert find_spec(name.partition(".")[0]) is None
