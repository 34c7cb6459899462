"""How a store is known to be whole: its latest revision and the digest of its data base, in a small file beside it.

SQLite passes over the torn end of its journal without a word, and knows nothing of bytes that have changed in the data
base itself. The seal is written after each commit: what the store then holds is at least of that revision. The digest
is of the data base file alone, which changes only when the journal is moved into it, and is struck out before that.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from stormtracks.cluster.errors import StoreError
from stormtracks.publish import lock

__all__ = ["Seal", "SealFile", "digest_of"]

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process that changes the store."""
_LOOK_AGAIN = 0.005
_LINE = re.compile(rb"(\d{20}) (\S{36}) (\d{20}) ([0-9a-f]{64}|-{64})\n")
_NO_DIGEST = 64 * "-"


class Seal(NamedTuple):
    """What is known of a store.

    Parameters
    ----------
    revision : int
        Of the last commit.
    boot : str
        In which run of which machine's kernel it was made: no commit is lost but with that.
    sealed : int
        Revision of what is in the data base file itself.
    digest : str or None
        sha256 of that file; None while it may be changing.
    """

    revision: int
    boot: str
    sealed: int
    digest: str | None


class SealFile:
    """The file of the seal; it is locked while it and the data base are changed together, and by nobody who reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Seal | None:
        """The seal; None if there is none that can be read."""
        try:
            match = _LINE.fullmatch(self.path.read_bytes())
        except FileNotFoundError:
            return None
        if match is None:
            return None
        revision, boot, sealed, digest = (part.decode("ascii") for part in match.groups())
        return Seal(int(revision), boot, int(sealed), None if digest == _NO_DIGEST else digest)

    def write(self, seal: Seal, *, lasting: bool) -> None:
        """Write the seal in its place, all of it in one call; and have the disk take note at once, if `lasting`."""
        line = f"{seal.revision:020d} {seal.boot:36.36s} {seal.sealed:020d} {seal.digest or _NO_DIGEST}\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, line.encode("ascii"), 0)
            if lasting:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the file, alone, to change it or the data base.

        Raises
        ------
        StoreError
            If another process does not let go of it in time.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            yield
            return
        try:
            self._wait_for_lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _wait_for_lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise StoreError(
                        f"another process has held {self.path} for more than {LOCK_TIMEOUT:g} s",
                        remedy="let it end or go on (`fuser` tells which one it is), then run the same command again",
                    ) from error
            time.sleep(_LOOK_AGAIN)


def digest_of(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
