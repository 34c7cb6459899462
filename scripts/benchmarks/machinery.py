"""Figures of what hands out tasks: the manager, its record, and others of their kind."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.bench import Bench
from benchmarks.measure import spread_of

__all__ = ["dispatch", "fleet", "overhead", "store"]

WAYS = {
    "stormtracks": "stormtracks",
    "stormtracks-tls": "stormtracks over TLS",
    "pool": "ProcessPoolExecutor",
    "distributed": "distributed",
}
"""Ways to hand out tasks: what `measure_overhead.py` calls them, and what reports do."""


def fleet(bench: Bench) -> dict[str, Any]:
    """A simulated fleet: real schedule, record, manager and board; workers that take no time."""
    workers, tasks = ("10", "1000") if bench.quick else ("1000", "1000000")
    run = bench.values("simulate_fleet.py", "--tasks", tasks, "--workers", workers)
    numbers = {name: float(value) for name, value in run.items() if isinstance(value, (int, float))}
    return {"workers": int(workers), "tasks": int(tasks), "values": {k: spread_of([v]) for k, v in numbers.items()}}


def dispatch(bench: Bench) -> dict[str, Any]:
    """What the manager spends on 100 workers and 20,000 tasks that do nothing, over Pyro5 on one machine."""
    workers, tasks = ("10", "1000") if bench.quick else ("100", "20000")
    runs = [bench.values("drive_workers.py", workers, tasks) for _ in range(bench.few_rounds)]
    return {
        "workers": int(workers),
        "tasks": int(tasks),
        "values": {name: spread_of([run[name] for run in runs]) for name in runs[0]},
    }


def overhead(bench: Bench) -> dict[str, Any]:
    """What handing out a task that does nothing takes, to two processes of this machine, in four ways in turn."""
    tasks = "200" if bench.quick else "2000"
    rounds = bench.few_rounds
    values: dict[str, list[float]] = {}
    missing: dict[str, None] = {}
    for turn in range(1, rounds + 1):
        walls: dict[str, float] = {}
        for way, shown in WAYS.items():
            run = bench.values("measure_overhead.py", way, tasks)
            if "missing" in run:
                missing[run["missing"]] = None
                continue
            for name, value in run.items():
                values.setdefault(f"{shown}: {name}", []).append(value)
            walls[way] = run["wall_ms_per_task"]
            print(f"  round {turn} of {rounds}: {shown}: {walls[way]:.2f} ms a task", file=sys.stderr)
        if "distributed" in walls:
            for way in ("stormtracks", "stormtracks-tls"):
                ratio = walls[way] / walls["distributed"]
                values.setdefault(f"{WAYS[way]}: wall / distributed's", []).append(ratio)
    return {
        "tasks": int(tasks),
        "missing": list(missing),
        "values": {name: spread_of(found) for name, found in values.items()},
    }


def store(bench: Bench) -> dict[str, Any]:
    """The campaign stores: creation in one commit, begin and end of an attempt, board, reading all."""
    tasks, few = ("2000", "56") if bench.quick else ("100000", "728")
    runs = [bench.values("measure_store.py", tasks, few) for _ in range(bench.few_rounds)]
    return {
        "tasks_in_sqlite": int(tasks),
        "tasks_in_others": int(few),
        "values": {name: spread_of([run[name] for run in runs]) for name in runs[0]},
    }
