"""Input files as a result remembers them: by the sha256 of their content, computed once per file and kept.

A file is known by its path, its size and the time of its last change: as long as these stay, so does its digest, which
is kept below the results root where all processes and hosts of a campaign find it. What is changed in place, to the
same size, and then given its old time again is not noticed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stormtracks.errors import InputError, ResultsError, will_stay
from stormtracks.publish import make_folder, publish

__all__ = ["DIGESTS", "Stamp", "input_digest", "opening", "stamp_of", "unchanged"]

_log = logging.getLogger(__name__)

DIGESTS = "inputs"
"""Folder of the kept digests, below the results root."""
_CHANGED = "wait until nobody writes the file any more, such as a download, and run again"
_SETTLED = 2.0  # seconds: file systems tell times of change no finer than this


class Stamp(NamedTuple):
    """What a change of a file shows in without reading it."""

    size: int
    """Bytes."""
    mtime_ns: int
    """When it was last changed, in nanoseconds since 1970-01-01 00:00:00 UTC."""

    def __str__(self) -> str:
        return f"{self.size} bytes of {np.datetime64(self.mtime_ns, 'ns')} UTC"


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Turn what the file system says of a file that is read into an `InputError`, permanent unless it may pass."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}", remedy="check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder, not a file", remedy="give the NetCDF files in it") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read", remedy="grant yourself the right to read it") from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}",
            remedy="see that its disk, and the network to it, are in order: the system log says more; then run again",
            permanent=will_stay(error),
        ) from error


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file.

    Raises
    ------
    InputError
        If the file is absent or cannot be reached.
    """
    with opening(path):
        status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns)


@contextmanager
def unchanged(path: Path, stamp: Stamp) -> Iterator[None]:
    """See that a file still has its stamp when what was done with it is over, or has failed.

    Raises
    ------
    InputError
        If the file has changed or is gone; whatever was read of it is worth nothing then. Not permanent.
    """
    try:
        yield
    except Exception as error:
        _check(path, stamp, error)
        raise
    _check(path, stamp)


def _check(path: Path, stamp: Stamp, cause: Exception | None = None) -> None:
    try:
        now = stamp_of(path)
    except InputError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise InputError(f"{path} was removed while it was read", remedy=_CHANGED, permanent=False) from error
    if now != stamp:
        what = f"{path} has changed while it was read: it had {stamp}, and now has {now}"
        raise InputError(what, remedy=_CHANGED, permanent=False) from cause


def input_digest(root: Path, inputs: Mapping[str, Stamp], *, kept_in: Path) -> str:
    """sha256 over the names of files and the sha256 of their content, in hexadecimal digits.

    Parameters
    ----------
    root : Path
        The data root.
    inputs : mapping of str to Stamp
        Names relative to it, each with the stamp that the file had when it was read.
    kept_in : Path
        Folder in which digests are kept, each in a file of its own. One that is absent is computed and kept; one that
        is damaged is computed again.

    Raises
    ------
    InputError
        If a file cannot be read, or has another stamp by now.
    """
    digest = hashlib.sha256()
    for name in sorted(inputs):
        content = _content_digest((root / name).absolute(), inputs[name], kept_in)
        digest.update(b"%s\0%s\n" % (os.fsencode(name), content.encode()))
    return digest.hexdigest()


def _content_digest(path: Path, stamp: Stamp, kept_in: Path) -> str:
    """sha256 of the content of a file that has this stamp."""
    with unchanged(path, stamp):
        try:
            return _kept(path, stamp, kept_in)
        except LookupError:
            with opening(path), path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
    # One more change could come within the same tick of the file system's clock, and would not show.
    if abs(time.time() - stamp.mtime_ns / 1e9) > _SETTLED:
        _keep(path, stamp, found, kept_in)
    return found


def _place(path: Path, stamp: Stamp, kept_in: Path) -> Path:
    # Hosts whose copies of the data have other times have records of their own, and do not disturb each other.
    key = hashlib.sha256(b"%s\0%d\0%d" % (os.fsencode(path), *stamp)).hexdigest()
    return kept_in / key[:2] / f"{key[2:]}.json"


def _record(path: Path, stamp: Stamp, sha256: str) -> bytes:
    """What is kept of one file; a checksum of its own tells whether it is intact."""
    known = {"path": str(path), **stamp._asdict(), "sha256": sha256}
    check = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    return (json.dumps({**known, "check": check}, indent=1) + "\n").encode()


@lru_cache(maxsize=100_000)  # thousands of results may have been made of one file
def _kept(path: Path, stamp: Stamp, kept_in: Path) -> str:
    """A digest that was kept; LookupError if there is none that is intact."""
    place = _place(path, stamp, kept_in)
    try:
        data = place.read_bytes()
    except FileNotFoundError as error:
        raise LookupError(path) from error
    except OSError as error:
        _log.warning("the digest of %s is computed again: cannot read %s: %s", path, place, error.strerror)
        raise LookupError(path) from error
    try:
        sha256 = str(json.loads(data)["sha256"])
        intact = data == _record(path, stamp, sha256)
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        _log.warning("the digest of %s is computed again: %s is damaged", path, place)
        raise LookupError(path)
    return sha256


def _keep(path: Path, stamp: Stamp, sha256: str, kept_in: Path) -> None:
    """Keep a digest; whoever cannot must compute it again the next time."""
    place = _place(path, stamp, kept_in)
    try:
        make_folder(place.parent)
        publish(place, _record(path, stamp, sha256))
    except ResultsError as error:
        _log.warning("the digest of %s is not kept: %s", path, error.what)
