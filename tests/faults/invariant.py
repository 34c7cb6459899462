"""What must hold after every fault: each task published once, as a serial run would, and nothing left behind."""

from __future__ import annotations

import hashlib
import operator
import re
import signal
from collections.abc import Collection
from pathlib import Path

from stormtracks.cluster.campaign_store import find_store
from tests.faults.campaigns import Program, Trial, descriptors_and_threads, results_in, until

__all__ = ["at_most", "check", "check_nothing_left", "check_published"]

_OURS = re.compile(
    r"results/vort_track/(\d{4}/m\d{3}\.nc|settings\.json)|campaign/.+|inputs/.+\.json|manager\.lock|status\.json"
)
"""What may lie below a results root when a campaign is over."""


def check(trial: Trial, *, failed: Collection[tuple[int, int]] = (), status: int | None = None) -> None:
    """End what takes part in a campaign that is over, and see that it has kept its promises.

    Parameters
    ----------
    trial : Trial
        Its managers have ended; workers may still be there.
    failed : collection of (int, int)
        Year and member of the tasks that cannot be done.
    status : int, optional
        How the last manager must have ended; what follows from `failed`, if not given.
    """
    _check_managers(trial, failed, status)
    check_published(trial, failed=failed)
    check_nothing_left(trial)
    _check_store(trial, failed)


def _check_managers(trial: Trial, failed: Collection[tuple[int, int]], status: int | None) -> None:
    """None runs any more, and the last one has told the truth: in its exit status, and in its last words."""
    assert not [program for program in trial.managers if program.runs]
    last = trial.managers[-1]
    last.end(status if status is not None else 1 if failed else 0)
    told = last.events("end")[-1]
    assert told["total"] == len(trial.tasks), last.told
    assert told["counts"]["complete"] == len(trial.tasks) - len(failed), last.told
    assert {(one["year"], one["member"]) for one in told["failures"]} == set(failed), last.told


def check_published(trial: Trial, *, failed: Collection[tuple[int, int]] = ()) -> None:
    """Each task's file is that of the serial run, byte for byte, and no other file lies there."""
    out, serial = trial.out, trial.serial.results
    wanted = {f"results/vort_track/{year}/m{member:03d}.nc" for year, member in set(trial.tasks) - set(failed)}
    found = results_in(out)
    assert sorted(found) == sorted(wanted)
    assert [name for name, data in found.items() if data != serial[name]] == []
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    assert {name for name in files if not _OURS.fullmatch(name)} == set()
    assert {name for name in files if Path(name).name.startswith(".") or name.endswith((".tmp", ".part"))} == set()


def check_nothing_left(trial: Trial) -> None:
    """No process, and with it no socket; no temporary file, name, descriptor or thread."""
    for program in trial.workers:
        _wait_for_rest(program)
        program.send(signal.SIGTERM)
        program.end(0, -signal.SIGKILL)
    if trial.nameserver is not None:
        assert trial.registered().items() - trial.wired.items() == set()
    for program in [other for other in trial.others if other.runs]:
        program.send(signal.SIGTERM)
        program.end(0)
    trial.close()
    until(lambda: not trial.processes(), lambda: f"all processes end: {trial.processes()}")
    assert list(trial.tmp.iterdir()) == []
    until(lambda: at_most(descriptors_and_threads(), trial.before), "this process closes what it has opened")


def _check_store(trial: Trial, failed: Collection[tuple[int, int]]) -> None:
    """Each task is in the store once, with no attempt left open and its result, which is the file's, set once."""
    with find_store(trial.out) as store:
        assert [task["name"] for task in store.get_all_tasks_metadata()] == ["vort_track"]
        elements = store.get_task_elements(0, 0, slice(None))
        found = {(one["year"], one["member"]): one["iterations"] for one in elements if not one["retired"]}
        assert sorted(found) == sorted(trial.tasks)
        for task, iterations in found.items():
            attempts = [attempt for iteration in iterations for attempt in iteration["EARs"]]
            assert [one for one in attempts if one["status"] is None or one["end"] is None] == [], task
            numbers = [one["number"] for one in attempts]
            assert numbers == sorted(set(numbers)), task
            for iteration in iterations:
                # None, if the file of an attempt that was lost was found in its place.
                assert [one["status"] for one in iteration["EARs"]].count("complete") <= 1, task
            is_set, result = store.get_parameter_data(iterations[-1]["parameter"])
            assert is_set == (task not in failed), task
            if is_set:
                path = trial.out / f"results/vort_track/{task[0]}/m{task[1]:03d}.nc"
                assert result["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest(), task


def _wait_for_rest(worker: Program) -> None:
    """See that a worker has closed all that it had opened, and ended all threads."""
    pid = worker.process.pid
    until(
        lambda: at_most(descriptors_and_threads(pid), worker.at_first),
        lambda: f"{worker.name} has {descriptors_and_threads(pid)} and had {worker.at_first}\n{worker.told}",
    )


def at_most(now: tuple[int, int], before: tuple[int, int]) -> bool:
    """Whether there are no more descriptors and no more threads than before."""
    return all(map(operator.le, now, before))
