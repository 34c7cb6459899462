"""All rows of a campaign in memory, for a store that keeps them in one document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Self, TypeVar, cast

from stormtracks.cluster.persistence.pending import element_of
from stormtracks.cluster.persistence.rows import TABLES, Key, Row, key_of

__all__ = ["MemoryRows"]

R = TypeVar("R", bound=Row)


class MemoryRows:
    """Rows by kind and key, numbered within their kind in the order in which they were added."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: dict[type[Any], dict[Key, Any]] = {kind: {} for kind in TABLES.values()}
        self._numbers: dict[type[Any], dict[Key, int]] = {kind: {} for kind in TABLES.values()}
        self._counts: Counter[tuple[type[Row], Key]] = Counter()
        for row in rows:
            self.put(row)

    def __iter__(self) -> Iterator[Row]:
        """All rows, those of a kind in the order in which they were added."""
        for rows in self._rows.values():
            yield from rows.values()

    def copy(self) -> Self:
        """The same rows, to be changed apart."""
        copied = type(self)()
        copied._rows = {kind: dict(rows) for kind, rows in self._rows.items()}
        copied._numbers = {kind: dict(numbers) for kind, numbers in self._numbers.items()}
        copied._counts = self._counts.copy()
        return copied

    def put(self, row: Row) -> None:
        """Add a row, or put it in the place of the one with its key."""
        kind, key = type(row), key_of(row)
        rows = self._rows[kind]
        if key not in rows:
            self._numbers[kind][key] = len(rows)
            self._counts[kind, key[:-1]] += 1
        rows[key] = row

    def get(self, kind: type[R], key: Key) -> R | None:
        """The row with this key."""
        return cast("R | None", self._rows[kind].get(key))

    def number(self, row: Row) -> int:
        """How many rows of its kind had been added before a row; of one that is not there, all."""
        rows = self._rows[type(row)]
        return self._numbers[type(row)].get(key_of(row), len(rows))

    def total(self, kind: type[Row]) -> int:
        """How many rows of a kind there are."""
        return len(self._rows[kind])

    def count(self, kind: type[Row], parent: Key) -> int:
        """How many rows have these first fields of their key, all but the last."""
        return self._counts[kind, parent]

    def scan(self, kind: type[R], task: int | None = None, elements: range | None = None) -> list[R]:
        """Rows in order of their keys; of a task, and of some elements of it."""
        rows = self._rows[kind]
        found = [rows[key] for key in sorted(rows) if task is None or key[0] == task]
        return found if elements is None else [row for row in found if element_of(row) in elements]
