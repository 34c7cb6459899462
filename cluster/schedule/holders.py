"""Who holds what: the workers a schedule knows, which of them can be used, and until when their leases run.

A worker may come and go, and come back as another process under the same name: each process is an *incarnation*, and
what one of them was given is not known to have ended because another one has appeared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from itertools import count
from math import inf

__all__ = ["Holder", "Holders"]


@dataclass(slots=True, eq=False)
class Holder:
    """One incarnation of a worker: when it was last heard, and which tasks, by their index, it holds."""

    worker: str
    incarnation: str
    heard: float
    usable: bool = False
    held: dict[int, None] = field(default_factory=dict)
    queued: bool = False
    """Whether it is known when its lease ends."""


class Holders:
    """All incarnations that can be used or hold something.

    No call but iteration looks at all of them: those that hold something are in a heap by the end of their lease, as it
    was when they were last looked at. It can only have moved on since, so that only the first ones need be looked at.

    Parameters
    ----------
    lease : float
        Seconds after the last word of an incarnation until it holds nothing any more.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._by_incarnation: dict[str, Holder] = {}
        self._by_end: list[tuple[float, int, Holder]] = []
        self._places = count()

    def __iter__(self) -> Iterator[Holder]:
        return iter(tuple(self._by_incarnation.values()))

    def get(self, incarnation: str) -> Holder | None:
        """What is known of an incarnation, None if nothing is."""
        return self._by_incarnation.get(incarnation)

    def meet(self, worker: str, incarnation: str, now: float) -> Holder:
        """An incarnation that has just been heard, known before or not."""
        holder = self._by_incarnation.setdefault(incarnation, Holder(worker, incarnation, now))
        holder.heard = max(holder.heard, now)
        return holder

    def give(self, holder: Holder, index: int) -> None:
        """An incarnation holds a task from now on."""
        holder.held[index] = None
        if not holder.queued:
            holder.queued = True
            heappush(self._by_end, (holder.heard + self._lease, next(self._places), holder))

    def forget(self, holder: Holder) -> None:
        """Drop an incarnation that can no longer be used, once it holds nothing."""
        if not (holder.usable or holder.held):
            self._by_incarnation.pop(holder.incarnation, None)

    def over(self, now: float) -> tuple[Holder, ...]:
        """Those who hold something, but whose lease has ended."""
        over = []
        while self.next_end() <= now:
            over.append(heappop(self._by_end))
        for entry in over:  # until they hold nothing any more
            heappush(self._by_end, entry)
        return tuple(holder for _, _, holder in over)

    def next_end(self) -> float:
        """When the first lease ends if nobody is heard, infinite if nothing is held."""
        while self._by_end:
            end, place, holder = self._by_end[0]
            if not holder.held:
                heappop(self._by_end)
                holder.queued = False
            elif holder.heard + self._lease > end:
                heapreplace(self._by_end, (holder.heard + self._lease, place, holder))
            else:
                return end
        return inf
