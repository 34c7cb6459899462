"""One task for each year and member: its status, its place in the order, and the rows in which progress is shown."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heappop, heappush

from stormtracks.cluster.errors import ClusterError, NotScheduledError, UnknownStatusError, UnknownTaskError
from stormtracks.cluster.schedule.attempts import Attempt

__all__ = ["CODES", "GLYPHS", "STATUSES", "TASKS", "PyroTask", "TaskTable", "task_name"]

TASKS = ("vort_track",)
"""Names of the tasks that can be scheduled."""

_ALIASES = {"vort_tracking": "vort_track"}

GLYPHS: Mapping[str, str] = {"outstanding": "-", "working": "W", "complete": "+", "failure": "F", "timeout": "T"}
"""The sign of each status in a row of progress."""

STATUSES = tuple(GLYPHS)
"""What a task can be."""

CODES = {status: ord(glyph) for status, glyph in GLYPHS.items()}
"""The byte of each status."""
_STATUS_OF = {code: status for status, code in CODES.items()}
_OUTSTANDING = CODES["outstanding"]


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
        if status not in CODES:
            raise UnknownStatusError(f"unknown status {status!r}", remedy=f"use one of: {', '.join(STATUSES)}")
        if self._on_status is not None:
            self._on_status(self._index, CODES[status])
        else:
            self._codes[self._index] = CODES[status]

    @property
    def _key(self) -> tuple[str, int, int]:
        return self.task, self.year, self.ensemble_member

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, PyroTask) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<PyroTask {self.task} {self.year} member {self.ensemble_member}: {self.status}>"


class TaskTable:
    """Tasks in order of year and member, a few bytes each; no call but iteration looks at all of them.

    Parameters
    ----------
    years, members : iterable of int
    task : str
        The task to be done for each year and member.

    Raises
    ------
    UnknownTaskError
        If `task` is not known.
    ClusterError
        If there is no year or no member.
    """

    def __init__(self, years: Iterable[int], members: Iterable[int], task: str) -> None:
        self.years = tuple(sorted(set(years)))
        self.members = tuple(sorted(set(members)))
        if not self.years:
            raise ClusterError("a schedule without a year", remedy="give at least one, and no last before the first")
        if not self.members:
            raise ClusterError("a schedule without an ensemble member", remedy="give at least one member")
        self.task = task_name(task)
        self._year_index = {year: index for index, year in enumerate(self.years)}
        self._member_index = {member: index for index, member in enumerate(self.members)}
        self._codes = bytearray([_OUTSTANDING]) * (len(self.years) * len(self.members))
        self._counts = dict.fromkeys(STATUSES, 0) | {"outstanding": len(self._codes)}
        self._attempts_made = array("I", bytes(array("I").itemsize * len(self._codes)))
        # Outstanding tasks are those at or after the first fresh one, and those that came back.
        self._first_fresh = 0
        self._came_back: list[int] = []

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[PyroTask]:
        """All tasks, in order of year and member."""
        return map(self._task_at, range(len(self._codes)))

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

    # --- the one place that changes a status

    def _set_code(self, index: int, code: int) -> None:
        old = self._codes[index]
        if old == code:
            return
        self._counts[_STATUS_OF[old]] -= 1
        self._counts[_STATUS_OF[code]] += 1
        self._codes[index] = code
        if code == _OUTSTANDING and index < self._first_fresh:
            heappush(self._came_back, index)

    def _outstanding_behind(self, index: int) -> Iterator[int]:
        """The outstanding tasks of the same year that come after a task."""
        return (later for later in range(index + 1, self._year_of(index).stop) if self._codes[later] == _OUTSTANDING)

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

    def _year_of(self, index: int) -> range:
        """The tasks of the same year, by their indices."""
        start = index - index % len(self.members)
        return range(start, start + len(self.members))

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

    def _latest(self, attempt: Attempt) -> int | None:
        """The index of an attempt's task, None if it is not the latest one."""
        try:
            index = self._index(attempt.year, attempt.ensemble_member)
        except NotScheduledError:
            return None
        is_latest = attempt.task == self.task and attempt.number == self._attempts_made[index]
        return index if is_latest else None

    def _attempt_at(self, index: int) -> Attempt:
        year, member = divmod(index, len(self.members))
        return Attempt(self._attempts_made[index], self.years[year], self.members[member], self.task)
