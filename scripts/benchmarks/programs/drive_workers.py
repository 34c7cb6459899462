"""drive_workers.py WORKERS TASKS: drive so many workers on this machine through tasks that do nothing; prints JSON.

The schedule, manager, name server, transport and workers are the real ones. The workers are processes without slot
processes: what is begun has ended, so that nothing is measured but the handing out.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from stormtracks.cluster import pyro_worker
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.backends.pyro import PyroBackend
from stormtracks.cluster.listener import Change, Progress, Snapshot, Summary
from stormtracks.cluster.manager import Limits, Manager
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome, PyroTaskSchedule
from stormtracks.cluster.wire.transport import list_names, parse_address
from stormtracks.settings.campaign import CampaignSettings

CAMPAIGN = "bench"
MEMBERS = 100
BOUND = 120.0


class NoOp(LocalBackend):
    """Slots without processes."""

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        """All that is begun has ended; with nothing to begin, it waits as any backend does."""
        if not begin:
            return super().exchange(worker, begin, cancel, wait)
        return [Outcome(attempt, "complete", {"tracks": 1}) for assignment in begin for attempt in assignment]


class Watch:
    """Notes how many threads there are, and how long the board is not asked to draw."""

    def __init__(self) -> None:
        self.threads = 0
        self.longest_gap = 0.0
        self._asked_at = time.monotonic()

    def begin(self, snapshot: Snapshot) -> None:
        """The campaign begins."""
        self._asked_at = time.monotonic()

    def changed(self, change: Change, progress: Progress) -> None:
        """Something happened to a task."""
        self.threads = max(self.threads, threading.active_count())

    def draining(self, running: int) -> None:
        """Nobody stops it."""

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """The board may draw."""
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - self._asked_at)
        self._asked_at = now

    def end(self, snapshot: Snapshot, summary: Summary) -> None:
        """The campaign has ended."""


def main() -> None:
    """Start name server and workers, drive them, and end them."""
    workers, tasks = int(sys.argv[1]), int(sys.argv[2])
    children: list[int] = []
    nameserver = subprocess.Popen(
        [sys.executable, "-m", "stormtracks.cluster.pyro_nameserver", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert nameserver.stdout is not None
        address = parse_address(nameserver.stdout.readline().split()[-1])
        setattr(pyro_worker, "LocalBackend", NoOp)  # noqa: B010 - what the module imports is not its own to mypy
        children.extend(start_worker(f"worker{number:03d}", address) for number in range(workers))
        deadline = time.monotonic() + BOUND
        while len(list_names(address, f"stormtracks.{CAMPAIGN}.")) < workers:
            if time.monotonic() > deadline:
                raise TimeoutError(f"fewer than {workers} workers came within {BOUND:g} s")
            time.sleep(0.1)
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(drive(Path(folder), address, tasks)))
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for pid in children:
            os.waitpid(pid, 0)
        nameserver.terminate()
        nameserver.wait()


def start_worker(name: str, address: tuple[str, int]) -> int:
    """A fork that serves one worker: it shares what is imported, so that hundreds fit into memory."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            pyro_worker.run_worker(pyro_worker.PyroWorker(name, slots=1), CAMPAIGN, address)
            status = 0
        finally:
            os._exit(status)
    return pid


def drive(folder: Path, address: tuple[str, int], tasks: int) -> dict[str, float]:
    """What the manager spends on so many tasks."""
    (folder / "data").mkdir()
    (folder / "data" / "empty.nc").touch()
    campaign = CampaignSettings.model_validate(
        {
            "name": CAMPAIGN,
            "data": {"root": folder / "data"},
            "results": {"root": folder / "out"},
            "cluster": {"nameserver": "{}:{}".format(*address)},
        }
    )
    years = tasks // MEMBERS
    watch = Watch()
    with PyroBackend(campaign, address) as backend:
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        schedule = PyroTaskSchedule(1, years, MEMBERS)
        summary = Manager(schedule, backend, watch, limits=Limits(heartbeat=2.0, silence=45.0, patience=30.0)).run()
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    if not summary.ok:
        raise RuntimeError(f"not all tasks are complete: {summary}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "manager_cpu_ms_per_task": 1e3 * cpu / len(schedule),
        "wall_ms_per_task": 1e3 * wall / len(schedule),
        "manager_peak_mib": after.ru_maxrss / 1024,
        "manager_threads": watch.threads,
        "longest_gap_of_the_board_s": watch.longest_gap,
    }


if __name__ == "__main__":
    main()
