"""Files that appear whole or not at all, whatever kills the writer: written beside their place, then moved into it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from stormtracks.errors import ResultsError, will_stay

__all__ = [
    "exists",
    "is_temporary",
    "lock",
    "make_folder",
    "names_in",
    "publish",
    "remove_temporaries",
    "storage_error",
    "storing",
    "sync_folder",
]

_TEMPORARY = re.compile(r"\.stormtracks-[0-9]+-[0-9a-f]{16}\.tmp")

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
"""What a file system says that knows no locks; the last, NFS, where the file may only be read."""

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
    errno.ELOOP: "the links lead in a circle: give the name of a file",
    errno.EIO: "the disk reports a fault: look at the system log, and choose another disk",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ESTALE: "the network disk has lost the folder: see that it is mounted, and run again",
    errno.ETIMEDOUT: "the network disk does not answer: see that its server is up, and run again",
}


def publish(path: Path, data: bytes, *, check: Callable[[Path], None] | None = None) -> None:
    """Put a file in its place, whole and on the disk, or leave the place as it was.

    The file is written under a temporary name in the same folder, synchronised, moved into place in one step that
    replaces an older file of that name, and the folder is synchronised. A symbolic link stays, and what it points at
    is replaced.

    Parameters
    ----------
    path : Path
        Where the file shall stand; its folder exists.
    data : bytes
        All of its content.
    check : callable, optional
        Called with the temporary path when all is on the disk, right before the move; whatever it raises stops the
        publication and is raised as it is.

    Raises
    ------
    ResultsError
        If the place is taken by something other than a file, such as a folder or a device; or the disk is full,
        read-only, faulty or forbidden. The temporary file is then removed.
    """
    with ExitStack() as stack:
        with storing("write", path):
            place = _place(path)
            temporary, file = stack.enter_context(_temporary(place.parent))
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        with storing("write", path):
            temporary.replace(place)
            sync_folder(place.parent)


def _place(path: Path) -> Path:
    """Where a file of this name lies, symbolic links followed; refused if it can be none."""
    if not path.name:
        raise ResultsError(
            f"cannot write a file named {str(path)!r}: that is a folder", remedy="give the name of a file"
        )
    try:
        place = path.resolve()
    except RuntimeError as error:  # as which Python before 3.13 reports a circle of links
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise ResultsError(
            f"cannot write {path}: it is a device, a pipe or a socket", remedy="give the name of a file to be made"
        )
    return place


@contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file under a temporary name, gone on leaving if it was not moved, and locked for as long as it is open."""
    while True:
        # Writers on several hosts share the folder, where process numbers can meet.
        path = folder / f".stormtracks-{os.getpid()}-{secrets.token_hex(8)}.tmp"
        # Unbuffered: a buffer would try again on closing what had just failed. For reading too, as locks over NFS need.
        with path.open("x+b", buffering=0) as file:
            try:
                # Shared, as the NetCDF library takes one of its own when a check reads the file.
                lock(file, fcntl.LOCK_SH)
                if os.fstat(file.fileno()).st_nlink:
                    yield path, file
                    return
                # Between its making and its locking, someone who cleaned up has removed it.
            finally:
                with storing("remove", path):
                    path.unlink(missing_ok=True)


def lock(file: BinaryIO | int, kind: int) -> bool:
    """Take a lock of the kernel's on an open file, as `fcntl.flock` does; false where the file system knows none."""
    try:
        fcntl.flock(file, kind)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they outlast a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with storing("make the folder", folder):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


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


def exists(path: Path) -> bool:
    """Whether there is a file or folder; an error if the disk does not tell."""
    with storing("look for", path):
        return path.exists()


def names_in(folder: Path) -> list[str]:
    """Names in a folder, sorted; none if there is no such folder."""
    with storing("list", folder):
        try:
            return sorted(path.name for path in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that `publish` writes under."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporaries(folder: Path, *, older_than: float) -> list[Path]:
    """Remove what killed writers left in a folder: temporary files that no writer holds a lock on.

    Where the file system knows no locks, those untouched for `older_than` seconds. A folder that is not there has none.

    Raises
    ------
    ResultsError
        If it is no folder, or may not be read or changed.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if is_temporary(path.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error("list the folder", folder, error) from error
    return [path for path in paths if _remove_unless_held(path, older_than)]


def _remove_unless_held(path: Path, older_than: float) -> bool:
    try:
        # For writing too, as locks over NFS need, unless it is another user's.
        with path.open("r+b" if os.access(path, os.W_OK) else "rb", buffering=0) as file:
            # The age of a file is a wall-clock matter: it may be of another process, host or day.
            left = lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB) or time.time() - path.stat().st_mtime >= older_than
            if left:
                path.unlink()
            return left
    except (BlockingIOError, FileNotFoundError):
        return False  # its writer is at work, or has just moved it into place
    except OSError as error:
        raise storage_error("remove", path, error) from error


def storage_error(action: str, path: Path, error: OSError) -> ResultsError:
    """What the system said, as an error with the path, the cause and the remedy: ``cannot write x.nc: ...``."""
    remedy = _REMEDIES.get(error.errno or 0, "see that the disk and the folder are in order, then run again")
    return ResultsError(f"cannot {action} {path}: {error.strerror or error}", remedy=remedy, permanent=will_stay(error))


@contextmanager
def storing(action: str, path: Path) -> Iterator[None]:
    """Raise what the system says as a `storage_error`."""
    try:
        yield
    except OSError as error:
        raise storage_error(action, path, error) from error
