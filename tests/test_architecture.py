"""Which room may know which, and what no code may do; read from the source, without running it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"stormtracks": ROOT / "stormtracks", "stormtracks.cluster": ROOT / "cluster"}
ROOMS["stormtracks.settings"] = ROOT / "settings"


@dataclass(frozen=True)
class Import:
    """One name that a module imports, by its full path: ``from a import b`` is ``a.b``."""

    name: str
    line: int

    def within(self, *packages: str) -> bool:
        return any(self.name == package or self.name.startswith(f"{package}.") for package in packages)


class Source:
    """A module of the package, or a test, as it is written."""

    def __init__(self, path: Path, module: str) -> None:
        self.path = path
        self.module = module
        self.tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"

    @cached_property
    def imports(self) -> list[Import]:
        """All imports, late ones, those for type checkers and those by name included."""
        return list(self._imports())

    def _imports(self) -> Iterator[Import]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (Import(alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(part for part in (self._package(node.level), node.module) if part)
                yield from (Import(f"{base}.{alias.name}", node.lineno) for alias in node.names)
            elif isinstance(node, ast.Constant) and re.fullmatch(r"stormtracks(\.\w+)+", str(node.value)):
                # import_module("stormtracks.cluster.x"), python -m stormtracks.cluster.x
                yield Import(str(node.value), node.lineno)

    def _package(self, level: int) -> str:
        """What the dots of a relative import stand for."""
        if not level:
            return ""
        parts = self.module.split(".")
        return ".".join(parts[: len(parts) - level + (self.path.name == "__init__.py")])


def sources_of(package: str) -> list[Source]:
    folder = ROOMS[package]
    found = []
    for path in sorted(folder.rglob("*.py")):
        # Since Python 3.13 rglob could be told to follow the links to the other rooms; they are rooms of their own.
        if not path.is_relative_to(folder / "cluster") and not path.is_relative_to(folder / "settings"):
            parts = path.relative_to(folder).with_suffix("").parts
            found.append(Source(path, ".".join([package, *parts]).removesuffix(".__init__")))
    return found


SCIENCE, CLUSTER, SETTINGS = (sources_of(package) for package in ROOMS)
PACKAGE = [*SCIENCE, *CLUSTER, *SETTINGS]
TESTS = [Source(path, path.stem) for path in sorted((ROOT / "tests").rglob("*.py"))]

COMMAND_LINE = "stormtracks.cli"
PRINTERS = (COMMAND_LINE, "stormtracks.cluster.board")
PICKLES = ("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "jsonpickle", "joblib", "shelve", "marshal")


def test_there_is_something_to_read() -> None:
    assert min(len(SCIENCE), len(CLUSTER), len(SETTINGS)) > 1
    assert {"stormtracks.grid", "stormtracks.cluster.pyro_task", "stormtracks.settings.campaign"} <= {
        source.module for source in PACKAGE
    }


def test_science_knows_nothing_of_clusters() -> None:
    assert [
        source.at(found.line)
        for source in SCIENCE
        for found in source.imports
        if found.within("stormtracks.cluster") and source.module != COMMAND_LINE
    ] == []


def test_settings_know_nothing_but_themselves() -> None:
    assert [
        source.at(found.line)
        for source in SETTINGS
        for found in source.imports
        if found.within("stormtracks") and not found.within("stormtracks.settings")
    ] == []


def test_only_the_command_line_is_above_the_cluster() -> None:
    assert [source.at(found.line) for source in PACKAGE for found in source.imports if found.within(COMMAND_LINE)] == []


def test_rooms_are_imported_by_their_long_names() -> None:
    assert [
        source.at(found.line)
        for source in [*PACKAGE, *TESTS]
        for found in source.imports
        if found.within("cluster", "settings")
    ] == []


def test_nothing_is_pickled() -> None:
    imported = [source.at(found.line) for source in PACKAGE for found in source.imports if found.within(*PICKLES)]
    allowed = [at for at, name, _ in keywords(PACKAGE) if name == "allow_pickle"]
    assert imported + allowed == []


def test_no_shell_is_started() -> None:
    by_keyword = [
        at
        for at, name, value in keywords([*PACKAGE, *TESTS])
        if name == "shell" and not (isinstance(value, ast.Constant) and value.value is False)
    ]
    by_name = [
        source.at(node.lineno)
        for source in PACKAGE
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.system", "os.popen", "subprocess.getoutput")
    ]
    assert by_keyword + by_name == []


def keywords(sources: list[Source]) -> Iterator[tuple[str, str | None, ast.expr]]:
    """Where each keyword argument is given, its name and its value."""
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                yield from ((source.at(node.lineno), word.arg, word.value) for word in node.keywords)


def test_only_the_command_line_and_the_board_print() -> None:
    """A function called print_... may, too: that is what it is there for."""
    assert [
        source.at(line) for source in PACKAGE if source.module not in PRINTERS for line in prints(source.tree)
    ] == []


def prints(node: ast.AST) -> Iterator[int]:
    if isinstance(node, ast.FunctionDef) and node.name.startswith("print_"):
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
        yield node.lineno
    for child in ast.iter_child_nodes(node):
        yield from prints(child)


def test_exceptions_are_not_swallowed() -> None:
    def silent(handler: ast.ExceptHandler) -> bool:
        broad = handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
        return handler.type is None or (broad and all(isinstance(node, ast.Pass) for node in handler.body))

    assert [
        source.at(node.lineno)
        for source in PACKAGE
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and silent(node)
    ] == []


def test_one_module_knows_what_file_systems_without_locks_say() -> None:
    assert [
        source.module
        for source in PACKAGE
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and node.attr == "ENOLCK"
    ] == ["stormtracks.publish"]


def third_party(sources: list[Source]) -> set[str]:
    """The distributions whose packages these modules import."""
    owners = packages_distributions()
    roots = {found.name.partition(".")[0] for source in sources for found in source.imports}
    roots -= {*sys.stdlib_module_names, "stormtracks"}
    return {canonicalize_name(owners.get(root, [root])[0]) for root in roots}


def declared(section: str, option: str) -> set[str]:
    """The distributions that setup.cfg requires."""
    packaging = ConfigParser()
    packaging.read(ROOT / "setup.cfg", encoding="utf-8")
    return {canonicalize_name(Requirement(line).name) for line in packaging[section][option].split("\n") if line}


PICTURES = ("stormtracks.plot", "stormtracks.maps")
ZARR = ("stormtracks.cluster.persistence.zarr", "stormtracks.cluster.persistence.cells")
EXTRAS = {"plot": PICTURES, "zarr": ZARR}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    required = declared("options", "install_requires")
    assert third_party([source for source in PACKAGE if source.module not in (*PICTURES, *ZARR)]) == required
    for extra, modules in EXTRAS.items():
        needed = third_party([source for source in PACKAGE if source.module in modules])
        assert needed - required == declared("options.extras_require", extra)


def test_nothing_needs_pictures_but_what_shows_them() -> None:
    assert [
        source.at(found.line)
        for source in PACKAGE
        if source.module not in (*PICTURES, COMMAND_LINE, "stormtracks.demo")
        for found in source.imports
        if found.within("matplotlib", *PICTURES)
    ] == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("import stormtracks.cluster.board", "stormtracks.cluster.board"),
        ("from stormtracks import cluster", "stormtracks.cluster"),
        ("from .cluster import board", "stormtracks.cluster.board"),
        ("from . import cluster", "stormtracks.cluster"),
        ("def f():\n    from stormtracks.cluster.board import Board", "stormtracks.cluster.board.Board"),
        ("import_module('stormtracks.cluster.board')", "stormtracks.cluster.board"),
    ],
)
def test_an_import_is_seen_however_it_is_written(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / "demo.py"
    path.write_text(text, encoding="utf-8")
    assert name in [found.name for found in Source(path, "stormtracks.demo").imports]
