"""Folders that others hold on to, and which kind of disk they are on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence import folders
from stormtracks.cluster.persistence.base import dropbox_retry_fail, remove_dir, rename_dir
from stormtracks.cluster.persistence.disks import file_system_of, is_on_network

MOUNTS = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 22 0:27 / /home rw shared:1 master:2 - nfs4 server:/home rw,vers=4.2
32 31 0:28 / /home/a\040b rw - xfs /dev/vdb rw
33 31 0:29 / /home/c rw - xfs /dev/vdc rw
34 31 0:30 / /home/c rw - fuse.sshfs host: rw
""".strip()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homestead", "ext4"),
        ("/home", "nfs4"),
        ("/home/a", "nfs4"),
        ("/home/a b/c", "xfs"),
        ("/home/c/d", "fuse.sshfs"),
    ],
)
def test_a_path_is_on_the_innermost_and_latest_mount_above_it(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_this_machine_has_a_disk_of_its_own(tmp_path: Path) -> None:
    asked = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True)
    remote = asked.stdout.strip() in ("nfs", "smb2", "cifs", "lustre", "gpfs", "fuseblk", "9p", "v9fs")
    assert is_on_network(tmp_path) == remote


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EACCES])
def test_what_may_pass_is_tried_again(number: int) -> None:
    dropbox_retry_fail(OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "fault"), ValueError("x")],
    ids=["full", "fault", "value"],
)
def test_what_stays_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        dropbox_retry_fail(error)
    assert raised.value is error


def test_a_folder_that_others_still_fill_is_removed_in_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "busy"
    folder.mkdir()
    stop = time.monotonic() + 0.3

    def fill() -> None:
        number = 0
        while time.monotonic() < stop:
            number += 1
            try:
                (folder / f"{number}").touch()
            except FileNotFoundError:
                return

    filler = threading.Thread(target=fill)
    filler.start()
    remove_dir(folder)
    filler.join()
    assert not folder.exists()
    remove_dir(folder)


def test_what_cannot_be_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot remove"):
        remove_dir(tmp_path / "file")
    program = (
        "import os, sys; from pathlib import Path; from stormtracks.cluster.persistence import folders\n"
        "folders.RETRIES = 3\n"
        "os.getuid() or (os.setgid(65534), os.setuid(65534))\n"
        "try: folders.remove_dir(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    outer = tmp_path / "outer"
    (outer / "inner").mkdir(parents=True)
    for folder in (outer, *tmp_path.parents[:2], tmp_path):
        folder.chmod(0o555 if folder == outer else 0o755)
    try:
        done = subprocess.run([sys.executable, "-c", program, str(outer)], capture_output=True, text=True, timeout=60)
        assert "StoreError" in done.stdout and str(outer) in done.stdout, done.stderr
        assert (outer / "inner").exists()
    finally:
        outer.chmod(0o755)
    assert folders.RETRIES == 10


def test_a_folder_is_not_renamed_onto_another(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with pytest.raises(StoreError, match="two"):
        rename_dir(tmp_path / "one", tmp_path / "two")
    rename_dir(tmp_path / "one", tmp_path / "three")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["three", "two"]
