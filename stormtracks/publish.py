"""Files that appear whole or not at all, whatever kills the writer: written beside their place, then moved into it."""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from stormtracks.errors import ResultsError

__all__ = ["is_temporary", "make_folder", "publish", "remove_temporaries", "storage_error", "sync_folder"]

_TEMPORARY = re.compile(r"\.stormtracks-\d+-[0-9a-f]{16}\.tmp")

_REMEDIES = {
    errno.ENOSPC: "free space on that disk and run again; nothing half-written was left behind",
    errno.EDQUOT: "free space within your quota and run again; nothing half-written was left behind",
    errno.EFBIG: "raise the file size limit (ulimit -f) and run again; nothing half-written was left behind",
    errno.EROFS: "the disk is mounted read-only: choose another folder or have it mounted for writing",
    errno.EACCES: "choose another folder, or ask its owner for permission",
    errno.EPERM: "choose another folder, or ask its owner for permission",
    errno.ENOENT: "make the folder first, or correct the path",
    errno.ENOTDIR: "part of the path is a file: choose another folder",
    errno.EEXIST: "a file stands where a folder is needed: choose another folder",
    errno.EISDIR: "the path is a folder: give the name of a file",
    errno.EIO: "the disk reports a fault: look at the system log, and choose another disk",
}


def publish(path: Path, data: bytes, *, check: Callable[[Path], None] | None = None) -> None:
    """Put a file in its place, whole and on the disk, or leave the place as it was.

    The file is written under a temporary name in the same folder, synchronised, moved into place in one step that
    replaces an older file of that name, and the folder is synchronised.

    Parameters
    ----------
    path : Path
        Where the file shall stand; its folder exists.
    data : bytes
        All of its content.
    check : callable, optional
        Called with the temporary path before the move; whatever it raises stops the publication.

    Raises
    ------
    ResultsError
        If the disk is full, read-only, faulty or forbidden; the temporary file is then removed.
    """
    # Writers on several hosts share the folder, where process numbers can meet.
    temporary = path.with_name(f".stormtracks-{os.getpid()}-{secrets.token_hex(8)}.tmp")
    try:
        try:
            _write(temporary, data)
            if check is not None:
                check(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("write", path, error) from error


def _write(path: Path, data: bytes) -> None:
    # Unbuffered: a buffer would try again on closing what had just failed.
    with path.open("xb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they outlast a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise storage_error("make the folder", folder, error) from error


def sync_folder(folder: Path) -> None:
    """Have the disk take note of the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no such request for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that `publish` writes under."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporaries(folder: Path, *, older_than: float) -> list[Path]:
    """Remove what killed writers left in a folder: temporary files untouched for `older_than` seconds."""
    removed = []
    for path in sorted(folder.iterdir()):
        if not is_temporary(path.name):
            continue
        try:
            # The age of a file is a wall-clock matter: it may be of another process, host or day.
            if time.time() - path.stat().st_mtime >= older_than:
                path.unlink()
                removed.append(path)
        except FileNotFoundError:
            continue  # its writer has just moved it into place
        except OSError as error:
            raise storage_error("remove", path, error) from error
    return removed


def storage_error(action: str, path: Path, error: OSError) -> ResultsError:
    """What the system said, as an error with the path, the cause and the remedy: ``cannot write x.nc: ...``."""
    remedy = _REMEDIES.get(error.errno or 0, "see that the disk and the folder are in order, then run again")
    return ResultsError(f"cannot {action} {path}: {error.strerror or error}", remedy=remedy)
