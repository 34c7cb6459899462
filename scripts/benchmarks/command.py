"""The command `scripts/bench`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.environment import ROOT, environment_of_wheel, present_environment
from benchmarks.figures import FIGURES, LETTERS
from benchmarks.inputs import Skipped, run_program
from benchmarks.measure import BenchError
from benchmarks.table import replace_tables, tables

__all__ = ["main"]

DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for and print it as JSON; 1 if something did not work."""
    options = _parse(arguments)
    cache = options.cache.absolute()
    try:
        peers = options.peers or options.document
        environment = present_environment() if options.here else environment_of_wheel(cache, peers=peers)
        rounds = options.rounds or (3 if options.quick else 7)
        bench = Bench(environment, cache, options.data.absolute(), rounds, options.quick)
        names = dict.fromkeys(name for names in options.figures for name in names)
        document = measure(bench, list(names or FIGURES))
        print(json.dumps(document, indent=1), flush=True)
        if options.document:
            replace_tables(DOCUMENT, tables(document))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def measure(bench: Bench, names: Sequence[str]) -> dict[str, Any]:
    """Measure figures; those that cannot be had here say so, on stderr and under ``skipped``."""
    machine = _machine(bench)
    figures: dict[str, Any] = {}
    for name in names:
        print(f"{name}:", file=sys.stderr)
        title = (FIGURES[name].__doc__ or "").strip()
        try:
            figures[name] = {"title": title, **FIGURES[name](bench)}
        except Skipped as reason:
            print(f"  skipped: {reason}", file=sys.stderr)
            figures[name] = {"title": title, "skipped": str(reason)}
    machine["load_average_after"] = os.getloadavg()[0]
    return {"machine": machine, "rounds": bench.rounds, "quick": bench.quick, "figures": figures}


def _machine(bench: Bench) -> dict[str, Any]:
    """What the figures were measured on, and with."""
    versions = json.loads(run_program(bench.environment, "versions.py").splitlines()[-1])
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "load_average_before": os.getloadavg()[0],
        "installed_from": bench.environment.origin,
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure time and memory of whole processes of the installed stormtracks, each in turn with a "
        "reference, and print them as JSON. What is installed is a wheel of this checkout, in an environment of its "
        "own in the cache folder, where the input is kept too.",
    )
    parser.add_argument(
        "figures",
        nargs="*",
        type=_figures,
        metavar="FIGURE",
        help=f"{', '.join(FIGURES)}, or what targets are known by, B1 to B10; default: all",
    )
    parser.add_argument("--quick", action="store_true", help="short input and fewer rounds: to see that it works")
    parser.add_argument("--rounds", type=_count, metavar="N", help="runs of each process; default: 7, quick: 3")
    parser.add_argument(
        "--peers", action="store_true", help="install what is compared with, too: PyStormTracker and distributed"
    )
    parser.add_argument("--here", action="store_true", help="measure what is installed beside the running python")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        default=ROOT.parent / "shared" / "data" / "era5_djf",
        help="folder of prmsl.nc and vo850.nc, 2.5 degrees, for the 0.25 degree series; default: %(default)s",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", default=_default_cache(), help="default: %(default)s")
    parser.add_argument("--document", action="store_true", help="put the figures into docs/benchmarks.md, with --peers")
    options = parser.parse_args(arguments)
    if options.document and (options.quick or options.figures):
        parser.error("--document shows all figures at full length: leave out --quick and the names of figures")
    if options.here and options.peers:
        parser.error("--here measures what is there and installs nothing: leave out --peers")
    return options


def _figures(name: str) -> list[str]:
    names = [figure for figure, letter in LETTERS.items() if letter == name.upper()] or [name]
    if names[0] not in FIGURES:
        raise argparse.ArgumentTypeError(f"no figure is called {name!r}; choose from {', '.join(FIGURES)}")
    return names


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stormtracks-bench"
