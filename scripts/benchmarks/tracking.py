"""Figures of single processes: what tracking takes beside reading, and how long it takes to begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.bench import METHODS, Bench, centres_per_step, sizes
from benchmarks.campaigns import write_campaign
from benchmarks.inputs import member_year, quarter_degree
from benchmarks.measure import hold_contest

__all__ = ["member_year_of_20cr", "pressure_minima", "start_up", "vorticity_maxima"]


def pressure_minima(bench: Bench) -> dict[str, Any]:
    """Pressure at 0.25 degrees, all minima."""
    return _quarter_degree(bench, "prmsl", {method: ["--method", method] for method in METHODS})


def vorticity_maxima(bench: Bench) -> dict[str, Any]:
    """Vorticity at 0.25 degrees: maxima above 1e-4 s-1, and all."""
    options = {f"{method}, above 1e-4": ["--threshold", "1e-4", "--method", method] for method in METHODS}
    return _quarter_degree(bench, "vo850", options | {"nearest, all": ["--threshold", "none", "--method", "nearest"]})


def member_year_of_20cr(bench: Bench) -> dict[str, Any]:
    """Vorticity of one member-year of 20CR's shape, in files of its own: all maxima, and those above 4e-5 s-1."""
    root = member_year(bench.environment, bench.cache, 30 if bench.quick else 365)
    files = {name: root / "2001" / f"{name}.2001_mem001.nc" for name in ("UGRD850", "VGRD850")}
    options = {method: ["--method", method, "--threshold", "none"] for method in METHODS} | {"above 4e-5": []}
    track = [
        bench.track(f"track, {name}", *files.values(), "--wind", "u850,v850", *words) for name, words in options.items()
    ]
    run = bench.run(
        "run, above 4e-5", write_campaign(root, "campaign", layout="c20v3", years="2001", members=1), workers=1
    )
    contest = hold_contest(bench.reading(files), [*track, run], bench.rounds)
    return {"input": sizes(*files.values()), **centres_per_step(contest)}


def start_up(bench: Bench) -> dict[str, Any]:
    """How long it takes until work can begin."""
    ours = [
        bench.statement("import numpy"),
        bench.statement("import netCDF4"),
        bench.stormtracks("stormtracks --help", "--help"),
        bench.imports,
    ]
    return hold_contest(bench.statement("pass"), ours, bench.rounds)


def _quarter_degree(bench: Bench, variable: str, options: dict[str, list[str]]) -> dict[str, Any]:
    path: Path = quarter_degree(bench.environment, bench.cache, bench.data, variable, 8 if bench.quick else 120)
    ours = [bench.track(f"track, {name}", path, "--variable", variable, *words) for name, words in options.items()]
    contest = hold_contest(bench.reading({variable: path}), ours, bench.rounds)
    return {"input": sizes(path), **centres_per_step(contest)}
