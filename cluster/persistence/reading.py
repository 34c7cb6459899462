"""The documented calls that read tasks, their elements, iterations and attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence.rows import Attempt, Element, ElementSet, Iteration, Task
from stormtracks.cluster.persistence.rowstore import CHUNK, RowStore
from stormtracks.cluster.persistence.shapes import attempt_shape, element_shape, from_json

__all__ = ["ElementReader"]

GAP = 32
"""How many elements are read that nobody asked for, rather than that those beyond them are asked for apart."""


class ElementReader(RowStore):
    """What is to be done and what was tried, as `ElementStore` writes it."""

    # --- which task

    def _task_at(self, task_idx: int) -> Task:
        task = next((task for task in self._rows(Task) if task.place == task_idx), None)
        if task is None:
            raise StoreError(f"there is no task {task_idx} in {self.workflow_path}", remedy="add it first")
        return task

    def _task(self, task_idx: int, task_insert_ID: int) -> int:
        """The insert ID of a task, which must be at this place."""
        if self._get(Task, task_insert_ID).place != task_idx:
            raise StoreError(
                f"the task at {task_idx} is not the one with insert ID {task_insert_ID}",
                remedy="give the place that get_task_idx_from_insert_ID tells",
            )
        return task_insert_ID

    # --- all tasks, and elements

    def get_all_tasks_metadata(self) -> list[dict[str, Any]]:
        """All tasks in their order, each with its progress.

        Returns
        -------
        list of dict
            What was given to `add_empty_task`, and ``index``, ``insert_ID``, ``num_elements`` (retired ones included),
            ``element_sets`` (what was given to `add_element_set`), ``members`` (numbers in order) and ``rows``: for
            each year a text of one sign per member, the status of the latest iteration, a space where there is none.
            Retired elements are left out of members and rows.
        """
        with self.cached_load():
            tasks = sorted(self._rows(Task), key=lambda task: task.place)
            return [self._task_metadata(task) for task in tasks]

    def _task_metadata(self, task: Task) -> dict[str, Any]:
        members, rows = _board(list(self._years(task.insert_ID)))
        return {
            **from_json(task.document),
            "index": task.place,
            "insert_ID": task.insert_ID,
            "num_elements": self._next(Element, task.insert_ID),
            "element_sets": [from_json(one.document) for one in self._rows(ElementSet, task.insert_ID)],
            "members": members,
            "rows": rows,
        }

    def _years(self, task: int) -> Iterable[tuple[int, Sequence[int], str]]:
        """Each year with its members and a sign for each, of all elements that count; in order of year and member."""
        status = {iteration.idx: iteration.status for iteration in self._rows(Iteration, task)}
        years: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for element in self._rows(Element, task):
            if not element.retired:
                years[element.year].append((element.member, status[element.latest]))
        for year in sorted(years):
            signs = sorted(years[year])
            yield year, [member for member, _ in signs], "".join(sign for _, sign in signs)

    def get_task_elements(
        self, task_idx: int, task_insert_ID: int, selection: slice, keep_iterations_idx: bool = False
    ) -> list[dict[str, Any]]:
        """Elements of a task with all their history.

        Parameters
        ----------
        task_idx, task_insert_ID : int
        selection : slice
            Of the elements in the order in which they were added.
        keep_iterations_idx : bool
            Whether to give ``iterations_idx``, too: the indices of the iterations.

        Returns
        -------
        list of dict
            ``index``, ``year``, ``member``, ``element_set``, ``retired`` and ``iterations``: a list of ``index``,
            ``parameter``, ``loop``, ``status`` (a glyph) and ``EARs``: a list of ``number``, ``worker``,
            ``incarnation``, ``host``, ``pid``, ``code``, ``submission``, ``start``, ``end``, ``status`` (None while it
            runs), ``error``, ``exit_code`` and ``seconds``.
        """
        with self.cached_load():
            chosen = self._chosen(task_idx, task_insert_ID, selection)
            return self._elements(task_insert_ID, chosen, keep_iterations_idx) if chosen else []

    def get_task_elements_islice(
        self, task_idx: int, task_insert_ID: int, selection: int | slice
    ) -> Iterator[dict[str, Any]]:
        """Elements of a task as `get_task_elements` gives them, one by one, without ever holding all of them."""
        if not isinstance(selection, slice):
            selection = slice(selection, selection + 1 or None)
        chosen = self._chosen(task_idx, task_insert_ID, selection)
        for at in range(0, len(chosen), CHUNK):
            with self.cached_load():
                elements = self._elements(task_insert_ID, chosen[at : at + CHUNK], False)
            yield from elements

    def get_task_elements_of_status(
        self, task_idx: int, task_insert_ID: int, statuses: str
    ) -> Iterator[dict[str, Any]]:
        """Elements of a task as `get_task_elements` gives them, one by one, chosen by their status.

        Parameters
        ----------
        task_idx, task_insert_ID : int
        statuses : str
            Signs: those elements are given that count and whose latest iteration has one of them.
        """
        for some in _neighbours(self._of_status(self._task(task_idx, task_insert_ID), statuses)):
            with self.cached_load():
                elements = self._elements(task_insert_ID, some, False)
            yield from elements

    def _of_status(self, task: int, statuses: str) -> list[int]:
        """The elements of a task that count and have one of these statuses, by their indices, in order."""
        with self.cached_load():
            status = {iteration.idx: iteration.status for iteration in self._rows(Iteration, task)}
            elements = self._rows(Element, task)
            return [element.idx for element in elements if not element.retired and status[element.latest] in statuses]

    def _chosen(self, task_idx: int, task_insert_ID: int, selection: slice) -> range:
        number = self._next(Element, self._task(task_idx, task_insert_ID))
        return range(*selection.indices(number))

    def _elements(self, task: int, chosen: Sequence[int], keep_iterations_idx: bool) -> list[dict[str, Any]]:
        span = range(min(chosen), max(chosen) + 1) if len(chosen) < self._next(Element, task) else None
        attempts = defaultdict(list)
        for attempt in self._rows(Attempt, task, span):
            attempts[attempt.iteration].append(attempt_shape(attempt))
        iterations = defaultdict(list)
        for row in self._rows(Iteration, task, span):
            shape = {"index": row.idx, "parameter": row.parameter, "loop": row.loop, "status": row.status}
            iterations[row.element].append({**shape, "EARs": attempts[row.idx]})
        found = {row.idx: element_shape(row, iterations[row.idx]) for row in self._rows(Element, task, span)}
        if keep_iterations_idx:
            for element in found.values():
                element["iterations_idx"] = [iteration["index"] for iteration in element["iterations"]]
        return [found[index] for index in chosen]


def _neighbours(indices: Sequence[int]) -> Iterator[list[int]]:
    """Indices in order, cut where it takes longer to read what is in between than to read once more."""
    some: list[int] = []
    for index in indices:
        if some and (index - some[-1] > GAP or index - some[0] >= CHUNK):
            yield some
            some = []
        some.append(index)
    if some:
        yield some


def _board(years: Sequence[tuple[int, Sequence[int], str]]) -> tuple[list[int], dict[int, str]]:
    """All members, and by year a sign for each of them."""
    members = sorted({member for some in {tuple(some) for _, some, _ in years} for member in some})
    rows = {}
    for year, some, signs in years:
        row = dict(zip(some, signs, strict=True)) if len(some) < len(members) else {}
        rows[year] = "".join([row.get(member, " ") for member in members]) if row else signs
    return members, rows
