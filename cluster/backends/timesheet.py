"""Which attempt of a bundle a child is at, and how long it was at each: on a page of memory that its parent shares.

The child writes there without a word to its parent, who looks when it needs to know. What was written last is there
still when the child has crashed, was killed, or hangs where nothing in Python can run.
"""

from __future__ import annotations

import mmap
import os
import time
from array import array
from dataclasses import dataclass
from math import isfinite

__all__ = ["Times", "Timesheet"]

_PLACES = 8


@dataclass(frozen=True, slots=True)
class Times:
    """What a timesheet says.

    Parameters
    ----------
    at : int, optional
        The attempt that the child is at alone, by its place in the bundle; None if it works for all.
    since : float
        Since when; seconds of the monotonic clock.
    common : float
        Seconds of work for all before that.
    own : tuple of float
        Seconds of work for each attempt alone before that.
    """

    at: int | None
    since: float
    common: float
    own: tuple[float, ...]

    def turned(self, at: int | None, now: float) -> Times:
        """The times when the child goes over to another attempt, or to work for all."""
        spent, common, own = now - self.since, self.common, self.own
        if self.at is None:
            common += spent
        else:
            own = (*own[: self.at], own[self.at] + spent, *own[self.at + 1 :])
        return Times(at, now, common, own)

    def is_sound(self, now: float) -> bool:
        """Whether this can be true; a child that writes where it should not may have written here."""
        seconds = (self.since, self.common, *self.own)
        in_range = self.at is None or 0 <= self.at < len(self.own)
        return in_range and self.since <= now and all(isfinite(value) and value >= 0 for value in seconds)


class Timesheet:
    """The timesheet of one bundle, in a file in memory that parent and child have opened.

    Each edition is written to another one of several places, and its number when it is there: whenever the writer dies,
    or is read meanwhile, the last one is whole.

    Parameters
    ----------
    fd : int
        The file; it grows as it must.
    attempts : int
        How many there are in the bundle.
    """

    def __init__(self, fd: int, attempts: int) -> None:
        self._length = 3 + attempts
        size = array("d").itemsize * (1 + _PLACES * self._length)
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        page = memoryview(mmap.mmap(fd, size))
        self._edition, self._numbers = page[:8].cast("Q"), page[8:].cast("d")
        self._times = Times(None, time.monotonic(), 0.0, (0.0,) * attempts)

    def begin(self) -> None:
        """Start afresh, with work for all from now on."""
        self._write(self._times)

    def turn(self, at: int | None) -> None:
        """Go over to an attempt, or to work for all; each call tells that there is progress.

        Raises
        ------
        IndexError
            If there is no such attempt.
        """
        if at is not None and not 0 <= at < len(self._times.own):
            raise IndexError(f"there is no attempt {at} among {len(self._times.own)}")
        self._times = self._times.turned(at, time.monotonic())
        self._write(self._times)

    def read(self) -> Times:
        """What was written last; as if nothing but work for all had been done, if that cannot be true."""
        edition, numbers = -_PLACES, []
        while self._edition[0] - edition >= _PLACES - 1:  # it may have been written over by now
            edition = self._edition[0]
            numbers = self._numbers[self._place(edition)].tolist()
        at, since, common, *own = numbers
        found = Times(None if at < 0 or not isfinite(at) else int(at), since, common, tuple(own))
        return found if found.is_sound(time.monotonic()) else self._times

    def _write(self, times: Times) -> None:
        edition = (self._edition[0] + 1) % 2**64
        at = -1.0 if times.at is None else times.at
        self._numbers[self._place(edition)] = array("d", [at, times.since, times.common, *times.own])
        self._edition[0] = edition

    def _place(self, edition: int) -> slice:
        start = edition % _PLACES * self._length
        return slice(start, start + self._length)
