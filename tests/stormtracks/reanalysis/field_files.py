"""Small NetCDF files for the tests of the readers: one field on common axes, any part of which can be changed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt

from stormtracks.reanalysis.archive import Archive


@dataclass(frozen=True)
class Along:
    """An axis: its coordinate, and whether that is written."""

    values: npt.ArrayLike
    attributes: Mapping[str, str] = field(default_factory=dict)
    written: bool = True
    unlimited: bool = False


def hours(count: int, *, first: float = 0, step: float = 6, since: str = "2001-01-01", calendar: str = "") -> Along:
    """A time axis."""
    attributes = {"units": f"hours since {since}"} | ({"calendar": calendar} if calendar else {})
    return Along(first + step * np.arange(count, dtype=np.float64), attributes)


def latitudes(values: npt.ArrayLike) -> Along:
    return Along(values, {"units": "degrees_north", "standard_name": "latitude"})


def longitudes(values: npt.ArrayLike) -> Along:
    return Along(values, {"units": "degrees_east", "standard_name": "longitude"})


AXES = {
    "time": hours(8),
    "member": Along(np.array([1, 2, 3], dtype=np.int32)),
    "level": Along([850.0, 500.0], {"units": "hPa"}),
    "lat": latitudes(np.linspace(90, -90, 19)),
    "lon": longitudes(np.arange(0, 360, 10.0)),
}
STANDARD = ("time", "lat", "lon")


def write_field(
    path: Path,
    name: str = "u850",
    attributes: Mapping[str, Any] | None = None,
    *,
    dims: Sequence[str] = STANDARD,
    axes: Mapping[str, Along] | None = None,
    values: npt.NDArray[Any] | None = None,
    dtype: str = "f4",
    form: Any = "NETCDF4",
    **storage: Any,
) -> npt.NDArray[Any]:
    """Write a variable, or add it to a file, and return its values, of the shape of `dims`.

    `attributes` are its own, by default units of m s-1; `axes` replace those of `AXES` or add to them.
    """
    along = AXES | dict(axes or {})
    shape = tuple(np.size(along[dim].values) for dim in dims)
    if values is None:
        values = np.random.default_rng(zlib.crc32(name.encode())).normal(0, 10, shape).astype(np.float32)
    attributes = {"units": "m s-1"} if attributes is None else attributes
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "a" if path.exists() else "w", format=form) as dataset:
        for dim, size in zip(dims, shape, strict=True):
            if dim not in dataset.dimensions:
                dataset.createDimension(dim, None if along[dim].unlimited else size)
                if along[dim].written:
                    write_coordinate(dataset, dim, (dim,), along[dim])
        fill = {"fill_value": attributes["_FillValue"]} if "_FillValue" in attributes else {}
        variable = dataset.createVariable(name, dtype, tuple(dims), **fill, **storage)
        variable.setncatts({key: value for key, value in attributes.items() if key != "_FillValue"})
        variable.set_auto_maskandscale(False)
        variable[...] = values
    return values


def write_coordinate(dataset: netCDF4.Dataset, name: str, dims: tuple[str, ...], along: Along) -> None:
    """A coordinate variable."""
    values = np.asarray(along.values)
    variable = dataset.createVariable(name, values.dtype, dims)
    variable.setncatts(dict(along.attributes))
    variable[...] = values


def add_scalar(path: Path, name: str, value: float, attributes: Mapping[str, str], *, of: str) -> None:
    """Add a scalar coordinate and name it in the attributes of the variable `of`."""
    with netCDF4.Dataset(path, "a") as dataset:
        write_coordinate(dataset, name, (), Along(value, attributes))
        dataset[of].coordinates = " ".join([*getattr(dataset[of], "coordinates", "").split(), name])


def read_year(archive: Archive, year: int = 2001, member: int = 1) -> tuple[npt.NDArray[np.float32], ...]:
    """All fields of one year."""
    series = archive.open_year(year, [member])
    try:
        return tuple(field[0] for field in series.read(0, len(series.times)))
    finally:
        series.close()
