"""measure_start.py: seconds from the start of a worker's process until it takes its first task; prints JSON.

Manager and name server are there already; the worker is a process of its own, which registers, is greeted, opens a
session, starts the process of its one slot, and lets that begin with the task. The task imports all that a real one
does and tells the time; the clock is the machine's, the same in all processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stormtracks.cluster.backends.pyro import PyroBackend
from stormtracks.cluster.pyro_task import Attempt
from stormtracks.cluster.wire.transport import start_nameserver
from stormtracks.settings.campaign import CampaignSettings

BOUND = 20.0


def main() -> None:
    """Start a worker, hand it a task, and tell what it took."""
    with tempfile.TemporaryDirectory() as name, start_nameserver(("127.0.0.1", 0)) as nameserver:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "data" / "empty.nc").touch()
        (folder / "out").mkdir()
        campaign = CampaignSettings.model_validate(
            {"name": "bench", "data": {"root": folder / "data"}, "results": {"root": folder / "out"}}
        )
        with PyroBackend(campaign, nameserver.address) as backend:
            print(json.dumps(measure(backend, "{}:{}".format(*nameserver.address))))


def measure(backend: PyroBackend, nameserver: str) -> dict[str, float]:
    """Seconds until the worker is there, until its first task begins, and until the outcome of that is known."""
    began = time.monotonic()
    worker = subprocess.Popen([sys.executable, str(Path(__file__).with_name("serve_first_task.py")), nameserver])
    try:
        while not backend.workers():
            if time.monotonic() - began > BOUND:
                raise TimeoutError(f"no worker came within {BOUND:g} s: {backend.troubles()}")
            time.sleep(0.001)
        there = time.monotonic() - began
        (host,) = backend.workers()
        outcomes = backend.exchange(host.name, [(Attempt(1, 1, 1, "vort_track"),)], [], BOUND)
        while not outcomes and time.monotonic() - began < BOUND:
            outcomes = backend.exchange(host.name, [], [], 1.0)
        ended = time.monotonic() - began
        (outcome,) = outcomes
        if outcome.status != "complete":
            raise RuntimeError(f"the first task did not complete: {outcome}")
        return {
            "worker_at_hand_s": there,
            "first_task_begins_s": float(outcome.result["now"]) - began,
            "its_outcome_known_s": ended,
        }
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main()
