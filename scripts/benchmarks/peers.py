"""Figures beside PyStormTracker, which finds and links the same centres in the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, centres_per_step, sizes
from benchmarks.inputs import quarter_degree
from benchmarks.measure import Process, hold_contest, run_process, spread_of, times_as_fast

__all__ = ["linking", "pressure_beside_peer", "vorticity_beside_peer"]

PEER = "PyStormTracker"


def pressure_beside_peer(bench: Bench) -> dict[str, Any]:
    """The same series as of `pressure`, beside PyStormTracker's `simple` tracker."""
    return _beside_peer(bench, "prmsl", 4 if bench.quick else 120, ["--mode", "min"], ["--method", "nearest"])


def vorticity_beside_peer(bench: Bench) -> dict[str, Any]:
    """Maxima of vorticity above 1e-5 s-1, its default; four steps, as PyStormTracker needs seconds for each."""
    threshold = ["--threshold", "1e-5"]
    return _beside_peer(
        bench, "vo850", 2 if bench.quick else 4, ["--mode", "max", *threshold], [*threshold, "--method", "nearest"]
    )


def linking(bench: Bench) -> dict[str, Any]:
    """Linking alone: 100,000 centres over 120 steps, twice and four times as many."""
    centres, steps = ("5000", "30") if bench.quick else ("100000", "120")
    runs = [bench.values("measure_linking.py", centres, steps) for _ in range(bench.few_rounds)]
    missing = {run.pop("missing") for run in runs if "missing" in run}
    values = {name: spread_of([run[name] for run in runs]) for name in runs[0]}
    for times in (2, 4):
        growth = [run[f"nearest_{times}x_s"] / run["nearest_1x_s"] for run in runs]
        values[f"nearest: {times} times as many takes times as long"] = spread_of(growth)
    if not missing:
        values["times as fast as PyStormTracker"] = spread_of(
            [run["pystormtracker_1x_s"] / run["nearest_1x_s"] for run in runs]
        )
    return {"centres": int(centres), "steps": int(steps), "missing": sorted(missing), "values": values}


def _beside_peer(bench: Bench, variable: str, steps: int, theirs: list[str], ours: list[str]) -> dict[str, Any]:
    bench.require("pystormtracker", PEER)
    path = quarter_degree(bench.environment, bench.cache, bench.data, variable, steps)
    peer = _peer(bench, path, variable, theirs)
    # Compiles what is compiled when it is first used; kept from then on.
    run_process([*peer.command, "--num", "2"])
    contest = hold_contest(peer, [bench.track("track, nearest", path, "--variable", variable, *ours)], bench.few_rounds)
    return {"input": sizes(path), **times_as_fast(centres_per_step(contest))}


def _peer(bench: Bench, path: Path, variable: str, options: list[str]) -> Process:
    command = str(bench.environment.python.with_name("stormtracker"))
    words = ["-i", str(path), "-v", variable, *options, "-o", "tracks.txt"]
    shown = " ".join([PEER, *words]).replace(str(path), path.name)
    return Process(PEER, (command, *words), shown, bench.statement("import pystormtracker.cli")).on(1)
