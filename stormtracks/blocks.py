"""Fields of some members in order of time, block by block, across files and years, with every break in time marked."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError
from stormtracks.grid import Grid
from stormtracks.inputs import Stamp
from stormtracks.reanalysis.archive import Archive, Quantity, Series
from stormtracks.settings.campaign import DataSettings
from stormtracks.times import TimeAxis, seconds_of

__all__ = ["Block", "BlockReader", "Problem"]

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Field = npt.NDArray[np.float32]

_LONGEST_STEP = 1.5
"""Steps that one may last before it is a gap: times kept as float32 days are off by minutes."""


class Problem(NamedTuple):
    """Why one member cannot be followed beyond a step."""

    step: int
    """The first step of the block that is of no use."""
    error: InputError


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive time steps of some members; to be used before the next one is asked for.

    Parameters
    ----------
    members : tuple of int
    fields : tuple of numpy.ndarray, each of shape (members, n, nlat, nlon), float32
    times : TimeAxis of length n
    cut : shape (members, n), bool
        Whether tracks end before the step: the first step of all, and the first after a gap.
    problems : mapping of int to Problem
        By the places of the members that have one.
    grid : Grid
    quantities : tuple of Quantity
    inputs : mapping of str to Stamp
        Names of the files behind it, relative to the data root, each with its stamp.
    """

    members: tuple[int, ...]
    fields: tuple[Field, ...]
    times: TimeAxis
    cut: BoolArray
    problems: Mapping[int, Problem]
    grid: Grid
    quantities: tuple[Quantity, ...]
    inputs: Mapping[str, Stamp]


class _Before(NamedTuple):
    """What there was before a series."""

    last: int
    """Seconds of its last step."""
    step: int | None
    """How long its steps were."""
    inputs: Iterable[str]
    empty: Mapping[int, bool]
    """Of each member, whether its last step held no value at all."""


class BlockReader:
    """Reads years of some members one after the other.

    Parameters
    ----------
    archive : Archive
    data : DataSettings
        Says what to do about gaps and missing values, and where streams break.
    warm_up : int
        Steps to read before the first year, if the archive has them.
    cores : int
        With more than one, a block is read in a thread while the one before it is computed.
    """

    def __init__(self, archive: Archive, data: DataSettings, *, warm_up: int = 0, cores: int = 1) -> None:
        self._archive = archive
        self._data = data
        self._warm_up = warm_up
        self._cores = cores
        self._ahead: Future[tuple[Field, ...]] | None = None
        self._before: _Before | None = None

    def read(self, year: int, members: Sequence[int]) -> Generator[Block, None, None]:
        """One calendar year: the first of all, or one after those that were read.

        Parameters
        ----------
        year : int
        members : sequence of int
            Those of the year before, or some of them. For the first year: the same years before it have them all, as
            far as the warm-up goes.

        Raises
        ------
        InputError
            If a gap in time is met that the settings do not allow, or files overlap in time, or cannot be used.
        """
        for series, first in self._opened(year, members):
            with closing(series):
                yield from self._blocks(series, first)

    def settle(self) -> None:
        """Wait until nothing is being read: NetCDF is not for two threads at a time, whatever files they use."""
        if self._ahead is not None:
            wait([self._ahead])

    def _opened(self, year: int, members: Sequence[int]) -> Iterator[tuple[Series, int]]:
        """The year, after those that hold the steps of the warm-up; each with its first step that is needed."""
        before: list[tuple[Series, int]] = []
        while self._warm_up > 0 and self._archive.has_year(earlier := year - len(before) - 1, members[0]):
            # Nothing is held open by a series that has not been read from.
            series = self._archive.open_year(earlier, members)
            needed = min(self._warm_up, len(series.times))
            before.append((series, len(series.times) - needed))
            self._warm_up -= needed
        self._warm_up = 0
        yield from reversed(before)
        yield self._archive.open_year(year, members), 0

    def _blocks(self, series: Series, first: int) -> Iterator[Block]:
        before, data = self._before, self._data
        last, last_step = (None, None) if before is None else (before.last, before.step)
        seconds = series.times.seconds
        step = _usual_step(seconds) if len(seconds) > 1 else last_step
        cut, gaps = _cuts(series, step)
        cut[0] = _breaks_between(before, series, step)
        cut |= _stream_breaks(series.times, data.breaks, last)
        cut[first] |= before is None
        # What is wrong later in the year is no concern of a reader that stops before it.
        refused = gaps[gaps > first] if data.gaps == "error" else gaps[:0]
        end = int(refused[0]) if len(refused) else len(seconds)
        empty = np.array([before is not None and before.empty[member] for member in series.members])
        starts = range(first, end, series.block_steps)
        parts = [slice(start, min(start + series.block_steps, end)) for start in starts]
        with closing(self._fields(series, parts)) as read:
            for part, fields in read:
                fields, missing = _mark_missing(fields)
                problems = _problems(series, part, missing) if data.missing == "error" else {}
                # Steps without any value cut before themselves and after.
                without = (missing == fields[0][0, 0].size).any(axis=2)
                cuts = cut[part] | without | np.column_stack([empty, without[:, :-1]])
                empty = without[:, -1]
                times = series.times[part]
                yield Block(
                    series.members, fields, times, cuts, problems, series.grid, series.quantities, series.inputs
                )
        if end < len(seconds):
            raise _gap_error(series, end, step)
        at_end = dict(zip(series.members, empty.tolist(), strict=True))
        self._before = _Before(int(seconds[-1]), step, series.inputs, at_end)

    def _fields(self, series: Series, parts: Sequence[slice]) -> Generator[tuple[slice, tuple[Field, ...]], None, None]:
        """What the series gives for each part; read ahead, by one part, where there is a core for it.

        A part that cannot be read as a whole comes step by step, up to the one that is to blame: who stops before that
        does not hear of it, however long blocks are.
        """
        if self._cores == 1:
            for part in parts:
                try:
                    fields = series.read(part.start, part.stop)
                except InputError:
                    yield from _step_by_step(series, part)
                else:
                    yield part, fields
            return
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
            # Never more than one ahead: memory holds the block at work and this one.
            self._ahead = thread.submit(series.read, parts[0].start, parts[0].stop)
            for part, after in zip(parts, [*parts[1:], None], strict=True):
                try:
                    found = [(part, self._ahead.result())]
                except InputError:
                    found = []
                    yield from _step_by_step(series, part)
                if after is not None:
                    self._ahead = thread.submit(series.read, after.start, after.stop)
                yield from found


