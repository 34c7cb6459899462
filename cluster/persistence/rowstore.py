"""What every kind of store has in common below the documented calls: rows, changes to them, and commits.

A kind of store reads rows by six small methods and writes them by one, `_commit`, which puts all changes on disk
together or none of them. All else is made of these.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from stormtracks.cluster.errors import StoreChangedError, StoreDamagedError, StoreError
from stormtracks.cluster.persistence.pending import Pending
from stormtracks.cluster.persistence.rows import SCHEMA, TABLES, Key, Row

__all__ = ["RowStore", "Workflow", "check_schema", "damaged_error"]

R = TypeVar("R", bound=Row)

CHUNK = 4096
"""How many rows are read or added at once by those who take them one by one."""


@dataclass(frozen=True)
class Workflow:
    """A campaign, by the folder that its store lies in."""

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "path", Path(path))


class RowStore(ABC):
    """Rows of a campaign, opened; one thread uses it at a time.

    Reading gives what is on disk with the pending changes on top.

    Parameters
    ----------
    workflow : Workflow

    Raises
    ------
    WorkflowNotFoundError
        If its folder holds no store of this kind.
    StoreDamagedError
        If the store was cut short or changed by something else.
    StoreError
        If it is of a version that is not known here, or the disk does not let it be read.
    """

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._pending = Pending()
        self._depth = 0
        self._next_of: dict[tuple[type[Row], Key], int] = {}
        self._revision = self._open()

    # --- what a kind of store does

    @abstractmethod
    def _open(self) -> int:
        """Open what is on disk, see that it is in order, and give its revision."""

    @abstractmethod
    def _read_revision(self) -> int:
        """The revision on disk now; each commit adds 1."""

    @abstractmethod
    def _fetch(self, kind: type[R], key: Key) -> R | None:
        """The row on disk with this key."""

    @abstractmethod
    def _scan(self, kind: type[R], task: int | None, elements: range | None) -> Iterable[R]:
        """All rows on disk, in order of their keys; or those of a task (its insert ID); or of a range of its elements.

        A task is only given for kinds whose first field is `task`; elements (of step 1) only for `Element`,
        `Iteration` and `Attempt`.
        """

    @abstractmethod
    def _count(self, kind: type[Row], parent: Key) -> int:
        """How many rows on disk have these first fields of their key; all but its last field are given."""

    def _relieve(self) -> None:
        """Many changes are pending, and more will be: a kind of store may put them where they need no memory.

        Raises
        ------
        StoreError
            As from `commit_pending`; but then nothing is pending any more.
        """
        return

    @abstractmethod
    def _commit(self, pending: Pending, revision: int) -> int:
        """Put all changes on disk or none, if the revision there still is this one; give the new one.

        Raises
        ------
        StoreChangedError
            If the revision on disk is another.
        StoreError
            If the disk does not take it.
        """

    def close(self) -> None:
        """Let go of what is on disk; pending changes are dropped."""
        self.clear_pending()

    # --- pending changes

    @property
    def workflow(self) -> Workflow:
        """The campaign."""
        return self._workflow

    @property
    def workflow_path(self) -> Path:
        """Folder of the campaign's store."""
        return self.workflow.path

    @property
    def has_pending(self) -> bool:
        """Whether there are changes that are not yet committed."""
        return bool(self._pending)

    def save(self) -> None:
        """Commit all pending changes, if nobody else has changed the store since it was read.

        Raises
        ------
        StoreChangedError
            If somebody has; the changes stay pending, and nothing of them is on disk. If they were too many to be kept
            in memory, they are dropped.
        StoreError
            If the disk does not take them; likewise.
        """
        if self.has_pending and self.is_modified_on_disk():
            raise self._changed_error()
        self.commit_pending()

    def commit_pending(self) -> None:
        """Put all pending changes on disk together; raises as `save` does."""
        if self.has_pending:
            self._write_out_drafts()
            self._revision = self._commit(self._pending, self._revision)
            self.clear_pending()

    def _write_out_drafts(self) -> None:
        """Make rows of changes that are kept in another form until they are read or committed."""
        return

    def clear_pending(self) -> None:
        """Drop the pending changes."""
        self._pending = Pending()
        self._next_of = {}

    def reject_pending(self) -> None:
        """Drop the pending changes, and take the store as it is on disk now."""
        self.clear_pending()
        self._revision = self._read_revision()

    def is_modified_on_disk(self) -> bool:
        """Whether somebody else has changed the store since it was opened, or since its last commit or rejection."""
        return self._read_revision() != self._revision

    @contextmanager
    def cached_load(self) -> Iterator[None]:
        """Within this context all reading sees one and the same state of the store, and costs less."""
        if self._depth == 0:
            self._begin_reading()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._end_reading()

    @abstractmethod
    def _begin_reading(self) -> None:
        """From now on the state of the store counts in which it is found now."""

    def _end_reading(self) -> None:
        """Whatever state the store is in counts again."""
        return

    def _changed_error(self) -> StoreChangedError:
        return StoreChangedError(
            f"the campaign in {self.workflow_path} was changed by somebody else; nothing was written",
            remedy="see that one manager at a time works on it, and run the same command again",
        )

    # --- rows

    def _find(self, kind: type[R], *key: int) -> R | None:
        return self._pending.get(kind, key) or self._fetch(kind, key)

    def _get(self, kind: type[R], *key: int) -> R:
        row = self._find(kind, *key) if min(key) >= 0 else None
        if row is None:
            raise StoreError(
                f"there is no {kind.__name__.lower()} {', '.join(map(str, key))} in {self.workflow_path}",
                remedy="give the numbers of something that was added",
            )
        return row

    def _rows(self, kind: type[R], task: int | None = None, elements: range | None = None) -> Iterator[R]:
        self._write_out_drafts()
        return self._pending.over(kind, self._scan(kind, task, elements), task, elements)

    def all_rows(self) -> Iterator[Row]:
        """Every row, kind by kind in the order of the schema, and in order of their keys."""
        for kind in TABLES.values():
            yield from self._rows(kind)

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Add rows of another store to one that has none of them; pending."""
        for number, row in enumerate(rows, start=1):
            self._pending.add(row)
            if number % CHUNK == 0:
                self._relieve()

    def _next(self, kind: type[Row], *parent: int) -> int:
        """How many rows there are with these first fields of their key: the last field of the next one's."""
        # Only what is pending is remembered: others may add rows meanwhile.
        number = self._next_of.get((kind, parent))
        return self._count(kind, parent) if number is None else number

    def _take_next(self, kind: type[Row], *parent: int, rows: int = 1) -> int:
        """The last field of the key of a row that will be added now, or of the first of so many rows."""
        number = self._next(kind, *parent)
        self._next_of[kind, parent] = number + rows
        return number

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def check_schema(schema: object, path: Path) -> None:
    """Refuse a store of a version that this program does not know."""
    if schema != SCHEMA:
        raise StoreError(
            f"the campaign store {path} is of version {schema}; this program knows version {SCHEMA}",
            remedy="use the version of stormtracks that the campaign was made with, or a newer one",
        )


def damaged_error(path: Path, problem: str) -> StoreDamagedError:
    """The error for a file in a store's folder that is not as it was written."""
    return StoreDamagedError(
        f"the campaign store is damaged: {path}: {problem}",
        remedy=f"put {path.parent} back from a copy; or move it away and run the same command again, which finds the "
        "results that are finished and computes the rest",
    )
