"""Makes a store of one kind out of a store of another, with nothing lost."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence import PersistentStore, Workflow, open_campaign, store_cls_from_str
from stormtracks.cluster.persistence.folders import replacing_folder
from stormtracks.cluster.persistence.rows import Campaign, Row, key_of

__all__ = ["convert_store"]


def convert_store(path: Path, store_format: str) -> None:
    """Write the store in a folder anew as one of another kind, compare the two, and put it in the older one's place.

    For who holds the campaign. Until the new store is whole and found to be the same the older one stays where it is;
    what is killed in between is put right by `recover_replaced`. A store that is of this kind already stays as it is.

    Parameters
    ----------
    path : Path
        Folder of the campaign's store.
    store_format : str
        ``sqlite``, ``json`` or ``zarr``.

    Raises
    ------
    UnknownFormatError
        If there is no such kind.
    WorkflowNotFoundError
        If there is no store in the folder.
    StoreError
        If the store cannot be read, or the new one not be written or read.
    """
    kind = store_cls_from_str(store_format)
    with open_campaign(path) as store:
        if store.store_name == store_format:
            return
    # Left from the right: the older store is closed before the folders change places.
    with replacing_folder(path) as folder, open_campaign(path) as store, store.cached_load():
        _write_rows(store, kind, folder)
        _compare(store, kind, folder)


def _write_rows(store: PersistentStore, kind: type[PersistentStore], folder: Path) -> None:
    rows = store.all_rows()
    campaign = next(rows)
    assert isinstance(campaign, Campaign), "the first kind of row in the schema"
    kind.create_in(folder, campaign)
    with kind(Workflow(folder)) as new:
        new.add_rows(rows)
        new.save()


def _compare(store: PersistentStore, kind: type[PersistentStore], folder: Path) -> None:
    with kind(Workflow(folder)) as new, new.cached_load():
        for row, copied in zip_longest(store.all_rows(), new.all_rows()):
            if row != copied:
                raise StoreError(
                    f"{store.workflow_path} cannot be kept as {kind.format}: {_name(row)} came out as {copied}",
                    remedy="nothing was changed; keep the store as it is, and report this",
                )


def _name(row: Row | None) -> str:
    return "nothing" if row is None else f"{type(row).__name__.lower()} {', '.join(map(str, key_of(row)))}"
