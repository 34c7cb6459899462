"""Make a 0.25 degree series from a 2.5 degree one: `python make_quarter_degree.py INPUT OUTPUT VARIABLE STEPS`.

A spline through the coarse field alone would have far too few extrema. Small scales are added, noise of a fixed
pattern that drifts eastward, until there are about as many a step as in a real analysis on this grid: 3,400 strict
minima of pressure, 22,400 maxima of vorticity in the sense of the hemisphere.
"""

from __future__ import annotations

import sys
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, zoom

FloatArray = npt.NDArray[np.float64]

NLAT, NLON = 721, 1440
SMALL_SCALES = {"prmsl": (1.2, 8.0), "vo850": (1.3, 3e-5)}
"""Of each variable: width of the filter in grid points, and standard deviation in the variable's unit."""
DRIFT = 2  # columns a step
COMPRESSION: dict[str, Any] = {"compression": "zlib", "complevel": 1, "shuffle": True}


def small_scales(sigma: float, deviation: float) -> FloatArray:
    """Smoothed white noise, shape (NLAT, NLON)."""
    white = np.random.default_rng(0).normal(size=(NLAT, NLON))
    noise: FloatArray = gaussian_filter(white, sigma, mode=("nearest", "wrap"))
    noise *= deviation / noise.std()
    return noise


def on_fine_grid(field: FloatArray) -> FloatArray:
    """A global field (nlat, nlon), poles included, by cubic splines on NLAT x NLON points."""
    closed = np.concatenate([field, field[:, :1]], axis=1)
    factors = (NLAT / closed.shape[0], (NLON + 1) / closed.shape[1])
    fine: FloatArray = zoom(closed, factors, order=3, mode="nearest")
    return fine[:, :NLON]


def add_axes(target: netCDF4.Dataset, source: netCDF4.Dataset, steps: int) -> None:
    """Dimensions and coordinates: the time of the source, and the fine grid."""
    axes = {
        "time": source["time"][:steps],
        "lat": np.linspace(90.0, -90.0, NLAT),
        "lon": np.arange(NLON) * (360.0 / NLON),
    }
    for name, values in axes.items():
        target.createDimension(name, len(values))
        coordinate = target.createVariable(name, "f8", (name,))
        coordinate.setncatts(source[name].__dict__)
        coordinate[:] = values


def make(source: netCDF4.Dataset, target: netCDF4.Dataset, name: str, steps: int) -> None:
    """Write the first `steps` steps of a variable."""
    add_axes(target, source, steps)
    target.Conventions = "CF-1.11"
    fine = target.createVariable(name, "f4", ("time", "lat", "lon"), chunksizes=(1, NLAT, NLON), **COMPRESSION)
    fine.setncatts(source[name].__dict__)
    noise = small_scales(*SMALL_SCALES[name])
    for step in range(steps):
        coarse = np.asarray(source[name][step], dtype=np.float64)
        fine[step] = on_fine_grid(coarse) + np.roll(noise, DRIFT * step, axis=1)


def main(given: str, wanted: str, name: str, steps: str) -> None:
    """Make one series."""
    with netCDF4.Dataset(given) as source, netCDF4.Dataset(wanted, "w") as target:
        make(source, target, name, int(steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
