"""The horizontal grid: axes, periodicity, poles, and distances on the sphere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError

__all__ = ["EARTH_RADIUS_KM", "Grid", "great_circle_distance", "unit_vectors"]

EARTH_RADIUS_KM = 6371.0

FloatArray = npt.NDArray[np.float64]

_SPACING_TOLERANCE = 1e-3  # degrees; axes stored as float32 are off by up to 3e-5
_POLE_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Grid:
    """A latitude-longitude grid: regular in longitude, any monotonic latitudes.

    Grids of the same coordinates, bit by bit, are equal: what is made of one serves all tasks of a process.

    Parameters
    ----------
    lat : numpy.ndarray, shape (nlat,), float64
        Degrees north, strictly ascending or descending, evenly spaced or not.
    lon : numpy.ndarray, shape (nlon,), float64
        Degrees east, ascending and evenly spaced, in any convention (0..360, -180..180).

    Raises
    ------
    InputError
        If an axis is too short, not monotonic, out of range, or the longitudes are uneven.
    """

    lat: FloatArray
    lon: FloatArray

    def __post_init__(self) -> None:
        lat = np.asarray(self.lat, dtype=np.float64)
        lon = np.asarray(self.lon, dtype=np.float64)
        object.__setattr__(self, "lat", lat)
        object.__setattr__(self, "lon", lon)
        if lat.ndim != 1 or lon.ndim != 1 or len(lat) < 3 or len(lon) < 3:
            raise InputError(
                f"the grid has {lat.shape} latitudes and {lon.shape} longitudes",
                remedy="a field needs at least 3 latitudes and 3 longitudes, each as a one-dimensional coordinate",
            )
        if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
            raise InputError("a latitude or longitude is missing or not finite", remedy="mend the coordinate")
        if np.abs(lat).max() > 90 + _POLE_TOLERANCE:
            raise InputError(f"latitudes reach {np.abs(lat).max():g} degrees", remedy="they must lie in -90..90")
        steps = np.diff(lat)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise InputError("latitudes neither ascend nor descend throughout", remedy="sort the file by latitude")
        widths = np.diff(lon)
        if (widths <= 0).any() or np.ptp(widths) > _SPACING_TOLERANCE:
            raise InputError(
                f"longitudes are not evenly spaced and ascending (steps {widths.min():g} to {widths.max():g} degrees)",
                remedy="sort or regrid the file by longitude",
            )
        if lon[-1] - lon[0] + self.lon_step > 360 + len(lon) * _SPACING_TOLERANCE:
            raise InputError(
                f"longitudes {lon[0]:g}..{lon[-1]:g} go more than once round the globe",
                remedy="drop the repeated column",
            )

    @cached_property
    def _content(self) -> tuple[bytes, bytes]:
        return self.lat.tobytes(), self.lon.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of latitudes and of longitudes."""
        return len(self.lat), len(self.lon)

    @cached_property
    def lon_step(self) -> float:
        """Spacing of the longitudes in degrees."""
        return float((self.lon[-1] - self.lon[0]) / (len(self.lon) - 1))

    @cached_property
    def periodic(self) -> bool:
        """Whether the longitudes close the circle."""
        return abs(len(self.lon) * self.lon_step - 360) < 0.5 * self.lon_step

    @cached_property
    def pole_rows(self) -> tuple[int, ...]:
        """Rows that lie on a pole, where every column is the same point."""
        return tuple(int(i) for i in np.flatnonzero(np.abs(np.abs(self.lat) - 90) <= _POLE_TOLERANCE))

    def reaches_pole(self, row: int) -> bool:
        """Whether nothing but the pole itself lies beyond the first (0) or last (-1) row."""
        if not self.periodic:
            return False
        inner = self.lat[1] if row == 0 else self.lat[-2]
        edge = self.lat[row]
        # A grid without a pole row stops half a step short of the pole, a Gaussian one 0.773 steps at any size.
        return bool(abs(edge) > abs(inner) and 90 - abs(edge) <= 0.8 * abs(edge - inner))

    def same_as(self, other: Grid) -> bool:
        """Whether both grids hold the same points, to the precision of a float32 coordinate."""
        return (
            self.shape == other.shape
            and bool(np.allclose(self.lat, other.lat, atol=_POLE_TOLERANCE, rtol=0))
            and bool(np.allclose(self.lon, other.lon, atol=_POLE_TOLERANCE, rtol=0))
        )


def unit_vectors(lat: npt.ArrayLike, lon: npt.ArrayLike) -> FloatArray:
    """Points on the unit sphere.

    Parameters
    ----------
    lat, lon : array_like, shape (...)
        Degrees; broadcast against each other.

    Returns
    -------
    numpy.ndarray, shape (..., 3)
        Cartesian coordinates; the third axis points to the north pole.
    """
    phi, lam = np.broadcast_arrays(np.deg2rad(lat), np.deg2rad(lon))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def great_circle_distance(
    lat1: npt.ArrayLike, lon1: npt.ArrayLike, lat2: npt.ArrayLike, lon2: npt.ArrayLike
) -> FloatArray:
    """Great-circle distance in km, by the haversine formula; exactly zero for identical points.

    Parameters
    ----------
    lat1, lon1, lat2, lon2 : array_like
        Degrees; broadcast against each other.

    Notes
    -----
    ``hav(d / R) = hav(dlat) + cos(lat1) cos(lat2) hav(dlon)`` (Sinnott 1984, *Sky and Telescope* 68, 159),
    with R = 6371 km.
    """
    phi1, phi2 = np.deg2rad(lat1), np.deg2rad(lat2)
    half_phi = 0.5 * (phi2 - phi1)
    half_lam = 0.5 * np.deg2rad(np.subtract(lon2, lon1))
    hav = np.sin(half_phi) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin(half_lam) ** 2
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(hav, 1.0))))
