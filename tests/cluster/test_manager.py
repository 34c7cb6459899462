"""The manager with real processes: everything is done once, every failure is told, and it stops as it should."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import psutil
import pytest

from stormtracks.cluster.backends.base import Backend, Running, Worker
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.errors import WorkerEndedError
from stormtracks.cluster.listener import Change, Progress, Snapshot, Summary
from stormtracks.cluster.manager import Limits, Manager
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome, PyroTaskSchedule
from stormtracks.cluster.record import Published
from stormtracks.cluster.schedule.rules import Rules
from stormtracks.cluster.signals import on_signal

BOUND = 60.0
TOYS = "tests.cluster.toy_tasks"


class Recorder:
    """A listener that keeps what it is told."""

    def __init__(self, react: Callable[[Change], None] = lambda change: None) -> None:
        self.changes: list[tuple[Change, Progress]] = []
        self.snapshots: list[Snapshot] = []
        self.summaries: list[Summary] = []
        self.waited_for: list[int] = []
        self._react = react

    def begin(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def changed(self, change: Change, progress: Progress) -> None:
        self.changes.append((change, progress))
        self._react(change)

    def draining(self, running: int) -> None:
        self.waited_for.append(running)

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        self.snapshots.append(snapshot())

    def end(self, snapshot: Snapshot, summary: Summary) -> None:
        self.snapshots.append(snapshot)
        self.summaries.append(summary)

    def events(self, *events: str) -> list[Attempt]:
        return [change.attempt for change, _ in self.changes if change.event in events]


class Locals(Backend):
    """Several workers: each a local backend of its own under another name."""

    def __init__(self, names: Sequence[str], task_function: str, **options: Any) -> None:
        self._backends = {name: LocalBackend(task_function, **options) for name in names}
        self.exchanges: Counter[str] = Counter()

    def workers(self) -> tuple[Worker, ...]:
        return tuple(Worker(name, self._of(name).workers()[0].slots) for name in self._backends)

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        self.exchanges[worker] += 1
        backend = self._of(worker)
        return backend.exchange(backend.workers()[0].name, begin, cancel, wait)

    def running(self, worker: str) -> tuple[Running, ...]:
        backend = self._of(worker)
        return backend.running(backend.workers()[0].name)

    def close(self) -> None:
        for backend in self._backends.values():
            backend.close()

    def _of(self, worker: str) -> LocalBackend:
        return self._backends[worker]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process or thread outlives a test, and the signal handlers are what they were."""
    me = psutil.Process()
    before = (me.children(recursive=True), threading.active_count(), signal.getsignal(signal.SIGINT))
    yield
    assert (me.children(recursive=True), threading.active_count(), signal.getsignal(signal.SIGINT)) == before


def test_a_campaign_runs_to_its_end() -> None:
    schedule, listener = PyroTaskSchedule(2000, 2001, 6), Recorder()
    with LocalBackend(f"{TOYS}:double", slots=2) as backend:
        summary = Manager(schedule, backend, listener).run()
    assert summary.ok
    assert (summary.total, summary.found, summary.failures, summary.problem) == (12, 0, (), "")
    assert not summary.interrupted
    assert summary.totals["tracks"] == 2 * 2 * sum(range(1, 7))
    assert schedule.get_progress() == "++++++\n++++++\n"
    assert listener.summaries == [summary]
    done = listener.events("complete")
    assert sorted((one.year, one.ensemble_member) for one in done) == [
        (y, m) for y in (2000, 2001) for m in range(1, 7)
    ]
    assert sorted(listener.events("begun"), key=repr) == sorted(done, key=repr)


def test_progress_and_snapshots_agree_with_the_schedule() -> None:
    schedule, listener = PyroTaskSchedule(2000, 2001, 4), Recorder()
    with LocalBackend(f"{TOYS}:double", slots=2) as backend:
        Manager(schedule, backend, listener).run()
    assert [progress.finished for change, progress in listener.changes if change.event == "complete"] == [*range(1, 9)]
    first, last = listener.snapshots[0], listener.snapshots[-1]
    assert first.rows == ((2000, "----"), (2001, "----"))
    assert first.progress == Progress(0, 8)
    assert last.rows == ((2000, "++++"), (2001, "++++"))
    assert last.progress.seconds_left == 0
    assert last.progress.per_minute is not None
    for snapshot in listener.snapshots[1:-1]:
        glyphs = Counter("".join(row for _, row in snapshot.rows))
        running = [attempt for state in snapshot.workers for attempt, _ in state.running]
        assert glyphs["W"] == snapshot.counts["working"] == len(running) <= 2
        assert glyphs["+"] == snapshot.counts["complete"] == snapshot.progress.finished


