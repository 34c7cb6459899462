"""Workers that are killed: while they work, just before their result is in its place, and just after."""

from __future__ import annotations

import pytest

from tests.faults.campaigns import Trial, tasks_of
from tests.faults.invariant import check


@pytest.mark.parametrize(
    ("point", "store"),
    [("kernel", "sqlite"), ("written", "sqlite"), ("placed", "sqlite"), ("placed", "json"), ("placed", "zarr")],
)
def test_f01_f02_f03_killed_at_its_task(trial: Trial, point: str, store: str) -> None:
    """Its task goes to another one at once, as a process of this machine is seen to have ended."""
    trial.describe(run={"store": store})
    held = trial.plan(point, "hold", [(2001, 2)])
    north, south = trial.start_workers("north", "south")
    manager = trial.start_manager()
    manager.until(lambda: held.reached, "the task is at the point")
    (victim,) = [worker for worker in (north, south) if worker.process.pid == held.reached[0]["worker"]]
    victim.kill()
    held.go()
    manager.until(lambda: manager.events("lost"), "the task is lost")
    manager.end(0)
    # What is in its place is found there, and need not be done again.
    again = manager.events("found" if point == "placed" else "begun", attempt=2)
    assert tasks_of(again) == [(2001, 2)]
    assert {one["worker"] for one in again} == {north.name, south.name} - {victim.name}
    check(trial)
