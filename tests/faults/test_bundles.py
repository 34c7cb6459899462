"""Bundles: all members of a year at once at one worker. What befalls one is its own, what befalls all is everyone's."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.faults.campaigns import MEMBERS, Program, Trial, tasks_of, until
from tests.faults.invariant import check

BUNDLE = {"bundle": len(MEMBERS)}
ALWAYS = 1000
VICTIM = (2001, 2)
FIRST_YEAR = [(2001, member) for member in MEMBERS]


def lost(manager: Program) -> list[tuple[int, int]]:
    return sorted(tasks_of(manager.events("lost")))


def test_f01_a_process_is_killed_at_one_of_its_bundle(trial: Trial) -> None:
    """That is a failure of that one alone; the others are lost and go out again."""
    trial.describe(run=BUNDLE)
    held = trial.plan("kernel", "hold", [VICTIM])
    trial.start_workers("north")
    manager = trial.start_manager()
    manager.until(lambda: held.reached, "the bundle is at the task")
    os.kill(held.reached[0]["pid"], signal.SIGKILL)
    held.go()
    manager.end(0)
    assert tasks_of(manager.events("failure")) == [VICTIM]
    assert lost(manager) == sorted(set(FIRST_YEAR) - {VICTIM})
    reasons = {one["error"] for one in manager.events("lost")}
    assert reasons == {"its bundle ended with another task: year 2001, member 2"}
    check(trial)


def test_f01_a_process_is_killed_at_work_for_all_of_its_bundle(trial: Trial) -> None:
    """That is a failure of all that were not done; they are tried again."""
    trial.describe(run=BUNDLE)
    held = trial.plan("after", "hold", [VICTIM])
    trial.start_workers("north")
    manager = trial.start_manager()
    manager.until(lambda: VICTIM in tasks_of(manager.events("complete")), "the second is done")
    manager.until(lambda: held.reached, "it goes on for the others")
    done = tasks_of(manager.events("complete"))
    os.kill(held.reached[0]["pid"], signal.SIGKILL)
    held.go()
    manager.end(0)
    failed = tasks_of(manager.events("failure"))
    assert failed and sorted(failed) == sorted(set(FIRST_YEAR) - set(done))
    assert lost(manager) == []
    check(trial)


@pytest.mark.parametrize("point", ["kernel", "written", "placed"])
def test_f01_f02_f03_a_worker_is_killed_with_a_bundle(trial: Trial, point: str) -> None:
    """What was not done of it goes to another worker; what is in its place is found there."""
    trial.describe(run=BUNDLE)
    held = trial.plan(point, "hold", [VICTIM])
    north, south = trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.until(lambda: held.reached, "the bundle is at the point")
    (victim,) = [worker for worker in (north, south) if worker.process.pid == held.reached[0]["worker"]]
    victim.kill()
    held.go()
    manager.end(0)
    assert VICTIM in lost(manager)
    assert manager.events("failure") == []
    again = tasks_of(manager.events("found" if point == "placed" else "begun", attempt=2))
    assert VICTIM in again
    check(trial)


def test_f05_a_bundle_is_stopped_past_its_lease(trial: Trial) -> None:
    """Its tasks are done by another worker; when it goes on, it publishes nothing more."""
    trial.describe(run=BUNDLE)
    held = trial.plan("written", "hold", [VICTIM])
    (north,) = trial.start_workers("north")
    manager = trial.start_manager()
    manager.until(lambda: held.reached, "north is in the middle of its bundle")
    done = tasks_of(manager.events("complete"))
    placed = trial.plan("placed", "pass", times=ALWAYS)
    at_the_end = trial.plan("end", "hold", [VICTIM])
    trial.start_workers("south")
    north.send(signal.SIGSTOP, children=True)
    manager.until(lambda: set(lost(manager)) == set(FIRST_YEAR) - set(done), "what is not done is taken back")
    manager.until(lambda: at_the_end.reached, "south has done it")
    held.go()
    north.send(signal.SIGCONT, children=True)
    until(lambda: not psutil.pid_exists(held.reached[0]["pid"]), "the stale bundle has ended")
    at_the_end.go()
    manager.end(0)
    assert {one["worker"] for one in placed.reached} <= {worker.process.pid for worker in trial.workers}
    assert sorted(tasks_of(manager.events("complete"))) == sorted(trial.tasks)
    assert [one["worker"] for one in manager.events("complete", year=VICTIM[0], member=VICTIM[1])] == ["south"]
    check(trial)


def test_f07_the_next_manager_goes_on_with_bundles(trial: Trial) -> None:
    """Killed in the middle of two: started again before their lease is over, it adopts what is left of them."""
    trial.describe(run=BUNDLE, cluster={"lease": 20.0})
    held = trial.plan("kernel", "hold", [VICTIM, (2002, 3)], times=2)
    begun = trial.plan("begin", "pass", times=ALWAYS)
    trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.until(lambda: len(held.reached) == 2, "both are in the middle of a bundle")
    manager.kill()
    again = trial.start_manager()
    again.until(lambda: "W" in trial.shown()[2001] and "W" in trial.shown()[2002], "it has them")
    held.go()
    again.end(0)
    assert again.events("lost") == again.events("begun") == []
    assert sorted(tasks_of(begun.reached)) == sorted(trial.tasks)  # each once
    check(trial)


def test_f09_poison_tasks_in_bundles(trial: Trial) -> None:
    """A task that ends its process each time is given up for that; all others are done, none of them blamed."""
    trial.describe(run=BUNDLE | {"memory_limit": 1, "worker_strikes": 100})
    poison = {(2001, 1): "segfault", (2001, 3): "exit", (2001, 4): "memory", (2002, 3): "kill"}
    for task, act in poison.items():
        trial.plan("kernel", act, [task], times=ALWAYS)
    trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.end(1)
    failures = {(one["year"], one["member"]): one["attempts"] for one in manager.events("end")[0]["failures"]}
    assert failures.keys() == poison.keys()
    reasons = {"segfault": "SIGSEGV", "exit": "exit status 3", "memory": "MemoryError", "kill": "SIGKILL"}
    for task, act in poison.items():
        assert len(failures[task]) == 2
        assert all(one["status"] == "failure" and reasons[act] in one["reason"] for one in failures[task])
    assert set(tasks_of(manager.events("failure"))) == poison.keys()
    check(trial, failed=poison)


def test_f11_a_task_that_hangs_in_a_bundle(trial: Trial) -> None:
    """It alone is the timeout; the others of its bundle go out again, and all are done."""
    limit = 2.5
    trial.describe(run=BUNDLE | {"time_limit": limit})
    hangs = trial.plan("kernel", "hang", [VICTIM])
    trial.start_workers("north")
    manager = trial.start_manager()
    manager.end(0)
    assert len(hangs.reached) == 1
    (timeout,) = manager.events("timeout")
    assert tasks_of([timeout]) == [VICTIM]
    assert timeout["seconds"] >= limit
    assert manager.events("failure") == []
    assert set(lost(manager)) <= set(FIRST_YEAR) - {VICTIM}
    check(trial)


@pytest.mark.parametrize("fault", ["ENOSPC", "EROFS"])
def test_f13_a_disk_that_refuses_one_result_of_a_bundle(trial: Trial, fault: str) -> None:
    """That task alone fails; the others of its bundle are done in the same go."""
    trial.describe(run=BUNDLE)
    trial.plan("written", fault, [VICTIM])
    trial.start_workers("north")
    manager = trial.start_manager()
    failed = [VICTIM] if fault == "EROFS" else []
    manager.end(1 if failed else 0)
    assert tasks_of(manager.events("failure")) == [VICTIM]
    assert manager.events("lost") == []
    assert sorted(tasks_of(manager.events("begun", attempt=2))) == ([] if failed else [VICTIM])
    check(trial, failed=failed)