def _step_by_step(series: Series, part: slice) -> Iterator[tuple[slice, tuple[Field, ...]]]:
    for step in range(part.start, part.stop):
        yield slice(step, step + 1), series.read(step, step + 1)


def _problems(series: Series, steps: slice, missing: IntArray) -> dict[int, Problem]:
    """The first step of each member at which values are missing, by the place of the member."""
    found = {}
    for place in np.flatnonzero(missing.any(axis=(1, 2))).tolist():
        step = int(np.flatnonzero(missing[place].any(axis=1))[0])
        which = int(np.flatnonzero(missing[place, step])[0])
        error = InputError(
            f"variable {series.quantities[which].name!r} in {', '.join(series.inputs)} has "
            f"{missing[place, step, which]} missing values at {series.times.date(steps.start + step)}",
            remedy="mend the data, or mask them (data.missing, --missing mask): no centre is sought beside them",
        )
        found[place] = Problem(step, error)
    return found


def _mark_missing(fields: tuple[Field, ...]) -> tuple[tuple[Field, ...], IntArray]:
    """The fields with NaN for all that is not finite, and how many such points there are, shape (members, n, k)."""
    missing = np.zeros((*fields[0].shape[:2], len(fields)), dtype=np.int64)
    marked = []
    for which, field in enumerate(fields):
        # Two passes that make nothing, as nearly all data are whole. The sum of opposite infinities is NaN.
        with np.errstate(invalid="ignore"):
            whole = bool(np.isfinite(field.min() + field.max()))
        if not whole:
            bad = ~np.isfinite(field)
            missing[..., which] = bad.sum(axis=(2, 3))
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


def _breaks_between(before: _Before | None, series: Series, step: int | None) -> bool:
    """Whether a series does not go on where the one before it ended."""
    if before is None:
        return True
    ahead = int(series.times.seconds[0]) - before.last
    if ahead <= 0:
        raise InputError(
            f"{', '.join(series.inputs)} begins at {series.times.date(0)}, before {', '.join(before.inputs)} ends",
            remedy="remove the time steps that two files share",
        )
    usual = min(filter(None, (step, before.step)), default=None)
    return usual is None or ahead > _LONGEST_STEP * usual


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
