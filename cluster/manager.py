"""Drives a schedule through a backend, and tells a listener what happens.

One thread per worker carries orders to the backend and outcomes back; it decides nothing. The thread that calls
`Manager.run` alone owns the schedule: it applies each outcome, and answers it with the worker's next orders, so that a
slot never waits for the next heartbeat to get its next task.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from stormtracks.cluster.backends.base import Backend, Worker
from stormtracks.cluster.listener import Change, Listener, Progress, Snapshot, Summary, WorkerState
from stormtracks.cluster.pyro_task import Assignment, Attempt, Failure, Outcome, PyroTaskSchedule

__all__ = ["Manager"]

logger = logging.getLogger(__name__)

LAST_FAILURES = 8
"""Failures that a snapshot shows."""
_PACE_OVER = 200
"""Tasks over which the throughput is taken."""
_LOOK_AGAIN = 0.2
"""Seconds between two looks for workers while there is none."""
_STOP_LIMIT = 5.0
"""Seconds beyond a heartbeat that workers are given to cancel what runs, and their threads to end."""


class Manager:
    """Hands out the tasks of a schedule until all are done, or until it is told to stop.

    SIGINT and SIGTERM stop it cleanly: nothing more is handed out, and running attempts are cancelled; a second one
    raises KeyboardInterrupt at once. When a backend raises an error for a worker, or does not answer for too long, the
    worker's tasks go to the others. It is used again when the backend offers it with another session.

    Parameters
    ----------
    schedule : PyroTaskSchedule
        What is to be done; nobody else may change it while the manager runs.
    backend : Backend
        What carries the work; closing it is the caller's business.
    listener : Listener
        Who is told.
    is_finished : callable, optional
        Asked with year and member before a task is handed out; the result if the task is done and its result intact,
        else None.
    heartbeat : float
        Seconds a call to the backend may wait; how soon a cancellation or a late worker is seen.
    silence : float
        Seconds without an answer after which a worker is given up, whatever its backend says.
    patience : float
        Seconds to go on without any worker.
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
        is_finished: Callable[[int, int], Mapping[str, Any] | None] = lambda year, ensemble_member: None,
        heartbeat: float = 1.0,
        silence: float = 30.0,
        patience: float = 0.0,
        resume: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedule = schedule
        self._backend = backend
        self._listener = listener
        self._is_finished = is_finished
        self._heartbeat = heartbeat
        self._silence = silence
        self._patience = patience
        self._resume = resume
        self._clock = clock
        self._events: SimpleQueue[_Answer | None] = SimpleQueue()
        self._drivers: dict[str, _Driver] = {}
        self._gone: dict[str, str] = {}
        self._given_up: set[Worker] = set()
        self._had_workers = False
        self._stopping = False
        self._stop_by = float("inf")
        self._began = clock()
        self._alone_since = self._began
        self._met_at = float("-inf")
        self._finish_times: deque[float] = deque(maxlen=_PACE_OVER)
        self._last_failures: deque[Failure] = deque(maxlen=LAST_FAILURES)
        self._totals: Counter[str] = Counter()
        self._found = 0

    def run(self) -> Summary:
        """Run the campaign to its end.

        Returns
        -------
        Summary
            Counts, totals, and every failure with its reasons. That tasks fail, workers go or the user stops it is
            told there, and raises nothing.
        """
        self._began = self._alone_since = self._clock()
        self._listener.begin(self.snapshot())
        try:
            with _on_signal(self.stop):
                self._meet_workers()
                while self._goes_on():
                    self._take_answer()
                    self._meet_workers()
                    self._listener.refresh(self.snapshot)
        finally:
            self._dismiss()
            summary = self._summary()
            self._listener.end(self.snapshot(), summary)
        return summary

    def stop(self) -> None:
        """Hand out nothing more and cancel what runs; from any thread, or from a signal handler."""
        self._stopping = True
        self._stop_by = min(self._stop_by, self._clock() + self._heartbeat + _STOP_LIMIT)
        self._events.put(None)

    def snapshot(self) -> Snapshot:
        """The campaign as it is now."""
        now = self._clock()
        rows = tuple((year, self._schedule.get_progress_for_year(year, False)) for year in self._schedule.years)
        workers = tuple(
            WorkerState(driver.worker, tuple((attempt, now - since) for attempt, since in driver.running.items()))
            for driver in self._drivers.values()
        )
        return Snapshot(
            task=self._schedule.task,
            members=self._schedule.members,
            rows=rows,
            counts=self._schedule.counts,
            progress=self._progress(),
            seconds=now - self._began,
            workers=workers,
            last_failures=tuple(self._last_failures),
        )

    # --- workers

    def _meet_workers(self) -> None:
        """Put every worker to use that was not known a heartbeat ago, and hand no more to one that is not offered."""
        now = self._clock()
        if self._stopping or now - self._met_at < self._pause:
            return
        self._met_at = now
        offered = set(self._backend.workers())
        for driver in tuple(self._drivers.values()):
            driver.offered = driver.worker in offered
            if not driver.offered and not driver.running:
                logger.info("worker %s takes its leave", driver.worker.name)
                self._part_with(driver)
        for worker in sorted(offered - self._given_up, key=lambda worker: worker.name):
            if worker.name not in self._drivers:
                self._gone.pop(worker.name, None)
                self._had_workers = True
                driver = _Driver(worker, self._backend, self._heartbeat, self._events)
                self._drivers[worker.name] = driver
                driver.start()
                self._give_orders(driver)

    @property
    def _pause(self) -> float:
        """Seconds between two looks for workers."""
        return self._heartbeat if self._drivers else min(self._heartbeat, _LOOK_AGAIN)

    def _goes_on(self) -> bool:
        if self._stopping:
            return any(driver.running for driver in self._drivers.values()) and self._clock() < self._stop_by
        if self._schedule.done:
            return False
        return bool(self._drivers) or self._clock() - self._alone_since < self._patience

    def _part_with(self, driver: _Driver) -> None:
        del self._drivers[driver.worker.name]
        driver.orders.put(None)
        if not self._drivers:
            self._alone_since = self._clock()

    def _dismiss(self) -> None:
        overdue = self._clock() >= self._stop_by
        for driver in [driver for driver in self._drivers.values() if driver.running and overdue]:
            logger.warning("worker %s does not answer; left alone", driver.worker.name)
            self._part_with(driver)
            for attempt in driver.running:
                self._apply(Outcome(attempt, "lost", error="stopped, and no answer"), driver.worker.name)
        for driver in self._drivers.values():
            driver.orders.put(None)
        deadline = time.monotonic() + self._heartbeat + _STOP_LIMIT
        for driver in self._drivers.values():
            driver.join(max(deadline - time.monotonic(), 0.0))
            if driver.is_alive():
                logger.warning("worker %s does not answer; left alone", driver.worker.name)

    def _take_answer(self) -> None:
        """Apply the next answer of a worker, if one comes within a heartbeat, and give it its next orders."""
        try:
            answer = self._events.get(timeout=self._pause)
        except Empty:
            answer = None
        if answer is not None:
            driver = answer.driver
            for outcome in answer.outcomes:
                driver.running.pop(outcome.attempt, None)
                self._apply(outcome, driver.worker.name)
            if answer.problem:
                self._lose(driver, answer.problem)
            elif self._drivers.get(driver.worker.name) is driver and self._goes_on():
                self._give_orders(driver)
        if self._events.empty():
            silent_since = self._clock() - self._silence
            for driver in [driver for driver in self._drivers.values() if driver.ordered_at < silent_since]:
                self._lose(driver, f"no answer for {self._silence:g} s")

    def _lose(self, driver: _Driver, problem: str) -> None:
        """Take the tasks of a worker back; only its return with another session brings it into use again."""
        name = driver.worker.name
        if self._drivers.get(name) is not driver:
            return
        logger.warning("worker %s is gone: %s", name, problem)
        self._gone[name] = problem
        self._given_up.add(driver.worker)
        self._part_with(driver)
        now = self._clock()
        lost, driver.running = driver.running, {}
        for attempt, since in lost.items():
            if self._schedule.orphaned(attempt):
                self._tell(Change("lost", attempt, name, now - since, error=f"worker {name} is gone: {problem}"))

    def _give_orders(self, driver: _Driver) -> None:
        begin = self._choose(driver) if driver.offered else []
        cancel = tuple(driver.running) if self._stopping else ()
        now = self._clock()
        if begin and not self._finish_times:
            self._finish_times.append(now)
        driver.running |= dict.fromkeys((attempt for assignment in begin for attempt in assignment), now)
        driver.ordered_at = now
        driver.orders.put((begin, cancel))

    # --- tasks

    def _choose(self, driver: _Driver) -> list[Assignment]:
        """Assignments for the free slots of a worker; what turns out to be finished already is not among them."""
        chosen: list[Assignment] = []
        name = driver.worker.name
        free = driver.worker.slots - len(driver.running)
        while len(chosen) < free and not self._stopping:
            assignment = self._schedule.next_assignment(name, others=len(self._drivers) > 1)
            if not assignment:
                break
            to_do = tuple(attempt for attempt in assignment if not self._was_finished(attempt, name))
            if to_do:
                chosen.append(to_do)
                for attempt in to_do:
                    self._tell(Change("begun", attempt, name))
        return chosen

    def _was_finished(self, attempt: Attempt, worker: str) -> bool:
        result = self._is_finished(attempt.year, attempt.ensemble_member)
        if result is None:
            return False
        self._schedule.completed(attempt)
        self._found += 1
        self._add_up(result)
        self._tell(Change("found", attempt, worker, result=result))
        # There may be thousands of these before the first task that is to be run.
        self._listener.refresh(self.snapshot)
        return True

    def _apply(self, outcome: Outcome, worker: str) -> None:
        left = self._schedule.left
        if not self._accept(outcome):
            return
        if self._schedule.left < left:
            self._finish_times.append(self._clock())
        if outcome.status == "complete":
            self._add_up(outcome.result)
        elif outcome.status != "lost":
            self._last_failures.append(Failure(outcome.attempt, outcome.status, worker, outcome.error))
        self._tell(
            Change(outcome.status, outcome.attempt, worker, outcome.seconds, outcome.result or None, outcome.error)
        )

    def _accept(self, outcome: Outcome) -> bool:
        """Let the schedule have an outcome; False if it comes from a stale attempt."""
        if outcome.status == "complete":
            return self._schedule.completed(outcome.attempt)
        if outcome.status == "timeout":
            return self._schedule.timed_out(outcome.attempt, outcome.error)
        if outcome.status == "lost":
            return self._schedule.lost(outcome.attempt)
        return self._schedule.failed(outcome.attempt, outcome.error)

    def _add_up(self, result: Mapping[str, Any]) -> None:
        self._totals.update({name: value for name, value in result.items() if type(value) is int})

    # --- telling

    def _tell(self, change: Change) -> None:
        self._listener.changed(change, self._progress())

    def _progress(self) -> Progress:
        total, left = len(self._schedule), self._schedule.left
        count = len(self._finish_times) - 1
        seconds = self._clock() - self._finish_times[0] if count > 0 else 0.0
        if seconds <= 0:
            return Progress(total - left, total)
        return Progress(total - left, total, per_minute=60 * count / seconds, seconds_left=left * seconds / count)

    def _summary(self) -> Summary:
        failures = tuple(
            reasons for task, reasons in self._schedule.failures() if task.status in ("failure", "timeout")
        )
        problem = ""
        if not (self._drivers or self._stopping or self._schedule.done):
            reasons = self._gone | dict(self._backend.troubles())
            bound = f" within {self._patience:g} s" if self._patience else ""
            problem = f"no worker is left{bound}" if self._had_workers else f"no worker came{bound}"
            problem += "".join(f"\n  {name}: {' '.join(reason.split())}" for name, reason in sorted(reasons.items()))
        return Summary(
            counts=self._schedule.counts,
            total=len(self._schedule),
            found=self._found,
            totals=dict(self._totals),
            failures=failures,
            interrupted=self._stopping and not self._schedule.done,
            problem=problem,
            seconds=self._clock() - self._began,
            resume=self._resume,
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an exchange brought: outcomes, or the problem for which the worker cannot go on."""

    driver: _Driver
    outcomes: Sequence[Outcome] = ()
    problem: str = ""


class _Driver(threading.Thread):
    """Carries one worker's orders to the backend and its answers to the manager, one for one."""

    def __init__(self, worker: Worker, backend: Backend, heartbeat: float, events: SimpleQueue[_Answer | None]) -> None:
        # A daemon, so that a backend that never returns cannot keep the process from ending.
        super().__init__(name=f"stormtracks-{worker.name}", daemon=True)
        self.worker = worker
        self.running: dict[Attempt, float] = {}
        """Attempts at the worker and when they were handed out; the manager's to change."""
        self.offered = True
        """Whether the backend still offers it, so that it may be given work."""
        self.ordered_at = 0.0
        self.orders: SimpleQueue[tuple[Sequence[Assignment], Sequence[Attempt]] | None] = SimpleQueue()
        """What to begin and to cancel next; None ends the thread."""
        self._backend = backend
        self._heartbeat = heartbeat
        self._events = events

    def run(self) -> None:
        while (orders := self.orders.get()) is not None:
            try:
                outcomes = self._backend.exchange(self.worker.name, *orders, self._heartbeat)
            except Exception as error:
                logger.debug("exchange with %s failed", self.worker.name, exc_info=True)
                self._events.put(_Answer(self, problem=f"{type(error).__name__}: {error}"))
                return
            self._events.put(_Answer(self, outcomes))


@contextmanager
def _on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Have the first SIGINT or SIGTERM call `stop`, and the next one raise KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signalled = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal signalled
        if signalled:
            raise KeyboardInterrupt
        signalled = True
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