def test_what_fails_at_first_succeeds_when_tried_again(tmp_path: Path) -> None:
    schedule, listener = PyroTaskSchedule(2000, 2001, 3), Recorder()
    arguments = {"folder": str(tmp_path)}
    with LocalBackend(f"{TOYS}:fails_at_first", time_limit=0.5, arguments=arguments) as backend:
        summary = Manager(schedule, backend, listener).run()
    assert summary.ok
    assert summary.failures == ()
    assert Counter(one.ensemble_member for one in listener.events("failure")) == {1: 2, 3: 2}
    assert Counter(one.ensemble_member for one in listener.events("timeout")) == {2: 2}
    assert {one.number for one in listener.events("complete")} == {2}
    assert any("F" in row and "T" in row for snapshot in listener.snapshots for _, row in snapshot.rows)


def test_the_rest_goes_on_and_every_failure_is_reported_with_each_reason() -> None:
    deadly = {"2": "segfault", "4": "unbuildable", "5": "hang", "7": "exit_0"}
    schedule, listener = PyroTaskSchedule(2000, 2000, 8, rules=Rules(max_attempts=3)), Recorder()
    with LocalBackend(f"{TOYS}:chosen", slots=2, time_limit=0.5, arguments={"by_member": deadly}) as backend:
        summary = Manager(schedule, backend, listener).run()
    assert schedule.get_progress() == "+F+FT+F+\n"
    assert not summary.ok
    assert summary.counts == {"outstanding": 0, "working": 0, "complete": 4, "failure": 3, "timeout": 1}
    assert [reasons[0].attempt.ensemble_member for reasons in summary.failures] == [2, 4, 5, 7]
    for reasons, text in zip(summary.failures, ("SIGSEGV", "UnbuildableError", "time limit", "status 0"), strict=True):
        assert [one.attempt.number for one in reasons] == [1, 2, 3]
        assert all(text in one.reason for one in reasons)
    assert {failure.attempt.ensemble_member for failure in listener.snapshots[-1].last_failures} <= {2, 4, 5, 7}


class Lies(Published):
    """Results that are said to lie there."""

    def __init__(self, find: Callable[[int, int], Mapping[str, Any] | None]) -> None:
        self.asked: list[tuple[int, int]] = []
        self._find = find

    def find(self, year: int, ensemble_member: int) -> Mapping[str, Any] | None:
        self.asked.append((year, ensemble_member))
        return self._find(year, ensemble_member)


def test_what_is_finished_is_not_run_again() -> None:
    schedule, listener = PyroTaskSchedule(2000, 2001, 4), Recorder()
    there = Lies(lambda year, member: {"tracks": 1000} if year == 2000 and member != 3 else None)
    with LocalBackend(f"{TOYS}:double") as backend:
        summary = Manager(schedule, backend, listener, published=there).run()
    assert summary.ok
    assert summary.found == 3
    assert summary.totals["tracks"] == 3 * 1000 + 6 + 2 * sum(range(1, 5))
    assert there.asked == [(task.year, task.ensemble_member) for task in schedule]
    assert [one.ensemble_member for one in listener.events("found")] == [1, 2, 4]
    assert len(listener.events("begun")) == 5


def test_a_campaign_that_is_finished_starts_nothing() -> None:
    listener = Recorder()
    with LocalBackend(f"{TOYS}:hang") as backend:
        summary = Manager(PyroTaskSchedule(2000, 2009, 56), backend, listener, published=Lies(lambda *_: {})).run()
        assert psutil.Process().children() == []
    assert summary.ok
    assert summary.found == 560


def test_an_error_in_looking_for_results_is_not_swallowed() -> None:
    def find(year: int, ensemble_member: int) -> None:
        if ensemble_member == 3:
            raise OSError("the results are not readable")

    listener = Recorder()
    with LocalBackend(f"{TOYS}:double") as backend, pytest.raises(OSError, match="not readable"):
        Manager(PyroTaskSchedule(), backend, listener, published=Lies(find)).run()
    assert len(listener.summaries) == 1


def test_many_workers_share_the_work() -> None:
    listener = Recorder()
    with Locals("abc", f"{TOYS}:double", slots=2) as backend:
        before = threading.active_count()
        counts: list[int] = []
        listener = Recorder(lambda change: counts.append(threading.active_count()))
        summary = Manager(PyroTaskSchedule(2000, 2000, 60), backend, listener, limits=Limits(heartbeat=0.2)).run()
    assert summary.ok
    # A thread per worker, and the one that starts the children of each of these backends.
    assert max(counts) <= before + 3 + 3
    assert len(listener.events("complete")) == 60


