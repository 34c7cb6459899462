"""The chunks of a NetCDF-4 variable, read and unpacked without the HDF5 library, which takes longer for the same bytes.

Only zlib, with or without shuffling, is known here. All else is left to that library, and so is saying what is wrong
with a file.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from deflate import DeflateError, zlib_decompress

from stormtracks.inputs import Stamp, unchanged

__all__ = ["ORDER", "ChunkReader", "ChunkTable", "StrangeChunkError", "chunk_table", "in_order"]

ORDER = ("member", "time", "lat", "lon")
"""Roles of the axes of what is read."""

_SHUFFLE, _DEFLATE = 2, 1  # numbers of the filters in HDF5
_SMALLEST = 4096  # bytes: with smaller chunks the library is faster
_LARGEST_KEPT = 256 * 2**20  # bytes

_Piece = tuple[slice, slice]
"""Where along an axis of a chunk, and where along that axis of what is read."""


class StrangeChunkError(Exception):
    """A chunk was never written, is damaged, or is stored in another way than the rest."""


@dataclass(frozen=True, eq=False)
class ChunkTable:
    """Where in a file the chunks of a variable are.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the stored numbers, with their byte order.
    shape : tuple of int
        Length of the variable along each dimension.
    chunk : tuple of int
        Length of a chunk along each dimension.
    shuffled : bool
        Whether a chunk holds the first byte of all its numbers, then the second of all, and so on.
    offsets, sizes : numpy.ndarray of int64
        In bytes, by the place in the grid of chunks; offset -1 where there is no chunk, or a strange one.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shuffled: bool
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @property
    def chunk_bytes(self) -> int:
        """Bytes of an unpacked chunk."""
        return math.prod(self.chunk) * self.dtype.itemsize


@lru_cache(maxsize=4)  # a file of decades is opened anew for each of its years
def chunk_table(path: Path, stamp: Stamp, name: str) -> ChunkTable | None:
    """The chunks of a variable; None if they are not such as can be read here.

    Raises
    ------
    InputError
        If the file has another stamp by now.
    """
    import h5py  # late: other files do not need it

    with unchanged(path, stamp):
        try:
            with h5py.File(path, "r") as file:
                return _table(file[name].id)
        except (OSError, RuntimeError, KeyError, ValueError):
            return None  # the NetCDF library may still know it, or says what is wrong


