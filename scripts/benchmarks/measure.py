"""Whole processes, measured from outside, and contests in which they take turns with a reference."""

from __future__ import annotations

import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = [
    "BenchError",
    "Process",
    "Run",
    "hold_contest",
    "less",
    "plain_environment",
    "ratios",
    "run_process",
    "spread_of",
    "times_as_fast",
]

_NOT_PASSED_ON = ("PYTHON", "STORMTRACKS_")
_WATCH = Path(__file__).parent / "programs" / "watch.py"


class BenchError(Exception):
    """What was to be measured, or is needed for it, did not work."""


@dataclass(frozen=True)
class Process:
    """What is started.

    Parameters
    ----------
    name : str
        For the report.
    command : tuple of str
    shown : str
        How a user would type it.
    start : Process, optional
        One that does no more than start in the same way: its time is what `command` needs before it does its work.
    cores : int, optional
        How many cores it may run on, with all that it starts; all if not given.
    """

    name: str
    command: tuple[str, ...]
    shown: str
    start: Process | None = None
    cores: int | None = None

    def on(self, cores: int) -> Process:
        """The same on so many cores, its start too."""
        return replace(self, cores=cores, start=self.start and self.start.on(cores))


@dataclass(frozen=True)
class Run:
    """One process from its start to its end.

    Parameters
    ----------
    wall_s : float
        Seconds.
    cpu_s : float
        User and system seconds, those of its children included.
    peak_mib : float
        Largest resident memory in MiB, of the process or of the largest of its children.
    output : str
        What it printed.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    output: str


def plain_environment(home: Path) -> dict[str, str]:
    """The caller's variables without those that change python or the settings, and a home without a site file."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}
    return kept | {"HOME": str(home)}


def run_process(command: Sequence[str], *, cores: int | None = None) -> Run:
    """Run a command in an empty folder that is removed afterwards, on so many cores.

    Raises
    ------
    BenchError
        If it fails.
    """
    with tempfile.TemporaryDirectory(prefix="stormtracks-bench-") as folder:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_WATCH), str(cores or 0), *command],
            cwd=folder,
            env=plain_environment(Path(folder)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    output = done.stderr.decode(errors="replace")
    if done.returncode != 0:
        raise BenchError(f"{shlex.join(command)} ended with {done.returncode}:\n{output}")
    wall, processor, peak_kib = map(float, done.stdout.split())
    return Run(wall, processor, peak_kib / 1024, output)


def hold_contest(reference: Process, ours: Sequence[Process], rounds: int) -> dict[str, Any]:
    """Let our processes take turns with a reference; in each round every one runs once, right after the other.

    Parameters
    ----------
    reference : Process
    ours : sequence of Process
    rounds : int

    Returns
    -------
    dict
        Plain values. ``reference`` and each of ``ours``: ``command``, median, least and greatest of ``wall_s``,
        ``cpu_s`` and ``peak_mib``, and of the runs that only start. Of ours also ``ratio``, each run over the
        reference's of its round; ``ratio_less_start``, the same with the start taken from both, unless the reference
        has nothing left then; and ``found``, the numbers that it printed.
    """
    starts = [process.start for process in (reference, *ours) if process.start is not None]
    runs = _take_turns(list(dict.fromkeys((reference, *starts, *ours))), rounds)
    document: dict[str, Any] = {"reference": _describe(reference, runs), "ours": {}}
    for process in ours:
        entry = _describe(process, runs)
        entry["ratio"] = ratios(runs[process], runs[reference])
        if process.start is not None and reference.start is not None:
            reading = less(runs[reference], runs[reference.start])
            if all(run.wall_s > 0 and run.cpu_s > 0 for run in reading):
                entry["ratio_less_start"] = ratios(less(runs[process], runs[process.start]), reading)
        entry["found"] = _numbers(runs[process][-1].output)
        document["ours"][process.name] = entry
    return document


def _take_turns(processes: Sequence[Process], rounds: int) -> dict[Process, list[Run]]:
    runs: dict[Process, list[Run]] = {process: [] for process in processes}
    for turn in range(1, rounds + 1):
        for process in processes:
            run = run_process(process.command, cores=process.cores)
            runs[process].append(run)
            print(
                f"  round {turn} of {rounds}: {process.name}: {run.wall_s:.2f} s, user + sys {run.cpu_s:.2f} s, "
                f"{run.peak_mib:.0f} MiB",
                file=sys.stderr,
            )
    return runs


def _describe(process: Process, runs: dict[Process, list[Run]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"command": process.shown}
    if process.cores is not None:
        entry["cores"] = process.cores
    for name in ("wall_s", "cpu_s", "peak_mib"):
        entry[name] = spread_of([getattr(run, name) for run in runs[process]])
    if process.start is not None:
        entry["start"] = _describe(process.start, runs)
    return entry


def ratios(ours: Sequence[Run], reference: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Median, least and greatest of what each of our runs takes over the reference's of the same round."""
    pairs = list(zip(ours, reference, strict=True))
    return {name: spread_of([getattr(a, name) / getattr(b, name) for a, b in pairs]) for name in ("wall_s", "cpu_s")}


def less(runs: Sequence[Run], starts: Sequence[Run]) -> list[Run]:
    """Runs without the time that the start took in the same round."""
    return [
        Run(run.wall_s - start.wall_s, run.cpu_s - start.cpu_s, run.peak_mib, run.output)
        for run, start in zip(runs, starts, strict=True)
    ]


def _numbers(output: str) -> dict[str, int]:
    """What lines such as ``time steps: 120`` and words such as ``453 tracks`` say."""
    lines = re.findall(r"^([a-z ]+): (\d+)$", output, flags=re.MULTILINE)
    words = [(name, number) for number, name in re.findall(r"(\d+) (tracks|points)\b", output)]
    return {name: int(number) for name, number in lines + words}


def times_as_fast(contest: dict[str, Any]) -> dict[str, Any]:
    """The contest, and how many times as fast as the reference the only one of ours was, start-up apart."""
    (entry,) = contest["ours"].values()
    spread = entry.get("ratio_less_start", {}).get("wall_s")
    if spread is None or spread["min"] <= 0:
        return contest
    inverse = {name: round(1 / spread[of], 4) for name, of in (("median", "median"), ("min", "max"), ("max", "min"))}
    return {"times_as_fast": inverse, **contest}


def spread_of(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    named = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in named.items()}
