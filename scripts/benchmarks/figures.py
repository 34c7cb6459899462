"""What is measured. A figure is a function of a `Bench` that gives plain values; `FIGURES` has them all by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import Environment
from benchmarks.inputs import PROGRAMS, member_year, quarter_degree, run_program
from benchmarks.measure import Process, hold_contest, spread_of

__all__ = ["FIGURES", "Bench"]

METHODS = ("nearest", "assignment")
WAYS = {
    "stormtracks": "stormtracks",
    "stormtracks-tls": "stormtracks over TLS",
    "pool": "ProcessPoolExecutor",
    "distributed": "distributed",
}
"""Ways to hand out tasks: what `measure_overhead.py` calls them, and what reports do."""


@dataclass(frozen=True)
class Bench:
    """What the figures depend on.

    Parameters
    ----------
    environment : Environment
        What is measured.
    cache : pathlib.Path
        Folder where input is kept.
    data : pathlib.Path
        Folder of the 2.5 degree series from which the 0.25 degree series are made.
    rounds : int
        How often each process runs.
    quick : bool
        Whether to measure on short input.
    """

    environment: Environment
    cache: Path
    data: Path
    rounds: int
    quick: bool

    @property
    def days(self) -> int:
        """Length of the member-year."""
        return 30 if self.quick else 365

    @property
    def steps(self) -> int:
        """Length of the 0.25 degree series."""
        return 8 if self.quick else 120

    def program(self, name: str, *arguments: str) -> tuple[str, ...]:
        """The command that runs one of the programs."""
        return str(self.environment.python), str(PROGRAMS / name), *arguments

    def statement(self, statement: str) -> Process:
        """Python runs one statement."""
        return Process(statement, (str(self.environment.python), "-c", statement), f"python -c '{statement}'")

    def stormtracks(self, name: str, *arguments: str | Path, start: Process | None = None) -> Process:
        """The command that users type; input files are shown without their folders."""
        shown = [word.name if isinstance(word, Path) else word for word in arguments]
        command = (str(self.environment.stormtracks), *map(str, arguments))
        return Process(name, command, " ".join(["stormtracks", *shown]), start)

    @property
    def imports(self) -> Process:
        """All that `stormtracks track` imports, and no more."""
        name = "imports of stormtracks track"
        return Process(name, self.program("import_track.py"), name)

    def reading(self, variables: dict[str, Path]) -> Process:
        """The reference: netCDF4-python reads each variable from its file, and that is all."""
        words = [word for name, path in variables.items() for word in (name, str(path))]
        return Process(
            "reading",
            self.program("read_variables.py", *words),
            f"netCDF4-python reads {', '.join(variables)}",
            self.statement("import netCDF4"),
        )


def start_up(bench: Bench) -> dict[str, Any]:
    """How long it takes until work can begin."""
    ours = [
        bench.statement("import numpy"),
        bench.statement("import netCDF4"),
        bench.stormtracks("stormtracks --help", "--help"),
        bench.imports,
    ]
    return hold_contest(bench.statement("pass"), ours, bench.rounds)


def one_member_year(bench: Bench) -> dict[str, Any]:
    """Vorticity of one member-year of 20CR's shape: `track`, and `run` with one worker."""
    root = member_year(bench.environment, bench.cache, bench.days)
    files = {name: root / "2001" / f"{name}.2001_mem001.nc" for name in ("UGRD850", "VGRD850")}
    campaign = root / "campaign.toml"
    campaign.write_text(
        f'years = 2001\nmembers = 1\n\n[data]\nlayout = "c20v3"\nroot = {json.dumps(str(root))}\n', encoding="utf-8"
    )
    track = [
        bench.stormtracks(
            f"track, {method}", "track", *files.values(), "--wind", "u850,v850", "--method", method, start=bench.imports
        )
        for method in METHODS
    ]
    run = bench.stormtracks("run", "run", campaign, "--out", "results", "--workers", "1", "--quiet")
    result = hold_contest(bench.reading(files), [*track, run], bench.rounds)
    return {"input": _sizes(files), **result}


def pressure_minima(bench: Bench) -> dict[str, Any]:
    """Pressure at 0.25 degrees, all minima."""
    return _quarter_degree(bench, "prmsl", {method: ["--method", method] for method in METHODS})


def vorticity_maxima(bench: Bench) -> dict[str, Any]:
    """Vorticity at 0.25 degrees: maxima above 1e-4 s-1, and all."""
    options = {f"{method}, above 1e-4": ["--threshold", "1e-4", "--method", method] for method in METHODS}
    # The best links of this many centres take longer than anybody waits.
    return _quarter_degree(bench, "vo850", options | {"nearest, all": ["--threshold", "none", "--method", "nearest"]})


def dispatch(bench: Bench) -> dict[str, Any]:
    """What the manager spends on 100 workers and 20,000 tasks that do nothing, over Pyro5 on one machine."""
    workers, tasks = ("10", "1000") if bench.quick else ("100", "20000")
    runs = [
        json.loads(run_program(bench.environment, "drive_workers.py", workers, tasks))
        for _ in range(max(bench.rounds // 2, 1))
    ]
    return {
        "workers": int(workers),
        "tasks": int(tasks),
        "values": {name: spread_of([run[name] for run in runs]) for name in runs[0]},
    }


def overhead(bench: Bench) -> dict[str, Any]:
    """What handing out a task that does nothing takes, to two processes of this machine, in four ways in turn."""
    tasks = "200" if bench.quick else "2000"
    values: dict[str, list[float]] = {}
    missing: dict[str, None] = {}
    for turn in range(1, bench.rounds + 1):
        walls: dict[str, float] = {}
        for way, shown in WAYS.items():
            run = json.loads(run_program(bench.environment, "measure_overhead.py", way, tasks).splitlines()[-1])
            if "missing" in run:
                missing[run["missing"]] = None
                continue
            for name, value in run.items():
                values.setdefault(f"{shown}: {name}", []).append(value)
            walls[way] = run["wall_ms_per_task"]
            print(f"  round {turn} of {bench.rounds}: {shown}: {walls[way]:.2f} ms a task", file=sys.stderr)
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
    runs = [
        json.loads(run_program(bench.environment, "measure_store.py", tasks, few).splitlines()[-1])
        for _ in range(max(bench.rounds // 2, 1))
    ]
    return {
        "tasks_in_sqlite": int(tasks),
        "tasks_in_others": int(few),
        "values": {name: spread_of([run[name] for run in runs]) for name in runs[0]},
    }


FIGURES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "start-up": start_up,
    "member-year": one_member_year,
    "pressure": pressure_minima,
    "vorticity": vorticity_maxima,
    "dispatch": dispatch,
    "overhead": overhead,
    "store": store,
}


def _quarter_degree(bench: Bench, variable: str, options: dict[str, list[str]]) -> dict[str, Any]:
    path = quarter_degree(bench.environment, bench.cache, bench.data, variable, bench.steps)
    ours = [
        bench.stormtracks(f"track, {name}", "track", path, "--variable", variable, *words, start=bench.imports)
        for name, words in options.items()
    ]
    result = hold_contest(bench.reading({variable: path}), ours, bench.rounds)
    for entry in result["ours"].values():
        found = entry["found"]
        entry["centres_per_step"] = round((found["extrema"] - found["merged"]) / found["time steps"])
    return {"input": _sizes({variable: path}), **result}


def _sizes(files: dict[str, Path]) -> dict[str, int]:
    """Bytes of each input file, by its name."""
    return {path.name: path.stat().st_size for path in files.values()}
