"""The fields of some members over one stretch of time, put together from the files that hold them."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError
from stormtracks.grid import Grid
from stormtracks.inputs import Stamp
from stormtracks.reanalysis.archive import Quantity
from stormtracks.reanalysis.sources import Source, SourceReader
from stormtracks.times import TimeAxis, join

__all__ = ["FileSeries", "in_order", "sharing_chunks"]

Field = npt.NDArray[np.float32]

_BLOCK_BYTES = 16 * 2**20
_LARGEST_BLOCK_BYTES = 256 * 2**20

_log = logging.getLogger(__name__)


class _Chain:
    """One quantity over one calendar year, from one file after the other; at most one of them is open.

    Parameters
    ----------
    sources : sequence of Source
        In order of time.
    members : sequence of int or None
        Members to read; None for the only one in each file.
    year : int
        Calendar year to read.
    """

    def __init__(self, sources: Sequence[Source], *, members: Sequence[int] | None, year: int) -> None:
        stretches = [(source, source.times.year_slice(year)) for source in sources]
        self._parts = [(source, steps) for source, steps in stretches if steps.start < steps.stop]
        for source, _ in self._parts:
            source.positions(members)  # the members must be in every file, before anything is read
        self._members = members
        self._starts = np.cumsum([0, *(steps.stop - steps.start for _, steps in self._parts)]).tolist()
        self._reader: SourceReader | None = None
        self.sources = [source for source, _ in self._parts]
        self.times = join([source.times[steps] for source, steps in self._parts])

    @property
    def file_starts(self) -> list[int]:
        """Steps that are the first of a file."""
        return [at for at, (_, steps) in zip(self._starts, self._parts, strict=False) if steps.start == 0]

    def read(self, start: int, stop: int) -> Field:
        """Steps `start` to `stop` of the year, shape (members, stop - start, nlat, nlon)."""
        pieces = []
        for (source, steps), first, end in zip(self._parts, self._starts, self._starts[1:], strict=False):
            begin, finish = max(start, first), min(stop, end)
            if begin < finish:
                shift = steps.start - first
                pieces.append(self._open(source).read(begin + shift, finish + shift))
        if not pieces:
            return np.empty((len(self._members or (1,)), 0, *self.sources[0].grid.shape), dtype=np.float32)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)

    def _open(self, source: Source) -> SourceReader:
        if self._reader is None or self._reader.source is not source:
            self.close()
            self._reader = SourceReader(source, self._members)
        return self._reader

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class FileSeries:
    """A `Series` behind which there are NetCDF files.

    Parameters
    ----------
    sources : sequence of sequences of Source
        For each quantity its files with steps in `year`, at least one, in order of time.
    members : sequence of int
        Members to read.
    file_per_member : bool
        Whether each file holds one member, which is the one to read, whatever the file itself calls it.
    year : int
        Calendar year to read.
    root : pathlib.Path
        Folder to which `inputs` are relative.

    Raises
    ------
    InputError
        If a file lacks a member, or the quantities differ in grid or times.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[Source]],
        *,
        members: Sequence[int],
        file_per_member: bool = False,
        year: int,
        root: Path,
    ) -> None:
        in_file = None if file_per_member else members
        self._chains = [_Chain(files, members=in_file, year=year) for files in sources]
        self.members: tuple[int, ...] = tuple(members)
        first = self._chains[0]
        for other in self._chains[1:]:
            _check_same(first, other)
        everything = [source for chain in self._chains for source in chain.sources]
        self.grid: Grid = first.sources[0].grid
        self.times: TimeAxis = first.times
        self.quantities: tuple[Quantity, ...] = tuple(chain.sources[0].quantity for chain in self._chains)
        inputs = {source.path.relative_to(root).as_posix(): source.stamp for source in everything}
        self.inputs: Mapping[str, Stamp] = dict(sorted(inputs.items()))
        self.file_starts: tuple[int, ...] = tuple(
            sorted({step for chain in self._chains for step in chain.file_starts})
        )
        self.block_steps: int = _block_steps(everything, len(members))

    def read(self, start: int, stop: int) -> tuple[Field, ...]:
        """Steps `start` to `stop`: for each quantity one array (members, stop - start, nlat, nlon).

        In SI units, NaN if missing.

        Raises
        ------
        InputError
            If a file is damaged there.
        IndexError
            If there are no such steps.
        """
        if not 0 <= start <= stop <= len(self.times):
            raise IndexError(f"steps {start} to {stop} of a series of {len(self.times)}")
        return tuple(chain.read(start, stop) for chain in self._chains)

    def close(self) -> None:
        """Close the files."""
        for chain in self._chains:
            chain.close()


