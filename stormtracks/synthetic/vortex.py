"""One round vortex on the sphere in closed form: its wind, and the pressure that goes with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stormtracks.grid import EARTH_RADIUS_KM, Grid

__all__ = ["pressure_deficit", "vortex_shape", "vortex_wind"]

FloatArray = npt.NDArray[np.float64]

EARTH_RADIUS = 1000 * EARTH_RADIUS_KM  # m
DENSITY_TIMES_CORIOLIS = 1.2e-4  # kg m-3 s-1: air at the surface, f at 43 degrees


def vortex_wind(
    grid: Grid, lat: float, lon: float, *, amplitude: float, radius_km: float
) -> tuple[FloatArray, FloatArray]:
    """Wind of a vortex whose vorticity is a bell on the sphere.

    Parameters
    ----------
    grid : Grid
        Where the wind is wanted, (nlat, nlon) points.
    lat, lon : float
        Centre, degrees.
    amplitude : float
        A in the equations, s-1; positive turns anticlockwise.
    radius_km : float
        r in the equations, km.

    Returns
    -------
    u, v : numpy.ndarray, shape (nlat, nlon)
        Eastward and northward wind, m s-1; regular at the centre, at its antipode and on the poles.

    Notes
    -----
    With theta the angle from the centre, mu = cos(theta) and kappa = (R/r)**2 the vorticity is::

        zeta = A (g - m),   g = exp(kappa (mu - 1)),   m = (1 - exp(-2 kappa)) / (2 kappa)

    where m, the mean of g over the sphere, makes the whole circulation vanish, as it must. The circulation inside
    theta gives the wind along the circle, by Stokes's theorem; as a vector at the point p, with the centre c::

        R A F (c x p),   F = [(1 - exp(kappa (mu - 1))) / kappa - m (1 - mu)] / (1 - mu**2)
    """
    phi, phi0 = np.deg2rad(grid.lat)[:, np.newaxis], np.deg2rad(lat)
    lam = np.deg2rad(grid.lon - lon)
    kappa = (EARTH_RADIUS_KM / radius_km) ** 2
    mean = -np.expm1(-2 * kappa) / (2 * kappa)
    # F is 0/0 at the centre and at the antipode, yet regular, and the wind is zero there: a point close by will do.
    h = np.clip(_one_minus_cosine(phi, lam, phi0), 1e-14, 2 - 1e-12)
    f = (np.expm1(-kappa * h) / -kappa - mean * h) / (h * (2 - h))
    f *= EARTH_RADIUS * amplitude
    u = f * (np.sin(phi0) * np.cos(phi) - np.cos(phi0) * np.sin(phi) * np.cos(lam))
    v = f * (np.cos(phi0) * np.sin(lam))
    return u, v


def vortex_shape(grid: Grid, lat: float, lon: float, *, radius_km: float) -> FloatArray:
    """The bell g of `vortex_wind`, 1 at the centre, shape (nlat, nlon)."""
    phi = np.deg2rad(grid.lat)[:, np.newaxis]
    h = _one_minus_cosine(phi, np.deg2rad(grid.lon - lon), np.deg2rad(lat))
    return np.asarray(np.exp(-((EARTH_RADIUS_KM / radius_km) ** 2) * h))


def pressure_deficit(grid: Grid, lat: float, lon: float, *, amplitude: float, radius_km: float) -> FloatArray:
    """By how much a vortex lowers the pressure, Pa, shape (nlat, nlon).

    The deficit at the centre is rho f abs(A) r**2, which is the size that geostrophic balance gives; it falls off as
    the vorticity does.
    """
    depth = DENSITY_TIMES_CORIOLIS * abs(amplitude) * (1000 * radius_km) ** 2
    return depth * vortex_shape(grid, lat, lon, radius_km=radius_km)


def _one_minus_cosine(phi: FloatArray, lam: FloatArray, phi0: float) -> FloatArray:
    # As haversines: one minus a cosine would lose every digit near the centre.
    hav = np.sin(0.5 * (phi - phi0)) ** 2 + np.cos(phi) * np.cos(phi0) * np.sin(0.5 * lam) ** 2
    return np.asarray(2 * hav)
