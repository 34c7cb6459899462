"""Disks that are full, faulty or read-only while something is saved, and input that is damaged."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.campaigns import MEMBERS, TASKS, Trial, tasks_of
from tests.faults.invariant import check


@pytest.mark.parametrize(
    ("fault", "words", "attempts"),
    [
        ("ENOSPC", "No space left on device", 2),
        ("EIO", "Input/output error", 2),
        ("EROFS", "Read-only file system", 1),
    ],
)
def test_f13_a_disk_that_refuses_a_result(trial: Trial, fault: str, words: str, attempts: int) -> None:
    """A full or faulty disk may be mended, and the task is tried again; a read-only one will be so the next time."""
    trial.describe()
    trial.plan("written", fault, TASKS[:1], times=2)
    trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.end(1)
    ((failure,),) = [one["failures"] for one in manager.events("end")]
    reasons = [one["reason"] for one in failure["attempts"]]
    assert len(reasons) == attempts
    place = trial.out / "results/vort_track/2001/m001.nc"
    assert all(f"cannot write {place}: {words}" in reason and "remedy: " in reason for reason in reasons)
    check(trial, failed=TASKS[:1])


def test_f13_the_same_command_goes_on_when_the_disk_is_mended(trial: Trial) -> None:
    """A fault that is over by the second attempt costs nothing but that."""
    trial.describe()
    trial.plan("written", "EIO", times=1)
    trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.end(0)
    assert len(manager.events("failure")) == 1
    check(trial)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_f13_a_disk_that_fills_up(trial: Trial, small_disk: Path) -> None:
    """Neither results nor store have room: the manager stops and says why; with room, the same command goes on."""
    trial.out = small_disk / "out"
    trial.out.mkdir()
    trial.describe()
    held = trial.plan("begin", "hold", TASKS[2:3])
    trial.start_workers("north")
    manager = trial.start_manager()
    manager.until(lambda: held.reached, "the worker is at the third task")
    ballast = small_disk / "ballast"
    fill(ballast)
    held.go()
    manager.end(1, 3)
    assert "No space left on device" in manager.said + manager.complained or "disk is full" in manager.complained
    ballast.unlink()
    again = trial.start_manager()
    again.end(0)
    assert set(tasks_of(again.events("complete"))) <= set(TASKS[2:])
    check(trial)


def fill(path: Path) -> None:
    """Leave no room on a disk."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


@pytest.mark.parametrize(("damage", "bundle"), [("truncated", 1), ("corrupt", 1), ("corrupt", len(MEMBERS))])
def test_f13_damaged_input(trial: Trial, damage: str, bundle: int) -> None:
    """The file is named, and not tried twice; all that does not need it is done, and the rest when it is mended."""
    data = trial.folder / "data"
    shutil.copytree(trial.serial.data, data)
    trial.describe(data={"root": str(data)}, run={"bundle": bundle})
    victim = data / "2002" / "u850_2002.nc"
    whole = victim.read_bytes()
    if damage == "truncated":
        victim.write_bytes(whole[: len(whole) // 2])
    else:
        middle = len(whole) // 2
        victim.write_bytes(
            whole[:middle] + bytes(byte ^ 0x55 for byte in whole[middle : middle + 4096]) + whole[middle + 4096 :]
        )
    trial.start_workers("north")
    manager = trial.start_manager()
    manager.end(1)
    failures = manager.events("end")[0]["failures"]
    assert failures
    for failure in failures:
        (only,) = failure["attempts"]
        assert str(victim.relative_to(data)) in only["reason"], only["reason"]
        assert "remedy: " in only["reason"]
    victim.write_bytes(whole)
    again = trial.start_manager()
    again.end(0)
    # What could be done in spite of the damage was made from the damaged file, too, and is done again.
    assert set(tasks_of(again.events("complete"))) == set(trial.tasks)
    check(trial)
