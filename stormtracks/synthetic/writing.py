"""Synthetic ensembles as NetCDF files, in the layouts in which archives come."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import netCDF4
import numpy as np

from stormtracks.errors import InputError, ResultsError
from stormtracks.reanalysis.archive import Field
from stormtracks.synthetic.ensemble import SyntheticEnsemble
from stormtracks.times import TimeAxis, seconds_of

__all__ = ["Layout", "write"]

Layout = Literal["c20", "c20v3", "cf"]

_FILL = np.int16(-32768)  # of packed fields


@dataclass(frozen=True)
class _Description:
    """How archives call and describe a variable, and how it is packed."""

    c20v3_name: str
    standard_name: str
    units: str
    pressure_level: float | None  # Pa
    scale_factor: float
    add_offset: float


_VARIABLES = {
    "u850": _Description("UGRD850", "eastward_wind", "m s-1", 85000.0, 0.005, 0.0),
    "v850": _Description("VGRD850", "northward_wind", "m s-1", 85000.0, 0.005, 0.0),
    "prmsl": _Description("PRMSL", "air_pressure_at_mean_sea_level", "Pa", None, 0.5, 100000.0),
}


@dataclass(frozen=True)
class _Plan:
    """One file to be written."""

    path: Path
    variable: str
    member: int | None
    """The only member that it holds; None for all."""


@dataclass(frozen=True)
class _TimeUnits:
    """The unit and origin of a time coordinate."""

    text: str
    seconds: int
    origin: int
    """Year on whose first day it starts."""


_TIME_UNITS: dict[Layout, _TimeUnits] = {
    "c20": _TimeUnits("hours since 1-1-1 00:00:0.0", 3600, 1),
    "c20v3": _TimeUnits("hours since 1800-01-01 00:00:0.0", 3600, 1800),
    "cf": _TimeUnits("days since 1850-01-01 00:00:00", 86400, 1850),
}


def write(
    ensemble: SyntheticEnsemble,
    root: str | Path,
    *,
    layout: Layout = "c20",
    variables: Sequence[str] = ("u850", "v850"),
    member_axis: bool = True,
    packed: bool = False,
) -> list[Path]:
    """Write an ensemble to files, each calendar year's part to files of its own.

    Parameters
    ----------
    ensemble : SyntheticEnsemble
    root : path
        Folder of the archive; made if absent. Files of the same names are replaced when the new ones are complete.
    layout : str
        ``c20``: ``<year>/<variable>_<year>.nc`` with a member axis, one time step of all members to a chunk, time in
        hours since 1-1-1 of the mixed calendar. ``c20v3``: ``<year>/<VARIABLE>.<year>_mem001.nc`` and so on, one
        member each. ``cf``: ``<variable>_<year>.nc`` after CF-1.11.
    variables : sequence of str
        Some of u850, v850 and prmsl.
    member_axis : bool
        cf only: whether fields have a member axis, which an ensemble of one member can do without.
    packed : bool
        Whether fields are stored as 16-bit integers, in steps of 0.005 m s-1 and 0.5 Pa.

    Returns
    -------
    list of pathlib.Path
        The files, in order of their names.

    Raises
    ------
    InputError
        If a variable is unknown, or the ensemble does not go with the layout.
    ResultsError
        If a file cannot be written; the files of its year are not there then, whole or in part.
    """
    _check(ensemble, layout, member_axis)
    folder = Path(root)
    years = ensemble.times.years()
    paths: list[Path] = []
    for year, pieces in itertools.groupby(_pieces(ensemble, variables), key=lambda piece: int(years[piece[0]])):
        start = int(np.argmax(years == year))
        times = TimeAxis(ensemble.times.seconds[years == year], ensemble.calendar)
        plans = [
            _Plan(folder / _file_name(layout, variable, year, member), variable, member)
            for variable in variables
            for member in _members_apart(ensemble, layout, member_axis)
        ]
        with ExitStack() as stack:
            files = [stack.enter_context(_new_file(plan, ensemble, times, layout, packed=packed)) for plan in plans]
            for first, fields in pieces:
                for plan, file in zip(plans, files, strict=True):
                    field = fields[plan.variable]
                    steps = slice(first - start, first - start + len(field))
                    file[steps] = field if plan.member is None else field[:, plan.member - 1]
        paths += [plan.path for plan in plans]
    return sorted(paths)


def _check(ensemble: SyntheticEnsemble, layout: Layout, member_axis: bool) -> None:
    if layout not in get_args(Layout):
        raise InputError(f"no layout is called {layout!r}", remedy=f"choose from {', '.join(get_args(Layout))}")
    if layout != "cf" and ensemble.calendar != "standard":
        raise InputError(
            f"layout {layout} reckons in the standard calendar, and the ensemble in {ensemble.calendar}",
            remedy='choose layout "cf" or calendar "standard"',
        )
    if not member_axis and (layout != "cf" or ensemble.members > 1):
        raise InputError(
            f"layout {layout} with {ensemble.members} members and no member axis",
            remedy='choose layout "cf" and one member, or keep the axis',
        )


def _members_apart(ensemble: SyntheticEnsemble, layout: Layout, member_axis: bool) -> list[int] | list[None]:
    """The members that have files of their own; None alone where all share one."""
    if layout == "c20v3":
        return list(range(1, ensemble.members + 1))
    return [None] if member_axis else [1]


def _file_name(layout: Layout, variable: str, year: int, member: int | None) -> str:
    if layout == "c20":
        return f"{year}/{variable}_{year}.nc"
    if layout == "c20v3":
        return f"{year}/{_VARIABLES[variable].c20v3_name}.{year}_mem{member:03d}.nc"
    return f"{variable}_{year}.nc"


def _pieces(ensemble: SyntheticEnsemble, variables: Sequence[str]) -> Iterator[tuple[int, dict[str, Field]]]:
    """First step and fields (n, members, nlat, nlon) of stretches that lie within one calendar year."""
    years = ensemble.times.years()
    first = 0
    for blocks in zip(*(ensemble.blocks(k, variables) for k in range(1, ensemble.members + 1)), strict=True):
        by_variable = zip(*blocks, strict=True)
        fields = {name: np.stack(members, axis=1) for name, members in zip(variables, by_variable, strict=True)}
        length = len(blocks[0][0])
        turns = np.flatnonzero(np.diff(years[first : first + length])) + 1
        for start, stop in itertools.pairwise([0, *turns.tolist(), length]):
            yield first + start, {name: field[start:stop] for name, field in fields.items()}
        first += length


@contextmanager
def _new_file(
    plan: _Plan, ensemble: SyntheticEnsemble, times: TimeAxis, layout: Layout, *, packed: bool
) -> Iterator[netCDF4.Variable[Any]]:
    """The variable of a new file, to be filled; the file takes its name when it is complete."""
    part = plan.path.with_name(f".{plan.path.name}.part")
    try:
        plan.path.parent.mkdir(parents=True, exist_ok=True)
        with netCDF4.Dataset(part, "w", format="NETCDF4") as dataset:
            dataset.title = f"Synthetic storms of known truth, seed {ensemble.seed}"
            if layout == "cf":
                dataset.Conventions = "CF-1.11"
            dimensions = _add_axes(dataset, plan, ensemble, times, layout)
            yield _add_variable(dataset, plan.variable, dimensions, layout, packed=packed)
        part.replace(plan.path)
    except (OSError, RuntimeError) as error:  # the NetCDF library reports a full disk as a RuntimeError
        raise ResultsError(
            f"{plan.path} cannot be written: {error}", remedy="free some space, or choose another folder"
        ) from error
    finally:
        if part.exists():
            part.unlink()


def _add_axes(
    dataset: netCDF4.Dataset, plan: _Plan, ensemble: SyntheticEnsemble, times: TimeAxis, layout: Layout
) -> dict[str, int]:
    """Dimensions with their coordinates; the name and size of each, in order."""
    unit = _TIME_UNITS[layout]
    hours_or_days = (times.seconds - seconds_of(ensemble.calendar, unit.origin)) / unit.seconds
    degrees = "f8" if layout == "cf" else "f4"
    members = np.arange(1, ensemble.members + 1, dtype=np.int32)
    member_name = "realization" if layout == "cf" else "member"
    axes: dict[str, tuple[str, Any, dict[str, str]]] = {
        "time": ("f8", hours_or_days, {"units": unit.text, "standard_name": "time", "axis": "T"}),
        member_name: ("i4", members, {"units": "1", "standard_name": "realization", "axis": "E"}),
        "lat": (degrees, ensemble.grid.lat, {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"}),
        "lon": (degrees, ensemble.grid.lon, {"units": "degrees_east", "standard_name": "longitude", "axis": "X"}),
    }
    if plan.member is not None:
        del axes[member_name]
    for name, (kind, values, attributes) in axes.items():
        dataset.createDimension(name, len(values))
        coordinate = dataset.createVariable(name, kind, (name,))
        # Archives of 20CR have neither standard names nor a calendar: readers must do with the units.
        coordinate.setncatts(attributes if layout == "cf" else {"units": attributes["units"]})
        coordinate[:] = values
    if layout == "cf":
        dataset["time"].calendar = ensemble.calendar
    return {name: len(values) for name, (_, values, _) in axes.items()}


def _add_variable(
    dataset: netCDF4.Dataset, name: str, dimensions: dict[str, int], layout: Layout, *, packed: bool
) -> netCDF4.Variable[Any]:
    description = _VARIABLES[name]
    # A chunk is a field; those of all members together where the archive has it so.
    chunks = [size if axis in ("member", "lat", "lon") else 1 for axis, size in dimensions.items()]
    variable = dataset.createVariable(
        description.c20v3_name if layout == "c20v3" else name,
        "i2" if packed else "f4",
        tuple(dimensions),
        compression="zlib",
        complevel=1,
        shuffle=True,
        chunksizes=chunks,
        fill_value=_FILL if packed else None,
    )
    variable.units = description.units
    if layout == "cf":
        variable.standard_name = description.standard_name
        variable.cell_methods = "time: point"
    if packed:
        variable.scale_factor, variable.add_offset = description.scale_factor, description.add_offset
    if layout == "cf" and description.pressure_level is not None:
        level = dataset.createVariable("plev", "f8")
        level.setncatts({"units": "Pa", "standard_name": "air_pressure", "axis": "Z", "positive": "down"})
        level[...] = description.pressure_level
        variable.coordinates = "plev"
    return variable