@pytest.mark.parametrize(
    ("error", "lease"), [(WorkerEndedError("host b went away"), inf), (ConnectionResetError("host b went away"), 2.0)]
)
def test_the_tasks_of_a_worker_that_goes_are_done_by_the_others(error: Exception, lease: float) -> None:
    """At once if they have surely ended, else when its lease is over."""

    class BreaksDown(Locals):
        def exchange(
            self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
        ) -> list[Outcome]:
            if worker == "b" and self.exchanges["b"] == 2:
                raise error
            return super().exchange(worker, begin, cancel, wait)

    listener = Recorder()
    schedule = PyroTaskSchedule(2000, 2000, 200, rules=Rules(lease=lease))
    with BreaksDown("ab", f"{TOYS}:double", slots=2) as backend:
        summary = Manager(schedule, backend, listener, limits=Limits(heartbeat=0.05)).run()
    assert summary.ok
    lost = [change for change, _ in listener.changes if change.event == "lost" and change.worker == "b"]
    assert all("host b went away" in change.error for change in lost)
    assert all(change.seconds > (1.0 if lease == 2.0 else 0) for change in lost)
    assert len(listener.events("complete")) == 200
    if lease == 2.0 and lost:
        troubles = [state.trouble for snapshot in listener.snapshots for state in snapshot.workers]
        assert any("host b went away" in trouble for trouble in troubles)


def test_a_worker_that_falls_silent_is_given_up() -> None:
    release = threading.Event()

    class FallsSilent(Locals):
        def exchange(
            self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
        ) -> list[Outcome]:
            if worker == "b":
                release.wait(BOUND)
            return super().exchange(worker, begin, cancel, wait)

    listener = Recorder()
    schedule = PyroTaskSchedule(2000, 2000, 10, rules=Rules(lease=4.0))
    with FallsSilent("ab", f"{TOYS}:double") as backend:
        try:
            limits = Limits(heartbeat=0.02, silence=2.0)
            summary = Manager(schedule, backend, listener, limits=limits).run()
        finally:
            release.set()
        assert summary.ok
        (lost,) = (change for change, _ in listener.changes if change.event == "lost" and change.worker == "b")
        assert (lost.worker, lost.error) == ("b", "worker b was not heard from: no answer for 2 s")
        assert lost.seconds > 3.0  # not when it fell silent, but when its lease was over
        (silent,) = (thread for thread in threading.enumerate() if thread.name == "stormtracks-b")
        silent.join(BOUND)


def test_a_campaign_without_a_worker_left_ends_and_says_so() -> None:
    listener = Recorder()
    with LocalBackend(f"{TOYS}:absent", slots=2) as backend:
        summary = Manager(PyroTaskSchedule(), backend, listener, resume="run again").run()
    assert not summary.ok
    assert "no worker is left" in summary.problem
    assert "cannot be loaded" in summary.problem
    assert (summary.counts["outstanding"], summary.counts["timeout"]) == (13 * 56 - 2, 2)
    assert summary.failures == ()
    with Locals("", f"{TOYS}:double") as backend:
        assert Manager(PyroTaskSchedule(), backend, Recorder()).run().problem == "no worker came"


def test_a_worker_that_comes_late_is_used() -> None:
    class ComesLate(Locals):
        def workers(self) -> tuple[Worker, ...]:
            known = super().workers()
            return known if self.exchanges["a"] >= 3 else known[:1]

    listener = Recorder(lambda change: time.sleep(0.01) if change.event == "complete" else None)
    with ComesLate("ab", f"{TOYS}:double") as backend:
        summary = Manager(PyroTaskSchedule(2000, 2000, 100), backend, listener, limits=Limits(heartbeat=0.05)).run()
    assert summary.ok
    assert {change.worker for change, _ in listener.changes} == {"a", "b"}


def test_stopping_lets_what_runs_end_and_hands_out_nothing_more(tmp_path: Path) -> None:
    class LetsGo(Recorder):
        def draining(self, running: int) -> None:
            super().draining(running)
            (tmp_path / "go").touch()

    def react(change: Change) -> None:
        if change.event == "begun" and change.attempt.ensemble_member == 2:
            manager.stop()

    schedule, listener = PyroTaskSchedule(2000, 2001, 6), LetsGo(react)
    with LocalBackend(f"{TOYS}:wait_at_the_barrier", slots=2, arguments={"folder": str(tmp_path)}) as backend:
        manager = Manager(schedule, backend, listener, resume="go on")
        summary = manager.run()
    assert listener.waited_for == [2]
    assert any(snapshot.draining for snapshot in listener.snapshots)
    assert len(listener.events("begun")) == len(listener.events("complete")) == 2
    assert schedule.get_progress() == "++----\n------\n"
    assert summary.interrupted
    assert summary.resume == "go on"


