"""What is to be done and how far it is: tasks, their statuses, and the schedule that hands them out.

This is the core of a campaign and free of I/O. Events go in (handed out, completed, failed, timed out, lost), and
assignments come out; the manager owns the one schedule and is the only one to change it.

One *task* is one step for one year of one ensemble member. One *attempt* is one try at a task; a task's attempts are
numbered from 1, only its latest one counts, and what an earlier one says is ignored. An *assignment* is a tuple of
attempts that travel together because they share one pass over the data.
"""

from __future__ import annotations

import logging
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from stormtracks.cluster.errors import ClusterError, NotScheduledError, UnknownStatusError, UnknownTaskError

__all__ = [
    "GLYPHS",
    "STATUSES",
    "TASKS",
    "Assignment",
    "Attempt",
    "Failure",
    "Outcome",
    "PyroTask",
    "PyroTaskSchedule",
    "task_name",
]

logger = logging.getLogger(__name__)

TASKS = ("vort_track",)
"""Names of the tasks that can be scheduled."""

_ALIASES = {"vort_tracking": "vort_track"}

GLYPHS: Mapping[str, str] = {"outstanding": "-", "working": "W", "complete": "+", "failure": "F", "timeout": "T"}
"""The sign of each status in a row of progress."""

STATUSES = tuple(GLYPHS)
"""What a task can be."""

_CODES = {status: ord(glyph) for status, glyph in GLYPHS.items()}
_STATUS_OF = {code: status for status, code in _CODES.items()}
_OUTSTANDING = _CODES["outstanding"]


def task_name(name: str) -> str:
    """The name under which a task is known; ``vort_tracking`` is ``vort_track``.

    Raises
    ------
    UnknownTaskError
        If there is no such task.
    """
    known = _ALIASES.get(name, name)
    if known not in TASKS:
        raise UnknownTaskError(f"unknown task {name!r}", remedy=f"use one of: {', '.join(TASKS)}")
    return known


class PyroTask:
    """One task: one step for one year of one ensemble member.

    Parameters
    ----------
    year : int
        Calendar year of the task.
    ensemble_member : int
        Member, as the data number it.
    task : str
        Which task is to be done: one of `TASKS`, or an alias of one.

    Raises
    ------
    UnknownTaskError
        If `task` is not known.
    """

    __slots__ = ("_codes", "_index", "_on_status", "ensemble_member", "task", "year")

    def __init__(self, year: int, ensemble_member: int, task: str) -> None:
        self.year = year
        self.ensemble_member = ensemble_member
        self.task = task_name(task)
        # A task of a schedule is a view of the schedule's own codes, so that the two can never disagree.
        self._codes = bytearray([_OUTSTANDING])
        self._index = 0
        self._on_status: Callable[[int, int], None] | None = None

    @property
    def status(self) -> str:
        """Current status, one of `STATUSES`; set by assignment, and the task's schedule sees it at once."""
        return _STATUS_OF[self._codes[self._index]]

    @status.setter
    def status(self, status: str) -> None:
        if status not in _CODES:
            raise UnknownStatusError(f"unknown status {status!r}", remedy=f"use one of: {', '.join(STATUSES)}")
        if self._on_status is not None:
            self._on_status(self._index, _CODES[status])
        else:
            self._codes[self._index] = _CODES[status]

    @property
    def _key(self) -> tuple[str, int, int]:
        return self.task, self.year, self.ensemble_member

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, PyroTask) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<PyroTask {self.task} {self.year} member {self.ensemble_member}: {self.status}>"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a task; `number` counts the tries at this task from 1."""

    number: int
    year: int
    ensemble_member: int
    task: str


