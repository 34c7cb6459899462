"""Managers that are killed: at every record that they commit, and in the middle of their work."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest

from tests.faults.campaigns import Program, Serial, Trial, tasks_of
from tests.faults.invariant import check
from tests.faults.nursery import Nursery

FEW = [(2001, 1), (2001, 2), (2002, 1), (2002, 2)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("store", "step"), [("sqlite", 1), ("json", 4), ("zarr", 4)])
def test_f07_killed_at_every_commit(
    tmp_path: Path, serial: Serial, nursery: Nursery, store: str, step: int, when: str
) -> None:
    """The same command again finishes the campaign, whatever was on record."""
    number, killed = 1, True
    while killed:
        with Trial(tmp_path / str(number), serial, nursery, FEW) as trial:
            killed = run_and_kill(trial, store, f"{when}:{number}")
        number += step
    assert number > len(FEW)  # each task takes one commit at least


def run_and_kill(trial: Trial, store: str, kill: str) -> bool:
    """A campaign whose manager is killed at a commit, if it comes to that; whether it did."""
    trial.listen()
    trial.describe(run={"store": store, "workers": 1})
    trial.start_workers("north", function="publish_again")
    manager = trial.start_manager(module="tests.faults.managers", fork=True, FAULTS_KILL=kill)
    killed = manager.end(0, -signal.SIGKILL) != 0
    if killed:
        shown = told_complete(manager)
        again = trial.start_manager(fork=True)
        again.end(0)
        # What was shown as complete is not done again.
        assert not shown & set(tasks_of(again.events("begun")))
    check(trial)
    return killed


def told_complete(manager: Program) -> set[tuple[int, int]]:
    """Tasks that a manager has shown as complete."""
    return set(tasks_of(manager.events("complete"))) | set(tasks_of(manager.events("found")))


def test_f07_the_next_manager_goes_on_with_what_runs(trial: Trial) -> None:
    """Killed while both its workers are at work: started again before their lease is over, it adopts their attempts."""
    trial.describe(cluster={"lease": 20.0})
    held = trial.plan("kernel", "hold", times=2)
    begun = trial.plan("begin", "pass", times=100)
    trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.until(lambda: len(held.reached) == 2, "both are at work")
    manager.kill()
    again = trial.start_manager()
    again.until(lambda: len(again.events("begun")) == 0 and trial.shown()[2001].count("W") == 2, "it has them")
    held.go()
    again.end(0)
    assert again.events("lost") == []
    assert len(begun.reached) == len(trial.tasks)  # each once
    check(trial)


def test_f07_stormtracks_run_is_killed_with_all_that_it_brought(trial: Trial) -> None:
    """Its worker and name server die with it; the same command again does what is left."""
    trial.nameserver = None
    trial.describe()
    manager = trial.start_run("--workers", "2")
    manager.until(lambda: manager.events("complete")[1:], "some tasks are done")
    manager.kill()
    again = trial.start_run("--workers", "2")
    again.end(0)
    done = set(tasks_of(manager.events("complete")))
    assert not done & set(tasks_of(again.events("begun")))
    check(trial)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(trial: Trial, number: signal.Signals) -> None:
    """What runs is waited for, and nothing more handed out; the same command goes on."""
    trial.describe()
    held = trial.plan("kernel", "hold", times=2)
    trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.until(lambda: len(held.reached) == 2, "both are at work")
    manager.send(number)
    manager.until(lambda: manager.events("draining"), "it says what it waits for")
    held.go()
    manager.end(130)
    assert manager.events("draining")[0]["running"] == 2
    assert manager.events("end")[0]["interrupted"]
    assert manager.events("lost") == []
    assert sorted(tasks_of(manager.events("complete"))) == sorted(tasks_of(manager.events("begun")))
    assert len(manager.events("begun")) == 2
    trial.start_manager().end(0)
    check(trial)


def test_a_second_signal_does_not_wait(trial: Trial) -> None:
    """Its worker is frozen and cannot end its task; thawed, it finds out that it works for nobody."""
    trial.describe()
    held = trial.plan("kernel", "hold")
    (north,) = trial.start_workers("north")
    manager = trial.start_manager()
    manager.until(lambda: held.reached, "it is at work")
    north.send(signal.SIGSTOP)
    manager.send(signal.SIGINT)
    # Two signals that come close together may melt into one.
    manager.until(lambda: manager.events("draining"), "it waits")
    manager.send(signal.SIGINT)
    manager.end(130)
    north.send(signal.SIGCONT)
    held.go()
    trial.start_manager().end(0)
    check(trial)


def test_f14_a_second_manager_is_refused(trial: Trial) -> None:
    """It is told who holds the campaign, and harms nothing; when that one is killed, it may begin at once."""
    trial.describe()
    held = trial.plan("kernel", "hold", times=2)
    trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.until(lambda: len(held.reached) == 2, "both are at work")
    second = trial.start_manager()
    second.end(2)
    assert re.search(rf"process {manager.process.pid} on {socket.gethostname()}, since \d{{4}}-", second.complained)
    assert manager.runs
    manager.kill()
    third = trial.start_manager()
    held.go()
    third.end(0)
    check(trial)