def test_a_silent_worker_is_waited_for_no_longer_than_its_lease() -> None:
    release = threading.Event()

    class FallsSilent(Locals):
        def exchange(
            self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
        ) -> list[Outcome]:
            if worker == "b":
                release.wait(BOUND)
            return super().exchange(worker, begin, cancel, wait)

    def react(change: Change) -> None:
        if change.event == "complete" and len(listener.events("complete")) == 1:
            manager.stop()

    schedule, listener = PyroTaskSchedule(2000, 2000, 10, rules=Rules(lease=2.0)), Recorder(react)
    with FallsSilent("ab", f"{TOYS}:double") as backend:
        manager = Manager(schedule, backend, listener, limits=Limits(heartbeat=0.02, silence=1.0))
        try:
            summary = manager.run()
        finally:
            release.set()
        (silent,) = (thread for thread in threading.enumerate() if thread.name == "stormtracks-b")
        silent.join(BOUND)
    assert summary.interrupted
    assert [change.worker for change, _ in listener.changes if change.event == "lost"] == ["b"]
    assert summary.counts["working"] == 0


def test_stopping_twice_cancels_what_runs_and_leaves_the_rest_to_be_done() -> None:
    schedule = PyroTaskSchedule(2000, 2001, 6)
    deadly = {"4": "hang", "5": "hang"}

    def react(change: Change) -> None:
        if change.event == "complete" and change.attempt.ensemble_member == 3:
            manager.stop()
            manager.stop()

    listener = Recorder(react)
    with LocalBackend(f"{TOYS}:chosen", slots=2, arguments={"by_member": deadly}) as backend:
        manager = Manager(schedule, backend, listener, resume="go on")
        summary = manager.run()
    assert summary.interrupted
    assert not summary.ok
    assert summary.resume == "go on"
    assert re.fullmatch(r"[+-][+-]\+---\n------\n", schedule.get_progress())
    assert summary.counts["working"] == 0
    assert listener.summaries == [summary]


PROGRAM = """
import sys
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.board import make_board
from stormtracks.cluster.manager import Manager
from stormtracks.cluster.pyro_task import PyroTaskSchedule

schedule = PyroTaskSchedule(2000, 2000, 4)
board = make_board("plain", sys.stdout)
with LocalBackend(sys.argv[1], slots=2, arguments={"folder": sys.argv[2]}) as backend:
    summary = Manager(schedule, backend, board, resume="stormtracks run gale.toml").run()
sys.exit(5 if summary.interrupted else 0)
"""


def start(function: str, folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A campaign in a process group of its own, as a shell starts one, with two tasks under way."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, f"{TOYS}:{function}", str(folder)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    deadline = time.monotonic() + BOUND
    while not all((folder / name).exists() for name in ("1", "2")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    return process, [int((folder / name).read_text()) for name in ("1", "2")]


def wait_until_told(process: subprocess.Popen[str]) -> None:
    """Until it has said what it waits for; signals that come close together may melt into one."""
    assert process.stdout is not None
    assert process.stdout.readline() == "stopping: 2 tasks still run; Ctrl-C again stops at once\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_runs_end_and_says_how_to_resume(tmp_path: Path, number: signal.Signals) -> None:
    process, children = start("wait_at_the_barrier", tmp_path)
    # Ctrl-C goes to the whole foreground process group, `kill` to one process.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    wait_until_told(process)
    assert all(map(psutil.pid_exists, children))
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=BOUND)
    assert process.returncode == 5, err
    assert err == ""
    assert out.splitlines()[-4:-2] == [
        "stopped before the end; nothing that is complete is lost",
        "to go on: stormtracks run gale.toml",
    ]
    assert out.splitlines()[-1].startswith("2 of 4 tasks complete, 2 outstanding; 6 tracks; 0:00:")
    assert not any(map(psutil.pid_exists, children))


def test_a_second_signal_cancels_what_runs(tmp_path: Path) -> None:
    process, children = start("at_the_barrier", tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    wait_until_told(process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=BOUND)
    assert process.returncode == 5, err
    assert err == ""
    assert out.splitlines()[-1].startswith("0 of 4 tasks complete, 4 outstanding; 0 tracks; 0:00:")
    assert not any(map(psutil.pid_exists, children))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_third_signal_waits_for_nothing(number: signal.Signals) -> None:
    calls: list[None] = []
    with pytest.raises(KeyboardInterrupt), on_signal(lambda: calls.append(None)):
        for _ in range(3):
            signal.raise_signal(number)
    assert len(calls) == 2
