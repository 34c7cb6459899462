"""Texts in a zarr hierarchy: each is a cell of an array, a chunk of its own, and so a file that is whole or not there.

zarr makes what stands in the files and reads it, a checksum (crc32c) in each. They are put in their places here: zarr
itself asks no disk to take note of what it writes, and does not tell who came first where a cell may be written once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore, MemoryStore

from stormtracks.cluster.errors import StoreDamagedError
from stormtracks.cluster.persistence.rowstore import damaged_error
from stormtracks.publish import publish, remove_temporaries, storing, sync_folder

__all__ = ["Cells"]

_GROUP = "zarr.json"
"""What makes a folder a group; it never changes, and is what is locked."""

_STALE = 3600.0
"""Age in seconds from which on temporary files are removed where a file system knows no locks."""


class Cells:
    """The arrays of texts in a zarr group.

    Parameters
    ----------
    root : Path
        Folder of the group.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._draft: dict[str, Any] = {}
        # In memory, and written once for each text: what zarr then holds is what goes into the file.
        self._cell = _create(MemoryStore(self._draft), 1)
        self._arrays: dict[str, zarr.Array[Any]] = {}

    @classmethod
    def create(cls, root: Path, lengths: Mapping[str, int], texts: Mapping[tuple[str, int], str]) -> None:
        """Make a group in a folder that is not there yet, nor in its place: it need not be whole before the end.

        Parameters
        ----------
        root : Path
        lengths : dict
            Of the arrays, by their names.
        texts : dict
            Of the cells that are written, by array and index.
        """
        cells = cls(root)
        group: dict[str, Any] = {}
        zarr.create_group(MemoryStore(group))
        with storing("write", root):
            for name, length in lengths.items():
                (root / name / "c").mkdir(parents=True)
                _write(root / name / "zarr.json", _metadata(length))
            _write(root / _GROUP, group[_GROUP].to_bytes())
            for (name, index), text in texts.items():
                _write(cells.path(name, index), cells.chunk(text))
            for folder, _, _ in os.walk(root, topdown=False):
                sync_folder(Path(folder))

    def path(self, name: str, index: int) -> Path:
        """The file of a cell."""
        return self.root / name / "c" / str(index)

    # --- reading

    def held(self, name: str) -> set[int]:
        """The indices of all cells of an array that are written."""
        with storing("list the folder", self.root / name):
            return {int(entry.name) for entry in os.scandir(self.root / name / "c") if entry.name.isdecimal()}

    def is_held(self, name: str, index: int) -> bool:
        """Whether a cell is written."""
        return self.path(name, index).exists()

    def read(self, name: str, indices: list[int]) -> dict[int, str]:
        """Texts by the indices of their cells; cells that are not written are left out.

        Raises
        ------
        StoreDamagedError
            If a file is not what was written.
        ResultsError
            If the disk does not let it be read.
        """
        if not indices:
            return {}
        array = self._opened(name, max(indices))
        with storing("read", self.root / name):
            try:
                found = np.asarray(array.get_coordinate_selection((indices,)))
            except OSError:
                raise
            except Exception as error:
                # zarr, its codecs and what these are made of have no error of their own for damage.
                raise self._find_damage(array, name, indices, error) from error
        return {index: str(text) for index, text in zip(indices, found, strict=True) if text}

    def _find_damage(
        self, array: zarr.Array[Any], name: str, indices: list[int], error: Exception
    ) -> StoreDamagedError:
        for index in indices:
            try:
                array.get_coordinate_selection(([index],))
            except Exception as one:
                return damaged_error(self.path(name, index), str(one))
        return damaged_error(self.root / name, str(error))

    def _opened(self, name: str, index: int) -> zarr.Array[Any]:
        """The array on disk, read again if it was shorter when it was last."""
        array = self._arrays.get(name)
        if array is None or array.shape[0] <= index:
            path = self.root / name / "zarr.json"
            try:
                array = zarr.open_array(LocalStore(self.root, read_only=True), path=name, mode="r")
            except Exception as error:
                raise damaged_error(path, str(error)) from error
            if array.shape[0] <= index:
                raise damaged_error(path, f"there is no cell {index}, only {array.shape[0]}")
            self._arrays[name] = array
        return array

    # --- writing

    def replace(self, name: str, index: int, text: str) -> None:
        """Put a text in a cell, in one step.

        Raises
        ------
        ResultsError
            If the disk does not take it; the cell then is as it was.
        """
        publish(self.path(name, index), self.chunk(text))

    def write_once(self, name: str, index: int, text: str) -> bool:
        """Put a text in a cell that is not written yet; false if it is, whoever has come first.

        Raises
        ------
        ResultsError
            If the disk does not take it, or cannot give one file two names.
        """
        path = self.path(name, index)
        try:
            # A link is made by one alone; what `publish` does then, a move onto itself, changes nothing.
            publish(path, self.chunk(text), check=lambda temporary: _link(temporary, path))
        except FileExistsError:
            return False
        return True

    def make_room(self, name: str, number: int) -> None:
        """See that an array has at least so many cells; it grows by doubling."""
        length = self._opened(name, 0).shape[0]
        if number > length:
            publish(self.root / name / "zarr.json", _metadata(max(number, 2 * length)))
            del self._arrays[name]

    def remove_leftovers(self, names: Iterable[str]) -> None:
        """Remove what killed writers have left; for one that holds the lock alone."""
        for name in names:
            remove_temporaries(self.root / name, older_than=_STALE)
            remove_temporaries(self.root / name / "c", older_than=_STALE)

    @contextmanager
    def locked(self, *, alone: bool) -> Iterator[None]:
        """Keep others from changing more than one cell at a time; or, `alone`, from changing anything."""
        path = self.root / _GROUP
        with storing("lock", path):
            # For writing, as locks over NFS need, unless it may only be read.
            descriptor = os.open(path, (os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            with storing("lock", path):
                fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def lengths(self, names: Iterable[str]) -> dict[str, int]:
        """How many cells each of some arrays has room for, by their names."""
        self._arrays.clear()
        return {name: self._opened(name, 0).shape[0] for name in names}

    def copy(self, root: Path, cells: Mapping[str, Iterable[int]]) -> None:
        """Copy cells that are written, and never will be again, into another group.

        Parameters
        ----------
        root : Path
            Of a group that has room for them. It need not be whole before the end; then all of it is on the disk.
        cells : dict
            Indices by the names of arrays.
        """
        with storing(f"copy {self.root} to", root):
            for name, indices in cells.items():
                for index in sorted(indices):
                    shutil.copyfile(self.path(name, index), root / name / "c" / str(index))
            # Once for all: the disk takes them together a hundred times as fast as one by one.
            os.sync()

    def chunk(self, text: str) -> bytes:
        """What zarr makes of a text."""
        self._cell[0] = text
        data: bytes = self._draft["c/0"].to_bytes()
        return data


def _metadata(length: int) -> bytes:
    """What zarr says of an array of this length."""
    draft: dict[str, Any] = {}
    _create(MemoryStore(draft), length)
    data: bytes = draft["zarr.json"].to_bytes()
    return data


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _create(store: Store, length: int) -> zarr.Array[Any]:
    return zarr.create_array(
        store, shape=(length,), chunks=(1,), dtype="string", fill_value="", compressors=[Crc32cCodec()]
    )


def _link(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError as error:
        with storing("write", path):
            raise error
