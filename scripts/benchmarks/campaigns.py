"""Figures of campaigns: many members of one file, two workers, memory, and how soon a worker works."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, sizes
from benchmarks.inputs import decade, ensemble, member_year, quarter_degree, same_members
from benchmarks.measure import Process, hold_contest, run_process, spread_of, times_as_fast

__all__ = ["bundles", "imports", "memory", "splitting", "two_workers", "worker_start", "write_campaign"]

YEARS = (2001, 2003)
"""Years that do not follow on one another, so that neither is read on into the other."""


def bundles(bench: Bench) -> dict[str, Any]:
    """All members of two years as 20CR version 2 has them, with two workers: all maxima, and those above 4e-5 s-1."""
    root, start = _ensemble(bench)
    begin = _two_years(start, "two-years", members=2)
    campaigns = {
        "run": _two_years(root, "all-maxima", members=_members(bench), threshold="none"),
        "run, above 4e-5": _two_years(root, "two-years", members=_members(bench)),
    }
    ours = [bench.run(name, campaign, workers=2, start=begin) for name, campaign in campaigns.items()]
    contest = hold_contest(_two_readers(bench, root), ours, bench.rounds)
    files = [root / str(year) / f"{name}_{year}.nc" for year in YEARS for name in ("u850", "v850")]
    return {"input": sizes(*files), "days": _days(bench), "members": _members(bench), **contest}


def splitting(bench: Bench) -> dict[str, Any]:
    """One of these years alone: its members shared out to two workers, each of which reads all chunks."""
    root, start = _ensemble(bench)
    campaigns = [
        write_campaign(of, "one-year", layout="c20", years=str(YEARS[0]), members=members)
        for of, members in ((root, _members(bench)), (start, 2))
    ]
    one, two = _one_and_two(bench, *campaigns)
    return hold_contest(one, [two], bench.few_rounds)


def two_workers(bench: Bench) -> dict[str, Any]:
    """A dozen member-years, a task each, with two workers on two cores and one worker on one."""
    year = member_year(bench.environment, bench.cache, 30 if bench.quick else 365)
    tasks = 4 if bench.quick else 12
    root = same_members(year, tasks)
    campaign = write_campaign(root, "dozen", layout="c20v3", years="2001", members=tasks)
    start = write_campaign(_ensemble(bench)[1], "one-year", layout="c20", years=str(YEARS[0]), members=2)
    one, two = _one_and_two(bench, campaign, start)
    return {"tasks": tasks, **times_as_fast(hold_contest(one, [two], bench.few_rounds))}


def memory(bench: Bench) -> dict[str, Any]:
    """The largest process of campaigns of all kinds, in MB of 10^6 bytes."""
    year = member_year(bench.environment, bench.cache, 30 if bench.quick else 365)
    root, _ = _ensemble(bench)
    years = 1 if bench.quick else 10
    long = decade(bench.environment, bench.cache, years)
    cf: dict[str, Any] = {"layout": "cf", "members": "all"}
    campaigns = {
        "a member-year in a file of its own": write_campaign(year, "campaign", layout="c20v3", years="2001", members=1),
        f"{_members(bench)} members in the same chunks": _two_years(root, "two-years", members=_members(bench)),
        f"{years} years, a task each": write_campaign(long, "long", years="all", variable="prmsl", **cf),
    }
    for variable, threshold in (("prmsl", "none"), ("vo850", "1e-4")):
        path = quarter_degree(bench.environment, bench.cache, bench.data, variable, 8 if bench.quick else 120)
        campaigns[f"0.25 degrees, {variable}"] = write_campaign(
            path.parent, path.stem, years="all", variable=variable, pattern=path.name, threshold=threshold, **cf
        )
    processes = [bench.run(name, campaign, workers=1) for name, campaign in campaigns.items()]
    processes.append(bench.track(f"{years} years as one series", *sorted(long.glob("*.nc")), "--variable", "prmsl"))
    return {"values": {process.name: spread_of([_peak_mb(process)]) for process in processes}}


def worker_start(bench: Bench) -> dict[str, Any]:
    """From the start of a worker's process until its first task begins."""
    runs = [bench.values("measure_start.py") for _ in range(bench.rounds)]
    return {"values": {name: spread_of([run[name] for run in runs]) for name in runs[0]}}


def imports(bench: Bench) -> dict[str, Any]:
    """Where the first second goes: milliseconds of the imports of each kind of process."""
    return {"values": {name: spread_of([taken]) for name, taken in bench.values("measure_imports.py", "5").items()}}


def write_campaign(
    root: Path,
    name: str,
    *,
    layout: str,
    years: str,
    members: int | str,
    variable: str | None = None,
    pattern: str | None = None,
    threshold: str | None = None,
) -> Path:
    """A campaign file over an archive, in its folder."""
    lines = [f"years = {json.dumps(years)}", f"members = {json.dumps(members)}", "", "[data]"]
    data = {"layout": layout, "root": str(root), "variable": variable, "pattern": pattern}
    lines += [f"{key} = {json.dumps(value)}" for key, value in data.items() if value is not None]
    if threshold is not None:
        lines += ["", "[detection]", f"threshold = {json.dumps(threshold)}"]
    path = root / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _one_and_two(bench: Bench, campaign: Path, start: Path) -> tuple[Process, Process]:
    """The same campaign with one worker, and with two."""
    one = bench.run("run, one worker", campaign, workers=1, start=start)
    return one, bench.run("run, two workers", campaign, workers=2, start=start)


def _members(bench: Bench) -> int:
    return 4 if bench.quick else 56


def _days(bench: Bench) -> int:
    return 5 if bench.quick else 31


def _ensemble(bench: Bench) -> tuple[Path, Path]:
    """The archive, and one with next to nothing in it."""
    return (
        ensemble(bench.environment, bench.cache, YEARS, _days(bench), _members(bench)),
        ensemble(bench.environment, bench.cache, YEARS, 3, 2),
    )


def _two_years(root: Path, name: str, *, members: int, threshold: str | None = None) -> Path:
    years = ", ".join(map(str, YEARS))
    return write_campaign(root, name, layout="c20", years=years, members=members, threshold=threshold)


def _two_readers(bench: Bench, root: Path) -> Process:
    """The reference: two processes, each of which reads the two files of one year."""
    of_years = [
        bench.reading({name: root / str(year) / f"{name}_{year}.nc" for name in ("u850", "v850")}) for year in YEARS
    ]
    starts = [reader.start for reader in of_years if reader.start]
    start = Process("two starts", _together(bench, starts), "two start-ups")
    shown = "two processes of netCDF4-python read u850, v850 of a year each"
    return Process("reading", _together(bench, of_years), shown, start).on(2)


def _together(bench: Bench, processes: list[Process]) -> tuple[str, ...]:
    one, two = processes
    return bench.program("side_by_side.py", *one.command, "--", *two.command)


def _peak_mb(process: Process) -> float:
    run = run_process(process.command, cores=process.cores)
    megabytes = run.peak_mib * 2**20 / 1e6
    print(f"  {process.name}: {megabytes:.0f} MB", file=sys.stderr)
    return megabytes