def _table(dataset: Any) -> ChunkTable | None:
    import h5py

    properties, dtype = dataset.get_create_plist(), dataset.dtype
    filters = [properties.get_filter(at) for at in range(properties.get_nfilters())]
    codes = [code for code, *_ in filters]
    if codes not in ([_DEFLATE], [_SHUFFLE, _DEFLATE]) or not dataset.get_type().equal(h5py.h5t.py_create(dtype)):
        return None
    shape, chunk = dataset.shape, properties.get_chunk()
    counts = [math.ceil(size / length) for size, length in zip(shape, chunk, strict=True)]
    offsets, sizes = np.full(counts, -1, dtype=np.int64), np.zeros(counts, dtype=np.int64)
    table = ChunkTable(dtype, shape, chunk, codes[0] == _SHUFFLE, offsets, sizes)
    if table.chunk_bytes < _SMALLEST or (table.shuffled and filters[0][2][0] != dtype.itemsize):
        return None

    def note(stored: Any) -> None:
        if not stored.filter_mask:  # no filter was left out
            at = tuple(start // length for start, length in zip(stored.chunk_offset, chunk, strict=True))
            offsets[at], sizes[at] = stored.byte_offset, stored.size

    dataset.chunk_iter(note)
    return table


class ChunkReader:
    """Some members and one level of a variable, read chunk by chunk.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    table : ChunkTable
        Its chunks.
    roles : sequence of str
        What each dimension is: one of `ORDER`, "level", or "" for one of length 1.
    level : int
        Position along the dimension of levels.
    members : sequence of int
        Positions along the dimension of members, in the order wanted; [0] if there is none.
    """

    def __init__(
        self, path: Path, table: ChunkTable, *, roles: Sequence[str], level: int, members: Sequence[int]
    ) -> None:
        self._table = table
        self._roles = roles
        self._lengths = dict(zip(roles, zip(table.shape, table.chunk, strict=True), strict=True))
        self._level, self._level_within = divmod(level, self._lengths.get("level", (1, 1))[1])
        self._steps = self._lengths.get("time", (1, 1))[1]
        self._shape = (len(members), self._lengths["lat"][0], self._lengths["lon"][0])
        self._parts = self._wanted(members)
        self._row = -1
        self._kept: dict[tuple[int, ...], bytearray] = {}
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the file."""
        self._kept = {}
        os.close(self._file)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The stored numbers of steps `start` to `stop`, in the byte order of this machine.

        Of chunks that hold steps beyond `stop` what is unpacked is kept for the next time, if it is not too large.

        Returns
        -------
        numpy.ndarray, shape (members, stop - start, nlat, nlon)

        Raises
        ------
        StrangeChunkError
            If a chunk cannot be read here.
        OSError
            If the file cannot be read.
        """
        members, nlat, nlon = self._shape
        numbers = np.empty((members, stop - start, nlat, nlon), dtype=self._table.dtype.newbyteorder("="))
        lanes = self._lanes(numbers)
        for row in range(start // self._steps, math.ceil(stop / self._steps)):
            if row != self._row:
                self._row, self._kept = row, {}
            time = _piece(row, self._steps, start, stop)
            for place, pieces in self._parts:
                layers = self._layers(place | {"time": row}, keep=stop < (row + 1) * self._steps)
                for member, lat, lon in pieces:
                    source, target = zip(member, time, lat, lon, strict=True)
                    for lane, layer in zip(lanes, layers, strict=True):
                        lane[target] = layer[source]
        return numbers

    def _lanes(self, numbers: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Where the layers of a chunk go: into the first, second, ... byte of each number, or into the numbers."""
        if not self._table.shuffled:
            return [numbers]
        single = numbers.view(np.uint8).reshape(*numbers.shape, numbers.itemsize)
        lanes = [single[..., at] for at in range(numbers.itemsize)]
        return lanes if self._table.dtype.isnative else lanes[::-1]

    def _layers(self, place: Mapping[str, int], *, keep: bool) -> npt.NDArray[Any]:
        """A chunk, unpacked, shape (bytes of a number or 1, members, steps, latitudes, longitudes)."""
        table = self._table
        index = tuple(place.get(role, 0) for role in self._roles)
        unpacked = self._kept.get(index)
        if unpacked is None:
            unpacked = self._unpacked(index)
            if keep and len(self._parts) * table.chunk_bytes <= _LARGEST_KEPT:
                self._kept[index] = unpacked
        layers = np.frombuffer(unpacked, np.uint8 if table.shuffled else table.dtype).reshape(-1, *table.chunk)
        within = {"level": self._level_within, "": 0}
        picked = layers[(slice(None), *(within.get(role, slice(None)) for role in self._roles))]
        return in_order(picked, self._roles)

    def _unpacked(self, index: tuple[int, ...]) -> bytearray:
        offset, size = int(self._table.offsets[index]), int(self._table.sizes[index])
        if offset < 0:
            raise StrangeChunkError(f"chunk {index}")
        try:
            unpacked = zlib_decompress(os.pread(self._file, size, offset), self._table.chunk_bytes)
        except DeflateError as error:
            raise StrangeChunkError(f"chunk {index}: {error}") from error
        if len(unpacked) != self._table.chunk_bytes:
            raise StrangeChunkError(f"chunk {index}: {len(unpacked)} bytes")
        return unpacked

    def _wanted(self, members: Sequence[int]) -> list[tuple[dict[str, int], list[tuple[_Piece, _Piece, _Piece]]]]:
        """Each chunk that is wanted of a row along time: its place along other axes, and the pieces to be copied."""
        lats, lons = (_pieces(*self._lengths[role]) for role in ("lat", "lon"))
        wanted = []
        for chunk, runs in _runs(members, self._lengths.get("member", (1, 1))[1]).items():
            for (y, lat), (x, lon) in itertools.product(enumerate(lats), enumerate(lons)):
                place = {"member": chunk, "level": self._level, "lat": y, "lon": x}
                wanted.append((place, [(run, lat, lon) for run in runs]))
        return wanted


def in_order(numbers: npt.NDArray[Any], roles: Sequence[str]) -> npt.NDArray[Any]:
    """The last axes of an array, of the `roles` that are in `ORDER`, in that order; those it lacks are of length 1."""
    there = [role for role in roles if role in ORDER]
    before = numbers.ndim - len(there)
    order = [before + there.index(role) for role in ORDER if role in there]
    absent = [before + at for at, role in enumerate(ORDER) if role not in there]
    return np.expand_dims(numbers.transpose(*range(before), *order), absent)


def _runs(positions: Sequence[int], length: int) -> dict[int, list[_Piece]]:
    """Positions along an axis by the chunk that they are in, those that follow on each other together."""
    runs: dict[int, list[_Piece]] = {}
    for (chunk, _), run in itertools.groupby(enumerate(positions), key=lambda at: (at[1] // length, at[1] - at[0])):
        pairs = list(run)
        target, source = pairs[0][0], pairs[0][1] % length
        piece = slice(source, source + len(pairs)), slice(target, target + len(pairs))
        runs.setdefault(chunk, []).append(piece)
    return runs


def _pieces(size: int, length: int) -> list[_Piece]:
    """An axis, chunk by chunk; the last chunk may reach beyond its end."""
    return [_piece(chunk, length, 0, size) for chunk in range(math.ceil(size / length))]


def _piece(chunk: int, length: int, start: int, stop: int) -> _Piece:
    """What a chunk has of the positions `start` to `stop` along an axis."""
    first = chunk * length
    begin, end = max(first, start), min(first + length, stop)
    return slice(begin - first, end - first), slice(begin - start, end - start)
