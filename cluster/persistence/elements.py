"""The documented calls about tasks, their elements, iterations and attempts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from operator import index as whole
from typing import Any

from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence.reading import ElementReader
from stormtracks.cluster.persistence.rows import (
    Attempt,
    Element,
    ElementSet,
    Iteration,
    Parameter,
    Task,
    iteration_status,
    to_json,
    to_text,
)
from stormtracks.cluster.persistence.shapes import merged, plain_text

__all__ = ["ElementStore"]

ENDED = ("complete", "failure", "timeout", "lost")
FORGIVABLE = ("failure", "timeout")


class ElementStore(ElementReader):
    """What is to be done and what was tried.

    A *task* is a kind of task, an *element* one year of one member, an *element set* the years and members added at
    once, an *element iteration* one round of an element, an *EAR* (element action run) one attempt. Tasks are known by
    their place among all (`task_idx`) and by the number of tasks ever added before (`insert_ID`).
    """

    # --- tasks and elements

    def add_empty_task(self, task_idx: int, task_js: Mapping[str, Any]) -> None:
        """Add a task without elements, ``{"name": "vort_track"}``, at this place among the tasks."""
        tasks = list(self._rows(Task))
        if not isinstance(task_js.get("name"), str):
            raise StoreError(f"a task without a name: {dict(task_js)}", remedy='give {"name": "vort_track"}')
        if not 0 <= task_idx <= len(tasks):
            raise StoreError(f"no task can be added at {task_idx}", remedy=f"give a place from 0 to {len(tasks)}")
        for task in tasks:
            if task.place >= task_idx:
                self._pending.change(task._replace(place=task.place + 1))
        self._pending.add(Task(self._take_next(Task), task_idx, to_json(dict(task_js), "the task")))

    def get_num_added_tasks(self) -> int:
        """Number of tasks ever added, pending ones included: the insert ID of the next one."""
        return self._next(Task)

    def get_task_idx_from_insert_ID(self, insert_ID: int) -> int:
        """The place among the tasks of the one with this insert ID."""
        return self._get(Task, insert_ID).place

    def add_element_set(self, task_idx: int, element_set_js: Mapping[str, Any]) -> None:
        """Note what is added to a task now: ``{"years": [...], "members": [...]}``."""
        task = self._task_at(task_idx).insert_ID
        document = to_json(dict(element_set_js), "the element set")
        self._pending.add(ElementSet(task, self._take_next(ElementSet, task), document))

    def add_elements(
        self,
        task_idx: int,
        task_insert_ID: int,
        elements: Sequence[Mapping[str, Any]],
        element_iterations: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add elements to the latest element set of a task, each with its first iteration.

        Parameters
        ----------
        task_idx, task_insert_ID : int
        elements : list of dict
            ``{"year": 2001, "member": 3}``; each year and member once in a task, retired ones included.
        element_iterations : list of dict
            As many: ``{"parameter": index}``, the parameter that takes the result; one of its own for each.

        Raises
        ------
        StoreError
            If an element is there already, or a parameter is not there or is another's. Nothing is then pending.
        """
        task = self._task(task_idx, task_insert_ID)
        element_set = self._next(ElementSet, task) - 1
        if element_set < 0:
            raise StoreError(f"task {task_idx} has no element set", remedy="call add_element_set before add_elements")
        if len(elements) != len(element_iterations):
            raise StoreError(
                f"{len(elements)} elements with {len(element_iterations)} iterations",
                remedy="give one iteration for each element",
            )
        keys = [(whole(element["year"]), whole(element["member"])) for element in elements]
        self._refuse_known(task, keys)
        slots = self._free_slots(iteration["parameter"] for iteration in element_iterations)
        element = self._take_next(Element, task, rows=len(keys))
        first = self._take_next(Iteration, task, rows=len(keys))
        for at, ((year, member), iteration, slot) in enumerate(zip(keys, element_iterations, slots, strict=True)):
            self._pending.add(Element(task, element + at, year, member, element_set, 0, first + at))
            self._add_iteration(task, first + at, element + at, slot, iteration.get("loop"))
        self._relieve()

    def _keys_in_years(self, task: int, years: Collection[int]) -> set[tuple[int, int]]:
        """Year and member of the elements of a task, at least of those of these years."""
        return {(element.year, element.member) for element in self._rows(Element, task)}

    def _refuse_known(self, task: int, keys: Sequence[tuple[int, int]]) -> None:
        known = self._keys_in_years(task, {year for year, _ in keys})
        for key in keys:
            if key in known:
                raise StoreError(
                    f"year {key[0]}, member {key[1]} is in the campaign in {self.workflow_path} already",
                    remedy="add only what is new; what was retired can be restored",
                )
            known.add(key)

    def _free_slots(self, indices: Iterable[int]) -> list[Parameter]:
        slots = [self._get(Parameter, whole(index)) for index in indices]
        if len({slot.idx for slot in slots}) < len(slots) or any(slot.iteration is not None for slot in slots):
            raise StoreError("two iterations share a parameter", remedy="give each iteration a parameter of its own")
        return slots

    def _add_iteration(self, task: int, index: int, element: int, slot: Parameter, loop: int | None) -> None:
        self._pending.add(Iteration(task, index, element, slot.idx, loop, iteration_status(slot.is_set, None)))
        self._pending.change(Parameter(slot.idx, slot.is_set, slot.data, slot.source, task, index))

    def add_element_iterations(
        self,
        task_idx: int,
        task_insert_ID: int,
        element_iterations: Sequence[Mapping[str, Any]],
        element_iters_idx: Mapping[int, Sequence[int]],
    ) -> None:
        """Add further rounds to elements.

        Parameters
        ----------
        task_idx, task_insert_ID : int
        element_iterations : list of dict
            ``{"parameter": index, "loop": loop index or None}``; their own indices follow those that there are.
        element_iters_idx : dict of int to list of int
            By the index of each element, the indices of the iterations that it gets, each of the new ones once.
        """
        task = self._task(task_idx, task_insert_ID)
        start = self._next(Iteration, task)
        owners = {iteration: self._get(Element, task, at) for at, its in element_iters_idx.items() for iteration in its}
        given = sum(map(len, element_iters_idx.values()))
        if given != len(owners) or sorted(owners) != list(range(start, start + len(element_iterations))):
            raise StoreError(
                f"the new iterations {start} to {start + len(element_iterations) - 1} of task {task_idx} are given to "
                f"elements as {dict(element_iters_idx)}",
                remedy="give each new iteration to one element",
            )
        slots = self._free_slots(iteration["parameter"] for iteration in element_iterations)
        for iteration, slot in zip(element_iterations, slots, strict=True):
            number = self._take_next(Iteration, task)
            owner = owners[number].idx
            self._add_iteration(task, number, owner, slot, iteration.get("loop"))
            self._pending.change(self._get(Element, task, owner)._replace(latest=number))

    def retire_elements(self, task_idx: int, task_insert_ID: int, element_indices: Iterable[int]) -> None:
        """Let elements count no more; their history stays, and so does their place."""
        self._set_retired(self._task(task_idx, task_insert_ID), element_indices, 1)

    def restore_elements(self, task_idx: int, task_insert_ID: int, element_indices: Iterable[int]) -> None:
        """Let retired elements count again."""
        self._set_retired(self._task(task_idx, task_insert_ID), element_indices, 0)

    def _set_retired(self, task: int, indices: Iterable[int], retired: int) -> None:
        for element in [self._get(Element, task, index) for index in indices]:
            self._pending.change(element._replace(retired=retired))

    # --- attempts

    def add_EARs(
        self,
        task_idx: int,
        task_insert_ID: int,
        element_iter_idx: int,
        EARs: Mapping[str, Any],
        param_src_updates: Mapping[int, Mapping[str, Any]],
    ) -> None:
        """Add one attempt to an iteration.

        Parameters
        ----------
        task_idx, task_insert_ID, element_iter_idx : int
        EARs : dict
            ``number``, ``worker``, ``incarnation``, ``host``, ``pid`` and ``code`` (its version).
        param_src_updates : dict of int to dict
            What is added to the sources of parameters, by their indices.
        """
        task = self._task(task_idx, task_insert_ID)
        iteration = self._get(Iteration, task, element_iter_idx)
        sources = {index: self._get(Parameter, index) for index in param_src_updates}
        for index, slot in sources.items():
            source = merged(slot.source, param_src_updates[index], "the source")
            self._pending.change(slot._replace(source=source))
        run = self._take_next(Attempt, task, iteration.idx)
        attempt = Attempt(
            task,
            iteration.idx,
            run,
            iteration.element,
            number=whole(EARs["number"]),
            worker=plain_text(EARs["worker"]),
            incarnation=plain_text(EARs.get("incarnation", "")),
            host=plain_text(EARs.get("host", "")),
            pid=EARs.get("pid"),
            code=plain_text(EARs.get("code", "")),
            submission=None,
            start=None,
            end=None,
            status=None,
            error="",
            exit_code=None,
            seconds=0.0,
        )
        self._pending.add(attempt)
        self._show(attempt)

    def set_EAR_submission_indices(self, sub_idx: int, EAR_indices: tuple[int, int, int, int]) -> None:
        """Say with which submission an attempt went out."""
        attempt = self._attempt(*EAR_indices)
        self._pending.change(attempt._replace(submission=whole(sub_idx)))

    def set_EAR_start(
        self,
        task_insert_ID: int,
        element_iteration_idx: int,
        action_idx: int,
        run_idx: int,
        *,
        at: datetime | None = None,
    ) -> None:
        """Say when an attempt began: now, if not at another time."""
        attempt = self._attempt(task_insert_ID, element_iteration_idx, action_idx, run_idx)
        self._pending.change(attempt._replace(start=to_text(at)))

    def set_EAR_end(
        self,
        task_insert_ID: int,
        element_iteration_idx: int,
        action_idx: int,
        run_idx: int,
        *,
        status: str | None,
        error: str = "",
        exit_code: int | None = None,
        seconds: float = 0.0,
        at: datetime | None = None,
    ) -> None:
        """Say how an attempt ended, and when: now, if not at another time.

        Parameters
        ----------
        task_insert_ID, element_iteration_idx, action_idx, run_idx : int
        status : str or None
            ``complete``, ``failure``, ``timeout`` or ``lost``; or, of one that has ended in failure or timeout,
            ``forgiven``: all else about it then stays; or, of one that was lost, None: it was not, and goes on.
        error : str
        exit_code : int, optional
        seconds : float
            How long it ran.
        at : datetime, optional

        Raises
        ------
        StoreError
            If there is no such attempt or status, or the attempt has ended already.
        """
        attempt = self._attempt(task_insert_ID, element_iteration_idx, action_idx, run_idx)
        if status == "forgiven" and attempt.status in FORGIVABLE:
            attempt = attempt._replace(status=status)
        elif status is None and attempt.status == "lost":
            attempt = attempt._replace(end=None, status=None, error="", exit_code=None, seconds=0.0)
        elif status in ENDED and attempt.status is None:
            attempt = attempt._replace(
                end=to_text(at), status=status, error=plain_text(error), exit_code=exit_code, seconds=float(seconds)
            )
        else:
            raise StoreError(
                f"attempt {attempt.number} of iteration {attempt.iteration} cannot become {status!r}: "
                f"it is {attempt.status or 'running'}",
                remedy=f"it ends once, as one of: {', '.join(ENDED)}; {' and '.join(FORGIVABLE)} can be forgiven, and "
                "what was lost can go on",
            )
        self._pending.change(attempt)
        self._show(attempt)

    def _attempt(self, task: int, iteration: int, action: int, run: int) -> Attempt:
        if action != 0:
            raise StoreError(f"there is no action {action}", remedy="give 0: an iteration has one action")
        return self._get(Attempt, task, iteration, run)

    def _show(self, attempt: Attempt) -> None:
        """Give an iteration the status that its last attempt means."""
        iteration = self._get(Iteration, attempt.task, attempt.iteration)
        if attempt.run == self._next(Attempt, attempt.task, attempt.iteration) - 1:
            is_set = self._get(Parameter, iteration.parameter).is_set
            self._pending.change(iteration._replace(status=iteration_status(is_set, attempt)))
