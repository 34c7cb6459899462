"""The input of the figures: made once, by programs in the measured environment, and kept in the cache folder."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environment import Environment
from benchmarks.measure import BenchError, run_process

__all__ = [
    "PROGRAMS",
    "Skipped",
    "decade",
    "ensemble",
    "member_year",
    "quarter_degree",
    "run_program",
    "same_members",
]

PROGRAMS = Path(__file__).parent / "programs"


class Skipped(BenchError):
    """A figure cannot be had here, for want of something that need not be there."""


def member_year(environment: Environment, cache: Path, days: int) -> Path:
    """Folder of one synthetic member in the c20v3 layout, of the year 2001 or its first days.

    Parameters
    ----------
    environment : Environment
    cache : pathlib.Path
        Where to keep it.
    days : int
        How many; 365 for all.
    """
    wanted = cache / "inputs" / f"member-year-{days}-days"
    if not wanted.is_dir():
        _make(environment, "make_member_year.py", wanted, ["OUTPUT", str(days)])
    return wanted


def quarter_degree(environment: Environment, cache: Path, data: Path, variable: str, steps: int) -> Path:
    """File of a global 0.25 degree series of one variable.

    Parameters
    ----------
    environment : Environment
    cache : pathlib.Path
        Where to keep it.
    data : pathlib.Path
        Folder of the 2.5 degree series ``prmsl.nc`` and ``vo850.nc`` that it is made from.
    variable : str
        ``prmsl`` or ``vo850``.
    steps : int

    Raises
    ------
    Skipped
        If it is not there yet and has nothing to be made from.
    """
    wanted = cache / "inputs" / f"{variable}-quarter-degree-{steps}-steps.nc"
    if not wanted.is_file():
        source = data / f"{variable}.nc"
        if not source.is_file():
            raise Skipped(f"there is no {source} to make the 0.25 degree series from; give its folder as --data")
        _make(environment, "make_quarter_degree.py", wanted, [str(source.resolve()), "OUTPUT", variable, str(steps)])
    return wanted


def ensemble(environment: Environment, cache: Path, years: Sequence[int], days: int, members: int) -> Path:
    """Folder of a synthetic ensemble in the c20 layout, from 1 January of each of some years.

    Parameters
    ----------
    environment : Environment
    cache : pathlib.Path
        Where to keep it.
    years : sequence of int
    days, members : int
        How many.
    """
    wanted = cache / "inputs" / f"ensemble-{days}-days-{members}-members"
    for year in years:
        if not (wanted / str(year)).is_dir():
            _make(environment, "make_ensemble.py", wanted / str(year), ["OUTPUT", str(year), str(days), str(members)])
    return wanted


def decade(environment: Environment, cache: Path, years: int) -> Path:
    """Folder of a long synthetic series of sea level pressure, a CF file for each year.

    Parameters
    ----------
    environment : Environment
    cache : pathlib.Path
        Where to keep it.
    years : int
        How many.
    """
    wanted = cache / "inputs" / f"pressure-{years}-years"
    if not wanted.is_dir():
        _make(environment, "make_decade.py", wanted, ["OUTPUT", str(years)])
    return wanted


def same_members(member_year: Path, members: int) -> Path:
    """Folder in the c20v3 layout in which one member stands under many numbers; its files take no more room."""
    wanted = member_year.with_name(f"{member_year.name}-{members}-times")
    for path in sorted((member_year / "2001").glob("*_mem001.nc")):
        for member in range(1, members + 1):
            link = wanted / "2001" / path.name.replace("_mem001", f"_mem{member:03d}")
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                os.link(path, link)
    return wanted


def _make(environment: Environment, program: str, wanted: Path, arguments: Sequence[str]) -> None:
    """Have a program make a file or folder beside its place, and put it there when it is complete."""
    print(f"making {wanted} ...", file=sys.stderr)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=wanted.parent) as folder:
        made = Path(folder, wanted.name)
        run_program(environment, program, *[str(made) if word == "OUTPUT" else word for word in arguments])
        made.rename(wanted)


def run_program(environment: Environment, program: str, *arguments: str) -> str:
    """What one of the programs prints.

    Raises
    ------
    BenchError
        If it fails.
    """
    return run_process([str(environment.python), str(PROGRAMS / program), *arguments]).output
