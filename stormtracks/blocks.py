"""One member's fields in order of time, block by block, across files and years, with every break in time marked."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError
from stormtracks.grid import Grid
from stormtracks.inputs import Stamp
from stormtracks.reanalysis.archive import Archive, Quantity, Series
from stormtracks.settings.campaign import DataSettings
from stormtracks.times import TimeAxis, seconds_of

__all__ = ["Block", "read_blocks"]

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Field = npt.NDArray[np.float32]

_LONGEST_STEP = 1.5
"""Steps that one may last before it is a gap: times kept as float32 days are off by minutes."""


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
    inputs : mapping of str to Stamp
        Names of the files behind it, relative to the data root, each with its stamp.
    """

    fields: tuple[Field, ...]
    times: TimeAxis
    cut: BoolArray
    grid: Grid
    quantities: tuple[Quantity, ...]
    inputs: Mapping[str, Stamp]


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
    last_inputs: Iterable[str] = ()
    after_empty = False
    for series, first in _opened(archive, member, years, warm_up):
        with closing(series):
            seconds = series.times.seconds
            step = _usual_step(seconds) if len(seconds) > 1 else last_step
            cut, gaps = _cuts(series, step)
            cut[0] = _breaks_between(last, last_inputs, series, min(filter(None, (step, last_step)), default=None))
            cut |= _stream_breaks(series.times, data.breaks, last)
            cut[first] |= last is None
            # What is wrong later in the year is no concern of a reader that stops before it.
            refused = gaps[gaps > first] if data.gaps == "error" else gaps[:0]
            end = int(refused[0]) if len(refused) else len(seconds)
            for start in range(first, end, series.block_steps):
                steps = slice(start, min(start + series.block_steps, end))
                block, after_empty, problem = _block(series, data, steps, cut, after_empty=after_empty)
                if len(block.times):
                    yield block
                if problem is not None:
                    raise problem
            if end < len(seconds):
                raise _gap_error(series, end, step)
            last, last_step, last_inputs = int(seconds[-1]), step, series.inputs


def _opened(archive: Archive, member: int, years: Iterable[int], warm_up: int) -> Iterator[tuple[Series, int]]:
    """The years, each with its first step that is needed, after those that hold the `warm_up` steps before them."""
    years = iter(years)
    first_year = next(years)
    before: list[tuple[Series, int]] = []
    while warm_up > 0 and archive.has_year(year := first_year - len(before) - 1, member):
        # Nothing is held open by a series that has not been read from.
        series = archive.open_year(year, member)
        needed = min(warm_up, len(series.times))
        before.append((series, len(series.times) - needed))
        warm_up -= needed
    yield from reversed(before)
    for year in itertools.chain([first_year], years):
        yield archive.open_year(year, member), 0


def _block(
    series: Series, data: DataSettings, steps: slice, cut: BoolArray, *, after_empty: bool
) -> tuple[Block, bool, InputError | None]:
    """One block; whether its last step holds no value at all; and the error that ended it before its time.

    Steps without any value cut before themselves and after.
    """
    times = series.times[steps]
    fields = series.read(steps.start, steps.stop)
    fields, missing = _mark_missing(fields)
    problem = None
    stop = len(times)
    if missing.any() and data.missing == "error":
        stop = int(np.flatnonzero(missing.any(axis=1))[0])
        which = int(np.flatnonzero(missing[stop])[0])
        problem = InputError(
            f"variable {series.quantities[which].name!r} in {', '.join(series.inputs)} has {missing[stop, which]} "
            f"missing values at {times.date(stop)}",
            remedy="mend the data, or mask them (data.missing, --missing mask): no centre is sought beside them",
        )
    empty = (missing == fields[0][0].size).any(axis=1)
    cut = cut[steps] | empty | np.concatenate([[after_empty], empty[:-1]])
    block = Block(
        tuple(field[:stop] for field in fields),
        times[:stop],
        cut[:stop],
        series.grid,
        series.quantities,
        series.inputs,
    )
    return block, bool(empty[-1]), problem


def _mark_missing(fields: tuple[Field, ...]) -> tuple[tuple[Field, ...], IntArray]:
    """The fields with NaN for all that is not finite, and how many such points each step of each has, shape (n, k)."""
    missing = np.zeros((len(fields[0]), len(fields)), dtype=np.int64)
    marked = []
    for which, field in enumerate(fields):
        # Two passes that make nothing, as nearly all data are whole. The sum of opposite infinities is NaN.
        with np.errstate(invalid="ignore"):
            whole = bool(np.isfinite(field.min() + field.max()))
        if not whole:
            bad = ~np.isfinite(field)
            missing[:, which] = bad.sum(axis=(1, 2))
            field = np.where(bad, np.float32(np.nan), field)
        marked.append(field)
    return tuple(marked), missing


def _usual_step(seconds: IntArray) -> int:
    """The step that at most half of all steps fall short of."""
    steps = np.sort(np.diff(seconds))
    return int(steps[(len(steps) - 1) // 2])


def _cuts(series: Series, step: int | None) -> tuple[BoolArray, IntArray]:
    """Whether steps of a series follow on a gap, shape (n,), and which of these lie inside a file, ascending."""
    seconds = series.times.seconds
    cut = np.zeros(len(seconds), dtype=bool)
    if step is None:
        return cut, np.flatnonzero(cut)
    cut[1:] = np.diff(seconds) > _LONGEST_STEP * step
    return cut, np.setdiff1d(np.flatnonzero(cut), series.file_starts)


def _gap_error(series: Series, gap: int, step: int | None) -> InputError:
    return InputError(
        f"a gap in time in {', '.join(series.inputs)}: after {series.times.date(gap - 1)} comes "
        f"{series.times.date(gap)}, where the step is {(step or 0) / 3600:g} hours",
        remedy="fill the gap, or have tracks cut and flagged there (data.gaps, --gaps cut)",
    )


def _breaks_between(last: int | None, last_inputs: Iterable[str], series: Series, step: int | None) -> bool:
    """Whether a series does not go on where the one before it ended."""
    if last is None:
        return True
    ahead = int(series.times.seconds[0]) - last
    if ahead <= 0:
        raise InputError(
            f"{', '.join(series.inputs)} begins at {series.times.date(0)}, before {', '.join(last_inputs)} ends",
            remedy="remove the time steps that two files share",
        )
    return step is None or ahead > _LONGEST_STEP * step


def _stream_breaks(times: TimeAxis, breaks: tuple[str, ...], last: int | None) -> BoolArray:
    """Steps that are the first of a new stream, shape (n,)."""
    before = np.concatenate([[times.seconds[0] - 1 if last is None else last], times.seconds[:-1]])
    cut = np.zeros(len(times), dtype=bool)
    for day in breaks:
        try:
            begins = seconds_of(times.calendar, *(int(part) for part in day.split("-")))
        except ValueError as error:
            raise InputError(
                f"data.breaks: {day} is no day of the data's calendar, {times.calendar}",
                remedy="name the first day of the new stream as YYYY-MM-DD",
            ) from error
        cut |= (times.seconds >= begins) & (before < begins)
    return cut
