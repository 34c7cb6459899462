"""The name server dies and comes back knowing nothing; names outlive those who had them."""

from __future__ import annotations

import re

from stormtracks.cluster.wire.transport import nameserver_answers, parse_address
from tests.faults.campaigns import TASKS, Program, Trial, until
from tests.faults.invariant import check


def start_nameserver(trial: Trial, place: str = "127.0.0.1:0") -> Program:
    """A name server as a process; the campaign's from now on."""
    program = trial.start("nameserver", "stormtracks.cluster.pyro_nameserver", "--listen", place)
    trial.others.append(program)
    program.until(lambda: program.said.endswith("\n"), "it listens")
    (found,) = re.findall(r"^name server at (\S+)$", program.said, re.MULTILINE)
    trial.nameserver = parse_address(found)
    return program


def test_f08_a_name_server_that_forgets(trial: Trial) -> None:
    """Work goes on without it; started again, it hears of all who are there, and of one who came while it was gone."""
    first = start_nameserver(trial)
    assert trial.nameserver is not None
    place = "{}:{}".format(*trial.nameserver)
    trial.describe()
    (north,) = trial.start_workers("north")
    held = trial.plan("begin", "hold", TASKS[1:2])
    manager = trial.start_manager()
    manager.until(lambda: held.reached, "north is at work")
    first.kill()
    until(lambda: not nameserver_answers(trial.nameserver or ("", 0)), "it is gone")
    held.go()
    held = trial.plan("begin", "hold", TASKS[3:4])
    manager.until(lambda: held.reached, "north goes on without it")
    start_nameserver(trial, place)
    north.until(lambda: "north" in trial.registered(), "north registers again")
    trial.start_workers("south")
    manager.until(lambda: manager.events("begun", worker="south"), "a late one is found there")
    held.go()
    manager.end(0)
    assert manager.events("lost") == []
    check(trial)


def test_f08_names_of_the_dead_are_removed(trial: Trial) -> None:
    """A worker that was killed is forgotten by the name server while the campaign goes on."""
    trial.describe()
    held = trial.plan("begin", "hold", times=2)
    north, _ = trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.until(lambda: len(held.reached) == 2, "both are at work")
    north.kill()
    manager.until(lambda: set(trial.registered()) == {"south"}, "its name is removed")
    held.go()
    manager.end(0)
    check(trial)
