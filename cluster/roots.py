"""Proof that the folders of a campaign are the same on every host: one network disk, or data of the same content.

The manager leaves a file of a name that was never there before in the results root, and a worker reads it: it must be
the very same folder. The data root may be read-only and may well be a copy on each host, so that it is compared by a
fingerprint: names and sizes of its first files, and the first bytes of one of them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from stormtracks.cluster.errors import WorkerRefusedError
from stormtracks.publish import make_folder, publish

__all__ = ["changing", "check_data_root", "check_results_root", "fingerprint", "place_proof", "remove_proofs"]

_PROOF = ".stormtracks-proof-"
_CHANGING = ("campaign", "inputs", "manager.lock", "results")
_FILES = 500
"""Files whose names and sizes go into a fingerprint."""
_BYTES = 2**20


def place_proof(root: Path) -> str:
    """Leave a proof in the results root; its name, which is also its content.

    Raises
    ------
    ResultsError
        If the folder cannot be written to.
    """
    name = _PROOF + secrets.token_hex(8)
    make_folder(root)
    publish(root / name, name.encode())
    return name


def remove_proofs(root: Path) -> None:
    """Remove all proofs from the results root."""
    for path in root.glob(f"{_PROOF}*"):
        path.unlink(missing_ok=True)


def changing(root: Path) -> tuple[Path, ...]:
    """What changes in a results root while a campaign runs."""
    return (root, *(root / name for name in _CHANGING))


def check_results_root(root: Path, proof: str) -> None:
    """See that the results root is the manager's own, and can be written to.

    Raises
    ------
    WorkerRefusedError
        If it is not.
    """
    remedy = f"mount the manager's folder at {root} on that host too, or set results.root to one that all hosts share"
    try:
        with (root / proof).open("rb") as file:
            found = file.read(len(proof) + 1)
    except OSError as error:
        raise WorkerRefusedError(
            f"the results root {root} there is not the manager's: {error.strerror}", remedy=remedy
        ) from error
    if found != proof.encode():
        raise WorkerRefusedError(f"the results root {root} there holds another proof than the manager's", remedy=remedy)
    if not os.access(root, os.W_OK | os.X_OK):
        raise WorkerRefusedError(
            f"the results root {root} cannot be written to there",
            remedy="give the user that the worker runs as permission to write",
        )


def check_data_root(root: Path, expected: str, *, leave_out: Collection[Path]) -> None:
    """See that the data root has the manager's fingerprint.

    Raises
    ------
    WorkerRefusedError
        If it has not.
    """
    found = fingerprint(root, leave_out=leave_out)
    if found != expected:
        raise WorkerRefusedError(
            f"the data root {root} there holds {found}, the manager's {expected}",
            remedy=f"mount or copy the manager's data to {root} on that host, or set data.root to what all hosts share",
        )


def fingerprint(root: Path, *, leave_out: Collection[Path] = ()) -> str:
    """What a folder holds, in short: ``24 files, 3f2a...``; the same wherever its files have the same content.

    Parameters
    ----------
    root : Path
    leave_out : collection of Path
        Files and folders that do not count, as they change while the campaign runs.
    """
    digest = hashlib.sha256()
    count = 0
    try:
        for count, path in enumerate(islice(_files(root, leave_out), _FILES), start=1):
            digest.update(f"{path.relative_to(root).as_posix()}\n{path.stat().st_size}\n".encode())
            if count == 1:
                with path.open("rb") as file:
                    digest.update(file.read(_BYTES))
    except OSError as error:
        return f"nothing that can be read ({error.strerror})"
    return f"{count} files, {digest.hexdigest()[:16]}" if count else "no files"


def _files(folder: Path, leave_out: Collection[Path]) -> Iterator[Path]:
    """All files but hidden ones, in an order that depends on their names alone."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path in leave_out:
            continue
        if path.is_dir():
            yield from _files(path, leave_out)
        elif path.is_file():
            yield path
