"""The wall clock is wrong, and another each time: it decides nothing."""

from __future__ import annotations

import time

from stormtracks.cluster.campaign_store import find_store
from tests.faults.campaigns import Trial, until
from tests.faults.invariant import check


def test_f14_a_clock_that_jumps_an_hour(trial: Trial) -> None:
    """Of manager and worker: no lease ends, no task is given up, no result is taken for another."""
    trial.describe()
    lease = 1.5
    held = trial.plan("kernel", "hold", times=2)
    begun = trial.plan("begin", "pass", times=100)
    trial.start_workers("north", "south", jumping=True)
    manager = trial.start_manager(jumping=True)
    manager.until(lambda: len(held.reached) == 2, "both are at work")
    over = time.monotonic() + 2 * lease
    until(lambda: time.monotonic() > over, "two leases have passed")
    held.go()
    manager.end(0)
    assert manager.events("lost") == []
    assert len(begun.reached) == len(trial.tasks)  # each once
    # The dates on record are wrong ones, so that it was this clock that was asked, and an aware one.
    with find_store(trial.out) as store:
        attempts = [
            attempt
            for element in store.get_task_elements(0, 0, slice(None))
            for iteration in element["iterations"]
            for attempt in iteration["EARs"]
        ]
    assert any(abs(attempt["start"].timestamp() - time.time()) > 1800 for attempt in attempts)
    again = trial.start_manager(jumping=True)
    again.end(0)
    assert again.events("begun") == []
    check(trial)
