"""Drives a schedule through a backend, keeps a record of it, and tells a listener what happens.

One thread per worker carries orders to the backend and outcomes back. The thread that calls `Manager.run` alone owns
the schedule: it applies the outcomes that have come and chooses what is handed out next, commits both to the record,
and only then tells the listener of the ones and the workers of the others. So whatever ends the manager, nothing was
shown or begun that the record does not know of.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue

from stormtracks.cluster.account import Account
from stormtracks.cluster.backends.base import Backend, Worker
from stormtracks.cluster.driver import Answer, Driver
from stormtracks.cluster.earlier import EarlierResults
from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.limits import Limits
from stormtracks.cluster.listener import Change, Listener, Snapshot, Summary
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome, PyroTaskSchedule
from stormtracks.cluster.record import Published, Record
from stormtracks.cluster.signals import on_signal
from stormtracks.cluster.silent import Silent, SilentWorkers

__all__ = ["Limits", "Manager"]

logger = logging.getLogger(__name__)

_LOOK_AGAIN = 0.2
"""Seconds between two looks for workers while there is none."""
_STOP_LIMIT = 5.0
"""Seconds beyond a heartbeat that workers are given to cancel what runs, and their threads to end."""
_AT_ONCE = 64
"""Answers that are applied together."""
_CHECK_FOR = 0.05
"""Seconds for which results of before are looked at, until workers are served again."""


class Manager:
    """Hands out the tasks of a schedule until all are done, or until it is told to stop.

    SIGINT and SIGTERM let it drain: nothing more is handed out, and what runs is waited for and recorded; that of
    silent workers until their lease is over. A second one cancels what runs, a third one raises KeyboardInterrupt.

    When a backend raises an error for a worker, or does not answer for too long, the worker's tasks go to the others:
    at once if they have surely ended, else when the schedule says that the worker's lease is over. It is used again
    when the backend offers it with another session. What was complete before is looked at while the work goes on, and
    done again if its result is not what it was.

    Parameters
    ----------
    schedule : PyroTaskSchedule
        What is to be done; nobody else may change it while the manager runs.
    backend : Backend
        What carries the work; closing it is the caller's business.
    listener : Listener
        Who is told.
    record : Record
        What outlasts the manager.
    published : Published
        The results that there are.
    limits : Limits
    resume : str
        The command that goes on with this campaign, for the summary.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        schedule: PyroTaskSchedule,
        backend: Backend,
        listener: Listener,
        *,
        record: Record | None = None,
        published: Published | None = None,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        resume: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedule = schedule
        self._backend = backend
        self._listener = listener
        self._record = record or Record()
        self._published = published or Published()
        self._limits = limits
        self._resume = resume
        self._clock = clock
        self._answers: SimpleQueue[Answer | None] = SimpleQueue()
        self._drivers: dict[str, Driver] = {}
        self._silent = SilentWorkers()
        self._gone: dict[str, str] = {}
        self._given_up: set[tuple[str, str]] = set()
        self._quarantined: dict[str, str] = {}
        self._had_workers = False
        self._stops = 0
        self._stop_by = inf
        self._told_to_stop = False
        self._began = clock()
        self._alone_since = self._began
        self._met_at = self._looked_at = -inf
        self._account = Account(schedule, clock)
        self._earlier = EarlierResults(schedule, self._record, self._published, self._account)
        self._orders: list[tuple[Driver, Sequence[Assignment], Sequence[Attempt]]] = []
        self._problem = ""

    def run(self) -> Summary:
        """Run the campaign to its end.

        Returns
        -------
        Summary
            Counts, totals, and every failure with its reasons. That tasks fail, workers go, the record cannot be kept
            or the user stops it is told there, and raises nothing.
        """
        self._began = self._alone_since = self._clock()
        self._silent.take_over(self._record.held(), self._began)
        self._listener.begin(self.snapshot())
        try:
            with on_signal(self.stop):
                self._meet_workers()
                self._commit()
                while self._goes_on():
                    self._take_answers()
                    self._look_for_silence()
                    self._give_up_the_silent()
                    self._check_results()
                    self._meet_workers()
                    self._commit()
                    self._tell_that_it_drains()
                    self._listener.refresh(self.snapshot)
        except StoreError as error:
            logger.warning("stopped: %s", error)
            self._problem = f"its record cannot be kept: {error}"
        finally:
            self._take_back()
            self._dismiss()
            summary = self._summary()
            self._listener.end(self.snapshot(), summary)
        return summary

    def stop(self) -> None:
        """Hand out nothing more; the second time, cancel what runs. From any thread, or from a signal handler."""
        self._stops += 1
        if self._stops > 1:
            self._stop_by = min(self._stop_by, self._clock() + self._limits.heartbeat + _STOP_LIMIT)
        self._answers.put(None)

    def snapshot(self) -> Snapshot:
        """The campaign as it is now."""
        now = self._clock()
        rows = tuple((year, self._schedule.get_progress_for_year(year, False)) for year in self._schedule.years)
        present = (one.state(now, self._quarantined.get(one.worker.name, "")) for one in self._drivers.values())
        return Snapshot(
            task=self._schedule.task,
            members=self._schedule.members,
            rows=rows,
            counts=self._schedule.counts,
            progress=self._account.progress(),
            seconds=now - self._began,
            workers=(*present, *self._silent.states(now)),
            last_failures=tuple(self._account.last_failures),
            unchecked=len(self._earlier),
            unreadable=self._published.unreadable,
            draining=self._stops == 1,
        )

    # --- workers

    def _meet_workers(self) -> None:
        """Put every worker to use that was not known a heartbeat ago, and hand no more to one that is not offered."""
        now = self._clock()
        if self._stops > 1 or self._schedule.done or now - self._met_at < self._pause:
            return
        self._met_at = now
        offered = {(worker.name, worker.session): worker for worker in self._backend.workers()}
        for driver in tuple(self._drivers.values()):
            driver.offered = (driver.worker.name, driver.worker.session) in offered
            if not driver.offered and not driver.running:
                logger.info("worker %s takes its leave", driver.worker.name)
                self._part_with(driver, "", ended=True)
        new = [
            self._welcome(offered[key], now)
            for key in sorted(offered.keys() - self._given_up)
            if offered[key].name not in self._drivers
        ]
        for driver in new:  # when all are known, so that what there is to do is shared out among them
            self._give_orders(driver)
        if self._usable:
            self._alone_since = now

    def _welcome(self, worker: Worker, now: float) -> Driver:
        self._gone.pop(worker.name, None)
        self._had_workers = True
        self._record.joined(worker)
        driver = Driver(worker, self._backend, self._limits.heartbeat, self._answers)
        driver.stale = self._schedule.join(worker.name, driver.key, worker.running, now=now, slots=worker.slots)
        self._quarantined = dict(self._schedule.quarantined)
        going_on = set(worker.running).difference(driver.stale)
        for attempt, silent in self._silent.remove_all(driver.key).items():
            if attempt in going_on:
                driver.running[attempt] = silent.since
            else:
                self._tell_lost(
                    attempt, worker.name, silent.since, f"worker {worker.name} knows nothing of it any more"
                )
        for attempt in going_on.difference(driver.running):  # that seemed lost
            self._record.resumed(attempt)
            driver.running[attempt] = now
        self._drivers[worker.name] = driver
        driver.start()
        return driver

    @property
    def _pause(self) -> float:
        """Seconds between two looks for workers."""
        return self._limits.heartbeat if self._drivers else min(self._limits.heartbeat, _LOOK_AGAIN)

    @property
    def _under_way(self) -> int:
        """How many attempts run, or may do so at workers that do not answer."""
        return self._schedule.counts["working"]

    @property
    def _usable(self) -> bool:
        """Whether there is a worker that may be given work."""
        return any(name not in self._quarantined for name in self._drivers)

    def _goes_on(self) -> bool:
        if self._stops:
            runs = any(driver.running for driver in self._drivers.values())
            return (runs and self._clock() < self._stop_by) or (self._waits and self._stops == 1)
        if self._earlier:
            return True
        if self._schedule.done or (self._backend.hopeless and not self._had_workers):
            return False
        return self._usable or self._waits or self._clock() - self._alone_since < self._limits.patience

    @property
    def _waits(self) -> bool:
        """Whether a silent worker holds something: that may still come, or goes out again when its lease is over."""
        return bool(self._under_way) and self._schedule.next_change(self._clock()) < inf

    def _part_with(self, driver: Driver, problem: str, *, ended: bool) -> None:
        """Let a worker go; what it is at is lost if that has surely `ended`, and else is its own until its lease is."""
        worker, now = driver.worker, self._clock()
        del self._drivers[worker.name]
        driver.orders.put(None)
        self._orders = [order for order in self._orders if order[0] is not driver]
        self._schedule.leave(driver.key, now=now, ended=ended, reason=problem)
        running, driver.running = driver.running, {}
        for attempt, since in running.items():
            if ended:
                self._tell_lost(attempt, worker.name, since, f"worker {worker.name} is gone: {problem}")
            else:
                self._silent.add(attempt, Silent(worker.name, driver.key, since, problem))

    def _lose(self, driver: Driver, problem: str, *, ended: bool = False) -> None:
        """Let a worker go that cannot work; only its return with another session brings it into use again."""
        name = driver.worker.name
        if self._drivers.get(name) is driver:
            logger.warning("worker %s is gone: %s", name, problem)
            self._gone[name] = problem
            self._given_up.add((name, driver.worker.session))
            self._part_with(driver, problem, ended=ended)

    def _dismiss(self) -> None:
        for driver in self._drivers.values():
            driver.orders.put(None)
        deadline = time.monotonic() + self._limits.heartbeat + _STOP_LIMIT
        for driver in self._drivers.values():
            driver.join(0.0 if self._clock() >= self._stop_by else max(deadline - time.monotonic(), 0.0))
            if driver.is_alive():
                logger.warning("worker %s does not answer; left alone", driver.worker.name)

    def _take_answers(self) -> None:
        """Apply the answers of workers, if some come within a heartbeat, and give these workers their next orders."""
        now = self._clock()
        wait = 0.0 if self._earlier and not self._stops else min(self._pause, self._schedule.next_change(now))
        with suppress(Empty):
            self._take(self._answers.get(timeout=max(wait, 0.0)))
            for _ in range(_AT_ONCE):
                self._take(self._answers.get_nowait())

    def _take(self, answer: Answer | None) -> None:
        if answer is None:
            return
        driver = answer.driver
        if not answer.problem:
            self._schedule.heard(driver.key, self._clock())
        for outcome in answer.outcomes:
            driver.running.pop(outcome.attempt, None)
            self._silent.remove(outcome.attempt)
            self._apply(outcome, driver.worker)
        if answer.problem:
            self._lose(driver, answer.problem, ended=answer.ended)
        elif self._drivers.get(driver.worker.name) is driver and self._goes_on():
            self._give_orders(driver)

    def _look_for_silence(self) -> None:
        """Once a heartbeat, let go of workers that do not answer, and take back what those hold that have ended."""
        now = self._clock()
        if now - self._looked_at < self._pause:
            return
        self._looked_at = now
        for driver in tuple(self._drivers.values()):
            if driver.ordered_at < now - self._limits.silence:
                self._lose(driver, f"no answer for {self._limits.silence:g} s")
        for incarnation in self._silent.ended():
            problem = "its process has ended"
            self._schedule.leave(incarnation, now=now, ended=True, reason=problem)
            for attempt, one in self._silent.remove_all(incarnation).items():
                self._tell_lost(attempt, one.worker, one.since, f"worker {one.worker} is gone: {problem}")

    def _give_up_the_silent(self) -> None:
        """Take back what workers hold that were not heard from for the time of their lease."""
        for attempt in self._schedule.tick(self._clock()):
            silent = self._silent.remove(attempt)
            if silent is None:
                driver = next(driver for driver in self._drivers.values() if attempt in driver.running)
                silent = Silent(driver.worker.name, driver.key, driver.running.pop(attempt), "it does not answer")
            reason = f"worker {silent.worker} was not heard from: {silent.problem}"
            self._tell_lost(attempt, silent.worker, silent.since, reason)

    def _give_orders(self, driver: Driver) -> None:
        begin = self._choose(driver) if driver.offered else []
        cancel = (*driver.stale, *(driver.running if self._stops > 1 else ()))
        driver.stale = ()
        driver.running |= dict.fromkeys((attempt for assignment in begin for attempt in assignment), self._clock())
        self._orders.append((driver, begin, cancel))

    # --- tasks

    def _choose(self, driver: Driver) -> list[Assignment]:
        """Assignments for the free slots of a worker; what turns out to be finished already is not among them."""
        chosen: list[Assignment] = []
        room = self._record.at_a_time - self._under_way
        while room > 0 and self._schedule.free_slots(driver.key) and not self._stops:
            assignment = self._schedule.next_assignment(driver.key, now=self._clock(), most=room)
            if not assignment:
                break
            to_do = tuple(attempt for attempt in assignment if not self._was_finished(attempt, driver.worker))
            if to_do:
                chosen.append(to_do)
                room -= len(to_do)
                for attempt in to_do:
                    self._record.begun(attempt, driver.worker)
                    self._account.note(Change("begun", attempt, driver.worker.name))
        return chosen

    def _was_finished(self, attempt: Attempt, worker: Worker) -> bool:
        year, member = attempt.year, attempt.ensemble_member
        result = None if self._record.is_rerun(year, member) else self._published.find(year, member)
        if result is None:
            return False
        # By nobody: that its result lies there says nothing good of the worker.
        self._schedule.find(year, member).status = "complete"
        self._record.found(attempt, result)
        self._account.note(Change("found", attempt, worker.name, result=result))
        # There may be thousands of these before the first task that is to be run.
        self._listener.refresh(self._snapshot_of_record)
        return True

    def _snapshot_of_record(self) -> Snapshot:
        self._record.save()
        self._account.tell(self._listener)
        return self.snapshot()

    def _check_results(self) -> None:
        """Look at some results of before, if no worker waits."""
        until = self._clock() + _CHECK_FOR
        while self._earlier and not self._stops and self._answers.empty() and self._clock() <= until:
            self._earlier.check_next()

    def _apply(self, outcome: Outcome, worker: Worker) -> None:
        if not self._accept(outcome):
            return
        self._record.ended(outcome)
        self._account.note(
            Change(outcome.status, outcome.attempt, worker.name, outcome.seconds, outcome.result or None, outcome.error)
        )
        self._notice_quarantine(outcome.attempt, worker)
        self._record.forgiven([failure.attempt for failure in self._schedule.take_forgiven()])

    def _accept(self, outcome: Outcome) -> bool:
        """Let the schedule have an outcome; False if it comes from a stale attempt."""
        schedule, attempt, now = self._schedule, outcome.attempt, self._clock()
        if outcome.status == "complete":
            return schedule.completed(attempt)
        if outcome.status == "timeout":
            return schedule.timed_out(attempt, outcome.error, now=now)
        if outcome.status == "lost":
            return schedule.lost(attempt)
        return schedule.failed(attempt, outcome.error, now=now, permanent=outcome.permanent)

    def _notice_quarantine(self, attempt: Attempt, worker: Worker) -> None:
        reason = self._schedule.quarantined.get(worker.name, "")
        if not reason or worker.name in self._quarantined:
            return
        self._quarantined[worker.name] = reason
        self._record.quarantined(worker, reason)
        self._account.note(Change("quarantined", attempt, worker.name, error=reason))

    def _tell_lost(self, attempt: Attempt, worker: str, since: float, reason: str) -> None:
        """An attempt was lost with its worker; the schedule knows, and may have given the task up for it."""
        task, status = self._schedule.find(attempt.year, attempt.ensemble_member), "lost"
        if task.status == "failure":
            status = "failure"
            reason = next(reasons[-1].reason for one, reasons in self._schedule.failures() if one == task)
        seconds = self._clock() - since
        self._record.ended(Outcome(attempt, status, error=reason, seconds=seconds))
        self._account.note(Change(status, attempt, worker, seconds, error=reason))

    # --- telling

    def _commit(self) -> None:
        """Write down what has happened; then tell of it, and hand out what was chosen."""
        self._record.save()
        self._account.tell(self._listener)
        orders, self._orders = self._orders, []
        for driver, begin, cancel in orders:
            driver.ordered_at = self._clock()
            driver.orders.put((begin, cancel))

    def _tell_that_it_drains(self) -> None:
        """Say once what is waited for."""
        if self._stops == 1 and not self._told_to_stop:
            self._told_to_stop = True
            self._listener.draining(self._under_way)

    def _take_back(self) -> None:
        """Forget what was not written down."""
        self._account.take_back()
        for driver, begin, _ in self._orders:
            for assignment in begin:
                for attempt in assignment:
                    driver.running.pop(attempt, None)
        self._orders = []

    def _summary(self) -> Summary:
        if not self._problem:
            self._earlier.count_the_rest()
        return self._account.summary(
            interrupted=bool(self._stops) and not self._schedule.done,
            problem=self._problem or self._why_no_worker(),
            seconds=self._clock() - self._began,
            resume=self._resume,
            quarantined=dict(self._quarantined),
            unreadable=self._published.unreadable,
        )

    def _why_no_worker(self) -> str:
        """Why the work could not go on for want of workers; empty if it could."""
        if self._usable or self._stops or self._schedule.done:
            return ""
        reasons = self._gone | dict(self._backend.troubles()) | self._quarantined
        bound = f" within {self._limits.patience:g} s" if self._limits.patience else ""
        problem = f"no worker is left{bound}" if self._had_workers else f"no worker came{bound}"
        return problem + "".join(f"\n  {name}: {' '.join(reason.split())}" for name, reason in sorted(reasons.items()))
