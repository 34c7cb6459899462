"""The tangent plane of a place on the sphere, and where a quadratic fitted in it is highest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stormtracks.grid import EARTH_RADIUS_KM

__all__ = ["from_tangent_plane", "quadratic_fit", "tangent_plane", "top"]

FloatArray = npt.NDArray[np.float64]


def tangent_plane(
    lat0: npt.ArrayLike, lon0: npt.ArrayLike, lat: FloatArray, lon: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Azimuthal equidistant coordinates: km east and north of a point, at true distance and direction; broadcasts.

    Source: Snyder (1987), *Map Projections: A Working Manual*, USGS Professional Paper 1395, chapter 25.
    """
    phi0, dlam, phi = np.deg2rad(lat0), np.deg2rad(np.subtract(lon, lon0)), np.deg2rad(lat)
    east = np.cos(phi) * np.sin(dlam)
    north = np.cos(phi0) * np.sin(phi) - np.sin(phi0) * np.cos(phi) * np.cos(dlam)
    towards = np.sin(phi0) * np.sin(phi) + np.cos(phi0) * np.cos(phi) * np.cos(dlam)
    across = np.hypot(east, north)
    scale = EARTH_RADIUS_KM * np.arctan2(across, towards) / np.where(across > 0, across, 1.0)
    return scale * east, scale * north


def from_tangent_plane(
    lat0: FloatArray, lon0: FloatArray, x: FloatArray, y: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Latitude and longitude in degrees of points `x` km east and `y` km north; the inverse of `tangent_plane`."""
    angle = np.hypot(x, y) / EARTH_RADIUS_KM
    across = np.where(angle > 0, angle, 1.0) * EARTH_RADIUS_KM
    sin_angle, cos_angle = np.sin(angle), np.cos(angle)
    east, north = sin_angle * x / across, sin_angle * y / across
    phi0 = np.deg2rad(lat0)
    sin_phi0, cos_phi0 = np.sin(phi0), np.cos(phi0)
    up = cos_angle * sin_phi0 + north * cos_phi0
    out = cos_angle * cos_phi0 - north * sin_phi0
    return np.rad2deg(np.arctan2(up, np.hypot(out, east))), lon0 + np.rad2deg(np.arctan2(east, out))


def quadratic_fit(x: FloatArray, y: FloatArray) -> FloatArray:
    """Least-squares weights of x, y, x^2, x y, y^2 (with a constant, left out of the result), shape (..., 5, n)."""
    scale = np.maximum(np.abs(x), np.abs(y)).max(axis=-1, keepdims=True)
    u, v = x / scale, y / scale
    weights = np.linalg.pinv(np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1))[..., 1:, :]
    return np.asarray(weights / np.stack([scale, scale, scale**2, scale**2, scale**2], axis=-2))


def top(quadratic: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where quadratics are highest: km east and north, shape (n,); (0, 0) where there is no top.

    Parameters
    ----------
    quadratic : shape (5, n)
        The coefficients of x, y, x^2, x y, y^2.
    """
    gx, gy, xx, xy, yy = quadratic
    det = 4 * xx * yy - xy * xy
    peaked = (det > 0) & (xx < 0)
    det = np.where(peaked, det, 1.0)
    x = np.where(peaked, (xy * gy - 2 * yy * gx) / det, 0.0)
    y = np.where(peaked, (xy * gx - 2 * xx * gy) / det, 0.0)
    return x, y
