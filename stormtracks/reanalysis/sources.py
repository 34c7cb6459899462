"""One variable in one file: described once, with its axes, units and packing, then read in slabs of time."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError
from stormtracks.grid import Grid
from stormtracks.inputs import Stamp, opening, unchanged
from stormtracks.reanalysis.archive import Quantity
from stormtracks.reanalysis.axes import (
    Axis,
    coordinate_values,
    member_numbers,
    scalar_coordinates,
    time_axis,
    unwrap_longitudes,
)
from stormtracks.reanalysis.candidates import Candidate, Request, candidates_in, choose, level_index
from stormtracks.reanalysis.chunks import ChunkReader, StrangeChunkError, chunk_table, in_order
from stormtracks.reanalysis.netcdf import Variable, attribute, open_netcdf, reading
from stormtracks.reanalysis.packing import Packing, packing_of
from stormtracks.reanalysis.quantities import EASTWARD_WIND, NORTHWARD_WIND, identify, si_units
from stormtracks.times import TimeAxis

__all__ = ["Source", "SourceReader", "field_names", "find_source"]

Field = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)

_LARGEST_CACHE = 256 * 2**20  # bytes


@dataclass(frozen=True, eq=False)
class Source:
    """One variable in one file, without the file being open.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    stamp : Stamp
        Of the file when this was read from it.
    quantity : Quantity
        What the variable is; units are those of what is read.
    grid : Grid
        The points, longitudes ascending.
    times : TimeAxis
        All steps of the file.
    members : tuple of int
        Members along its axis, in the order of the axis; empty if there is no such axis.
    axes : tuple of Axis
        Its dimensions, without their coordinates.
    level : int or None
        Position on the level axis.
    columns : numpy.ndarray of int or None
        Stored columns that make up the longitudes of `grid`; None if these are all, as they are.
    packing : Packing
        How stored numbers become the field.
    chunks : tuple of int
        Length of a stored chunk along each dimension; 1 along each where the file is not chunked.
    """

    path: Path
    stamp: Stamp
    quantity: Quantity
    grid: Grid
    times: TimeAxis
    members: tuple[int, ...]
    axes: tuple[Axis, ...]
    level: int | None
    columns: npt.NDArray[np.intp] | None
    packing: Packing
    chunks: tuple[int, ...]

    @property
    def chunk_steps(self) -> int:
        """Time steps in one stored chunk."""
        return next((size for axis, size in zip(self.axes, self.chunks, strict=True) if axis.role == "time"), 1)

    @property
    def chunks_per_slab(self) -> int:
        """Chunks that hold one member and level over one chunk of time."""
        counts = [
            math.ceil(axis.size / size)
            for axis, size in zip(self.axes, self.chunks, strict=True)
            if axis.role in ("lat", "lon")
        ]
        return math.prod(counts)

    @property
    def slab_bytes(self) -> int:
        """Bytes, uncompressed, of these chunks, with the other members and levels that they hold."""
        return self.chunks_per_slab * math.prod(self.chunks) * self.packing.dtype.itemsize

    def positions(self, members: Sequence[int] | None) -> list[int]:
        """Where members are along the axis of members, in the order given; members None means the only one.

        Raises
        ------
        InputError
            If the file lacks one of them.
        """
        there = self.members or (1,)
        if members is None:
            if len(there) > 1:
                raise InputError(f"{self.path} has {len(there)} members", remedy="this layout has one member per file")
            return [0]
        for member in members:
            if member not in there:
                known = ", ".join(map(str, self.members)) or "1, as it has no member axis"
                raise InputError(f"member {member} is not in {self.path}", remedy=f"the members there are {known}")
        return [there.index(member) for member in members]


class SourceReader:
    """An open file, from which some members of a source are read.

    Parameters
    ----------
    source : Source
        Where and what.
    members : sequence of int or None
        Members to read, at least one, in the order wanted; None for the only one.
    """

    def __init__(self, source: Source, members: Sequence[int] | None) -> None:
        self.source = source
        self._positions = source.positions(members)
        self._roles = [axis.role for axis in source.axes]
        with ExitStack() as stack:
            with unchanged(source.path, source.stamp):
                dataset = stack.enter_context(open_netcdf(source.path))
            self._variable = dataset.variables[source.quantity.name]
            self._variable.set_auto_maskandscale(False)
            self._keep_shared_chunks()
            self._chunks = self._chunk_reader()
            if self._chunks is not None:
                stack.callback(self._chunks.close)
            self._stack = stack.pop_all()

    def _chunk_reader(self) -> ChunkReader | None:
        """What reads the chunks without the library, which is faster; None if they are not such as it knows."""
        source = self.source
        if not (self._variable.filters() or {}).get("zlib"):
            return None
        table = chunk_table(source.path, source.stamp, source.quantity.name)
        if table is None or table.shape != tuple(axis.size for axis in source.axes):
            return None
        with opening(source.path):
            return ChunkReader(source.path, table, roles=self._roles, level=source.level or 0, members=self._positions)

    def _keep_shared_chunks(self) -> None:
        # Two consecutive blocks may share a chunk: with room for one slab it is unpacked once, and no more is kept.
        source = self.source
        if isinstance(self._variable.chunking(), list) and source.slab_bytes <= _LARGEST_CACHE:
            slots = 101 * source.chunks_per_slab + 1  # sparse, since chunks that collide push each other out
            with reading(source.path, f"variable {source.quantity.name!r}"):
                self._variable.set_var_chunk_cache(source.slab_bytes, slots, 0.0)

    def read(self, start: int, stop: int) -> Field:
        """Steps `start` to `stop` of the file, shape (members, stop - start, nlat, nlon), in SI units, NaN if missing.

        Raises
        ------
        InputError
            If the file is damaged there, or has changed since it was described.
        """
        steps = f"steps {start} to {stop - 1} of variable {self.source.quantity.name!r}"
        with unchanged(self.source.path, self.source.stamp), reading(self.source.path, steps):
            stored = self._stored(start, stop)
        field = self.source.packing.unpack(stored)
        if self.source.columns is not None:
            field = field.take(self.source.columns, axis=3)
        return np.ascontiguousarray(field)

    def _stored(self, start: int, stop: int) -> npt.NDArray[Any]:
        """What is stored, shape (members, stop - start, nlat, nlon)."""
        if self._chunks is not None:
            try:
                return self._chunks.read(start, stop)
            except StrangeChunkError as error:
                _log.debug("the NetCDF library reads %s: %s", self.source.path, error)
        wanted = {"time": slice(start, stop), "level": self.source.level or 0, "": 0}
        parts = []
        for lot in self._lots():
            wanted["member"] = slice(min(lot), max(lot) + 1)
            index = tuple(wanted.get(role, slice(None)) for role in self._roles)
            stored = in_order(np.asarray(self._variable[index]), self._roles)
            parts.append(stored[[position - min(lot) for position in lot]] if len(lot) > 1 else stored)
        stored = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return stored if "time" in self._roles else stored[:, start:stop]

    def _lots(self) -> list[list[int]]:
        """The positions of the members, those in turn that lie in the same chunks."""
        source = self.source
        sizes = (size for axis, size in zip(source.axes, source.chunks, strict=True) if axis.role == "member")
        depth = next(sizes, 1)
        return [list(lot) for _, lot in itertools.groupby(self._positions, key=lambda position: position // depth)]

    def close(self) -> None:
        """Close the file."""
        self._stack.close()


def find_source(
    dataset: netCDF4.Dataset, path: Path, request: Request, *, stamp: Stamp, lone: bool = False
) -> Source | None:
    """The variable of an open file that a request means, described; None if the file has none.

    Parameters
    ----------
    dataset : netCDF4.Dataset
        The file.
    path : pathlib.Path
        Its path.
    request : Request
        What the settings ask for.
    stamp : Stamp
        That the file had before it was opened.
    lone : bool
        Whether the name of the file says what is in it, so that its only field is meant whatever that is called,
        unless both are known and differ.

    Raises
    ------
    InputError
        If the variable cannot be used: ambiguous name, missing level, axes, units or times that make no sense.
    """
    candidates = candidates_in(dataset, path)
    candidate = choose(request, candidates, path=path)
    if candidate is None and lone and len(candidates) == 1:
        known_to_differ = candidates[0].standard_name and identify(request.name).standard_name
        candidate = None if known_to_differ else candidates[0]
    if candidate is None:
        return None
    return _describe(dataset, path, request, candidate, stamp)


def field_names(dataset: netCDF4.Dataset, path: Path) -> list[str]:
    """The fields of a file in words, with their standard names."""
    found = [(candidate.name, candidate.standard_name) for candidate in candidates_in(dataset, path)]
    return [f"{name} ({standard_name})" if standard_name else name for name, standard_name in found]


def _describe(dataset: netCDF4.Dataset, path: Path, request: Request, candidate: Candidate, stamp: Stamp) -> Source:
    variable = dataset.variables[candidate.name]
    axes = {axis.role: axis for axis in candidate.axes}
    _check_axes(candidate, path)
    grid, columns = _grid(axes["lat"], axes["lon"], path)
    standard_name = _standard_name(request, candidate, path)
    units, factor = si_units(standard_name, attribute(variable, "units"), variable=candidate.name, file=str(path))
    chunking = variable.chunking()
    return Source(
        path=path,
        stamp=stamp,
        quantity=Quantity(candidate.name, standard_name, units),
        grid=grid,
        times=_times(dataset, variable, axes.get("time"), path),
        members=member_numbers(axes["member"], path) if "member" in axes else (),
        axes=tuple(Axis(axis.dimension, axis.position, axis.size, axis.role, None) for axis in candidate.axes),
        level=level_index(request, candidate, path=path),
        columns=columns,
        packing=packing_of(variable, factor=factor, file=str(path)),
        chunks=tuple(chunking) if isinstance(chunking, list) else (1,) * variable.ndim,
    )


def _check_axes(candidate: Candidate, path: Path) -> None:
    seen: set[str] = set()
    for axis in candidate.axes:
        what = f"variable {candidate.name!r} in {path} has a dimension {axis.dimension!r} of length {axis.size}"
        select = f"select one beforehand: ncks -d {axis.dimension},INDEX IN OUT"
        if not axis.role and axis.size > 1:
            raise InputError(f"{what} that is none of time, member, level, latitude, longitude", remedy=select)
        if axis.role and axis.role in seen:
            raise InputError(f"{what} that is a second axis of {axis.role}", remedy=select)
        if axis.size == 0:
            raise InputError(what, remedy="leave the file out, or fill it")
        seen.add(axis.role)


def _grid(lat: Axis, lon: Axis, path: Path) -> tuple[Grid, npt.NDArray[np.intp] | None]:
    longitudes, columns = unwrap_longitudes(coordinate_values(_coordinate(lon, path), path))
    try:
        return Grid(coordinate_values(_coordinate(lat, path), path), longitudes), columns
    except InputError as error:
        raise InputError(f"{path}: {error.what}", remedy=error.remedy) from error


def _coordinate(axis: Axis, path: Path) -> Variable:
    if axis.coordinate is None:
        raise InputError(
            f"dimension {axis.dimension!r} in {path} has no coordinates", remedy="add a variable of the same name"
        )
    return axis.coordinate


def _times(dataset: netCDF4.Dataset, variable: Variable, axis: Axis | None, path: Path) -> TimeAxis:
    if axis is not None:
        return time_axis(_coordinate(axis, path), path)
    scalars = scalar_coordinates(dataset, variable, "time")
    if len(scalars) != 1:
        found = ", ".join(other.name for other in scalars) or "none"
        raise InputError(
            f"variable {variable.name!r} in {path} has no time axis, and needs one scalar time coordinate: {found}",
            remedy="add a variable 'time' with units such as 'hours since 1900-01-01 00:00:00'",
        )
    return time_axis(scalars[0], path)


def _standard_name(request: Request, candidate: Candidate, path: Path) -> str:
    """The standard name, which for a component of the wind must be that component, or be silent."""
    if not request.component or candidate.standard_name == request.component:
        return candidate.standard_name
    if not candidate.standard_name:
        return request.component
    swapped = candidate.standard_name in (EASTWARD_WIND, NORTHWARD_WIND)
    raise InputError(
        f"variable {candidate.name!r} in {path} is {candidate.standard_name}, where wind needs {request.component}",
        remedy="swap the two names: the eastward wind comes first" if swapped else "name a variable that is a wind",
    )
