"""Which tasks travel together: those of one year that share a pass over the data, as far as that is wise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil

__all__ = ["bundle_size", "gather"]


def bundle_size(largest: int, *, members: int, ready: int, free: int) -> int:
    """How many tasks go out together: all of a year, unless slots would have nothing to do.

    A pass over the data takes about as long as the work on all members of a year. So years are divided only when there
    are fewer of them left than free slots, and then into as many equal parts as there are slots for each.

    Parameters
    ----------
    largest : int
        How many may.
    members : int
        Tasks of a year.
    ready : int
        Tasks that could go out in bundles now, at least 1.
    free : int
        Slots that have nothing to do.
    """
    parts = max(1, free * members // ready)
    return min(largest, ceil(members / parts))


def gather(first: int, rest: Iterable[int], room: float, company: Callable[[int], int]) -> list[int]:
    """A task and as many others as may go out with it and with each other, in order.

    Parameters
    ----------
    first : int
    rest : iterable of int
        The others; looked at only as far as need be.
    room : float
        How many there may be at most, at least 1.
    company : callable
        How many there may be if a task is one of them.
    """
    chosen = [first]
    room = min(room, company(first))
    for index in rest if room > 1 else ():
        narrowed = min(room, company(index))
        if index != first and len(chosen) < narrowed:
            chosen.append(index)
            room = narrowed
        if len(chosen) >= room:
            break
    return sorted(chosen)
