"""The campaign store as a zarr hierarchy, in which many processes can set results at once.

What the campaign consists of has one writer. It is one document, a *generation*: a commit writes the next generation
beside the current one, then replaces one small cell, the *pointer*, which says which generation counts. Two cells take
turns in holding generations.

What becomes of a parameter or an attempt, its value, its start, its end, lies in a cell of its own, written once. A
commit of one such cell writes that cell and nothing else, so that any number of processes can do it. A commit of
several, or of cells together with the document, has them in its pointer first: whoever finds them there takes them as
written, and the next writer sees to it that they are.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence.base import PersistentStore, PersistentStoreFeatures, Workflow
from stormtracks.cluster.persistence.cells import Cells
from stormtracks.cluster.persistence.folders import as_store_error
from stormtracks.cluster.persistence.generation import (
    ENDS,
    PARAMETERS,
    STARTS,
    CellKey,
    State,
    divided,
    parse_document,
    parse_pointer,
    rows_of,
    with_cells,
)
from stormtracks.cluster.persistence.memory import MemoryRows
from stormtracks.cluster.persistence.pending import Pending
from stormtracks.cluster.persistence.rows import (
    Attempt,
    Campaign,
    Iteration,
    Key,
    Parameter,
    Row,
    iteration_status,
    key_of,
)
from stormtracks.cluster.persistence.rowstore import check_schema, damaged_error
from stormtracks.errors import ResultsError
from stormtracks.publish import storage_error

__all__ = ["ZarrPersistentStore"]

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Row)

FOLDER = "store.zarr"
POINTER, METADATA = "pointer", "metadata"
CELLS = (PARAMETERS, STARTS, ENDS)
LENGTHS = {POINTER: 1, METADATA: 2, **dict.fromkeys(CELLS, 1)}
"""Of all arrays, in the beginning; those of cells grow."""

_FEW = 8
"""Up to so many cells are looked for one by one, and left in a pointer; for more, their folder is listed."""


class _Changes(NamedTuple):
    """What a commit changes: the document, if it does, and cells."""

    rows: MemoryRows | None
    cells: Mapping[CellKey, str]

    @property
    def is_alone(self) -> bool:
        return self.rows is None and len(self.cells) == 1


class ZarrPersistentStore(PersistentStore):
    """A campaign's store as a zarr hierarchy, ``store.zarr``.

    Any number of processes may commit one `set_parameter`, `set_EAR_start` or `set_EAR_end` at a time, each for itself
    and whatever others do. All other changes, and several of these together, are for one writer at a time.
    """

    format = "zarr"
    _features = PersistentStoreFeatures(
        jobscript_parallelism=True, EAR_parallelism=True, schedulers=True, submission=True
    )

    def __init__(self, workflow: Workflow) -> None:
        self._cells = Cells(workflow.path / FOLDER)
        self._texts: dict[CellKey, str] = {}
        self._held: dict[str, set[int]] | None = None
        self._writes = False
        self._descriptor = -1
        self._seen: dict[tuple[type[Any], Key], tuple[Row, Row]] = {}
        super().__init__(workflow)

    @classmethod
    def path_has_store(cls, path: Path) -> bool:
        """Whether a folder holds a store of this kind."""
        return (path / FOLDER).is_dir()

    @property
    def store_path(self) -> Path:
        """Folder of the zarr hierarchy."""
        return self.workflow_path / FOLDER

    def close(self) -> None:
        """Let go of what is on disk; pending changes are dropped."""
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @classmethod
    def create_in(cls, folder: Path, campaign: Campaign) -> None:
        state = State(secrets.token_hex(16), 0, 0, rows=MemoryRows([campaign]))
        with as_store_error():
            Cells.create(folder / FOLDER, LENGTHS, _texts(state))

    def _copy_into(self, folder: Path) -> None:
        # Nothing is locked: what counts now is taken from memory, and no cell is ever written again.
        with self.cached_load(), as_store_error():
            assert self._held is not None, "as reading is cached"
            Cells.create(folder / FOLDER, self._cells.lengths(LENGTHS), _texts(self._state))
            self._cells.copy(folder / FOLDER, self._held)

    # --- what counts now

    def _open(self) -> int:
        if not self.path_has_store(self.workflow_path):
            raise self._not_found(self.workflow_path)
        self._state = self._read_state(None)
        self._store = self._state.store
        return self._state.revision

    def _read_revision(self) -> int:
        if not self.path_has_store(self.workflow_path):
            return -1
        state = self._current()
        return state.revision if state.store == self._store else -1

    def _current(self) -> State:
        """What the pointer says now; within `cached_load`, what it said then."""
        if not self._depth and not self._is_up_to_date():
            before, self._state = self._state, self._read_state(self._state)
            if before.store != self._state.store:
                self._texts.clear()
        return self._state

    def _is_up_to_date(self) -> bool:
        """Whether the pointer's file still is the one that is held open, whose number no other can have meanwhile."""
        try:
            return self._descriptor >= 0 and os.path.samestat(
                os.fstat(self._descriptor), self._cells.path(POINTER, 0).stat()
            )
        except FileNotFoundError:
            return False

    def _read_state(self, known: State | None) -> State:
        with as_store_error():
            while True:
                self._hold_pointer()
                state = self._read_pointer()
                if known is not None and (state.store, state.generation) == (known.store, known.generation):
                    rows: MemoryRows | None = known.rows
                else:
                    rows = self._read_document(state)
                if not self._is_up_to_date():
                    continue  # a writer was faster, and may have begun with the next generation
                if rows is None:
                    at = self._cells.path(METADATA, state.generation % 2)
                    raise damaged_error(at, f"it does not hold generation {state.generation}, which is the current one")
                return replace(state, rows=rows)

    def _hold_pointer(self) -> None:
        self._let_go()
        path = self._cells.path(POINTER, 0)
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise damaged_error(path, "it is not there") from error
        except OSError as error:
            raise storage_error("read", path, error) from error

    def _read_pointer(self) -> State:
        text = self._cells.read(POINTER, [0]).get(0, "")
        with _parsing(self._cells.path(POINTER, 0)):
            return parse_pointer(text)

    def _read_document(self, state: State) -> MemoryRows | None:
        at = state.generation % 2
        document = self.load_metadata(state.generation)
        check_schema(document["schema"], self.store_path)
        with _parsing(self._cells.path(METADATA, at)):
            return rows_of(document, state)

    def load_metadata(self, generation: int | None = None) -> dict[str, Any]:
        """The document on disk: ``schema``, ``store``, ``generation`` and ``tables``, by their names, of rows as lists.

        That which counts now, unless another `generation` is wanted, in whose place there may be a later one already.
        """
        at = (self._current().generation if generation is None else generation) % 2
        text = self._cells.read(METADATA, [at]).get(at, "")
        with _parsing(self._cells.path(METADATA, at)):
            return parse_document(text)

    def _begin_reading(self) -> None:
        with as_store_error():
            while True:
                self._current()
                # An end says that the parameter is set, if it will be: so it is looked for first.
                held = {name: self._cells.held(name) for name in (ENDS, STARTS, PARAMETERS)}
                if self._is_up_to_date():
                    self._held = held
                    return

    def _end_reading(self) -> None:
        self._held = None

    # --- reading rows

    def _fetch(self, kind: type[R], key: Key) -> R | None:
        row = self._current().rows.get(kind, key)
        if row is None:
            return None
        whole = self._completed([row])[0]
        # What a change is then made from, and to be told apart from.
        self._seen[kind, key] = row, whole
        return whole

    def _scan(self, kind: type[R], task: int | None, elements: range | None) -> Iterable[R]:
        return self._completed(self._current().rows.scan(kind, task, elements))

    def _count(self, kind: type[Row], parent: Key) -> int:
        return self._current().rows.count(kind, parent)

    def _completed(self, rows: list[R]) -> list[R]:
        """Rows of one kind with what lies in cells."""
        if not rows:
            return rows
        with as_store_error():
            if isinstance(rows[0], Parameter):
                return cast("list[R]", self._completed_parameters(cast("list[Parameter]", rows)))
            if isinstance(rows[0], Attempt):
                return cast("list[R]", self._completed_attempts(cast("list[Attempt]", rows)))
            if isinstance(rows[0], Iteration):
                return cast("list[R]", self._completed_iterations(cast("list[Iteration]", rows)))
        return rows

    def _completed_parameters(self, rows: list[Parameter]) -> list[Parameter]:
        values = self._read(PARAMETERS, [row.idx for row in rows])
        return [row._replace(is_set=1, data=values[row.idx]) if row.idx in values else row for row in rows]

    def _completed_attempts(self, rows: list[Attempt]) -> list[Attempt]:
        numbers = [self._state.rows.number(row) for row in rows]
        starts, ends = self._read(STARTS, numbers), self._read(ENDS, numbers)
        return [
            self._completed_attempt(row, number, starts.get(number), ends.get(number))
            for row, number in zip(rows, numbers, strict=True)
        ]

    def _completed_attempt(self, row: Attempt, number: int, start: str | None, end: str | None) -> Attempt:
        with _parsing(self._cells.path(ENDS, number)):
            return with_cells(row, start, end)

    def _completed_iterations(self, rows: list[Iteration]) -> list[Iteration]:
        complete = self._written(PARAMETERS, [row.parameter for row in rows])
        tried = [last for row in rows if row.parameter not in complete and (last := self._last_attempt(row))]
        last_of = {(attempt.task, attempt.iteration): attempt for attempt in self._completed_attempts(tried)}
        return [
            row._replace(status=iteration_status(row.parameter in complete, last_of.get((row.task, row.idx))))
            for row in rows
        ]

    def _last_attempt(self, row: Iteration) -> Attempt | None:
        rows = self._state.rows
        return rows.get(Attempt, (row.task, row.idx, rows.count(Attempt, (row.task, row.idx)) - 1))

    def _written(self, name: str, numbers: list[int]) -> set[int]:
        """Which of some cells are written."""
        if self._held is not None:
            held = self._held[name]
        elif len(numbers) > _FEW:
            held = self._cells.held(name)
        else:
            held = {number for number in numbers if self._cells.is_held(name, number)}
        return {number for number in numbers if number in held or (name, number) in self._state.cells}

    def _read(self, name: str, numbers: list[int]) -> dict[int, str]:
        """The texts of cells, by their numbers; those that are not written are left out."""
        written = self._written(name, numbers)
        new = sorted(number for number in written if (name, number) not in self._texts)
        committed = {number: self._state.cells[name, number] for number in new if (name, number) in self._state.cells}
        found = self._cells.read(name, [number for number in new if number not in committed])
        self._texts |= {(name, number): text for number, text in (committed | found).items()}
        return {number: self._texts[name, number] for number in written}

    # --- writing

    def clear_pending(self) -> None:
        """Drop the pending changes."""
        super().clear_pending()
        self._seen = {}

    def save(self) -> None:
        """Commit all pending changes, if nobody else has changed the store since it was read.

        What others do does not matter to a lone `set_parameter`, `set_EAR_start` or `set_EAR_end`.

        Raises
        ------
        StoreChangedError
            If somebody has; the changes stay pending, and nothing of them is on disk.
        ParameterSetError
            If another process was the first to set the parameter; likewise.
        StoreError
            If another process was the first to say of an attempt what is said here, or the disk does not take it;
            likewise.
        """
        if self.has_pending and self._changes(self._pending).is_alone:
            self.commit_pending()
        else:
            super().save()

    def _commit(self, pending: Pending, revision: int) -> int:
        with self._unpinned(), as_store_error():
            changes = self._changes(pending)
            with self._cells.locked(alone=not changes.is_alone):
                state = self._current()
                if state.store != self._store or not (changes.is_alone or state.revision == revision):
                    raise self._changed_error()
                if changes.is_alone:
                    self._write_alone(state, changes)
                    return revision
                self._write(state, changes)
                return self._state.revision

    @contextmanager
    def _unpinned(self) -> Iterator[None]:
        """See what is on disk now, in `cached_load` too; there, go on with what is on disk after that."""
        depth, self._depth, self._held = self._depth, 0, None
        try:
            yield
        finally:
            if depth:
                self._begin_reading()
            self._depth = depth

    def _changes(self, pending: Pending) -> _Changes:
        """What of some changes belongs into the document, and what into cells."""
        before = self._current().rows
        rows, cells, is_changed = before.copy(), dict[CellKey, str](), False
        for row in pending:
            kept, whole = self._seen.get((type(row), key_of(row))) or self._known(before, row)
            into_document, into_cells = divided(row, kept, whole)
            if into_document != kept:
                rows.put(into_document)
                is_changed = True
            number = row.idx if isinstance(row, Parameter) else rows.number(into_document)
            cells |= {(name, number): text for name, text in into_cells.items()}
        return _Changes(rows if is_changed else None, cells)

    def _known(self, rows: MemoryRows, row: Row) -> tuple[Row | None, Row | None]:
        """What there is with the key of a row, in the document and with its cells."""
        kept: Row | None = rows.get(type(row), key_of(row))
        return kept, None if kept is None else self._completed([kept])[0]

    def _write_alone(self, state: State, changes: _Changes) -> None:
        ((key, text),) = changes.cells.items()
        if key in state.cells or not self._cells.write_once(*key, text):
            raise self._taken_error(*key)

    def _write(self, state: State, changes: _Changes) -> None:
        """Commit changes; for the one who holds the lock alone."""
        if not self._writes:
            self._cells.remove_leftovers(LENGTHS)
            self._writes = True
        self._settle(state)
        for key in changes.cells:
            if self._cells.is_held(*key):
                raise self._taken_error(*key)
        generation = state.generation + (changes.rows is not None)
        new = replace(state, revision=state.revision + 1, generation=generation, cells=changes.cells)
        if changes.rows is not None:
            new = replace(new, rows=changes.rows)
            self._make_room(changes.rows)
            self._cells.replace(METADATA, generation % 2, new.document)
        self._point_to(new)
        try:
            self._settle(new)
            if len(new.cells) > _FEW:
                self._point_to(replace(new, cells={}))
        except ResultsError as error:
            # It counts already, and stands in the pointer.
            logger.warning("%s: a commit will be finished with the next one: %s", self.store_path, error)

    def _point_to(self, state: State) -> None:
        self._cells.replace(POINTER, 0, state.pointer)
        self._state = state
        self._hold_pointer()

    def _settle(self, state: State) -> None:
        """Write the cells of a commit that are not written yet."""
        for key, text in state.cells.items():
            if not self._cells.is_held(*key):
                self._cells.write_once(*key, text)

    def _make_room(self, rows: MemoryRows) -> None:
        for name, kind in ((PARAMETERS, Parameter), (STARTS, Attempt), (ENDS, Attempt)):
            self._cells.make_room(name, rows.total(kind))

    def _taken_error(self, name: str, number: int) -> StoreError:
        if name == PARAMETERS:
            return self._set_already_error(number)
        return StoreError(
            f"another process has said already when an attempt of the campaign in {self.workflow_path} "
            f"{'began' if name == STARTS else 'ended'}",
            remedy="let one process tell of an attempt",
        )


def _texts(state: State) -> dict[CellKey, str]:
    """A state as texts of cells of its own, which say what counts."""
    return {(METADATA, state.generation % 2): state.document, (POINTER, 0): state.pointer}


@contextmanager
def _parsing(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise damaged_error(path, f"it does not read as it should: {error}") from error
