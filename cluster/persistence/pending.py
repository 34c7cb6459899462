"""Changes that are made but not yet on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

from stormtracks.cluster.persistence.rows import Attempt, Element, Iteration, Key, Row, key_of

__all__ = ["Pending", "element_of"]

R = TypeVar("R", bound=Row)


class Pending:
    """Rows that shall be added and rows that shall take the place of older ones, each as it shall be in the end.

    Attributes
    ----------
    added, changed : dict of type to dict of key to row
        No key is in both.
    """

    def __init__(self) -> None:
        self.added: dict[type[Any], dict[Key, Any]] = {}
        self.changed: dict[type[Any], dict[Key, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self.added or self.changed)

    def __len__(self) -> int:
        return sum(len(rows) for changes in (self.added, self.changed) for rows in changes.values())

    def __iter__(self) -> Iterator[Row]:
        """All rows, those of a kind that are added in the order of their adding."""
        for changes in (self.added, self.changed):
            for rows in changes.values():
                yield from rows.values()

    def add(self, row: Row) -> None:
        """A row that is not on disk."""
        self.added.setdefault(type(row), {})[key_of(row)] = row

    def change(self, row: Row) -> None:
        """A row that is on disk, or was added."""
        kind, key = type(row), key_of(row)
        changes = self.added if key in self.added.get(kind, ()) else self.changed
        changes.setdefault(kind, {})[key] = row

    def get(self, kind: type[R], key: Key) -> R | None:
        """The row with this key, if there is a change of it."""
        row = self.added.get(kind, {}).get(key) or self.changed.get(kind, {}).get(key)
        return cast("R | None", row)

    def over(self, kind: type[R], rows: Iterable[R], task: int | None, elements: range | None) -> Iterator[R]:
        """Rows from disk as they shall be, and after them those that shall be added.

        Parameters
        ----------
        kind : type of row
        rows : iterable
            From disk, already chosen by `task` and `elements`.
        task : int or None
            Only rows of this task.
        elements : range or None
            Only rows of these elements.
        """
        changed = self.changed.get(kind, {})
        for row in rows:
            yield changed.get(key_of(row), row) if changed else row
        added = self.added.get(kind, {})
        for key in sorted(added):
            if (task is None or key[0] == task) and (elements is None or element_of(added[key]) in elements):
                yield added[key]


def element_of(row: Element | Iteration | Attempt) -> int:
    """The element that a row belongs to, or is."""
    return row.idx if isinstance(row, Element) else row.element
