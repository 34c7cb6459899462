"""Tasks that cannot be done, workers that can do none, and tasks that never end."""

from __future__ import annotations

from tests.faults.campaigns import TASKS, Trial, tasks_of
from tests.faults.invariant import check

ALWAYS = 1000


def test_f09_poison_tasks(trial: Trial) -> None:
    """A task that ends its process each time is given up after two workers; all others are done."""
    # Three of them in a row would else be one worker's fault.
    trial.describe(run={"memory_limit": 1, "worker_strikes": 100})
    poison = {(2001, 1): "segfault", (2001, 3): "exit", (2001, 4): "memory", (2002, 3): "kill"}
    for task, act in poison.items():
        trial.plan("kernel", act, [task], times=ALWAYS)
    held = trial.plan("begin", "hold", times=2)
    trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.until(lambda: len(held.reached) == 2, "both are at work")
    held.go()
    manager.end(1)
    failures = {(one["year"], one["member"]): one["attempts"] for one in manager.events("end")[0]["failures"]}
    assert failures.keys() == poison.keys()
    reasons = {"segfault": "SIGSEGV", "exit": "exit status 3", "memory": "MemoryError", "kill": "SIGKILL"}
    for task, act in poison.items():
        assert {one["worker"] for one in failures[task]} == {"north", "south"}
        assert all(one["status"] == "failure" and reasons[act] in one["reason"] for one in failures[task])
    check(trial, failed=poison)


def test_f09_every_task_fails(trial: Trial) -> None:
    """That looks as if the first worker were bad, but the campaign comes to its end, and tells of each task."""
    trial.describe()
    trial.plan("begin", "fail", times=ALWAYS)
    trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.end(1)
    assert trial.shown() == {2001: "FFFF", 2002: "FFFF"}
    check(trial, failed=trial.tasks)


def test_f09_a_task_that_takes_its_worker_along(trial: Trial) -> None:
    """It is given up after `run.max_losses` workers, however many more there are; all others are done."""
    trial.describe(run={"max_losses": 3})
    deadly = trial.plan("begin", "kill worker", TASKS[:1], times=ALWAYS)
    trial.start_workers("w0", "w1", "w2", "w3")
    manager = trial.start_manager()
    manager.end(1)
    assert len({one["worker"] for one in deadly.reached}) == 3
    ((failure,),) = [one["failures"] for one in manager.events("end")]
    assert "lost with its worker 3 times" in failure["attempts"][-1]["reason"]
    check(trial, failed=TASKS[:1])


def test_f10_a_bad_worker(trial: Trial) -> None:
    """A worker on which everything fails gets no more work, and no task is blamed for it."""
    trial.describe()
    trial.plan("begin", "fail", worker="north", times=ALWAYS)
    # So that the other worker is not done before three tasks have failed.
    held = trial.plan("begin", "hold", worker="south")
    trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.until(lambda: len(manager.events("failure", worker="north")) == 3, "three tasks fail")
    held.go()
    manager.end(0)
    assert len(manager.events("failure")) == 3
    assert {one["worker"] for one in manager.events("complete")} == {"south"}
    assert "north" in manager.complained
    check(trial)


def test_f11_a_task_that_hangs(trial: Trial) -> None:
    """It is ended at its time limit with all that it has started, shows T, and is tried again; its worker stays."""
    limit = 2.5
    trial.describe(run={"time_limit": limit})
    trial.plan("kernel", "hang", [TASKS[0]])
    held = trial.plan("begin", "hold", [TASKS[1]])
    trial.start_workers("north")
    manager = trial.start_manager()
    manager.until(lambda: held.reached, "the worker is at the next task")
    (timeout,) = manager.events("timeout")
    assert timeout["seconds"] >= limit
    assert f"time limit of {limit:g} s" in timeout["error"]
    manager.until(lambda: trial.shown()[2001].startswith("T"), "it is shown")
    held.go()
    manager.end(0)
    assert manager.events("lost") == []
    assert TASKS[0] in tasks_of(manager.events("begun", attempt=2))
    check(trial)
