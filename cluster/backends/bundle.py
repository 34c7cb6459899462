"""What becomes of the attempts that one child makes together, by what it says of each, and how it ends.

No I/O: what the child's timesheet says, and what time it is, is asked of others. An attempt that crashes the child or
takes too long answers for that alone. Those that are not done by then are lost with it, and have nothing to answer for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from stormtracks.cluster.backends.timesheet import Times
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome

__all__ = ["Bundle"]

_LOOK_AGAIN = 0.1
"""Least seconds between two looks at the timesheet while the attempt that is short of time is not the one under way."""
_CANCELLED = {"status": "lost", "error": "cancelled"}


class Bundle:
    """Attempts that a child makes together.

    An attempt has had the seconds that the child was at it alone, and an equal share of those in which it worked for
    all. It may have as many as the time limit. So may any one stretch of work for all: shares grow too slowly to tell
    that it hangs.

    Parameters
    ----------
    attempts : Assignment
    time_limit : float
        Seconds.
    read : callable
        What the child's timesheet says now.
    clock : callable
        Seconds of the clock by which that is kept.
    """

    def __init__(
        self,
        attempts: Assignment,
        time_limit: float,
        read: Callable[[], Times],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.left: dict[int, Attempt] = dict(enumerate(attempts))
        """Those that have not ended, by their place among all."""
        self._size = len(attempts)
        self._time_limit = time_limit
        self._read = read
        self._clock = clock
        self._cancelled: set[int] = set()

    @property
    def is_cancelled(self) -> bool:
        """Whether all that are left are."""
        return self.left.keys() <= self._cancelled

    def cancel(self, attempts: Collection[Attempt]) -> None:
        """Let none of these publish anything from now on."""
        self._cancelled |= {index for index, attempt in self.left.items() if attempt in attempts}

    def wanted(self, index: int) -> Attempt | None:
        """An attempt, if it is neither cancelled nor has ended."""
        return None if index in self._cancelled else self.left.get(index)

    def seconds(self) -> list[tuple[Attempt, float]]:
        """How many seconds those that are left have had so far; from any thread."""
        left, times, now = tuple(self.left.items()), self._read(), self._clock()
        return [(attempt, self._seconds(index, times, now)) for index, attempt in left]

    def overdue(self) -> set[int]:
        """Those that have taken too long; all that are left, if the work for all does."""
        times, now = self._read(), self._clock()
        if times.at not in self.left and now - times.since >= self._time_limit:
            return set(self.left)
        return {index for index in self.left if self._seconds(index, times, now) >= self._time_limit}

    def next_look(self) -> float:
        """Seconds until it is worth a look whether any is overdue."""
        times, now = self._read(), self._clock()
        least = self._time_limit - max(self._seconds(index, times, now) for index in self.left)
        if times.at is not None and times.at in self.left:
            due = self._time_limit - self._seconds(times.at, times, now)
        else:
            due = min(self._time_limit - (now - times.since), least * self._size)
        # The child may turn to another attempt, and nobody is told.
        return max(min(due, max(least, _LOOK_AGAIN)), 0.0)

    def under_way(self) -> set[int]:
        """Those for which the child works: one, or all that are left."""
        at = self._read().at
        return set(self.left) if at is None or at not in self.left else {at}

    def end(self, index: int, **how: Any) -> Outcome:
        """An attempt has ended; `how`: ``status``, ``error``, ``result``, ``permanent`` of its outcome."""
        was_refused = index in self._cancelled and how["status"] == "lost"
        seconds = self._seconds(index, self._read(), self._clock())
        return Outcome(self.left.pop(index), seconds=seconds, **(_CANCELLED if was_refused else how))

    def end_all(self, guilty: Collection[int], **how: Any) -> list[Outcome]:
        """Nothing more comes of those that are left: it is the `guilty` who ended in this way, the others are lost."""
        culprits = [f": year {one.year}, member {one.ensemble_member}" for one in map(self.left.get, guilty) if one]
        lost = {"status": "lost", "error": "".join(["its bundle ended with another task", *culprits[:1]])}
        fates = {
            index: _CANCELLED if index in self._cancelled else how if index in guilty else lost for index in self.left
        }
        return [self.end(index, **fate) for index, fate in fates.items()]

    def _seconds(self, index: int, times: Times, now: float) -> float:
        spent = now - times.since
        common = times.common + (spent if times.at is None else 0.0)
        return times.own[index] + (spent if times.at == index else 0.0) + common / self._size
