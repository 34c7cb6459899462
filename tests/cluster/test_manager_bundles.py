"""The manager with bundles: what travels together takes one slot, and each task of it has an end of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from stormtracks.cluster.backends.base import Backend, Running, Worker
from stormtracks.cluster.errors import WorkerEndedError
from stormtracks.cluster.listener import Change
from stormtracks.cluster.manager import Limits, Manager
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome, PyroTaskSchedule
from stormtracks.cluster.record import Held, Record
from stormtracks.cluster.schedule.rules import Rules
from tests.cluster.test_manager import Lies, Recorder

LIMITS = Limits(heartbeat=0.01, patience=0.0)
Ends = Callable[[str, Attempt], str]
"""How an attempt at a worker ends; empty if it never does."""


class InMemory(Backend):
    """Workers that end one attempt of a bundle with each exchange, in order, and keep what they were ordered."""

    def __init__(self, *workers: Worker, ends: Ends = lambda worker, attempt: "complete") -> None:
        self.offered = workers
        self.begun: list[tuple[str, Assignment]] = []
        self.cancelled: list[Attempt] = []
        self.most = 0
        """Assignments that a worker was at together."""
        self._ends = ends
        self._at: dict[str, list[list[Attempt]]] = {
            worker.name: [list(worker.running)] if worker.running else [] for worker in workers
        }
        self._lock = threading.Lock()

    def workers(self) -> tuple[Worker, ...]:
        return self.offered

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        with self._lock:
            self.begun += [(worker, assignment) for assignment in begin]
            self.cancelled += cancel
            at = self._at[worker]
            at += map(list, begin)
            self.most = max(self.most, len(at))
            outcomes = [
                Outcome(attempt, "lost", error="cancelled") for bundle in at for attempt in bundle if attempt in cancel
            ]
            for bundle in at:
                status = self._ends(worker, bundle[0]) if not outcomes else ""
                if status == "ended":
                    raise WorkerEndedError("it broke down")
                if status:
                    outcomes.append(
                        Outcome(bundle[0], status, {"tracks": 1}, error="" if status == "complete" else "no")
                    )
            ended = {outcome.attempt for outcome in outcomes}
            at[:] = [left for bundle in at if (left := [attempt for attempt in bundle if attempt not in ended])]
        if not outcomes:
            threading.Event().wait(wait)
        return outcomes

    def running(self, worker: str) -> tuple[Running, ...]:
        return ()

    def close(self) -> None:
        pass

    @property
    def sizes(self) -> list[int]:
        return [len(assignment) for _, assignment in self.begun]


def run(schedule: PyroTaskSchedule, backend: Backend, **more: Any) -> Recorder:
    listener = Recorder()
    Manager(schedule, backend, listener, limits=LIMITS, **more).run()
    return listener


class Saves(Record):
    """Keeps what is told between two commits."""

    def __init__(self, at_a_time: float = float("inf"), held: tuple[Held, ...] = ()) -> None:
        self.commits: list[list[tuple[str, int]]] = [[]]
        self._at_a_time = at_a_time
        self._held = held

    @property
    def at_a_time(self) -> float:
        return self._at_a_time

    def begun(self, attempt: Attempt, worker: Worker) -> None:
        self.commits[-1].append(("begun", attempt.ensemble_member))

    def ended(self, outcome: Outcome) -> None:
        self.commits[-1].append((outcome.status, outcome.attempt.ensemble_member))

    def save(self) -> None:
        self.commits.append([])

    def held(self) -> tuple[Held, ...]:
        return self._held


def test_a_bundle_takes_one_slot_until_the_last_of_it_has_ended() -> None:
    record, backend = Saves(), InMemory(Worker("a", 1))
    listener = run(PyroTaskSchedule(2000, 2002, 4, largest_bundle=4), backend, record=record)
    assert (backend.most, backend.sizes) == (1, [4, 4, 4])
    assert [commit for commit in record.commits if commit][:5] == [
        [("begun", 1), ("begun", 2), ("begun", 3), ("begun", 4)],
        [("complete", 1)],
        [("complete", 2)],
        [("complete", 3)],
        [("complete", 4), ("begun", 1), ("begun", 2), ("begun", 3), ("begun", 4)],
    ]
    assert listener.summaries[0].ok
    assert listener.summaries[0].totals["tracks"] == 12
    assert any("W" in row and "+" in row for snapshot in listener.snapshots for _, row in snapshot.rows)


def test_a_year_is_shared_out_among_the_workers_that_are_there() -> None:
    backend = InMemory(Worker("a", 1), Worker("b", 2))
    listener = run(PyroTaskSchedule(2000, 2000, 9, largest_bundle=9), backend)
    assert listener.summaries[0].ok
    assert sorted(worker for worker, _ in backend.begun) == ["a", "b", "b"]
    assert backend.sizes == [3, 3, 3]


def test_what_is_finished_already_does_not_travel() -> None:
    there = Lies(lambda year, member: {"tracks": 1} if (year == 2000 and member != 3) or member == 1 else None)
    backend = InMemory(Worker("a", 1))
    listener = run(PyroTaskSchedule(1999, 2001, 4, largest_bundle=4), backend, published=there)
    assert [[attempt.ensemble_member for attempt in bundle] for _, bundle in backend.begun] == [
        [2, 3, 4],
        [3],
        [2, 3, 4],
    ]
    assert listener.summaries[0].ok
    assert listener.summaries[0].found == 5


def test_a_record_of_so_many_at_a_time_is_given_no_more() -> None:
    for at_a_time, sizes in ((1, [1] * 6), (2, [2] * 3)):
        backend = InMemory(Worker("a", 1))
        run(PyroTaskSchedule(2000, 2000, 6, largest_bundle=6), backend, record=Saves(at_a_time))
        assert backend.sizes == sizes


def test_a_member_that_fails_fails_alone_and_is_tried_again_alone() -> None:
    def ends(worker: str, attempt: Attempt) -> str:
        return "failure" if attempt.ensemble_member == 2 and attempt.number == 1 else "complete"

    backend = InMemory(Worker("a", 1), ends=ends)
    listener = run(PyroTaskSchedule(2000, 2001, 3, largest_bundle=3), backend)
    assert listener.summaries[0].ok
    assert backend.sizes == [3, 3, 1, 1]
    assert {(one.ensemble_member, one.number) for one in listener.events("failure")} == {(2, 1)}


def test_stopping_lets_a_bundle_end_and_hands_out_nothing_more() -> None:
    def react(change: Change) -> None:
        if change.event == "complete" and change.attempt.ensemble_member == 2:
            manager.stop()

    listener = Recorder(react)
    backend, schedule = InMemory(Worker("a", 1)), PyroTaskSchedule(2000, 2001, 5, largest_bundle=5)
    manager = Manager(schedule, backend, listener, limits=LIMITS)
    summary = manager.run()
    assert summary.interrupted
    assert schedule.get_progress() == "+++++\n-----\n"
    assert listener.waited_for == [3]
    assert backend.cancelled == []


def test_stopping_twice_cancels_all_that_is_left_of_a_bundle() -> None:
    def react(change: Change) -> None:
        if change.event == "complete":
            manager.stop()
            manager.stop()

    listener = Recorder(react)
    backend = InMemory(Worker("a", 1), ends=lambda worker, attempt: "complete" if attempt.ensemble_member == 1 else "")
    schedule = PyroTaskSchedule(2000, 2001, 4, largest_bundle=4)
    manager = Manager(schedule, backend, listener, limits=LIMITS)
    summary = manager.run()
    assert summary.interrupted
    assert sorted(attempt.ensemble_member for attempt in set(backend.cancelled)) == [2, 3, 4]
    assert schedule.get_progress() == "+---\n----\n"


def test_the_rest_of_a_bundle_that_was_lost_with_its_worker_travels_together_again() -> None:
    def ends(worker: str, attempt: Attempt) -> str:
        return "ended" if worker == "b" and attempt.ensemble_member == 3 else "complete"

    backend = InMemory(Worker("a", 1), Worker("b", 1), ends=ends)
    schedule = PyroTaskSchedule(2000, 2003, 5, largest_bundle=5)
    listener = run(schedule, backend)
    assert listener.summaries[0].ok
    lost = listener.events("lost")
    assert [attempt.ensemble_member for attempt in lost] == [3, 4, 5]
    again = tuple(Attempt(2, lost[0].year, member, "vort_track") for member in (3, 4, 5))
    assert ("a", again) in backend.begun


def test_what_a_worker_holds_whose_lease_is_over_travels_together_again() -> None:
    release = threading.Event()

    class FallsSilent(InMemory):
        def exchange(self, worker: str, *orders: Any) -> list[Outcome]:
            if worker == "b":
                release.wait(60.0)
            return super().exchange(worker, *orders)

    backend = FallsSilent(Worker("a", 1), Worker("b", 1))
    schedule = PyroTaskSchedule(2000, 2001, 5, largest_bundle=5, rules=Rules(lease=1.0))
    listener = Recorder()
    try:
        Manager(schedule, backend, listener, limits=Limits(heartbeat=0.01, silence=0.5)).run()
    finally:
        release.set()
    (silent,) = (thread for thread in threading.enumerate() if thread.name == "stormtracks-b")
    silent.join(60.0)
    assert listener.summaries[0].ok
    assert len(listener.events("lost")) == 5
    assert ("a", tuple(Attempt(2, 2001, member, "vort_track") for member in range(1, 6))) in backend.begun


def test_a_manager_that_was_started_again_goes_on_with_the_rest_of_a_bundle() -> None:
    running = tuple(Attempt(1, 2000, member, "vort_track") for member in (3, 4, 5))
    schedule = PyroTaskSchedule(2000, 2001, 5, largest_bundle=5)
    for attempt in running:
        schedule.restore(2000, attempt.ensemble_member, attempts=1, held=(1, "a", "a"))
    backend = InMemory(Worker("a", 1, running=running))
    record = Saves(held=tuple(Held(attempt, "a", "a") for attempt in running))
    listener = run(schedule, backend, record=record)
    assert listener.summaries[0].ok
    assert backend.most == 1
    assert sorted(backend.sizes) == [2, 5]
    assert len(listener.events("begun")) == 7
    assert {attempt.number for attempt in listener.events("complete")} == {1}
