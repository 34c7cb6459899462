"""A simulated fleet comes to the end of its campaign; how long that takes is for the benchmark to tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[1] / "scripts" / "benchmarks" / "programs" / "simulate_fleet.py"


def test_every_task_of_a_simulated_fleet_is_done_in_simulated_time() -> None:
    command = [sys.executable, PROGRAM, "--tasks", "2000", "--workers", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    figures = json.loads(done.stdout)
    assert (figures["tasks"], figures["workers"]) == (2000, 20)
    # 100 tasks of 1 to 7 s for each worker, and the lease of those that fall silent.
    assert 300 < figures["simulated_s"] < 700
    assert all(value > 0 for value in figures.values())
    # Workers are lost on the way, in both ways; with them 2000 tasks would be too many for so much luck.
    assert "WorkerEndedError" in done.stderr and "BackendError" in done.stderr
