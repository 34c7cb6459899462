"""What kind of disk a folder is on, as far as it matters to a data base."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["file_system_of", "is_on_network"]

_LOCAL = (
    *("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "reiserfs", "xfs", "zfs"),
    *("ecryptfs", "overlay", "ramfs", "tmpfs", "exfat", "udf", "vfat"),
)
"""File systems that one machine has to itself; any other may be shared with machines that see no shared memory."""


def is_on_network(path: Path) -> bool:
    """Whether a path is, or may be, on a disk that several machines share."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    return file_system_of(path.resolve(), mounts) not in _LOCAL


def file_system_of(path: Path, mounts: str) -> str:
    """The type of the file system that a path is on.

    Parameters
    ----------
    path : Path
        Absolute, without links.
    mounts : str
        Content of ``/proc/self/mountinfo`` (proc(5)): each line has the mount point fifth, the type after a lone dash.

    Returns
    -------
    str
        Such as ``ext4``; empty if no mount point is above the path.
    """
    longest, found = 0, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        # Of two mounted at the same place, the later one hides the other.
        if path.is_relative_to(point) and len(point) >= longest:
            longest, found = len(point), after.split(" ")[0]
    return found
