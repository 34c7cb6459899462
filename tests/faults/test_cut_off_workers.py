"""Workers that are there and do not hear, or are not heard: answers go astray, wires are cut, processes are stopped."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.faults.campaigns import TASKS, Plan, Program, Trial, tasks_of, until
from tests.faults.invariant import check

TASK = TASKS[0]


def test_f04_answers_go_astray(trial: Trial) -> None:
    """Each time that a task has begun, the connection is cut between the worker's answer and the manager."""
    trial.describe()
    begun = trial.plan("begin", "pass", times=len(TASKS) + 1)
    _, wire = trial.start_worker_on_wire("north")
    manager = trial.start_manager()
    cuts = 0
    while manager.runs:
        if len(begun.reached) > cuts and not wire.drop_next_answer:
            cuts += 1
            wire.drop_next_answer = True
        begun.wait()
    assert cuts > 1
    assert sorted(tasks_of(begun.reached)) == TASKS  # each once
    assert manager.events("lost") == []
    check(trial)


def both_at_work(trial: Trial, point: str) -> tuple[Program, list[Plan]]:
    """A manager whose worker north stands at a point of the first task; south, in both its slots, at the next two."""
    plans = [
        trial.plan(point, "hold", [TASK]),
        trial.plan("begin", "hold", [(2001, 2)]),
        trial.plan("begin", "hold", [(2001, 3)]),
    ]
    manager = trial.start_manager()
    manager.until(lambda: plans[0].reached, "north is at the task")
    trial.start_workers("south", slots=2)
    manager.until(lambda: plans[1].reached and plans[2].reached, "south is at work")
    return manager, plans


@pytest.mark.parametrize(
    ("point", "children"), [("kernel", False), ("kernel", True), ("written", False), ("written", True)]
)
def test_f05_stopped_past_its_lease(trial: Trial, point: str, children: bool) -> None:
    """The task of a stopped worker is done by another one; when the worker goes on, what it says of it is ignored."""
    trial.describe()
    (north,) = trial.start_workers("north")
    manager, (held, held_too, held_on) = both_at_work(trial, point)
    placed = trial.plan("placed", "pass", [TASK], times=2)
    done_again = trial.plan("end", "hold", [TASK])
    north.send(signal.SIGSTOP, children=children)
    manager.until(lambda: manager.events("lost"), "the task is taken back")
    held_too.go()
    manager.until(lambda: done_again.reached, "south has done it")
    assert [one["worker"] for one in placed.reached] == [trial.workers[1].process.pid]
    held.go()
    north.send(signal.SIGCONT, children=children)
    manager.until(lambda: manager.events("begun", worker="north")[1:], "north is used again")
    until(lambda: not psutil.pid_exists(held.reached[0]["pid"]), "the stale attempt has ended")
    held_on.go()
    done_again.go()
    manager.end(0)
    assert [one["worker"] for one in manager.events("complete", year=TASK[0], member=TASK[1])] == ["south"]
    if point == "kernel":
        assert len(placed.reached) == 1
        assert "lease" in north.complained
    check(trial)


def test_f06_a_forgotten_worker_is_heard_again(trial: Trial) -> None:
    """Cut off for longer than its lease, it has ended its task before another one begins it; then it rejoins."""
    trial.describe()
    _, wire = trial.start_worker_on_wire("north")
    manager, (held, held_too, held_on) = both_at_work(trial, "kernel")
    again = trial.plan("begin", "hold", [TASK])
    wire.cut()
    manager.until(lambda: manager.events("lost"), "the task is taken back")
    held_too.go()
    manager.until(lambda: again.reached, "south begins it")
    assert not psutil.pid_exists(held.reached[0]["pid"])
    wire.heal()
    trial.register_on_wire("north")
    manager.until(lambda: manager.events("begun", worker="north")[1:], "north is used again")
    held_on.go()
    again.go()
    manager.end(0)
    assert [one["worker"] for one in manager.events("begun", year=2001, member=1)] == ["north", "south"]
    assert len(manager.events("lost")) == 1
    check(trial)
