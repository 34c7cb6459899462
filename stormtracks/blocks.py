"""One member's fields in order of time, block by block, across files and years, with every break in time marked."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stormtracks.detect import check_missing
from stormtracks.errors import InputError
from stormtracks.grid import Grid
from stormtracks.reanalysis.archive import Archive, Quantity, Series
from stormtracks.settings.campaign import DataSettings
from stormtracks.times import TimeAxis, seconds_of

__all__ = ["Block", "read_blocks"]

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive time steps of one member.

    Parameters
    ----------
    fields : tuple of numpy.ndarray, each of shape (n, nlat, nlon), float32
    times : TimeAxis of length n
    cut : shape (n,), bool
        Whether tracks end before the step: the first step of all, and the first after a gap.
    grid : Grid
    quantities : tuple of Quantity
    inputs : tuple of str
        Names of the files behind it, relative to the data root.
    """

    fields: tuple[npt.NDArray[np.float32], ...]
    times: TimeAxis
    cut: BoolArray
    grid: Grid
    quantities: tuple[Quantity, ...]
    inputs: tuple[str, ...]


def read_blocks(
    archive: Archive, data: DataSettings, member: int, years: Iterable[int], *, warm_up: int = 0
) -> Generator[Block, None, None]:
    """Read the years one after the other.

    Parameters
    ----------
    archive : Archive
    data : DataSettings
        Says what to do about gaps and missing values, and where streams break.
    member : int
    years : iterable of int
        Ascending, at least one; taken one at a time, as reading goes on.
    warm_up : int
        Steps to read before the first year, if the archive has them.

    Raises
    ------
    InputError
        If a gap in time or missing values are met that the settings do not allow, or files overlap in time.
    """
    last: int | None = None
    last_step: int | None = None
    last_inputs: tuple[str, ...] = ()
    years = iter(years)
    first_year = next(years)
    start_at = _warm_up_starts(archive, member, warm_up, first_year)
    for year in itertools.chain(sorted(start_at), [first_year], years):
        with closing(archive.open_year(year, member)) as series:
            seconds = series.times.seconds
            step = int(np.diff(seconds).min()) if len(seconds) > 1 else last_step
            cut = _cuts(series, data, step)
            cut[0] = _breaks_between(last, last_inputs, series, min(filter(None, (step, last_step)), default=None))
            cut |= _stream_breaks(series.times, data.breaks, last)
            first = start_at.get(year, 0)
            cut[first] |= last is None
            for start in range(first, len(seconds), series.block_steps):
                yield _block(series, data, slice(start, min(start + series.block_steps, len(seconds))), cut)
            last, last_step, last_inputs = int(seconds[-1]), step, series.inputs


def _warm_up_starts(archive: Archive, member: int, steps: int, year: int) -> dict[int, int]:
    """The years before `year` that hold its last `steps` steps, each with the index of the first one needed."""
    starts: dict[int, int] = {}
    while steps > 0 and archive.has_year(year - 1, member):
        year -= 1
        with closing(archive.open_year(year, member)) as series:
            starts[year] = max(len(series.times) - steps, 0)
            steps -= len(series.times) - starts[year]
    return starts


def _block(series: Series, data: DataSettings, steps: slice, cut: BoolArray) -> Block:
    times = series.times[steps]
    fields = series.read(steps.start, steps.stop)
    empty = check_missing(fields, series.quantities, times, data.missing)
    cut = cut[steps].copy()
    cut |= empty
    cut[1:] |= empty[:-1]
    return Block(fields, times, cut, series.grid, series.quantities, series.inputs)


def _cuts(series: Series, data: DataSettings, step: int | None) -> BoolArray:
    """Steps of a series that follow on a gap, shape (n,)."""
    seconds = series.times.seconds
    cut = np.zeros(len(seconds), dtype=bool)
    if step is None:
        return cut
    cut[1:] = np.diff(seconds) > step
    inside = np.setdiff1d(np.flatnonzero(cut), series.file_starts)
    if len(inside) and data.gaps == "error":
        before, after = series.times.date(int(inside[0]) - 1), series.times.date(int(inside[0]))
        raise InputError(
            f"a gap in time in {', '.join(series.inputs)}: after {before} comes {after}, "
            f"where the step is {step / 3600:g} hours ({len(inside)} such gaps)",
            remedy="fill the gap, or have tracks cut and flagged there (data.gaps, --gaps cut)",
        )
    return cut


def _breaks_between(last: int | None, last_inputs: tuple[str, ...], series: Series, step: int | None) -> bool:
    """Whether a series does not go on where the one before it ended."""
    if last is None:
        return True
    ahead = int(series.times.seconds[0]) - last
    if ahead <= 0:
        raise InputError(
            f"{', '.join(series.inputs)} begins at {series.times.date(0)}, before {', '.join(last_inputs)} ends",
            remedy="remove the time steps that two files share",
        )
    return step is None or ahead > step


def _stream_breaks(times: TimeAxis, breaks: tuple[str, ...], last: int | None) -> BoolArray:
    """Steps that are the first of a new stream, shape (n,)."""
    before = np.concatenate([[times.seconds[0] - 1 if last is None else last], times.seconds[:-1]])
    cut = np.zeros(len(times), dtype=bool)
    for day in breaks:
        begins = seconds_of(times.calendar, *(int(part) for part in day.split("-")))
        cut |= (times.seconds >= begins) & (before < begins)
    return cut
