"""What is to be done and how far it is: tasks, their statuses, and the schedule that hands them out.

This is the core of a campaign and free of I/O. Events go in (a worker joined, was heard, left; an attempt completed,
failed, timed out, was lost; time has passed), and assignments come out; the manager owns the one schedule and is the
only one to change it. Its times are seconds of a clock that is nobody's to set; the schedule has none of its own.

One *task* is one step for one year of one ensemble member. One *attempt* is one try at a task; a task's attempts are
numbered from 1, only its latest one counts, and what an earlier one says is ignored. An *assignment* is a tuple of
attempts that travel together because they share one pass over the data.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from math import inf
from random import Random

from stormtracks.cluster.errors import ClusterError
from stormtracks.cluster.schedule.assignments import Assignments, Key
from stormtracks.cluster.schedule.attempts import Assignment, Attempt, Failure, Outcome
from stormtracks.cluster.schedule.bundles import bundle_size, gather
from stormtracks.cluster.schedule.holders import Holder, Holders
from stormtracks.cluster.schedule.rules import Rules
from stormtracks.cluster.schedule.strikes import Strikes
from stormtracks.cluster.schedule.table import CODES, GLYPHS, STATUSES, TASKS, PyroTask, TaskTable, task_name
from stormtracks.cluster.schedule.waiting import Waiting

__all__ = [
    "GLYPHS",
    "STATUSES",
    "TASKS",
    "Assignment",
    "Attempt",
    "Failure",
    "Outcome",
    "PyroTask",
    "PyroTaskSchedule",
    "Rules",
    "task_name",
]

logger = logging.getLogger(__name__)

_CODE_AFTER = {"failure": CODES["failure"], "timeout": CODES["timeout"], "lost": CODES["failure"]}
"""What a task shows by the status of its last failure."""


class PyroTaskSchedule(TaskTable):
    """All tasks of a campaign in order of year and member: hands out the next one and accepts what became of it.

    By which rules is told in `schedule.rules`. No call looks at all tasks.

    Parameters
    ----------
    start_year : int
        First year.
    end_year : int
        Last year, inclusive.
    num_ensemble_members : int
        Number of members; they are numbered from 1, as reanalyses number them.
    years, members : iterable of int, optional
        The very years and member numbers, where they are not such ranges.
    task : str
        The task to be done for each year and member.
    rules : Rules
        How often tasks may fail or be lost, and how long workers may be silent.
    largest_bundle : int
        How many tasks of a year may go out together.

    Raises
    ------
    UnknownTaskError
        If `task` is not known.
    ClusterError
        If there is no year or no member, or if bundles are to hold nothing.
    """

    def __init__(
        self,
        start_year: int = 2000,
        end_year: int = 2012,
        num_ensemble_members: int = 56,
        *,
        years: Iterable[int] | None = None,
        members: Iterable[int] | None = None,
        task: str = "vort_track",
        rules: Rules = Rules(),  # noqa: B008 - it is frozen
        largest_bundle: int = 1,
    ) -> None:
        super().__init__(
            range(start_year, end_year + 1) if years is None else years,
            range(1, num_ensemble_members + 1) if members is None else members,
            task,
        )
        if largest_bundle < 1:
            raise ClusterError(f"bundles of {largest_bundle} tasks", remedy="let them hold at least 1")
        self.rules = rules
        self.largest_bundle = largest_bundle
        self._holders = Holders(rules.lease)
        self._current: dict[int, Holder] = {}
        self._assignments = Assignments()
        self._late: dict[int, Holder] = {}
        self._waiting = Waiting()
        self._strikes = Strikes(rules)
        self._forgiven: list[Failure] = []
        self._usable: dict[str, Holder] = {}
        self._all_slots = 0
        self._random = Random(rules.seed)

    @property
    def left(self) -> int:
        """Number of tasks that are outstanding, working, or waiting to be tried again."""
        return self._counts["outstanding"] + self._counts["working"] + len(self._waiting)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        return not (self._counts["outstanding"] or self._counts["working"] or self._waiting)

    # --- workers

    @property
    def usable(self) -> frozenset[str]:
        """Names of the workers that can be given work: those that joined, did not leave and are not quarantined."""
        return frozenset(self._usable)

    @property
    def quarantined(self) -> Mapping[str, str]:
        """The workers that get no more work, and why."""
        return {worker: reason for worker, (_, reason) in self._strikes.quarantined.items()}

    def free_slots(self, incarnation: str) -> int:
        """How many assignments a worker can be given before it has as many as slots."""
        return self._assignments.free_slots(incarnation)

    def join(
        self, worker: str, incarnation: str, running: Iterable[Attempt] = (), *, now: float, slots: int = 1
    ) -> tuple[Attempt, ...]:
        """A worker can be used from now on, whether or not it was known before.

        What this incarnation held but is not at any more goes out again at once, and counts nothing: it lives.

        Parameters
        ----------
        worker, incarnation : str
            Its name, and which process of that name it is.
        running : iterable of Attempt
            What it is at, or has ended without telling yet.
        now : float
        slots : int
            How many assignments it works on at a time.

        Returns
        -------
        tuple of Attempt
            Those of `running` that count no more and are to be cancelled.
        """
        holder = self._holders.meet(worker, incarnation, now)
        holder.usable = True
        self._assignments.slots[incarnation] = slots
        self._strikes.release(worker, incarnation)
        stale, kept = [], set()
        for attempt in running:
            index = self._latest(attempt)
            if index is not None and self._still_holds(holder, index):
                kept.add(index)
            else:
                stale.append(attempt)
        for index in [index for index in holder.held if index not in kept]:
            self._put_back(index)
        self._update_usable(now)
        return tuple(stale)

    def leave(self, incarnation: str, *, now: float, ended: bool, reason: str = "") -> tuple[Attempt, ...]:
        """A worker cannot be used any more.

        Parameters
        ----------
        incarnation : str
        now : float
        ended : bool
            Whether all that it was at has surely ended, and goes out again at once; else its lease is waited for.
        reason : str
            How it came to its end.

        Returns
        -------
        tuple of Attempt
            What was lost with it at once.
        """
        holder = self._holders.get(incarnation)
        if holder is None:
            return ()
        holder.usable = False
        self._assignments.slots.pop(incarnation, None)
        lost = self.held(incarnation) if ended else ()
        for index in tuple(holder.held) if ended else ():
            self._lose(index, holder, reason)
        self._holders.forget(holder)
        self._update_usable(now)
        return lost

    def held(self, incarnation: str) -> tuple[Attempt, ...]:
        """What a worker holds, whether or not it can be used now."""
        holder = self._holders.get(incarnation)
        return tuple(map(self._attempt_at, holder.held)) if holder else ()

    def heard(self, incarnation: str, now: float) -> None:
        """A worker has answered: its lease is renewed."""
        if (holder := self._holders.get(incarnation)) is not None:
            holder.heard = max(holder.heard, now)

    def tick(self, now: float) -> tuple[Attempt, ...]:
        """Time has passed: the attempts whose lease has ended by now."""
        self._waiting.wake(now)
        over = []
        for holder in self._holders.over(now):
            for index in tuple(holder.held):
                over.append(self._attempt_at(index))
                self._lose(index, holder, f"no answer for {self.rules.lease:g} s")
            self._holders.forget(holder)
        return tuple(over)

    def next_change(self, now: float) -> float:
        """Seconds until `tick` is due, infinite if never: to the end of a lease, or of a failed task's rest."""
        return max(min(self._holders.next_end(), self._waiting.next_due()) - now, 0.0)

    # --- attempts

    def next_assignment(self, incarnation: str, *, now: float, most: float = inf) -> Assignment:
        """Hand work to a worker: mark the next tasks as working and number their attempts; empty if none can go out.

        Lost tasks go out first, then outstanding ones, then those that are tried again.

        Parameters
        ----------
        incarnation : str
        now : float
        most : float
            How many tasks may go out.
        """
        holder = self._holders.get(incarnation)
        if holder is None or not holder.usable or holder.worker not in self._usable or most < 1:
            return ()
        self._waiting.wake(now)
        chosen, key = self._choose(holder, most), self._assignments.new(incarnation)
        for index in chosen:
            self._attempts_made[index] += 1
            self._hold(index, holder, key)
        return tuple(map(self._attempt_at, chosen))

    def completed(self, attempt: Attempt) -> bool:
        """An attempt has done its task; False if it is stale and ignored: its task has gone out again, or has ended."""
        index = self._latest(attempt)
        holder = None if index is None else self._current.get(index) or self._late.get(index)
        if index is None or holder is None:
            logger.warning("complete of %s ignored: not the current attempt", attempt)
            return False
        self._set_code(index, CODES["complete"])
        self._strikes.completed(holder.worker)
        return True

    def failed(self, attempt: Attempt, reason: str, *, now: float, permanent: bool = False) -> bool:
        """An attempt has failed; False if it is stale and ignored.

        If it is `permanent`, any attempt would fail in this way: the task is given up, and the worker not blamed.
        """
        return self._strike(attempt, "failure", reason, now, permanent)

    def timed_out(self, attempt: Attempt, reason: str, *, now: float) -> bool:
        """An attempt took too long; False if it is stale and ignored."""
        return self._strike(attempt, "timeout", reason, now, False)

    def lost(self, attempt: Attempt) -> bool:
        """An attempt ended through no fault of its task, which is outstanding again; False if it is stale."""
        settled = self._settle(attempt, "lost", "outstanding")
        if settled is None:
            return False
        self._strikes.returned[settled[0]] += 1
        return True

    def failures(self) -> Iterator[tuple[PyroTask, tuple[Failure, ...]]]:
        """Every task that failed, timed out or was lost too often, with each reason; in order of year and member."""
        for index in sorted(self._strikes.failures):
            yield self._task_at(index), tuple(self._strikes.failures[index])

    def take_forgiven(self) -> tuple[Failure, ...]:
        """The failures that were forgiven since this was asked last."""
        forgiven, self._forgiven = self._forgiven, []
        return tuple(forgiven)

    def restore(
        self,
        year: int,
        ensemble_member: int,
        *,
        attempts: int,
        complete: bool = False,
        failures: Iterable[Failure] = (),
        held: tuple[int, str, str] | None = None,
        now: float = 0.0,
    ) -> None:
        """Put a task of a new schedule where it was in an earlier one.

        A task that was lost, or whose last failure is forgiven, is outstanding. One that is tried again rests anew.
        Losses of the earlier one do not count: managers that are killed take their own workers with them.

        Parameters
        ----------
        year, ensemble_member : int
        attempts : int
            How many were made.
        complete : bool
        failures : iterable of Failure
            In order of attempts.
        held : (int, str, str), optional
            The attempt under way: its number, and the name and the incarnation of its worker, who holds it for a lease
            from now on, as if just heard.
        now : float

        Raises
        ------
        NotScheduledError
            If the year or the member is not in the schedule.
        """
        index = self._index(year, ensemble_member)
        self._attempts_made[index] = attempts
        self._strikes.restore(index, failures)
        if complete:
            self._set_code(index, CODES["complete"])
        elif held is not None:
            number, worker, incarnation = held
            self._attempts_made[index] = max(attempts, number)
            self._take_up(index, self._holders.meet(worker, incarnation, now))
        else:
            self._resume(index, now)

    # --- what goes out next

    def _choose(self, holder: Holder, most: float) -> list[int]:
        """The tasks that go out together to a worker; none if there is nothing for it."""
        others = len(self._usable) > 1
        suspects = not any(map(self._strikes.is_suspect, holder.held))
        index = self._waiting.first_lost(holder.worker, others=others, suspects=suspects)
        if index is not None:
            lost = self._waiting.lost_among(self._year_of(index), holder.worker, others=others)
            return self._bundle(index, lost, most)
        index = self._next_outstanding_index()
        if index is not None:
            return self._bundle(index, self._outstanding_behind(index), most)
        index = self._waiting.first_failed(holder.worker, others=others)
        return [] if index is None else [index]

    def _bundle(self, first: int, rest: Iterable[int], most: float) -> list[int]:
        """A task and those of some others that go out with it."""
        company = partial(self._strikes.company, largest=self.largest_bundle)
        if company(first) == 1:
            return [first]
        ready = self._counts["outstanding"] + self._waiting.lost
        free = self._all_slots
        if free * len(self.members) >= ready:  # else all slots are too few for a year to be divided
            free = sum(self.free_slots(holder.incarnation) for holder in self._usable.values())
        size = bundle_size(self.largest_bundle, members=len(self.members), ready=ready, free=free)
        return gather(first, rest, min(size, most), company)

    # --- the one place that changes state

    def _set_code(self, index: int, code: int) -> None:
        """Give a task a status. Whatever attempt was under way or waiting counts no more."""
        holder = self._current.pop(index, None)
        if holder is not None:
            del holder.held[index]
            self._holders.forget(holder)
        self._assignments.remove(index)
        self._late.pop(index, None)
        self._waiting.remove(index)
        super()._set_code(index, code)

    def _hold(self, index: int, holder: Holder, assignment: Key) -> None:
        self._set_code(index, CODES["working"])
        self._current[index] = holder
        self._assignments.add(index, assignment)
        self._holders.give(holder, index)

    def _take_up(self, index: int, holder: Holder) -> None:
        """A worker is at a task; what it has of a year is taken for one bundle, if there are any."""
        key = (holder.incarnation, ~self._year_of(index).start)
        self._hold(index, holder, key if self.largest_bundle > 1 else self._assignments.new(holder.incarnation))

    def _still_holds(self, holder: Holder, index: int) -> bool:
        """Whether the latest attempt at a task is this worker's; if it was lost, but waits still, it was not lost."""
        late = self._late.get(index)
        if late is not None and late.incarnation == holder.incarnation and index in self._waiting:
            self._strikes.found_again(index)
            self._take_up(index, holder)
        return self._current.get(index) is holder

    def _put_back(self, index: int) -> None:
        """Let a lost task go out again, before all others."""
        self._set_code(index, CODES["timeout"])
        avoided = self._strikes.last_failed_at(index)
        self._waiting.add_lost(index, avoided, suspect=self._strikes.is_suspect(index))

    def _lose(self, index: int, holder: Holder, reason: str) -> None:
        """A task is lost with its worker."""
        self._strikes.lost(index, holder.worker, reason)
        if self._strikes.lost_too_often(index):
            failure = Failure(self._attempt_at(index), "lost", holder.worker, self._strikes.why_lost(index))
            self._strikes.given_up(index, failure)
            self._set_code(index, CODES["failure"])
        else:
            self._put_back(index)
        self._late[index] = holder

    def _settle(self, attempt: Attempt, said: str, status: str) -> tuple[int, Holder, Key | None] | None:
        """End the current attempt of a task: its index, who held it, as part of what; None if the attempt is stale."""
        index = self._latest(attempt)
        holder = None if index is None else self._current.get(index)
        if index is None or holder is None:
            logger.warning("%s of %s ignored: not the current attempt", said, attempt)
            return None
        key = self._assignments.key_of(index)
        self._set_code(index, CODES[status])
        return index, holder, key

    def _strike(self, attempt: Attempt, status: str, reason: str, now: float, permanent: bool) -> bool:
        settled = self._settle(attempt, status, status)
        if settled is None:
            return False
        index, holder, assignment = settled
        failure = Failure(attempt, status, holder.worker, reason, permanent)
        kept = self._strikes.failed(index, failure, assignment)
        if kept.forgiven:
            self._forgiven.append(kept)
        self._resume(index, now)
        self._update_usable(now)
        return True

    def _resume(self, index: int, now: float) -> None:
        """Put a task where its record says, nobody being at it: given up, to be tried again, or outstanding."""
        last = self._last_failure(index)
        if self._strikes.gives_up(index):
            self._set_code(index, _CODE_AFTER[last.status if last else "failure"])
        elif last is None or last.forgiven:
            self._set_code(index, CODES["outstanding"])
        else:
            self._set_code(index, _CODE_AFTER[last.status])
            delay = self.rules.delay(self._strikes.count(index), self._random.random())
            self._waiting.add_failed(index, last.worker, now + delay)

    def _last_failure(self, index: int) -> Failure | None:
        """The failure of a task's latest attempt, None if it did not fail."""
        failures = self._strikes.failures.get(index)
        return failures[-1] if failures and failures[-1].attempt.number == self._attempts_made[index] else None

    def _update_usable(self, now: float) -> None:
        """Find which workers can be used, and quarantine those that fail everything while there are others."""
        usable = {holder.worker: holder for holder in self._holders if holder.usable}
        for worker in self._strikes.quarantined:
            usable.pop(worker, None)
        for worker, holder in tuple(usable.items()):
            if len(usable) > 1 and self._strikes.fails_everything(worker):
                del usable[worker]
                self._quarantine(holder, now)
        self._usable = usable
        self._all_slots = sum(self._assignments.slots[holder.incarnation] for holder in usable.values())

    def _quarantine(self, holder: Holder, now: float) -> None:
        """Blame a worker for what it failed, instead of the tasks."""
        forgiven = self._strikes.quarantine(holder.worker, holder.incarnation)
        logger.warning("worker %s gets no more work: %s", holder.worker, self.quarantined[holder.worker])
        for index, failures in forgiven.items():
            self._forgiven += failures
            failed = self._last_failure(index) and self._codes[index] in _CODE_AFTER.values()
            if failed and not self._strikes.gives_up(index):
                self._resume(index, now)
