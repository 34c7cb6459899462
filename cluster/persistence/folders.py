"""Folders that are replaced, moved and removed so that whatever is killed in between can be put right.

Beside the folder of a campaign's store, ``campaign``, there may be ``campaign.replaced``: an older campaign, kept until
the one that takes its place is finished; ``campaign.new``: a store in the making; ``campaign.discarded``: one that is
being removed. Only the last two are ever removed unasked.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stormtracks.cluster.errors import StoreError
from stormtracks.errors import ResultsError
from stormtracks.publish import make_folder, storing, sync_folder

__all__ = [
    "as_store_error",
    "discard_dir",
    "dropbox_retry_fail",
    "new_folder",
    "remove_dir",
    "remove_leftovers",
    "rename_dir",
    "replaced_path",
    "replacing_folder",
    "temporary_workflow_rename",
]

logger = logging.getLogger(__name__)

RETRIES = 10
"""How often something that a passing holder forbids is tried again; it is waited 0.02 s, then twice as long each time
up to 1 s: about 5 s in all."""

_PASSING = (errno.EBUSY, errno.EACCES, errno.EPERM, errno.ENOTEMPTY)
"""What passes by itself when a synchroniser lets go of a file; the last when it has just put one back."""


def replaced_path(path: Path) -> Path:
    """Where the campaign in a folder waits while another takes its place."""
    return path.with_name(f"{path.name}.replaced")


def _new_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _discarded_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.discarded")


@contextmanager
def as_store_error() -> Iterator[None]:
    """Raise what the disk does not do as an error of the store."""
    try:
        yield
    except ResultsError as error:
        raise StoreError(error.what, remedy=error.remedy) from error


def dropbox_retry_fail(err: Exception) -> None:
    """Return if an error may pass by itself, as when a synchroniser such as Dropbox holds a file; else raise it."""
    if not isinstance(err, OSError) or err.errno not in _PASSING:
        raise err
    logger.debug("trying again: %s", err)


def _persist(action: Callable[[], object]) -> None:
    """Do something with folders, again and again for some seconds while a passing holder forbids it."""
    pause = 0.02
    for _ in range(RETRIES):
        try:
            action()
            return
        except OSError as error:
            dropbox_retry_fail(error)
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    action()


def remove_dir(dir_path: Path) -> None:
    """Remove a folder with all that is in it, trying for some seconds; one that is not there is removed already.

    Raises
    ------
    StoreError
        If it cannot be removed.
    """

    def remove() -> None:
        if dir_path.exists():
            shutil.rmtree(dir_path)

    with as_store_error(), storing("remove", dir_path):
        _persist(remove)


def rename_dir(replaced_dir: Path, original_dir: Path) -> None:
    """Give a folder another name beside its own, trying for some seconds; no other may have that name.

    Raises
    ------
    StoreError
        If it cannot be renamed.
    """
    with as_store_error(), storing(f"rename {replaced_dir} to", original_dir):
        # An empty folder would be replaced without a word.
        if original_dir.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        _persist(lambda: replaced_dir.rename(original_dir))
        sync_folder(original_dir.parent)


def discard_dir(path: Path) -> None:
    """Remove a store's folder: it is away in one step, so that none is ever seen in part."""
    discarded = _discarded_path(path)
    remove_dir(discarded)
    rename_dir(path, discarded)
    remove_dir(discarded)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside a store's folder."""
    remove_dir(_discarded_path(path))
    remove_dir(_new_path(path))


def temporary_workflow_rename(path: Path) -> Path | None:
    """Rename the folder of a campaign, so that it can be put back if the creation of another one in its place fails.

    Returns
    -------
    Path or None
        Where it is now, for `PersistentStore.write_empty_workflow`; None if there was none.

    Raises
    ------
    StoreError
        If an older one waits there already.
    """
    if not path.exists():
        return None
    replaced = replaced_path(path)
    if replaced.exists():
        raise StoreError(
            f"a replacement of the campaign in {path} was not finished: there is {replaced}",
            remedy="let recover_replaced put it right first",
        )
    rename_dir(path, replaced)
    return replaced


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes its place when it is full, or is removed if that fails.

    Raises
    ------
    StoreError
        If there is something in its place, or the disk does not take it.
    """
    if path.exists():
        raise StoreError(f"there is something at {path} already", remedy="choose another folder, or move that away")
    making = _new_path(path)
    with as_store_error(), storing("write", making):
        make_folder(path.parent)
        remove_dir(making)
        try:
            make_folder(making)
            yield making
            sync_folder(making)
            rename_dir(making, path)
        finally:
            remove_dir(making)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of another when it is full; if that fails, the other one stays.

    Raises
    ------
    StoreError
        If a replacement was not finished before.
    """
    making = _new_path(path)
    remove_dir(making)
    try:
        make_folder(making)
        yield making
        sync_folder(making)
        replaced = replaced_path(path)
        try:
            temporary_workflow_rename(path)
            rename_dir(making, path)
        except BaseException:
            if replaced.exists() and not path.exists():
                rename_dir(replaced, path)
            raise
        remove_dir(replaced)
    finally:
        remove_dir(making)
