"""Who holds what: the workers a schedule knows, which of them can be used, and until when their leases run.

A worker may come and go, and come back as another process under the same name: each process is an *incarnation*, and
what one of them was given is not known to have ended because another one has appeared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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


class Holders:
    """All incarnations that can be used or hold something.

    Parameters
    ----------
    lease : float
        Seconds after the last word of an incarnation until it holds nothing any more.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._by_incarnation: dict[str, Holder] = {}

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

    def forget(self, holder: Holder) -> None:
        """Drop an incarnation that can no longer be used, once it holds nothing."""
        if not (holder.usable or holder.held):
            self._by_incarnation.pop(holder.incarnation, None)

    def over(self, now: float) -> tuple[Holder, ...]:
        """Those who hold something, but whose lease has ended."""
        return tuple(one for one in self._by_incarnation.values() if one.held and one.heard + self._lease <= now)

    def next_end(self) -> float:
        """When the first lease ends if nobody is heard, infinite if nothing is held."""
        return min((one.heard + self._lease for one in self._by_incarnation.values() if one.held), default=inf)
