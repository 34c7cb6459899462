"""The assignments that are out: which tasks, by their index, each is at still, and so how many slots of a worker."""

from __future__ import annotations

from collections import Counter
from itertools import count

__all__ = ["Assignments", "Key"]

Key = tuple[str, int]
"""What tells an assignment from any other: the incarnation of its worker, and a number."""


class Assignments:
    """What travels together takes one slot, from when it is handed out until the last of it has ended."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        """How many each worker has that can be used, by its incarnation."""
        self._key_of: dict[int, Key] = {}
        self._left: Counter[Key] = Counter()
        self._at: Counter[str] = Counter()
        self._numbers = count()

    def new(self, incarnation: str) -> Key:
        """An assignment of nothing yet."""
        return incarnation, next(self._numbers)

    def key_of(self, index: int) -> Key | None:
        """The assignment to which a task belongs, None if it is not out."""
        return self._key_of.get(index)

    def free_slots(self, incarnation: str) -> int:
        """How many assignments a worker can be given before it has as many as slots."""
        return max(0, self.slots.get(incarnation, 0) - self._at[incarnation])

    def add(self, index: int, key: Key) -> None:
        """A task is out, as a part of an assignment."""
        self._key_of[index] = key
        self._at[key[0]] += not self._left[key]
        self._left[key] += 1

    def remove(self, index: int) -> None:
        """A task is out no more, if it was."""
        key = self._key_of.pop(index, None)
        if key is None:
            return
        self._left[key] -= 1
        if not self._left[key]:
            del self._left[key]
            self._at[key[0]] -= 1
            if not self._at[key[0]]:
                del self._at[key[0]]
