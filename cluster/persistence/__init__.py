"""The campaign store: the manager's truth, in one of three kinds behind the same documented calls."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from stormtracks.cluster.errors import StoreError, UnknownFormatError, WorkflowNotFoundError
from stormtracks.cluster.persistence.base import PersistentStore, PersistentStoreFeatures, Workflow
from stormtracks.cluster.persistence.folders import (
    discard_dir,
    remove_dir,
    remove_leftovers,
    rename_dir,
    replaced_path,
    temporary_workflow_rename,
)

__all__ = [
    "FORMATS",
    "PersistentStore",
    "PersistentStoreFeatures",
    "Workflow",
    "open_campaign",
    "recover_replaced",
    "store_cls_from_path",
    "store_cls_from_str",
    "temporary_workflow_rename",
]


def _sqlite() -> type[PersistentStore]:
    from stormtracks.cluster.persistence.sqlite import SQLitePersistentStore

    return SQLitePersistentStore


def _json() -> type[PersistentStore]:
    from stormtracks.cluster.persistence.json import JSONPersistentStore

    return JSONPersistentStore


def _zarr() -> type[PersistentStore]:
    try:
        import_module("zarr")
    except ModuleNotFoundError as error:
        raise StoreError(
            "a zarr store needs the package zarr, which is not installed",
            remedy="pip install 'stormtracks-ensemble[zarr]'",
        ) from error
    module = import_module("stormtracks.cluster.persistence.zarr")
    store: type[PersistentStore] = module.ZarrPersistentStore
    return store


FORMATS: dict[str, Callable[[], type[PersistentStore]]] = {"sqlite": _sqlite, "json": _json, "zarr": _zarr}
"""The kinds of store by their names; each is imported when it is asked for."""

_MARKS = {"sqlite": "store.sqlite", "json": "metadata.json", "zarr": "store.zarr"}
"""What lies in a campaign's folder if its store is of a kind; zarr need not be installed to see that it is needed."""


def store_cls_from_str(store_format: str) -> type[PersistentStore]:
    """The kind of store of this name.

    Raises
    ------
    UnknownFormatError
        If there is none; it is a ValueError, too.
    StoreError
        If a package that it needs is not installed.
    """
    if store_format not in FORMATS:
        raise UnknownFormatError(
            f"there is no campaign store of the kind {store_format!r}", remedy=f"use one of: {', '.join(FORMATS)}"
        )
    return FORMATS[store_format]()


def store_cls_from_path(workflow_path: Path) -> type[PersistentStore]:
    """The kind of the store in a folder.

    Raises
    ------
    WorkflowNotFoundError
        If there is none.
    StoreError
        If a package that it needs is not installed.
    """
    path = Path(workflow_path)
    for name, mark in _MARKS.items():
        if (path / mark).exists():
            return store_cls_from_str(name)
    if replaced_path(path).exists():
        remedy = "a campaign was being replaced here: run its command again, which puts that right"
    else:
        remedy = "name the folder given as --out (or results.root) when the campaign was run"
    raise WorkflowNotFoundError(f"there is no campaign store in {path}", remedy=remedy)


def open_campaign(path: Path) -> PersistentStore:
    """The store in a folder, whatever its kind, opened; raises as `store_cls_from_path` and the store do."""
    return store_cls_from_path(path)(Workflow(path))


def recover_replaced(path: Path) -> None:
    """Put right what was killed while a campaign took the place of another: the one or the other is then there.

    For the manager, before it opens the store; not while somebody else creates one.

    Raises
    ------
    StoreDamagedError
        If there are two and the newer one cannot be read: then nothing is removed.
    """
    path = Path(path)
    replaced = replaced_path(path)
    if replaced.exists():
        if path.exists():
            if _is_finished(path):
                remove_dir(replaced)
            else:
                discard_dir(path)
        if replaced.exists():
            rename_dir(replaced, path)
    remove_leftovers(path)


def _is_finished(path: Path) -> bool:
    try:
        with open_campaign(path) as store:
            return store.replaced_dir is None
    except WorkflowNotFoundError:
        return False
