"""Campaigns under fire: the schedule and the leases in a modelled cluster where everything fails that can fail.

Each seed is one campaign in virtual time. What must hold is checked as it goes on (`World.check_holders`, `World.work`)
and at the end (`World.run`): no two attempts hold the lease of a task at the same moment; each task is published once,
by an attempt that held its lease when it asked; none is given up but for its own fault; and all ends in time. Tasks of
a year travel together, up to as many as is drawn for each campaign.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

import pytest

from stormtracks.cluster.lease import Lease
from stormtracks.cluster.pyro_task import Attempt, PyroTaskSchedule
from stormtracks.cluster.schedule.assignments import Key
from stormtracks.cluster.schedule.bundles import gather
from stormtracks.cluster.schedule.holders import Holder
from tests.cluster.schedule.model_cluster import World
from tests.cluster.schedule.model_processes import LEASE, Broken, Design

SEEDS = 1000
BLOCK = 250


@pytest.fixture(autouse=True)
def without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("stormtracks.cluster.pyro_task"), "disabled", True)


def run(seeds: Iterable[int], design: Design) -> Counter[str]:
    """Run one campaign for each seed; what was met on the way."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        world = World(seed, design)
        try:
            world.run()
        except Broken as error:
            error.add_note(f"seed {seed} of {design}")
            raise
        seen += world.seen
    return seen


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_nothing_is_lost_and_nothing_done_twice(first: int) -> None:
    seen = run(range(first, first + BLOCK), Design())
    # It is all for nothing if the trouble does not come.
    for trouble in (
        "killed at a commit",
        "adopted",
        "stale",
        "lease over",
        "not published",
        "completed late",
        "forgiven",
        "given up, as it cannot be done",
        "given up, as it crashes its worker",
        "given up, as it crashes its child",
        "bundles",
        "lost with its bundle",
        "failure with its bundle",
        "given up, as it hangs",
        "given up, as it fails",
    ):
        assert seen[trouble] > 0, f"{trouble}: {seen}"
    assert seen["starts"] > 2 * BLOCK
    # A bad worker that is alone, or has failed too little to be known for it, is rare.
    assert seen["excused"] < BLOCK / 10


class RenewedByArrival(Lease):
    """Runs from when a call comes, rather than from the answer that the manager is known to have had."""

    def called(self, number: int, now: float) -> None:
        if self.left(now) > 0:
            self._since = now


class RenewedByOpening(Lease):
    """Runs from when a session is opened, though the manager may never hear that it was."""

    def reopened(self, seconds: float, now: float) -> None:
        self._since = now
        super().reopened(seconds, now)


class TrustsAnyAnswer(PyroTaskSchedule):
    """Takes what an earlier attempt says for the word of the current one."""

    def _latest(self, attempt: Attempt) -> int | None:
        return self._index(attempt.year, attempt.ensemble_member)


class NeverWaits(PyroTaskSchedule):
    """Takes a worker that does not answer for one that has ended."""

    def leave(self, incarnation: str, *, now: float, ended: bool, reason: str = "") -> tuple[Attempt, ...]:
        return super().leave(incarnation, now=now, ended=True, reason=reason)


class NeverForgives(PyroTaskSchedule):
    """Puts a bad worker in quarantine, but lets its tasks pay for it."""

    def _quarantine(self, holder: Holder, now: float) -> None:
        self._strikes.quarantined[holder.worker] = holder.incarnation, "bad"


class CountsAttempts(PyroTaskSchedule):
    """Takes every task for an assignment of its own."""

    def _hold(self, index: int, holder: Holder, assignment: Key) -> None:
        super()._hold(index, holder, self._assignments.new(holder.incarnation))


class NeverAlone(PyroTaskSchedule):
    """Lets what breaks its workers travel with others."""

    def _put_back(self, index: int) -> None:
        super()._put_back(index)
        self._waiting.remove(index)
        self._waiting.add_lost(index, "", suspect=False)

    def _bundle(self, first: int, rest: Iterable[int], most: float) -> list[int]:
        return gather(first, rest, self.largest_bundle, lambda index: self.largest_bundle)


@pytest.mark.parametrize(
    ("design", "broken"),
    [
        (Design(given_up_after=LEASE), "hold the lease"),
        (Design(lease=RenewedByArrival), "hold the lease"),
        (Design(lease=RenewedByOpening), "hold the lease"),
        (Design(schedule=TrustsAnyAnswer), "is believed"),
        (Design(schedule=NeverWaits), "hold the lease"),
        (Design(keeps_what_is_held=False), "hold the lease"),
        (Design(numbers_sessions=False), "hold the lease"),
        (Design(numbers_calls=False), "publishes|hold the lease|not done"),
        (Design(commits_first=False), "publishes|hold the lease"),
        (Design(asks_before_publishing=False), "hold the lease"),
        (Design(schedule=NeverForgives), "but blamed"),
        (Design(worker_strikes=10**9), "but blamed"),
        (Design(schedule=CountsAttempts), "free slots"),
        (Design(schedule=NeverAlone), "is not alone"),
    ],
    ids=[
        "no grace",
        "lease renewed by arrival",
        "lease renewed by opening",
        "stale answers taken",
        "silence taken for the end",
        "held attempts forgotten at a restart",
        "late sessions taken",
        "late calls taken",
        "handed out before it is committed",
        "published without asking",
        "bad workers not forgiven",
        "bad workers not found",
        "a slot for each task of a bundle",
        "suspects among others",
    ],
)
def test_a_design_with_a_part_missing_is_found_out(design: Design, broken: str) -> None:
    with pytest.raises(Broken, match=broken):
        run(range(SEEDS), design)
