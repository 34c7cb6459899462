"""Which kind of store is used, by its name and by what lies in a folder; and that the documented names are there."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stormtracks.cluster import persistence
from stormtracks.cluster.errors import StoreError, WorkflowNotFoundError
from stormtracks.cluster.persistence import (
    FORMATS,
    PersistentStore,
    PersistentStoreFeatures,
    base,
    store_cls_from_path,
    store_cls_from_str,
)
from tests.cluster.persistence.stores import STORES, new_store

SEED = sorted((Path(__file__).resolve().parents[4] / "shared" / "seeds").glob("001_*.txt"))

CLASS = re.compile(r"class hpcflow\.sdk\.persistence\.\w+\.(\w+)\(")
FUNCTION = re.compile(r"hpcflow\.sdk\.persistence\.(?:base\.)?(\w+\(.*\))#")
MEMBER = re.compile(r"(?:abstract )?(?:property |classmethod )*(\w+(?:\(.*\))?)(?:: [\w= ]+)?#")


@pytest.mark.parametrize("cls", STORES, ids=lambda cls: cls.format)
def test_a_kind_is_found_by_its_name_and_by_its_files(cls: type[PersistentStore], tmp_path: Path) -> None:
    new_store(cls, tmp_path / "campaign").close()
    assert store_cls_from_str(cls.format) is cls
    assert store_cls_from_path(tmp_path / "campaign") is cls
    assert [other.format for other in STORES if other.path_has_store(tmp_path / "campaign")] == [cls.format]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'pickle'") as error:
        store_cls_from_str("pickle")
    assert isinstance(error.value, StoreError)
    assert all(name in error.value.remedy for name in FORMATS)


def test_a_folder_that_is_not_there_holds_no_store(tmp_path: Path) -> None:
    with pytest.raises(WorkflowNotFoundError, match="no campaign store") as error:
        store_cls_from_path(tmp_path / "missing")
    assert "--out" in error.value.remedy


def test_without_zarr_its_store_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['zarr'] = None\n"
        "from stormtracks.cluster.persistence import store_cls_from_str\n"
        "store_cls_from_str('sqlite'), store_cls_from_str('json')\n"
        "try: store_cls_from_str('zarr')\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "pip install 'stormtracks-ensemble[zarr]'" in done.stdout, done.stderr


def test_no_kind_of_store_is_imported_before_it_is_asked_for() -> None:
    program = (
        "import stormtracks.cluster.persistence, sys; print([name in sys.modules for name in ('sqlite3', 'zarr')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[False, False]", done.stderr


def test_a_store_can_do_nothing_special_unless_it_says_so() -> None:
    assert PersistentStoreFeatures() == PersistentStoreFeatures(False, False, False, False)


def test_the_product_calls_whatever_a_store_can_do() -> None:
    room = Path(persistence.__file__).parents[1]
    called = {
        node.attr
        for path in room.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    names = {name for cls in STORES for name in dir(cls) if not name.startswith("_")}
    assert sorted(names - called) == []


def documented() -> list[tuple[str, str]]:
    """Each documented class or module with each of its names and arguments: ``set_parameter(index, data)``."""
    if not SEED:
        return []
    owner, found = "", []
    for line in SEED[0].read_text(encoding="utf-8").splitlines():
        if match := CLASS.match(line):
            owner = match[1]
        elif match := FUNCTION.match(line):
            found.append(("", match[1]))
        elif owner and (match := MEMBER.match(line)):
            found.append((owner, match[1]))
    return found


@pytest.mark.skipif(not SEED, reason="the page that documents the names is not here")
def test_every_documented_name_is_there_with_its_arguments() -> None:
    import stormtracks.cluster.persistence as package

    owners: dict[str, object] = {cls.__name__: cls for cls in STORES} | {"": base}
    owners |= {"PersistentStore": PersistentStore, "PersistentStoreFeatures": PersistentStoreFeatures}
    calls = documented()
    assert len(calls) > 110
    for owner, call in calls:
        if owner not in owners:
            continue
        name, _, words = call.partition("(")
        found = getattr(owners[owner], name, None) or getattr(package, name, None)
        if not words:
            assert hasattr(owners[owner], name), (owner, call)
            continue
        assert found is not None, (owner, call)
        wanted = [word.partition("=")[0].strip() for word in words.rstrip(")").split(",") if word]
        parameters = [
            parameter for parameter in inspect.signature(found).parameters.values() if parameter.name != "self"
        ]
        assert [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY][: len(wanted)] == wanted, call
        extra = [one for one in parameters if one.name not in wanted]
        assert all(one.default is not one.empty or name == "set_EAR_end" for one in extra), (owner, call)
