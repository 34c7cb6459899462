"""Fields of a block of time steps: what the storms and the noise each contribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stormtracks.grid import Grid
from stormtracks.synthetic.noise import Synthesis
from stormtracks.synthetic.vortex import DENSITY_TIMES_CORIOLIS, pressure_deficit, vortex_wind

__all__ = ["VARIABLES", "Vortices", "noise_fields", "storm_fields"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

VARIABLES = ("u850", "v850", "prmsl")
"""What can be made: wind at 850 hPa in m s-1, and pressure at mean sea level in Pa."""

_AMBIENT_PRESSURE = 101325.0  # Pa


@dataclass(frozen=True, eq=False)
class Vortices:
    """Which vortex is where at which time step.

    Parameters
    ----------
    step : shape (n,), int64
        Ascending.
    lat, lon : shape (n,), float64
        Degrees.
    amplitude : shape (n,), float64
        Vorticity at the centre, s-1.
    radius_km : shape (n,), float64
    """

    step: IntArray
    lat: FloatArray
    lon: FloatArray
    amplitude: FloatArray
    radius_km: FloatArray

    def between(self, first: int, stop: int) -> Vortices:
        """Those at steps `first` up to, not including, `stop`; steps are counted from `first`."""
        cut = slice(*np.searchsorted(self.step, (first, stop)))
        return Vortices(self.step[cut] - first, self.lat[cut], self.lon[cut], self.amplitude[cut], self.radius_km[cut])


def storm_fields(grid: Grid, vortices: Vortices, steps: int, variables: Sequence[str]) -> dict[str, FloatArray]:
    """The fields of storms in air at rest.

    Parameters
    ----------
    grid : Grid
    vortices : Vortices
    steps : int
        Number of time steps.
    variables : sequence of str
        Some of `VARIABLES`.

    Returns
    -------
    dict of numpy.ndarray, shape (steps, nlat, nlon)
        Units as in `VARIABLES`.
    """
    fields = {name: np.zeros((steps, *grid.shape)) for name in variables}
    if "prmsl" in fields:
        fields["prmsl"] += _AMBIENT_PRESSURE
    for i, step in enumerate(vortices.step):
        lat, lon = float(vortices.lat[i]), float(vortices.lon[i])
        amplitude, radius_km = float(vortices.amplitude[i]), float(vortices.radius_km[i])
        if "u850" in fields or "v850" in fields:
            wind = vortex_wind(grid, lat, lon, amplitude=amplitude, radius_km=radius_km)
            for name, component in zip(("u850", "v850"), wind, strict=True):
                if name in fields:
                    fields[name][step] += component
        if "prmsl" in fields:
            fields["prmsl"][step] -= pressure_deficit(grid, lat, lon, amplitude=amplitude, radius_km=radius_km)
    return fields


def noise_fields(synthesis: Synthesis, vorticity: ComplexArray, variables: Sequence[str]) -> dict[str, FloatArray]:
    """The fields of noise: its rotational wind, and rho f times its streamfunction as pressure.

    Parameters
    ----------
    synthesis : Synthesis
    vorticity : numpy.ndarray, shape (steps, n_coefficients)
        Spectral coefficients of vorticity, s-1.
    variables : sequence of str
        Some of `VARIABLES`.

    Returns
    -------
    dict of numpy.ndarray, shape (steps, nlat, nlon)
        Units as in `VARIABLES`.
    """
    fields = {}
    if "u850" in variables:
        fields["u850"] = synthesis.eastward_wind(vorticity)
    if "v850" in variables:
        fields["v850"] = synthesis.northward_wind(vorticity)
    if "prmsl" in variables:
        fields["prmsl"] = DENSITY_TIMES_CORIOLIS * synthesis.streamfunction(vorticity)
    return fields
