"""Time axes in any CF calendar, as whole seconds; the first thing that is read of a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import cftime
import numpy as np
import numpy.typing as npt

__all__ = ["EPOCH", "TimeAxis", "decode_times"]

EPOCH = "seconds since 1970-01-01 00:00:00"

IntArray = npt.NDArray[np.int64]


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

    def years(self) -> IntArray:
        """The calendar year of each instant, shape (n,)."""
        return np.array([date.year for date in self.dates()], dtype=np.int64)


def seconds_of(calendar: str, year: int, month: int = 1, day: int = 1) -> int:
    """The first second of a day, in seconds since 1970-01-01 of `calendar`."""
    return round(float(cftime.date2num(cftime.datetime(year, month, day, calendar=calendar), EPOCH, calendar=calendar)))


def decode_times(values: npt.ArrayLike, units: str, calendar: str = "standard") -> TimeAxis:
    """Turn a CF time coordinate into a `TimeAxis`.

    Parameters
    ----------
    values : array_like, shape (n,)
        The coordinate as stored.
    units : str
        CF time units, ``"hours since 1-1-1 00:00:0.0"`` and the like. With the standard calendar the mixed
        Julian/Gregorian reckoning of udunits is meant, in which 0001-01-01 lies two days before the proleptic one.
    calendar : str
        CF calendar name.

    Raises
    ------
    ValueError
        If `units` or `calendar` is not one of CF's.
    """
    # Old 20CR files write "00:00:0.0", which not every parser takes for midnight.
    units = re.sub(r"(\d{1,2}):(\d{1,2}):0+\.0+", r"\1:\2:00", units)
    dates = np.atleast_1d(cftime.num2date(np.asarray(values, dtype=np.float64), units, calendar=calendar))
    seconds = cftime.date2num(dates, EPOCH, calendar=calendar)
    return TimeAxis(np.rint(np.asarray(seconds, dtype=np.float64)).astype(np.int64), calendar)


def join(axes: Sequence[TimeAxis]) -> TimeAxis:
    """One axis after the other; all in one calendar."""
    return TimeAxis(np.concatenate([axis.seconds for axis in axes]), axes[0].calendar)
