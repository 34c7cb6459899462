"""simulate_fleet.py [--tasks N] [--workers N]: what a manager spends on a fleet that takes no time; prints JSON.

Ledger and SQLite store, schedule, manager with its thread for each worker, and the drawing of the board are the real
ones. Simulated are the workers, and with them the time: as soon as every worker waits, the clock leaps to the moment at
which the next one has something to say, or nothing to say for a heartbeat. One speaks at a time, so that the manager
gets no two answers to commit together, which is the most work that so many tasks can make for it.

A task takes 1 to 7 s of that time, and ends well; but of 1000, the first attempt at one fails, that at a second takes
its worker along, and a third worker falls silent, so that the lease has to be waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf
from pathlib import Path
from typing import TextIO

from stormtracks.cluster.backends.base import Backend, Running, Worker
from stormtracks.cluster.board import LiveBoard
from stormtracks.cluster.campaign import open_ledger
from stormtracks.cluster.campaign_store import store_folder
from stormtracks.cluster.errors import BackendError, WorkerEndedError
from stormtracks.cluster.listener import Snapshot, Summary
from stormtracks.cluster.manager import Limits, Manager
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome, PyroTaskSchedule, Rules
from stormtracks.cluster.status import read_status
from stormtracks.settings.campaign import CampaignSettings

MEMBERS = 100
FAILS, ENDS, FALLS_SILENT = range(3)
"""What becomes of the first attempt at three tasks of `ONE_OF`."""
ONE_OF = 1000
AWAY = 30.0
"""Seconds until a worker that is gone is there again."""


class Member:
    """One simulated worker."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.starts = 1
        self.back_at = -inf
        self.attempt: Attempt | None = None
        self.ends_at = inf
        self.wakes = threading.Semaphore(0)

    @property
    def worker(self) -> Worker:
        """As the manager is told of it."""
        incarnation = f"{self.name}-{self.starts}"
        return Worker(self.name, 1, session=incarnation, incarnation=incarnation, host=self.name)


class Fleet(Backend):
    """Workers without processes, and the clock they live by; at least two, of which one is always there."""

    def __init__(self, workers: int, tasks: int) -> None:
        self._members = {name: Member(name) for name in (f"worker{number:04d}" for number in range(workers))}
        self._left = tasks
        self._now = 0.0
        self._lock = threading.Lock()
        self._asleep: list[tuple[float, str]] = []
        self._awake: Member | None = None

    def clock(self) -> float:
        """Seconds since the fleet began."""
        return self._now

    def workers(self) -> tuple[Worker, ...]:
        """Those that are not gone."""
        return tuple(one.worker for one in self._members.values() if one.back_at <= self._now)

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        """Sleep until the attempt has ended, or for a heartbeat."""
        member = self._members[worker]
        if begin:
            ((member.attempt,),) = begin
            member.ends_at = self._now + 1 + fate(member.attempt) % 601 / 100
        self._sleep(member, min(member.ends_at, self._now + wait))
        if member.attempt is None or member.ends_at > self._now:
            return []
        attempt, member.attempt, member.ends_at = member.attempt, None, inf
        what = fate(attempt) % ONE_OF if attempt.number == 1 else None
        if what in (ENDS, FALLS_SILENT):
            self._go(member)
            raise (WorkerEndedError if what == ENDS else BackendError)(f"{worker} is simulated to be gone")
        if what == FAILS:
            return [Outcome(attempt, "failure", error="simulated", seconds=1.0)]
        self._count_down()
        return [Outcome(attempt, "complete", {"tracks": 12, "sha256": f"{fate(attempt):064x}"}, seconds=1.0)]

    def running(self, worker: str) -> tuple[Running, ...]:
        """Nobody asks."""
        return ()

    def close(self) -> None:
        """There is nothing to end."""

    def _sleep(self, member: Member, until: float) -> None:
        """Wait until a moment; the last one to do so moves the clock to the first such moment, and wakes who waits."""
        with self._lock:
            if not self._left:
                return
            heappush(self._asleep, (until, member.name))
            self._pass_on(member)
        member.wakes.acquire()

    def _go(self, member: Member) -> None:
        """Be away for a while."""
        with self._lock:
            member.starts += 1
            member.back_at = self._now + AWAY
            self._pass_on(member)

    def _pass_on(self, member: Member) -> None:
        """Let the next one speak, if it was this one's turn."""
        if self._asleep and self._awake in (member, None):
            self._now, name = heappop(self._asleep)
            self._awake = self._members[name]
            self._awake.wakes.release()

    def _count_down(self) -> None:
        """A task is done; once all are, nobody waits for anything."""
        with self._lock:
            self._left -= 1
            while not self._left and self._asleep:
                self._members[heappop(self._asleep)[1]].wakes.release()


