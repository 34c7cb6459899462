"""The record of a campaign: what happens to tasks, written down in the campaign's store and found there again.

Each event of the manager becomes a few pending changes; `save` commits them together. Whatever stands in the store when
a manager is killed is what the next one goes on from: complete tasks stay so, running attempts are held for a lease,
and a task that was given up is tried afresh.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from typing import Any, NamedTuple

from stormtracks import __version__
from stormtracks.cluster.backends.base import Worker
from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence import PersistentStore
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Attempt, Failure, Outcome, PyroTaskSchedule
from stormtracks.cluster.record import Held, Record
from stormtracks.cluster.rounds import add_rounds
from stormtracks.cluster.schedule.attempts import FAILED

__all__ = ["RERUN", "Ledger"]

logger = logging.getLogger(__name__)

RERUN = "rerun"
"""Name of the loop whose rounds are reruns that were asked for."""
_TASK, _TASK_ID = 0, 0
"""A campaign has one kind of task, the first that was ever added."""
_AT_ONCE = 4096
"""How many elements are added together; all of them in one commit."""


class _Place(NamedTuple):
    """Where an attempt stands in the store."""

    iteration: int
    run: int


class Ledger(Record):
    """Keeps a campaign in its store; the only one to change that as long as it is open.

    Parameters
    ----------
    store : PersistentStore
    schedule : PyroTaskSchedule
        Of the years and members that the campaign has now, and fresh: `start` puts it where the store says.
    """

    def __init__(self, store: PersistentStore, schedule: PyroTaskSchedule) -> None:
        self._store = store
        self._schedule = schedule
        self._is_created = store.replaced_dir is None
        self._submission = 0
        self._jobscripts: dict[str, int] = {}
        # By the index of each element: of its latest iteration the index, the slot of the result and the number of
        # attempts; and the number of the last attempt at it.
        self._iteration, self._slot, self._runs, self._made = array("q"), array("q"), array("q"), array("q")
        self._iterations = 0
        # By the cell of each task in the table of years and members, its element; -1 if it has none.
        self._element = array("q", [-1]) * len(schedule)
        self._row = {year: row * len(schedule.members) for row, year in enumerate(schedule.years)}
        self._column = {member: column for column, member in enumerate(schedule.members)}
        self._reruns: set[int] = set()
        self._complete = array("q")
        self._held: list[Held] = []
        self._running: dict[Attempt, _Place] = {}
        self._failed: dict[Attempt, _Place] = {}
        self._lost: dict[Attempt, _Place] = {}

    @property
    def epoch(self) -> int:
        """Which start of a manager this is, counted from 1."""
        return self._submission + 1

    @property
    def campaign_id(self) -> str:
        """What tells the campaign from any other."""
        return str(self._store.get_creation_info()["campaign_id"])

    @property
    def at_a_time(self) -> float:
        """How many attempts may be under way at a time."""
        return inf if self._store.features.EAR_parallelism else 1

    # --- starting

    def start(self, submission: Mapping[str, Any], science: Mapping[str, Any], *, now: float) -> None:
        """Bring store and schedule together, and note that a manager starts.

        Years and members that are new are added, those that the campaign has no more are retired, and retired ones
        that it has again are restored.

        Parameters
        ----------
        submission : mapping
            What there is to know of the start; plain values.
        science : mapping
            The settings that decide a result, for the record of a new campaign.
        now : float
            On the clock of the schedule.

        Raises
        ------
        StoreError
            If the store cannot be read or written.
        """
        earlier = self._store.get_submissions()
        self._submission = len(earlier)
        self._store.add_submission({**submission, "epoch": self.epoch})
        if self._store.get_num_added_tasks() == 0:
            self._store.add_parameter_data(dict(science), {"type": "settings"})
            self._store.add_empty_task(_TASK, {"name": self._schedule.task})
            self._store.add_loop([_TASK], {"name": RERUN}, {"result": {}})
        self._note_versions()
        processes = {
            jobscript["job_ID"]: _process_of(jobscript) for start in earlier for jobscript in start["jobscripts"]
        }
        self._take_up_elements(processes, now)
        self._add_missing()
        self._save()

    def _note_versions(self) -> None:
        seen = self._store.get_template_components().get("versions", {})
        if __version__ not in seen:
            if seen:
                logger.warning(
                    "the campaign was worked on by stormtracks %s, and now is by %s", ", ".join(seen), __version__
                )
            self._store.add_template_components({"versions": {**seen, __version__: {"since_epoch": self.epoch}}})

    def _take_up_elements(self, processes: Mapping[str, Process | None], now: float) -> None:
        """Put every task of the schedule where the store says it was."""
        retired: list[int] = []
        restored: list[int] = []
        given_up: list[int] = []
        for element in self._store.get_task_elements_islice(_TASK, _TASK_ID, slice(None)):
            at, year, member = element["index"], element["year"], element["member"]
            self._remember(element)
            wanted = year in self._row and member in self._column
            if wanted == element["retired"]:
                (restored if wanted else retired).append(at)
            if wanted:
                latest = element["iterations"][-1]
                if latest["status"] == "+":
                    self._complete.append(self._cell(year, member))
                    self._schedule.restore(year, member, attempts=self._made[at], complete=True)
                elif self._is_given_up(latest["EARs"]):
                    given_up.append(at)
                    self._schedule.restore(year, member, attempts=self._made[at])
                elif self._made[at]:
                    self._take_up(element, latest, processes, now)
        self._store.retire_elements(_TASK, _TASK_ID, retired)
        self._store.restore_elements(_TASK, _TASK_ID, restored)
        self._add_rounds(given_up, "given up at an earlier start, and tried afresh")

    def _remember(self, element: Mapping[str, Any]) -> None:
        iterations = element["iterations"]
        latest = iterations[-1]
        if element["year"] in self._row and element["member"] in self._column:
            self._element[self._cell(element["year"], element["member"])] = element["index"]
        self._iteration.append(latest["index"])
        self._slot.append(latest["parameter"])
        self._runs.append(len(latest["EARs"]))
        self._made.append(max((one["number"] for each in iterations for one in each["EARs"]), default=0))
        self._iterations += len(iterations)
        if latest["loop"] is not None:
            self._reruns.add(element["index"])

    def _is_given_up(self, attempts: Sequence[Mapping[str, Any]]) -> bool:
        return sum(one["status"] in FAILED for one in attempts) >= self._schedule.rules.max_attempts

    def _take_up(
        self,
        element: Mapping[str, Any],
        latest: Mapping[str, Any],
        processes: Mapping[str, Process | None],
        now: float,
    ) -> None:
        """Put a task that is not complete where it was; an attempt under way goes on, unless it surely has ended."""
        year, member = element["year"], element["member"]
        failures, held = [], None
        for run, one in enumerate(latest["EARs"]):
            attempt = Attempt(one["number"], year, member, self._schedule.task)
            place = _Place(latest["index"], run)
            if one["status"] in FAILED:
                self._failed[attempt] = place
                failures.append(Failure(attempt, one["status"], one["worker"], one["error"]))
            elif one["status"] is None:
                self._running[attempt] = place
                process = processes.get(one["incarnation"])
                if process is not None and process.has_ended:
                    self._end(attempt, "lost", "its worker's process has ended, and the manager with it")
                else:
                    held = (one["number"], one["worker"], one["incarnation"])
                    self._held.append(Held(attempt, one["worker"], one["incarnation"], process))
        # Losses of earlier starts do not count: managers that are killed take their own workers with them.
        attempts = self._made[element["index"]]
        self._schedule.restore(year, member, attempts=attempts, failures=failures, held=held, now=now)

    def _add_missing(self) -> None:
        """Add the years and members that the store does not hold."""
        missing = array("q", (cell for cell, element in enumerate(self._element) if element < 0))
        if not missing:
            return
        width = len(self._schedule.members)
        rows, columns = sorted({cell // width for cell in missing}), sorted({cell % width for cell in missing})
        years = [self._schedule.years[row] for row in rows]
        members = [self._schedule.members[column] for column in columns]
        self._store.add_element_set(_TASK, {"years": years, "members": members})
        for start in range(0, len(missing), _AT_ONCE):
            self._add_elements(missing[start : start + _AT_ONCE])

    def _add_elements(self, cells: Sequence[int]) -> None:
        """Add elements for some tasks of the schedule."""
        slots = [self._store.add_unset_parameter_data({"type": "result"}) for _ in cells]
        keys = []
        for element, cell in enumerate(cells, start=len(self._iteration)):
            self._element[cell] = element
            year, member = self._key(cell)
            keys.append({"year": year, "member": member})
        self._iteration.extend(range(self._iterations, self._iterations + len(cells)))
        self._iterations += len(cells)
        self._slot.extend(slots)
        self._runs.extend([0] * len(cells))
        self._made.extend([0] * len(cells))
        self._store.add_elements(_TASK, _TASK_ID, keys, [{"parameter": slot} for slot in slots])

    def _add_rounds(self, elements: Sequence[int], reason: str) -> None:
        """Begin another round of some elements."""
        slots = add_rounds(self._store, (_TASK, _TASK_ID), elements, self._iterations, reason=reason)
        for iteration, (at, slot) in enumerate(zip(elements, slots, strict=True), start=self._iterations):
            self._iteration[at], self._slot[at], self._runs[at] = iteration, slot, 0
            self._reruns.discard(at)
        self._iterations += len(elements)

    # --- events

    def joined(self, worker: Worker) -> None:
        """A worker can be used: it is a jobscript of this submission, each of its processes another one."""
        known = worker.key in self._jobscripts
        at = self._jobscripts.setdefault(worker.key, len(self._jobscripts))
        if not known:
            process = worker.process
            identity = {"worker": worker.name, "host": worker.host or worker.name, "slots": str(worker.slots)}
            if process is not None:
                identity |= {"pid": str(process.pid), "started": str(process.started), "boot": process.boot}
            self._store.set_jobscript_job_ID(self._submission, at, worker.key)
            self._store.set_jobscript_submit_time(self._submission, at, datetime.now(UTC))
            self._store.set_jobscript_version_info(
                self._submission, at, tuple([name, value] for name, value in {**identity, **worker.facts}.items())
            )
        self._store.append_submission_attempt(self._submission, at)

    def begun(self, attempt: Attempt, worker: Worker) -> None:
        """An attempt is about to be handed out."""
        at = self._at(attempt.year, attempt.ensemble_member)
        place = _Place(self._iteration[at], self._runs[at])
        told = {
            "number": attempt.number,
            "worker": worker.name,
            "incarnation": worker.key,
            "host": worker.host or worker.name,
            "pid": worker.process.pid if worker.process else None,
            "code": worker.facts.get("stormtracks", __version__),
        }
        source = {"attempt": attempt.number, "epoch": self.epoch}
        self._store.add_EARs(_TASK, _TASK_ID, place.iteration, told, {self._slot[at]: source})
        self._store.set_EAR_submission_indices(self._submission, (_TASK_ID, place.iteration, 0, place.run))
        self._store.set_EAR_start(_TASK_ID, place.iteration, 0, place.run)
        self._runs[at] += 1
        self._made[at] = max(self._made[at], attempt.number)
        self._running[attempt] = place

    def resumed(self, attempt: Attempt) -> None:
        """An attempt that seemed lost at this start goes on: it has not ended."""
        place = self._running[attempt] = self._lost.pop(attempt)
        self._store.set_EAR_end(_TASK_ID, place.iteration, 0, place.run, status=None)

    def ended(self, outcome: Outcome) -> None:
        """An attempt has ended; one that was lost in between may still complete its task."""
        attempt = outcome.attempt
        if attempt in self._running:
            self._end(attempt, outcome.status, outcome.error, outcome.exit_code, outcome.seconds)
        if outcome.status == "complete":
            self.found(attempt, outcome.result)

    def found(self, attempt: Attempt, result: Mapping[str, Any]) -> None:
        """The result of a task is there."""
        self._store.set_parameter(self._slot[self._at(attempt.year, attempt.ensemble_member)], dict(result))

    def again(self, year: int, ensemble_member: int, reason: str) -> None:
        """A task that was complete is to be done again, in a round of its own."""
        self._add_rounds([self._at(year, ensemble_member)], reason)

    def forgiven(self, attempts: Iterable[Attempt]) -> None:
        """Attempts that failed do not count against their tasks any more."""
        for attempt in attempts:
            if (place := self._failed.pop(attempt, None)) is not None:
                self._store.set_EAR_end(_TASK_ID, place.iteration, 0, place.run, status="forgiven")

    def quarantined(self, worker: Worker, reason: str) -> None:
        """A worker gets no more work at this start."""
        seen = self._store.get_template_components().get("quarantined", {})
        entry = {"worker": worker.name, "epoch": self.epoch, "reason": reason}
        name = f"{worker.key} {self.epoch}"
        self._store.add_template_components({"quarantined": {**seen, name: entry}})

    def unreadable(self, count: int) -> None:
        """So many results of before were not checked, as their input is not there any more."""
        if self._store.get_template_components().get("unreadable", {}).get("count", 0) != count:
            self._store.add_template_components({"unreadable": {"count": count}})

    def _end(
        self, attempt: Attempt, status: str, error: str = "", exit_code: int | None = None, seconds: float = 0.0
    ) -> None:
        place = self._running.pop(attempt)
        self._store.set_EAR_end(
            _TASK_ID,
            place.iteration,
            0,
            place.run,
            status=status,
            error=error,
            exit_code=exit_code,
            seconds=seconds,
        )
        if status in FAILED:
            self._failed[attempt] = place
        elif status == "lost":
            self._lost[attempt] = place

    # --- committing

    def save(self) -> None:
        """Commit what was told; raises StoreError, and drops it, if that cannot be done."""
        if self._store.has_pending:
            self._save()

    def _save(self) -> None:
        """The one place at which anything of a campaign is written down."""
        try:
            if self._is_created:
                self._store.save()
            else:
                self._store.remove_replaced_dir()
                self._is_created = True
        except BaseException:
            with suppress(StoreError):  # what went wrong first is what is told
                self._store.reject_pending()
            raise

    # --- asking

    def held(self) -> tuple[Held, ...]:
        """The attempts that were under way when the record was opened."""
        return tuple(self._held)

    def completed(self) -> tuple[tuple[int, int], ...]:
        """Year and member of the tasks that were complete when the record was opened."""
        return tuple(map(self._key, self._complete))

    def attempts(self, year: int, ensemble_member: int) -> int:
        """How many attempts were made at a task."""
        return self._made[self._at(year, ensemble_member)]

    def result(self, year: int, ensemble_member: int) -> Mapping[str, Any]:
        """The result of a complete task."""
        found: dict[str, Any] = self._store.get_parameter_data(self._slot[self._at(year, ensemble_member)])[1]
        return found

    def is_rerun(self, year: int, ensemble_member: int) -> bool:
        """Whether a task is to be done again although its result is there."""
        return self._at(year, ensemble_member) in self._reruns

    def _at(self, year: int, ensemble_member: int) -> int:
        """The element of a task."""
        return self._element[self._cell(year, ensemble_member)]

    def _cell(self, year: int, ensemble_member: int) -> int:
        """The cell of a task in the table of years and members."""
        return self._row[year] + self._column[ensemble_member]

    def _key(self, cell: int) -> tuple[int, int]:
        """Year and member of the task in a cell."""
        row, column = divmod(cell, len(self._schedule.members))
        return self._schedule.years[row], self._schedule.members[column]


def _process_of(jobscript: Mapping[str, Any]) -> Process | None:
    """Which process a worker of an earlier start was, as far as is known."""
    told = dict(jobscript.get("version_info", ()))
    if "boot" not in told:
        return None
    return Process(int(told["pid"]), int(told["started"]), told["boot"])
