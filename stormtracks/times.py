"""Time axes in any CF calendar, as whole seconds; the first thing that is read of a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import cftime
import numpy as np
import numpy.typing as npt

__all__ = ["EPOCH", "TimeAxis", "decode_times", "join", "one_calendar", "seconds_of"]

EPOCH = "seconds since 1970-01-01 00:00:00"

IntArray = npt.NDArray[np.int64]

_SAME_CALENDAR = {"gregorian": "standard", "365_day": "noleap", "366_day": "all_leap"}


@dataclass(frozen=True, eq=False)
class TimeAxis:
    """Instants in one calendar.

    Parameters
    ----------
    seconds : numpy.ndarray, shape (n,), int64
        Seconds since 1970-01-01 00:00:00 in `calendar`.
    calendar : str
        A CF calendar (``"standard"``, ``"noleap"``, ``"360_day"`` ...).
    """

    seconds: IntArray
    calendar: str = "standard"

    def __len__(self) -> int:
        return len(self.seconds)

    def __getitem__(self, index: slice) -> TimeAxis:
        return TimeAxis(self.seconds[index], self.calendar)

    def dates(self) -> list[cftime.datetime]:
        """The instants as `cftime.datetime` objects."""
        return list(np.atleast_1d(cftime.num2date(self.seconds, EPOCH, calendar=self.calendar)))

    def days(self) -> tuple[list[cftime.datetime], IntArray]:
        """The days that hold the instants, ascending, and for each instant the index of its day, shape (n,)."""
        days, day_of = np.unique(self.seconds // 86400, return_inverse=True)
        return TimeAxis(days * 86400, self.calendar).dates(), day_of

    def date(self, step: int) -> str:
        """One instant in words, as ``2001-12-31 18:00:00``."""
        return str(cftime.num2date(int(self.seconds[step]), EPOCH, calendar=self.calendar))

    def years(self) -> IntArray:
        """The calendar year of each instant, shape (n,)."""
        if len(self) == 0:
            return np.empty(0, dtype=np.int64)
        ends = np.array([self.seconds.min(), self.seconds.max()])
        first, last = (int(date.year) for date in TimeAxis(ends, self.calendar).dates())
        starts = [seconds_of(self.calendar, year) for year in range(first + 1, last + 1)]
        return first + np.searchsorted(np.array(starts, dtype=np.int64), self.seconds, side="right")

    def year_slice(self, year: int) -> slice:
        """The steps that lie in a calendar year; the axis must increase."""
        bounds = [seconds_of(self.calendar, year), seconds_of(self.calendar, year + 1)]
        start, stop = np.searchsorted(self.seconds, bounds, side="left")
        return slice(int(start), int(stop))


def seconds_of(calendar: str, year: int, month: int = 1, day: int = 1) -> int:
    """The first second of a day, in seconds since 1970-01-01 of `calendar`."""
    return round(float(cftime.date2num(cftime.datetime(year, month, day, calendar=calendar), EPOCH, calendar=calendar)))


def decode_times(values: npt.ArrayLike, units: str, calendar: str = "standard") -> TimeAxis:
    """Turn a CF time coordinate into a `TimeAxis`.

    Parameters
    ----------
    values : array_like, shape (n,) or ()
        The coordinate as stored.
    units : str
        CF time units, ``"hours since 1-1-1 00:00:0.0"`` and the like. With the standard calendar the mixed
        Julian/Gregorian reckoning of udunits is meant, in which 0001-01-01 lies two days before the proleptic one.
    calendar : str
        CF calendar name.

    Returns
    -------
    TimeAxis
        Rounded to whole seconds. Names of one and the same calendar become one (``gregorian`` is ``standard``,
        ``365_day`` is ``noleap``), and a proleptic Gregorian axis that begins after the reform of 1582 becomes
        ``standard``, from which it does not differ there.

    Raises
    ------
    ValueError
        If `units` or `calendar` is not one of CF's, or a value is missing or no date can be given to it.
    """
    # Old 20CR files write "00:00:0.0", which not every parser takes for midnight.
    units = re.sub(r"(\d{1,2}):(\d{1,2}):0+\.0+", r"\1:\2:00", units)
    calendar = _SAME_CALENDAR.get(calendar.lower(), calendar.lower())
    origin, unit = _reckoning(units, calendar)
    count = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if not np.isfinite(count).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(count)))} of the time axis is missing")
    with np.errstate(over="ignore"):
        seconds = np.rint(count * unit + origin)
    _check_dates(seconds, count, calendar)
    times = TimeAxis(seconds.astype(np.int64), calendar)
    if calendar == "proleptic_gregorian" and len(times) and _after_reform(times):
        return TimeAxis(times.seconds, "standard")
    return times


def _reckoning(units: str, calendar: str) -> tuple[float, float]:
    """From when units count, in seconds since the epoch, and how many seconds one of them is."""
    # Every calendar counts its units evenly, so two dates fix the axis and no object per step is needed.
    try:
        origin, next_unit = cftime.num2date([0, 1], units, calendar=calendar)
        return float(cftime.date2num(origin, EPOCH, calendar=calendar)), (next_unit - origin).total_seconds()
    except OverflowError as error:
        raise ValueError(f"units {units!r} count from too long ago or too far ahead") from error


def _check_dates(seconds: npt.NDArray[np.float64], count: npt.NDArray[np.float64], calendar: str) -> None:
    """Refuse instants that no date can be given to, so that all of an axis can be told in words."""
    for place in {int(np.argmin(seconds)), int(np.argmax(seconds))} if len(seconds) else ():
        try:
            cftime.num2date(int(seconds[place]), EPOCH, calendar=calendar)
        except (ValueError, OverflowError) as error:  # infinite seconds are either, too
            raise ValueError(f"no date can be given to value {place}, {count[place]:g}") from error


def _after_reform(times: TimeAxis) -> bool:
    return bool(times.seconds.min() >= seconds_of("standard", 1582, 10, 15))


def one_calendar(axes: Sequence[TimeAxis]) -> list[TimeAxis]:
    """The same instants, in one calendar where that can be had.

    After the reform of 1582 the standard and the proleptic Gregorian calendar do not differ: where some axes are
    proleptic, the standard ones that begin after it become so too. All others stay as they are.

    Parameters
    ----------
    axes : sequence of TimeAxis
        None of them empty.
    """
    if not any(axis.calendar == "proleptic_gregorian" for axis in axes):
        return list(axes)
    return [
        TimeAxis(axis.seconds, "proleptic_gregorian") if axis.calendar == "standard" and _after_reform(axis) else axis
        for axis in axes
    ]


def join(axes: Sequence[TimeAxis]) -> TimeAxis:
    """One axis after the other; all in one calendar."""
    return TimeAxis(np.concatenate([axis.seconds for axis in axes]), axes[0].calendar)
