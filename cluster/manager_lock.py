"""One manager for each campaign: whoever works on a results root holds a lock on ``ROOT/manager.lock``.

The lock is the kernel's and goes with its holder, however that ends; over NFS the server keeps it for the holder's
host. The file says who it is, for those who come second, and stays when the lock is free: to remove it would let two
hold locks on two files of the same name.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from stormtracks.cluster.errors import CampaignHeldError, ClusterError
from stormtracks.publish import lock, make_folder, storage_error

__all__ = ["Holder", "find_holder", "hold_campaign"]

LOCK_FILE = "manager.lock"

_LOOKS = 50
_LOOK_AGAIN = 0.02
"""Seconds between two tries while somebody only looks who holds the lock."""


@dataclass(frozen=True)
class Holder:
    """Who holds a campaign, as it has told itself.

    Parameters
    ----------
    host : str
    pid : int
    since : str
        Date and time, UTC.
    command : str
        How it was called.
    """

    host: str
    pid: int
    since: str
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since} ({self.command})"


_UNKNOWN = Holder("an unknown host", 0, "an unknown time", "unknown")


@contextmanager
def hold_campaign(root: Path) -> Iterator[None]:
    """Be the only one to change the campaign in a results root, until the block is left or this process ends.

    Raises
    ------
    CampaignHeldError
        If another process holds it; the message names it.
    ClusterError
        If the file system knows no locks.
    ResultsError
        If the file cannot be written.
    """
    make_folder(root)
    path = root / LOCK_FILE
    try:
        # Not truncated: until the lock is ours, what it says is another's.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise storage_error("open", path, error) from error
    try:
        _acquire(descriptor, path)
        _sign(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def find_holder(root: Path) -> Holder | None:
    """Who holds the campaign in a results root now; None if nobody does.

    Raises
    ------
    ClusterError
        If the file system knows no locks.
    ResultsError
        If the file cannot be read.
    """
    path = root / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("open", path, error) from error
    try:
        return None if _locked(descriptor, fcntl.LOCK_SH, path) else _read(descriptor) or _UNKNOWN
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path) -> None:
    for _ in range(_LOOKS):
        if _locked(descriptor, fcntl.LOCK_EX, path):
            return
        if not _locked(descriptor, fcntl.LOCK_SH, path):
            break
        # Not held, only looked at, as `find_holder` does for a moment.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(_LOOK_AGAIN)
    raise CampaignHeldError(
        f"the campaign in {path.parent} is held by {_read(descriptor) or 'another manager'}",
        remedy="wait for it to end, or stop it there with Ctrl-C or kill; `stormtracks status` shows how far it is",
    )


def _locked(descriptor: int, kind: int, path: Path) -> bool:
    """Take a lock if nobody else holds one that excludes it."""
    try:
        has_locks = lock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return False
        raise storage_error("lock", path, error) from error
    if not has_locks:
        raise ClusterError(
            f"{path} cannot be locked: the file system knows no locks",
            remedy="choose a results root on a disk with locks: a local one, or NFS mounted without nolock",
        )
    return True


def _sign(descriptor: int, path: Path) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = Holder(socket.gethostname(), os.getpid(), since, shlex.join(sys.argv))
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode() + b"\n", 0)
    except OSError as error:
        raise storage_error("write", path, error) from error


def _read(descriptor: int) -> Holder | None:
    """What stands in the file; None while its holder has not yet written all of it."""
    try:
        return Holder(**json.loads(os.pread(descriptor, 65536, 0)))
    except (OSError, ValueError, TypeError):
        return None
