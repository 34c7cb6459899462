"""Tasks that have been out and wait to go out again, by their index: in which order, to whom, and from when on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from math import inf

__all__ = ["Queue", "Waiting"]


class Queue:
    """Tasks in the order in which they came, each of which may have a worker that should not get it.

    There is a line for each such worker, so that any other one finds its task at once, however many it must not take.
    """

    def __init__(self) -> None:
        self._lines: dict[str, OrderedDict[int, int]] = {}
        self._line_of: dict[int, str] = {}
        self._places = count()

    def __len__(self) -> int:
        return len(self._line_of)

    def __contains__(self, index: int) -> bool:
        return index in self._line_of

    def add(self, index: int, avoided: str) -> None:
        """Put a task at the end."""
        self._line_of[index] = avoided
        self._lines.setdefault(avoided, OrderedDict())[index] = next(self._places)

    def remove(self, index: int) -> None:
        """Take a task out, if it is there."""
        avoided = self._line_of.pop(index, None)
        if avoided is not None:
            del self._lines[avoided][index]
            if not self._lines[avoided]:
                del self._lines[avoided]

    def first(self, worker: str, *, others: bool) -> int | None:
        """The first task for a worker; with `others`, none that should not be this worker's."""
        lines = [line for avoided, line in self._lines.items() if not (others and avoided == worker)]
        return min((next((place, index) for index, place in line.items()) for line in lines), default=(0, None))[1]

    def among(self, indices: Iterable[int], worker: str, *, others: bool) -> Iterator[int]:
        """Those of some tasks that are here and may be a worker's, as in `first`."""
        for index in indices:
            avoided = self._line_of.get(index)
            if avoided is not None and not (others and avoided == worker):
                yield index


class Waiting:
    """Tasks that were lost with a worker, and tasks that failed and are tried again."""

    def __init__(self) -> None:
        self._lost = Queue()
        self._suspects = Queue()
        self._failed = Queue()
        self._resting: dict[int, tuple[float, str]] = {}
        self._by_due: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._lost) + len(self._suspects) + len(self._failed) + len(self._resting)

    def __contains__(self, index: int) -> bool:
        return index in self._resting or any(index in queue for queue in (self._lost, self._suspects, self._failed))

    @property
    def lost(self) -> int:
        """How many tasks were lost, and are no suspects."""
        return len(self._lost)

    def add_lost(self, index: int, avoided: str, *, suspect: bool) -> None:
        """A task was lost; it goes out before all others, a suspect one only where no other such task is."""
        (self._suspects if suspect else self._lost).add(index, avoided)

    def add_failed(self, index: int, avoided: str, due: float) -> None:
        """A task has failed on a worker and is to be tried again, at `due` or later."""
        self._resting[index] = (due, avoided)
        heappush(self._by_due, (due, index))

    def remove(self, index: int) -> None:
        """A task waits no more, if it did."""
        self._resting.pop(index, None)
        for queue in (self._lost, self._suspects, self._failed):
            queue.remove(index)

    def first_lost(self, worker: str, *, others: bool, suspects: bool) -> int | None:
        """The lost task that goes out next; `suspects`: whether it may be a suspect one."""
        found = self._suspects.first(worker, others=others) if suspects else None
        return self._lost.first(worker, others=others) if found is None else found

    def lost_among(self, indices: Iterable[int], worker: str, *, others: bool) -> Iterator[int]:
        """Those of some tasks that were lost, are no suspects, and may go out to a worker."""
        return self._lost.among(indices, worker, others=others)

    def first_failed(self, worker: str, *, others: bool) -> int | None:
        """The task whose turn to be tried again has come."""
        return self._failed.first(worker, others=others)

    def wake(self, now: float) -> None:
        """Let the tasks go out whose time has come."""
        while self.next_due() <= now:
            index = heappop(self._by_due)[1]
            self._failed.add(index, self._resting.pop(index)[1])

    def next_due(self) -> float:
        """When the time of the next task comes that still rests, infinite if none does."""
        while self._by_due and self._resting.get(self._by_due[0][1], (inf, ""))[0] != self._by_due[0][0]:
            heappop(self._by_due)
        return self._by_due[0][0] if self._by_due else inf