def in_order(sources: Sequence[Source]) -> list[Source]:
    """The files of one quantity in order of time, with one grid for all.

    Raises
    ------
    InputError
        If two overlap in time, or differ in grid, calendar or quantity.
    """
    ordered = sorted(sources, key=lambda source: (int(source.times.seconds[0]), source.path))
    for before, after in itertools.pairwise(ordered):
        both = f"{before.path} and {after.path}"
        if before.times.calendar != after.times.calendar:
            raise InputError(
                f"{both} use the calendars {before.times.calendar} and {after.times.calendar}",
                remedy="leave the files of one calendar out: their days do not correspond to those of the other",
            )
        if before.times.seconds[-1] >= after.times.seconds[0]:
            raise InputError(
                f"{both} overlap in time: {before.quantity.name!r} of the first ends at {before.times.date(-1)}, "
                f"{after.quantity.name!r} of the second begins at {after.times.date(0)}",
                remedy="leave one of them out, or cut it; members in files of their own need the layout c20v3",
            )
        if difference := _difference(before.grid, after.grid):
            raise InputError(f"{both} are on different grids: {difference}", remedy="bring them to one grid")
        if before.quantity.standard_name != after.quantity.standard_name:
            raise InputError(
                f"{both} hold different quantities: {before.quantity.standard_name or before.quantity.name} "
                f"and {after.quantity.standard_name or after.quantity.name}",
                remedy="leave one of them out",
            )
    return [replace(source, grid=ordered[0].grid) for source in ordered]


def _check_same(first: _Chain, other: _Chain) -> None:
    """Refuse two quantities that are not on the same points at the same times."""
    names = [f"{chain.sources[0].quantity.name!r} in {chain.sources[0].path}" for chain in (first, other)]
    both = " and ".join(names)
    if difference := _difference(first.sources[0].grid, other.sources[0].grid):
        raise InputError(f"{both} are on different grids: {difference}", remedy="interpolate one to the other's grid")
    if difference := _time_difference(first.times, other.times):
        raise InputError(f"{both} are at different times: {difference}", remedy="select the steps that both have")


def _difference(one: Grid, other: Grid) -> str:
    """How two grids differ, in words; empty if they do not."""
    if one.same_as(other):
        return ""
    if one.shape != other.shape:
        return f"{one.shape[0]} x {one.shape[1]} points against {other.shape[0]} x {other.shape[1]}"
    axes = (("latitude", one.lat, other.lat), ("longitude", one.lon, other.lon))
    name, mine, its = max(axes, key=lambda axis: float(np.abs(axis[1] - axis[2]).max()))
    worst = int(np.argmax(np.abs(mine - its)))
    return f"{name} {worst} is {mine[worst]:g} against {its[worst]:g}"


def _time_difference(one: TimeAxis, other: TimeAxis) -> str:
    """How two time axes differ, in words; empty if they do not."""
    if one.calendar != other.calendar:
        return f"calendar {one.calendar} against {other.calendar}"
    shorter = min(len(one), len(other))
    unequal = np.flatnonzero(one.seconds[:shorter] != other.seconds[:shorter])
    if len(unequal):
        step = int(unequal[0])
        return f"step {step} is {one.date(step)} against {other.date(step)}"
    return "" if len(one) == len(other) else f"{len(one)} steps against {len(other)}"


def sharing_chunks(sources: Sequence[Source], members: Sequence[int]) -> list[tuple[int, ...]]:
    """Members in groups whose fields lie in the same chunks of a file, as many as a block of them all has room for.

    Parameters
    ----------
    sources : sequence of Source
        At least one; the one with most members in a chunk decides.
    members : sequence of int
    """
    source = max(sources, key=_chunk_members)
    room = _LARGEST_BLOCK_BYTES // (4 * math.prod(source.grid.shape) * source.chunk_steps)
    depth = max(1, min(_chunk_members(source), room))
    place = {member: place for place, member in enumerate(source.members)}
    ordered = sorted(members, key=lambda member: place.get(member, 0))
    groups = itertools.groupby(ordered, key=lambda member: place.get(member, 0) // depth)
    return [tuple(group) for _, group in groups]


def _chunk_members(source: Source) -> int:
    """Members in one stored chunk; all of them where the file is not chunked, as no more is unpacked for one alone."""
    along = zip(source.axes, source.chunks, strict=True)
    whole = math.prod(source.chunks) == 1
    return next((axis.size if whole else size for axis, size in along if axis.role == "member"), 1)


def _block_steps(sources: Sequence[Source], members: int) -> int:
    """Steps per block: whole chunks, about 16 MiB a quantity, at least one chunk unless that is over 256 MiB."""
    step_bytes = 4 * members * sources[0].grid.shape[0] * sources[0].grid.shape[1]
    chunk = max(source.chunk_steps for source in sources)
    if chunk * step_bytes > _LARGEST_BLOCK_BYTES:
        deepest = max(sources, key=lambda source: source.chunk_steps)
        _log.warning(
            "%s is stored in chunks of %d time steps, too many to read at once: each chunk will be unpacked more "
            "than once; faster after: nccopy -c %s/32 IN OUT",
            deepest.path,
            chunk,
            next(axis.dimension for axis in deepest.axes if axis.role == "time"),
        )
        return max(1, _LARGEST_BLOCK_BYTES // step_bytes)
    return chunk * max(1, _BLOCK_BYTES // (step_bytes * chunk))