class Watched(LiveBoard):
    """The board of a terminal, but for the terminal; notes how long it was not asked to draw."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.longest_gap = 0.0
        self._asked_at = time.monotonic()

    def begin(self, snapshot: Snapshot) -> None:
        """The campaign begins."""
        super().begin(snapshot)
        self._asked_at = time.monotonic()

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """The board may draw."""
        super().refresh(snapshot)
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - self._asked_at)
        self._asked_at = now


def fate(attempt: Attempt) -> int:
    """A number that looks like one drawn by lot, but is the same each time."""
    return (attempt.year * 7919 + attempt.ensemble_member * 104729 + attempt.number * 1299709) * 2654435761 >> 11


def main() -> None:
    """Create the campaign, drive the fleet through it, and look at what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000, help=f"whole hundreds of them; {MEMBERS} for each year")
    parser.add_argument("--workers", type=int, default=1000, help="at least two")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(simulate(Path(folder), options.tasks // MEMBERS, options.workers)))


def simulate(folder: Path, years: int, workers: int) -> dict[str, float]:
    """What a campaign of so many years takes with so many workers."""
    (folder / "data").mkdir()
    (folder / "data" / "empty.nc").touch()
    campaign = CampaignSettings.model_validate(
        {"name": "bench", "data": {"root": folder / "data"}, "results": {"root": folder / "out"}}
    )
    schedule, began = fresh_schedule(campaign, years), time.perf_counter()
    with open_ledger(campaign, schedule, replace=False, resume="") as ledger:
        created = time.perf_counter()
        with Fleet(workers, len(schedule)) as fleet, Path(os.devnull).open("w") as nowhere:
            board, before = Watched(nowhere), resource.getrusage(resource.RUSAGE_SELF)
            manager = Manager(schedule, fleet, board, record=ledger, limits=limits(campaign), clock=fleet.clock)
            summary = manager.run()
            after, ended = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            simulated = fleet.clock()
    check(summary)
    closed = time.perf_counter()
    with open_ledger(campaign, fresh_schedule(campaign, years), replace=False, resume=""):
        opened, opened_peak = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asked = time.perf_counter()
    document = read_status(campaign.results.root)
    answered = time.perf_counter()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "tasks": document["counts"]["complete"],
        "workers": workers,
        "create_s": created - began,
        "manager_cpu_ms_per_task": 1e3 * cpu / len(schedule),
        "wall_ms_per_task": 1e3 * (ended - created) / len(schedule),
        "wall_s": ended - created,
        "simulated_s": simulated,
        "manager_peak_mib": after.ru_maxrss / 1024,
        "longest_gap_of_the_board_s": board.longest_gap,
        "store_mib": sum(path.stat().st_size for path in store_folder(campaign.results.root).iterdir()) / 2**20,
        "open_again_s": opened - closed,
        "open_again_peak_mib": opened_peak / 1024,
        "status_s": answered - asked,
    }


def fresh_schedule(campaign: CampaignSettings, years: int) -> PyroTaskSchedule:
    """All tasks, outstanding, under the rules of the campaign."""
    rules = Rules(retry_delay=campaign.run.retry_delay, lease=campaign.cluster.given_up_after)
    return PyroTaskSchedule(1, years, MEMBERS, rules=rules)


def limits(campaign: CampaignSettings) -> Limits:
    """Those of a campaign."""
    cluster = campaign.cluster
    silence = cluster.heartbeat + 1.5 * cluster.given_up_after
    return Limits(heartbeat=cluster.heartbeat, silence=silence, patience=cluster.patience)


def check(summary: Summary) -> None:
    """See that all is done."""
    if not summary.ok:
        raise RuntimeError(f"not all tasks are complete: {summary}")


if __name__ == "__main__":
    main()
