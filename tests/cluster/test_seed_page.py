"""What the published page of the seed's cluster mode promises: modules, functions, parameters and strings.

The page calls the package `stormtracks.pyro_cluster`; here it is `stormtracks.cluster`.
"""

from __future__ import annotations

import inspect
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest

from stormtracks.cluster.pyro_task import GLYPHS, STATUSES, PyroTask, PyroTaskSchedule
from stormtracks.cluster.pyro_worker import PyroWorker

ROOT = Path(__file__).parents[2]
COMMANDS = ("pyro_nameserver", "pyro_starter", "pyro_manager", "pyro_ender", "pyro_worker")


@pytest.mark.parametrize("name", COMMANDS)
def test_main_of_each_module_needs_no_argument_and_is_a_command(name: str) -> None:
    main = import_module(f"stormtracks.cluster.{name}").main
    inspect.signature(main).bind()
    packaging = ConfigParser()
    packaging.read(ROOT / "setup.cfg", encoding="utf-8")
    assert f"{name} = stormtracks.cluster.{name}:main" in packaging["options.entry_points"]["console_scripts"]


def test_the_worker_does_work() -> None:
    assert list(inspect.signature(PyroWorker.do_work).parameters) == ["self", "year", "ensemble_member", "task"]
    found = PyroWorker("gale").do_work(2000, 3, "vort_track")
    assert isinstance(found, dict)
    assert (found["year"], found["ensemble_member"], found["task"]) == (2000, 3, "vort_track")
    for line in ("year to analyse", "ensemble member to analyse", "currently must be ``vort_track``"):
        assert line in str(PyroWorker.do_work.__doc__).lower()


def test_a_task() -> None:
    assert list(inspect.signature(PyroTask).parameters) == ["year", "ensemble_member", "task"]
    task = PyroTask(2000, 3, "vort_track")
    assert (task.year, task.ensemble_member, task.task) == (2000, 3, "vort_track")
    assert task.status in STATUSES


def test_the_schedule() -> None:
    parameters = list(inspect.signature(PyroTaskSchedule).parameters.values())[:3]
    assert [(one.name, one.default) for one in parameters] == [
        ("start_year", 2000),
        ("end_year", 2012),
        ("num_ensemble_members", 56),
    ]
    assert (len(PyroTaskSchedule()), PyroTaskSchedule().years[-1]) == (13 * 56, 2012)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("get_next_outstanding", []),
        ("get_progress", [("years", None), ("include_year", False)]),
        ("get_progress_for_year", [("year", inspect.Parameter.empty), ("include_year", True)]),
        ("print_years", [("years", None), ("include_year", True)]),
    ],
)
def test_methods_of_the_schedule(name: str, parameters: list[tuple[str, object]]) -> None:
    found = list(inspect.signature(getattr(PyroTaskSchedule, name)).parameters.values())[1:]
    assert [(one.name, one.default) for one in found] == parameters


def test_the_next_outstanding_task_is_none_when_there_are_no_more() -> None:
    schedule = PyroTaskSchedule(2000, 2000, 1)
    task = schedule.get_next_outstanding()
    assert task is not None
    task.status = "complete"
    assert schedule.get_next_outstanding() is None


def test_the_signs_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    signs = {"outstanding": "-", "working": "W", "complete": "+", "failure": "F", "timeout": "T"}
    assert dict(GLYPHS) == signs
    schedule = PyroTaskSchedule(2000, 2001, 5)
    for task, status in zip(schedule, signs, strict=False):
        task.status = status
    assert schedule.get_progress_for_year(2000) == "2000: -W+FT"
    assert schedule.get_progress_for_year(2000, include_year=False) == "-W+FT"
    assert schedule.get_progress() == "-W+FT\n-----\n"
    assert schedule.get_progress([2001], include_year=True) == "2001: -----\n"
    schedule.print_years()
    assert capsys.readouterr().out == "2000: -W+FT\n2001: -----\n"
