"""Axes of a NetCDF variable: which dimension is time, member, level, latitude or longitude, and its coordinate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError
from stormtracks.reanalysis.netcdf import Variable, attribute, reading
from stormtracks.reanalysis.quantities import si_units
from stormtracks.times import TimeAxis, decode_times

__all__ = [
    "Axis",
    "axes_of",
    "coordinate_values",
    "level_names",
    "member_numbers",
    "pressure_levels",
    "role_of",
    "scalar_coordinates",
    "time_axis",
    "unwrap_longitudes",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_BY_STANDARD_NAME = {
    "time": "time",
    "latitude": "lat",
    "longitude": "lon",
    "realization": "member",
    "air_pressure": "level",
    "height": "level",
    "altitude": "level",
    "atmosphere_sigma_coordinate": "level",
    "model_level_number": "level",
}
_BY_UNITS = {
    **dict.fromkeys(("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn"), "lat"),
    **dict.fromkeys(("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese"), "lon"),
}
_BY_AXIS = {"T": "time", "Y": "lat", "X": "lon", "Z": "level", "E": "member"}
_BY_NAME = {
    **dict.fromkeys(("time", "valid_time", "t"), "time"),
    **dict.fromkeys(("lat", "latitude"), "lat"),
    **dict.fromkeys(("lon", "longitude"), "lon"),
    **dict.fromkeys(
        ("member", "members", "ensemble", "ensemble_member", "ens", "em", "number", "realization", "realisation"),
        "member",
    ),
    **dict.fromkeys(
        ("level", "lev", "plev", "pressure", "pressure_level", "isobaric", "isobaricinhpa", "height", "sigma"), "level"
    ),
}

_SAME_LONGITUDE = 1e-3  # degrees


@dataclass(frozen=True)
class Axis:
    """One dimension of a variable.

    Parameters
    ----------
    dimension : str
        Name of the dimension.
    position : int
        Its place in the variable, from 0.
    size : int
        Its length.
    role : str
        ``time``, ``member``, ``level``, ``lat``, ``lon``, or empty if it is none of these.
    coordinate : Variable or None
        The one-dimensional variable that says so.
    """

    dimension: str
    position: int
    size: int
    role: str
    coordinate: Variable | None


def role_of(coordinate: Variable) -> str:
    """What a coordinate variable measures, by its standard name, else its units, else its axis, else its name."""
    standard_name = attribute(coordinate, "standard_name")
    if standard_name not in ("", "unknown"):
        # Any other name says that it is something else: the time a forecast starts, the axis of a rotated grid.
        return _BY_STANDARD_NAME.get(standard_name, "")
    units = attribute(coordinate, "units").lower()
    if " since " in units:
        return "time"
    axis = _BY_AXIS.get(attribute(coordinate, "axis").upper(), "")
    return _BY_UNITS.get(units) or axis or _BY_NAME.get(coordinate.name.lower(), "")


def axes_of(dataset: netCDF4.Dataset, variable: Variable) -> list[Axis]:
    """The axes of a variable, in the order of its dimensions."""
    axes = []
    for position, (dimension, size) in enumerate(zip(variable.dimensions, variable.shape, strict=True)):
        for coordinate in _coordinates_along(dataset, dimension):
            if role := role_of(coordinate):
                axes.append(Axis(dimension, position, size, role, coordinate))
                break
        else:
            axes.append(Axis(dimension, position, size, _BY_NAME.get(dimension.lower(), ""), None))
    return axes


def _coordinates_along(dataset: netCDF4.Dataset, dimension: str) -> Iterator[Variable]:
    if dimension in dataset.variables and dataset.variables[dimension].dimensions == (dimension,):
        yield dataset.variables[dimension]
    for name, other in dataset.variables.items():
        # Only a standard name makes another variable a coordinate: a series of numbers may be anything.
        if name != dimension and other.dimensions == (dimension,) and attribute(other, "standard_name"):
            yield other


def scalar_coordinates(dataset: netCDF4.Dataset, variable: Variable, role: str) -> list[Variable]:
    """Variables without dimension that have this role: those that `variable` names, else any."""
    scalars = [other for other in dataset.variables.values() if other.ndim == 0 and role_of(other) == role]
    named = attribute(variable, "coordinates").split()
    return [other for other in scalars if other.name in named] or scalars


def coordinate_values(coordinate: Variable, path: Path) -> FloatArray:
    """The values of a numeric coordinate, shape (n,) or (), NaN where missing."""
    with reading(path, f"coordinate {coordinate.name!r}"):
        coordinate.set_auto_maskandscale(True)
        values = np.ma.asarray(coordinate[...])
    if values.dtype.kind not in "iuf":
        raise InputError(f"coordinate {coordinate.name!r} in {path} does not hold numbers", remedy="mend the file")
    return np.ma.filled(values.astype(np.float64), np.nan)


def time_axis(coordinate: Variable, path: Path) -> TimeAxis:
    """The instants of a time coordinate, checked to increase.

    Raises
    ------
    InputError
        If units or calendar cannot be understood, or a step is missing or not later than the one before.
    """
    values = coordinate_values(coordinate, path)
    units, calendar = attribute(coordinate, "units"), attribute(coordinate, "calendar") or "standard"
    try:
        times = decode_times(values, units, calendar)
    except (ValueError, OverflowError, TypeError) as error:
        raise InputError(
            f"time axis {coordinate.name!r} in {path} with units {units!r} and calendar {calendar!r} "
            f"cannot be decoded: {error}",
            remedy="give CF units such as 'hours since 1900-01-01 00:00:00' and a CF calendar, "
            "or convert absolute times: cdo -r copy IN OUT; if these are right, the file is damaged: fetch it again",
        ) from error
    steps = np.diff(times.seconds)
    if (steps <= 0).any():
        late = int(np.argmax(steps <= 0)) + 1
        raise InputError(
            f"time axis {coordinate.name!r} in {path} does not increase: step {late} ({times.date(late)}) "
            f"follows step {late - 1} ({times.date(late - 1)})",
            remedy="sort the file by time and drop repeated steps; if it was in order, it is damaged: fetch it again",
        )
    return times


def member_numbers(axis: Axis, path: Path) -> tuple[int, ...]:
    """The members along an axis: its coordinate if that holds whole numbers, else 1 to n."""
    coordinate = axis.coordinate
    counted = tuple(range(1, axis.size + 1))
    if coordinate is None or np.dtype(coordinate.dtype).kind not in "iuf":
        return counted
    values = coordinate_values(coordinate, path)
    if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        return counted
    numbers = tuple(int(value) for value in values)
    if len(set(numbers)) < len(numbers):
        raise InputError(
            f"member axis {coordinate.name!r} in {path} gives a number twice", remedy="number the members in the file"
        )
    return numbers


def pressure_levels(coordinate: Variable, path: Path) -> tuple[float, ...] | None:
    """The levels of a coordinate in hPa; None if it measures no pressure."""
    try:
        _, factor = si_units("air_pressure", attribute(coordinate, "units"), variable=coordinate.name, file=str(path))
    except InputError:
        return None
    return tuple(float(value) for value in np.atleast_1d(coordinate_values(coordinate, path)) * (factor / 100))


def level_names(coordinate: Variable, path: Path) -> list[str]:
    """The levels of a coordinate in words, with their units."""
    units = attribute(coordinate, "units")
    return [f"{value:g} {units}".strip() for value in np.atleast_1d(coordinate_values(coordinate, path))]


def unwrap_longitudes(lon: FloatArray) -> tuple[FloatArray, IntArray | None]:
    """Longitudes made to ascend, each column once.

    An axis that jumps back by a circle on its way east (0..180, -178..-2) goes on instead (0..358): no column moves.
    One that runs west is reversed, and a column that repeats an earlier one is dropped.

    Parameters
    ----------
    lon : numpy.ndarray, shape (n,)
        Degrees east as stored.

    Returns
    -------
    lon : numpy.ndarray, shape (m,)
        Degrees east. What cannot be mended so is given back as it is.
    columns : numpy.ndarray of int, shape (m,), or None
        Which stored columns these are; None if they are all of them, in the stored order.
    """
    columns = np.arange(len(lon))
    steps = np.diff(lon)
    if (steps < 0).sum() > (steps > 0).sum():
        columns = columns[::-1]
    eastward = lon[columns]
    steps = np.diff(eastward)
    jumps = steps < -180.0
    if not np.isfinite(lon).all() or (steps[~jumps] < 0).any():
        return lon, None
    eastward[1:] += 360.0 * np.cumsum(jumps)
    new = np.diff(eastward, prepend=-np.inf) > _SAME_LONGITUDE
    new &= eastward < eastward[0] + 360.0 - _SAME_LONGITUDE
    eastward, columns = eastward[new], columns[new]
    if jumps.any() and eastward[-1] >= 360.0:
        eastward -= 360.0
    return eastward, None if np.array_equal(columns, np.arange(len(lon))) else columns