Assignment = tuple[Attempt, ...]
"""Attempts that one worker makes together, because they share one pass over the data."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended; plain values only, so that it can travel.

    Parameters
    ----------
    attempt : Attempt
    status : str
        ``complete``, ``failure``, ``timeout``, or ``lost``: ended without an answer through no fault of the task
        (cancelled, or its worker went away).
    result : dict
        What the task returned: plain values by name.
    error : str
        The reason, unless complete.
    seconds : float
        How long the attempt ran.
    """

    attempt: Attempt
    status: str
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed or timed out: on which worker, and why."""

    attempt: Attempt
    status: str
    worker: str
    reason: str


class PyroTaskSchedule:
    """All tasks of a campaign in order of year and member: hands out the next one and accepts what became of it.

    A task that fails goes out again, after all fresh ones and to another worker where there is one, until it has used
    up `max_attempts`; it shows its failure until then. A lost attempt makes its task outstanding again, and an orphaned
    one lets it show a timeout until it goes out again, before all others; neither counts against the task. No call
    looks at all tasks to find the next one.

    Parameters
    ----------
    start_year : int
        First year.
    end_year : int
        Last year, inclusive.
    num_ensemble_members : int
        Number of members; they are numbered from 1, as reanalyses number them.
    years, members : iterable of int, optional
        The very years and member numbers, where they are not such ranges.
    task : str
        The task to be done for each year and member.
    max_attempts : int
        How often a task may fail or time out before it is given up.

    Raises
    ------
    UnknownTaskError
        If `task` is not known.
    ClusterError
        If there is no year or no member, or `max_attempts` is below 1.
    """

    def __init__(
        self,
        start_year: int = 2000,
        end_year: int = 2012,
        num_ensemble_members: int = 56,
        *,
        years: Iterable[int] | None = None,
        members: Iterable[int] | None = None,
        task: str = "vort_track",
        max_attempts: int = 2,
    ) -> None:
        self.years = tuple(sorted(set(range(start_year, end_year + 1) if years is None else years)))
        self.members = tuple(sorted(set(range(1, num_ensemble_members + 1) if members is None else members)))
        if not self.years:
            raise ClusterError(
                f"a schedule without a year: {start_year} to {end_year}",
                remedy="let end_year be no less than start_year",
            )
        if not self.members:
            raise ClusterError("a schedule without an ensemble member", remedy="give at least one member")
        if max_attempts < 1:
            raise ClusterError(f"max_attempts is {max_attempts}", remedy="allow at least 1 attempt")
        self.task = task_name(task)
        self.max_attempts = max_attempts
        self._year_index = {year: index for index, year in enumerate(self.years)}
        self._member_index = {member: index for index, member in enumerate(self.members)}
        size = len(self.years) * len(self.members)
        self._codes = bytearray([_OUTSTANDING]) * size
        self._counts = dict.fromkeys(STATUSES, 0) | {"outstanding": size}
        # Outstanding tasks are those at or after the first fresh one, and those that came back.
        self._first_fresh = 0
        self._came_back: list[int] = []
        self._orphans: OrderedDict[int, None] = OrderedDict()
        # Tasks to be tried again, by the worker that failed last, each with its place among all of them.
        self._retries: dict[str, OrderedDict[int, int]] = {}
        self._failed_at: dict[int, str] = {}
        self._retries_made = 0
        self._attempts_made = array("I", bytes(array("I").itemsize * size))
        self._current: dict[int, tuple[int, str]] = {}
        self._failures: dict[int, list[Failure]] = {}

    # --- the tasks

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[PyroTask]:
        """All tasks, in order of year and member."""
        return map(self._task_at, range(len(self)))

    def find(self, year: int, ensemble_member: int) -> PyroTask:
        """The task of a year and member.

        Raises
        ------
        NotScheduledError
            If the year or the member is not in the schedule.
        """
        return self._task_at(self._index(year, ensemble_member))

    def get_next_outstanding(self) -> PyroTask | None:
        """The next outstanding task, None if there are no more.

        It is not marked: until its status is set, the same task is the next one.
        """
        index = self._next_outstanding_index()
        return None if index is None else self._task_at(index)

    @property
    def counts(self) -> dict[str, int]:
        """Number of tasks by status."""
        return dict(self._counts)

    @property
    def left(self) -> int:
        """Number of tasks that are outstanding, working, or waiting to be tried again."""
        waiting = len(self._orphans) + len(self._failed_at)
        return self._counts["outstanding"] + self._counts["working"] + waiting

    @property
    def done(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        return self.left == 0

    # --- progress

    def get_progress_for_year(self, year: int, include_year: bool = True) -> str:
        """The progress of a year, one sign per member: ``2000: -W+FT...``.

        ``-`` to be done, ``W`` being worked on, ``+`` complete, ``F`` failure, ``T`` timeout.

        Raises
        ------
        NotScheduledError
            If the year is not in the schedule.
        """
        start = self._year_start(year)
        row = self._codes[start : start + len(self.members)].decode("ascii")
        return f"{year}: {row}" if include_year else row

    def get_progress(self, years: Iterable[int] | None = None, include_year: bool = False) -> str:
        """The progress of the given years, or of all: one line per year, each ended by a newline."""
        chosen = self.years if years is None else years
        return "".join(f"{self.get_progress_for_year(year, include_year)}\n" for year in chosen)

    def print_years(self, years: Iterable[int] | None = None, include_year: bool = True) -> None:
        """Print the progress of the given years, or of all."""
        print(self.get_progress(years, include_year), end="")

    # --- events

    def next_assignment(self, worker: str, *, others: bool = False) -> Assignment:
        """Hand work to `worker`: mark the next task as working and number the attempt; empty if nothing can go out.

        Orphaned tasks go out first, then fresh ones, then those that are tried again.

        Parameters
        ----------
        worker : str
        others : bool
            Whether there are other workers: what this one has failed last is then left to them.
        """
        index = next(iter(self._orphans), None)
        if index is None:
            index = self._next_outstanding_index()
        if index is None:
            index = self._next_retry_index(worker, others)
        if index is None:
            return ()
        self._set_code(index, _CODES["working"])
        self._attempts_made[index] += 1
        self._current[index] = (self._attempts_made[index], worker)
        task = self._task_at(index)
        return (Attempt(self._attempts_made[index], task.year, task.ensemble_member, task.task),)

    def completed(self, attempt: Attempt) -> bool:
        """An attempt has done its task; True if it was the current one, False if it was stale and is ignored."""
        return self._settle(attempt, "complete") is not None

    def failed(self, attempt: Attempt, reason: str) -> bool:
        """An attempt has failed; True if it was the current one, False if it was stale and is ignored."""
        return self._strike(attempt, "failure", reason)

    def timed_out(self, attempt: Attempt, reason: str) -> bool:
        """An attempt took too long; True if it was the current one, False if it was stale and is ignored."""
        return self._strike(attempt, "timeout", reason)

    def lost(self, attempt: Attempt) -> bool:
        """An attempt ended through no fault of its task, which is outstanding again; False if it was stale."""
        return self._settle(attempt, "outstanding") is not None

    def orphaned(self, attempt: Attempt) -> bool:
        """The worker of an attempt is gone; its task shows a timeout until it goes out again. False if it was stale."""
        settled = self._settle(attempt, "timeout")
        if settled is None:
            return False
        self._orphans[settled[0]] = None
        return True

    def failures(self) -> Iterator[tuple[PyroTask, tuple[Failure, ...]]]:
        """Every task that failed or timed out at least once, with each reason in order; in order of year and member."""
        for index in sorted(self._failures):
            yield self._task_at(index), tuple(self._failures[index])

    # --- the one place that changes state

    def _set_code(self, index: int, code: int) -> None:
        """Give a task a status. Whatever attempt was under way or waiting counts no more."""
        old = self._codes[index]
        self._current.pop(index, None)
        self._orphans.pop(index, None)
        if (worker := self._failed_at.pop(index, None)) is not None:
            del self._retries[worker][index]
        if old == code:
            return
        self._counts[_STATUS_OF[old]] -= 1
        self._counts[_STATUS_OF[code]] += 1
        self._codes[index] = code
        if code == _OUTSTANDING and index < self._first_fresh:
            heappush(self._came_back, index)

    def _settle(self, attempt: Attempt, status: str) -> tuple[int, str] | None:
        """End the current attempt of a task: the task's index and the worker, or None if the attempt is stale."""
        try:
            index = self._index(attempt.year, attempt.ensemble_member)
        except NotScheduledError:
            index = -1
        number, worker = self._current.get(index, (0, ""))
        if number != attempt.number or attempt.task != self.task:
            logger.warning("%s of %s ignored: not the current attempt", status, attempt)
            return None
        self._set_code(index, _CODES[status])
        return index, worker

    def _strike(self, attempt: Attempt, status: str, reason: str) -> bool:
        settled = self._settle(attempt, status)
        if settled is None:
            return False
        index, worker = settled
        failures = self._failures.setdefault(index, [])
        failures.append(Failure(attempt, status, worker, reason))
        if len(failures) < self.max_attempts:
            self._retries_made += 1
            self._retries.setdefault(worker, OrderedDict())[index] = self._retries_made
            self._failed_at[index] = worker
        return True

    def _next_outstanding_index(self) -> int | None:
        codes, came_back = self._codes, self._came_back
        while came_back and codes[came_back[0]] != _OUTSTANDING:
            heappop(came_back)
        if came_back:
            return came_back[0]
        # Moves forward only, and a search of bytes stops at the first hit: one pass in a schedule's life.
        found = codes.find(_OUTSTANDING, self._first_fresh)
        self._first_fresh = len(codes) if found < 0 else found
        return None if found < 0 else found

    def _next_retry_index(self, worker: str, others: bool) -> int | None:
        """The task that waits longest to be tried again."""
        queues = [queue for name, queue in self._retries.items() if queue and not (others and name == worker)]
        return min((next((place, index) for index, place in queue.items()) for queue in queues), default=(0, None))[1]

    def _index(self, year: int, ensemble_member: int) -> int:
        start = self._year_start(year)
        if ensemble_member not in self._member_index:
            raise NotScheduledError(
                f"ensemble member {ensemble_member} is not in the schedule",
                remedy=f"use one of its {len(self.members)} members, {self.members[0]} to {self.members[-1]}",
            )
        return start + self._member_index[ensemble_member]

    def _year_start(self, year: int) -> int:
        if year not in self._year_index:
            raise NotScheduledError(
                f"year {year} is not in the schedule",
                remedy=f"use one of its {len(self.years)} years, {self.years[0]} to {self.years[-1]}",
            )
        return self._year_index[year] * len(self.members)

    def _task_at(self, index: int) -> PyroTask:
        year, member = divmod(index, len(self.members))
        task = PyroTask(self.years[year], self.members[member], self.task)
        task._codes, task._index, task._on_status = self._codes, index, self._set_code
        return task
