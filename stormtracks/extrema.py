"""Local maxima of fields on the sphere: over the seam, over the poles, one per plateau, placed between grid points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stormtracks.grid import EARTH_RADIUS_KM, Grid, unit_vectors

__all__ = ["Maxima", "Neighbourhood", "local_maxima"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True, eq=False)
class Maxima:
    """Local maxima of a stack of fields, in order of step, row and column.

    Parameters
    ----------
    step : shape (n,), int64
        Index of the field within the stack.
    row, col : shape (n,), int64
        Grid point; of a plateau its first one.
    lat, lon : shape (n,), float64
        Position in degrees, between grid points if refined; of a plateau the centroid of its points' positions.
    """

    step: IntArray
    row: IntArray
    col: IntArray
    lat: FloatArray
    lon: FloatArray

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Which grid points touch which, and where they lie; made once for a grid.

    A point's neighbours are the eight around it and, where meridians draw together, the further columns that lie no
    farther away than the next row: near a pole, columns a few km apart are no places of their own. A pole row is one
    point, held in column 0, that touches the whole row beside it. On a grid that ends half a step short of the pole,
    points of the last row touch those of the same row on the other side.
    """

    grid: Grid

    def is_pole(self, row: IntArray) -> BoolArray:
        """Whether a row is a pole, shape of `row`."""
        return np.isin(row, self.grid.pole_rows)

    def can_be_centre(self, row: IntArray, col: IntArray) -> BoolArray:
        """Whether a point has neighbours all round; false on the edges of a limited area."""
        nlat, nlon = self.grid.shape
        whole = np.ones(len(row), dtype=bool)
        for edge, at in ((0, 0), (nlat - 1, -1)):
            if not self.grid.reaches_pole(at):
                whole &= row != edge
        if not self.grid.periodic:
            margin = self.stretch[row]
            whole &= (col >= margin) & (col < nlon - margin)
        return whole

    def shift(self, row: IntArray, col: IntArray, drow: int, dcol: IntArray | int) -> tuple[IntArray, IntArray]:
        """The point `drow` rows (-1, 0, 1) and `dcol` columns away; over the pole where the grid reaches it."""
        nlat, nlon = self.grid.shape
        to = row + drow
        over = (to < 0) | (to >= nlat)
        column = col + dcol + np.where(over, nlon // 2, 0)
        to = np.clip(to, 0, nlat - 1)
        column = column % nlon
        return to, np.where(self.is_pole(to), 0, column)

    @cached_property
    def stretch(self) -> IntArray:
        """Columns that span about as many km as one row does at each latitude, shape (nlat,); at least 1."""
        nlon = len(self.grid.lon)
        height = np.abs(np.gradient(self.grid.lat))
        width = self.grid.lon_step * np.cos(np.deg2rad(self.grid.lat))
        columns = np.rint(height / np.maximum(width, self.grid.lon_step * 1e-3)).astype(np.int64)
        return np.clip(columns, 1, max(nlon // 4, 1))

    def around(self, row: IntArray, col: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """All neighbours of each point: index of the point, row and column of the neighbour; shapes (m,)."""
        nlat, nlon = self.grid.shape
        pole = self.is_pole(row)
        stretch = self.stretch[row]
        width = np.where(pole, 0, 2 * stretch + 1)
        point = np.repeat(np.arange(len(row)), width)
        dcol = np.arange(len(point)) - np.repeat(np.cumsum(width) - width + stretch, width)
        parts = [
            (point[keep], *self.shift(row[point[keep]], col[point[keep]], drow, dcol[keep]))
            for drow in (-1, 0, 1)
            for keep in (np.flatnonzero(dcol != 0) if drow == 0 else np.arange(len(dcol)),)
        ]
        at = np.flatnonzero(pole)
        beside = np.where(row[at] == 0, 1, nlat - 2)
        parts.append((np.repeat(at, nlon), np.repeat(beside, nlon), np.tile(np.arange(nlon), len(at))))
        points, rows, cols = (np.concatenate(part) for part in zip(*parts, strict=True))
        return points, rows, cols

    def stencil(self, row: IntArray, col: IntArray) -> tuple[IntArray, IntArray]:
        """The 3 x 3 points, about as wide as high in km, that a fit at each centre uses; shapes (n, 9)."""
        stretch = self.stretch[row]
        points = [self.shift(row, col, drow, dcol * stretch) for drow in (-1, 0, 1) for dcol in (-1, 0, 1)]
        return np.stack([p[0] for p in points], axis=-1), np.stack([p[1] for p in points], axis=-1)

    @cached_property
    def fits(self) -> tuple[FloatArray, FloatArray]:
        """For each row that is no pole, the least-squares fit of a quadratic on its stencil.

        Returns
        -------
        weights : shape (nlat, 5, 9)
            Give the coefficients of x, y, x^2, x y, y^2 from the nine values.
        reach : shape (nlat, 2)
            Half the width and height of the stencil's cell, in km: how far a centre may move.
        """
        lat, lon = self.grid.lat, self.grid.lon
        row = np.arange(len(lat))
        col = np.full(len(lat), len(lon) // 2)
        row = row[self.can_be_centre(row, col) & ~self.is_pole(row)]
        rows, cols = self.stencil(row, col[row])
        x, y = tangent_plane(lat[row, None], lon[col[row], None], lat[rows], lon[cols])
        weights = np.zeros((len(lat), 5, 9))
        reach = np.zeros((len(lat), 2))
        weights[row] = _quadratic_fit(x, y)
        reach[row, 0] = 0.5 * np.abs(x[:, [3, 5]]).max(axis=1)
        reach[row, 1] = 0.5 * np.abs(y[:, [1, 7]]).max(axis=1)
        return weights, reach

    def pole_fit(self, row: int) -> tuple[FloatArray, float]:
        """The same for a pole row, from the pole and the row beside it: weights (5, 1 + nlon) and the reach in km."""
        beside = 1 if row == 0 else row - 1
        lon = self.grid.lon
        x, y = tangent_plane(
            self.grid.lat[row],
            0.0,
            np.r_[self.grid.lat[row], np.full(len(lon), self.grid.lat[beside])],
            np.r_[0.0, lon],
        )
        return _quadratic_fit(x, y), 0.5 * float(np.hypot(x[1], y[1]))


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
    east, north = np.sin(angle) * x / across, np.sin(angle) * y / across
    phi0 = np.deg2rad(lat0)
    up = np.cos(angle) * np.sin(phi0) + north * np.cos(phi0)
    out = np.cos(angle) * np.cos(phi0) - north * np.sin(phi0)
    return np.rad2deg(np.arctan2(up, np.hypot(out, east))), lon0 + np.rad2deg(np.arctan2(east, out))


def _quadratic_fit(x: FloatArray, y: FloatArray) -> FloatArray:
    """Least-squares weights of x, y, x^2, x y, y^2 (with a constant, left out of the result), shape (..., 5, n)."""
    scale = np.maximum(np.abs(x), np.abs(y)).max(axis=-1, keepdims=True)
    u, v = x / scale, y / scale
    weights = np.linalg.pinv(np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1))[..., 1:, :]
    return np.asarray(weights / np.stack([scale, scale, scale**2, scale**2, scale**2], axis=-2))


def local_maxima(field: Field, near: Neighbourhood, *, threshold: float | None = None, refine: bool = True) -> Maxima:
    """Points of each field that stand above all their neighbours, a flat plateau counting as one.

    Parameters
    ----------
    field : numpy.ndarray, shape (n, nlat, nlon)
        NaN where missing; a point with a missing neighbour is no maximum. A pole row must hold one value (its first
        column is what counts).
    near : Neighbourhood
        Of the grid.
    threshold : float, optional
        Points below it are left out.
    refine : bool
        Place each maximum at the top of a quadratic in the tangent plane, fitted to 3 x 3 points by least squares, no
        further than half a cell away.
    """
    step, row, col = _rise_above_rows(field, near, threshold)
    value = field[step, row, col]
    pole = near.is_pole(row)
    weak = near.can_be_centre(row, col)
    strict = weak.copy()
    # The eight around it leave so few that the others cost nothing.
    for drow, dcol in _AROUND:
        rows, cols = near.shift(row, col, drow, dcol)
        other = field[step, rows, cols]
        weak &= (value >= other) | pole
        strict &= (value > other) | pole
    left = np.flatnonzero(weak & (pole | (near.stretch[row] > 1)))
    point, rows, cols = near.around(row[left], col[left])
    other = field[step[left[point]], rows, cols]
    weak[left[point[~(value[left[point]] >= other)]]] = False
    strict[left[point[~(value[left[point]] > other)]]] = False
    step, row, col, strict = step[weak], row[weak], col[weak], strict[weak]
    lat, lon = near.grid.lat[row], near.grid.lon[col]
    if refine:
        lat, lon = _refine(field, near, step, row, col)
    flat = np.flatnonzero(~strict)
    first, centre_lat, centre_lon = _plateaus(
        field, near, step[flat], row[flat], col[flat], unit_vectors(lat[flat], lon[flat])
    )
    lat[flat[first]], lon[flat[first]] = centre_lat, centre_lon
    strict[flat[first]] = True
    return Maxima(step[strict], row[strict], col[strict], lat[strict], lon[strict])


def _rise_above_rows(field: Field, near: Neighbourhood, threshold: float | None) -> tuple[IntArray, IntArray, IntArray]:
    """Points not below those north and south of them: the cheap test that leaves few."""
    _, nlat, nlon = field.shape
    rise = np.zeros(field.shape, dtype=bool)
    middle = field[:, 1:-1]
    np.greater_equal(middle, field[:, :-2], out=rise[:, 1:-1])
    rise[:, 1:-1] &= middle >= field[:, 2:]
    for edge, at in ((0, 0), (nlat - 1, -1)):
        if near.grid.reaches_pole(at):
            rise[:, edge, :] = True
            if edge in near.grid.pole_rows:
                rise[:, edge, 1:] = False
    if threshold is not None:
        rise &= field >= threshold
    step, rest = np.divmod(np.flatnonzero(rise), nlat * nlon)
    row, col = np.divmod(rest, nlon)
    return step, row, col


def _plateaus(
    field: Field, near: Neighbourhood, step: IntArray, row: IntArray, col: IntArray, xyz: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Join equal neighbours into plateaus and keep those that nothing overtops.

    Returns the index of each kept plateau's first point and the centroid, in degrees, of its points' places `xyz`.
    """
    nlat, nlon = near.grid.shape
    count = len(step)
    if count == 0:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    value = field[step, row, col]
    key = (step * nlat + row) * nlon + col  # ascending, as the points come in order
    point, rows, cols = near.around(row, col)
    other = field[step[point], rows, cols]
    has_lower, equal_outside = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    has_lower[point[other < value[point]]] = True
    same = np.flatnonzero(other == value[point])
    other_key = (step[point[same]] * nlat + rows[same]) * nlon + cols[same]
    other_point = np.minimum(np.searchsorted(key, other_key), count - 1)
    found = key[other_point] == other_key
    equal_outside[point[same[~found]]] = True
    one, two = point[same[found]], other_point[found]
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, two)), shape=(count, count))
    total, label = connected_components(graph, directed=False)
    # A plateau with an equal point that is overtopped is a shoulder; one with nothing lower is a constant field.
    good = np.ones(total, dtype=bool)
    good[label[equal_outside]] = False
    lower = np.zeros(total, dtype=bool)
    lower[label[has_lower]] = True
    good &= lower
    first = np.unique(label, return_index=True)[1]
    sums = np.stack([np.bincount(label, xyz[:, axis], minlength=total) for axis in range(3)])
    lat = np.rad2deg(np.arctan2(sums[2], np.hypot(sums[0], sums[1])))
    lon = np.rad2deg(np.arctan2(sums[1], sums[0]))
    return first[good], lat[good], lon[good]


def _refine(
    field: Field, near: Neighbourhood, step: IntArray, row: IntArray, col: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Positions between grid points, in degrees: the top of the fitted quadratic, at most half a cell away."""
    weights, reach = near.fits
    rows, cols = near.stencil(row, col)
    x, y = _top(weights[row], field[step[:, None], rows, cols].astype(np.float64))
    x = np.clip(x, -reach[row, 0], reach[row, 0])
    y = np.clip(y, -reach[row, 1], reach[row, 1])
    lat, lon = from_tangent_plane(near.grid.lat[row], near.grid.lon[col], x, y)
    for pole in near.grid.pole_rows:
        at = np.flatnonzero(row == pole)
        if len(at):
            lat[at], lon[at] = _refine_pole(field, near, step[at], pole)
    return lat, lon


def _refine_pole(field: Field, near: Neighbourhood, step: IntArray, pole: int) -> tuple[FloatArray, FloatArray]:
    weights, reach = near.pole_fit(pole)
    beside = 1 if pole == 0 else pole - 1
    values = np.concatenate([field[step, pole, :1], field[step, beside]], axis=1).astype(np.float64)
    x, y = _top(np.broadcast_to(weights, (len(step), *weights.shape)), values)
    shrink = np.minimum(1.0, reach / np.maximum(np.hypot(x, y), 1e-9))
    lat0 = np.full(len(step), near.grid.lat[pole])
    return from_tangent_plane(lat0, np.zeros(len(step)), x * shrink, y * shrink)


def _top(weights: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where the quadratic through `values` (n, k) is highest, in km; (0, 0) where it has no top."""
    # Summed term by term: rounding must not depend on how many points are handled together.
    total = weights[:, :, 0] * values[:, None, 0]
    for k in range(1, values.shape[1]):
        total = total + weights[:, :, k] * values[:, None, k]
    gx, gy, xx, xy, yy = total.T
    det = 4 * xx * yy - xy * xy
    peaked = (det > 0) & (xx < 0)
    det = np.where(peaked, det, 1.0)
    x = np.where(peaked, (xy * gy - 2 * yy * gx) / det, 0.0)
    y = np.where(peaked, (xy * gx - 2 * xx * gy) / det, 0.0)
    return x, y
