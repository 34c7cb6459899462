"""Local maxima of fields on the sphere: over the seam, over the poles, one per plateau, placed between grid points."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from stormtracks.grid import Grid, unit_vectors
from stormtracks.neighbourhood import Neighbourhood
from stormtracks.tangent_plane import from_tangent_plane, top

__all__ = ["Maxima", "local_maxima"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

# Steps are worked on few at a time, so that the intermediate arrays stay in a core's own cache.
_POINTS_AT_A_TIME = 1 << 20


@dataclass(frozen=True, eq=False)
class Maxima:
    """Local maxima of a stack of fields, in order of step, row and column.

    Parameters
    ----------
    step : shape (n,), int64
        Index of the field within the stack.
    row, col : shape (n,), int64
        Grid point; of a plateau its first one.
    value : shape (n,), float32
        There, with the sense of the search.
    lat, lon : shape (n,), float64
        Position in degrees, between grid points if refined; of a plateau the centroid of its points' positions.
    """

    step: IntArray
    row: IntArray
    col: IntArray
    value: Field
    lat: FloatArray
    lon: FloatArray

    def __len__(self) -> int:
        return len(self.step)


def local_maxima(
    field: Field,
    near: Neighbourhood,
    *,
    sense: npt.ArrayLike = 1.0,
    threshold: float | None = None,
    refine: bool = True,
) -> Maxima:
    """Points of each field that stand above all their neighbours, a flat plateau counting as one.

    Parameters
    ----------
    field : numpy.ndarray, shape (n, nlat, nlon)
        NaN where missing; a point with a missing neighbour is no maximum. Of a pole row the first column counts.
    near : Neighbourhood
        Of the grid.
    sense : array_like, float32, broadcasts against (nlat, nlon)
        What the field is multiplied with first; -1 finds minima.
    threshold : float, optional
        Points below it are left out.
    refine : bool
        Place each maximum at the top of a quadratic in the tangent plane, fitted to 3 x 3 points by least squares, no
        further than half a cell away.
    """
    steps, nlat, nlon = field.shape
    at_a_time = max(1, _POINTS_AT_A_TIME // (nlat * nlon))
    out = np.empty((min(steps, at_a_time), nlat + 2, nlon + 2), dtype=np.float32)
    parts = []
    for start in range(0, max(steps, 1), at_a_time):
        few = field[start : start + at_a_time]
        frame = _frame(few, near.grid, sense, out=out[: len(few)])
        parts.append(_in_frame(frame, near, threshold, refine=refine, first=start))
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Maxima(*(np.concatenate(column) for column in columns))


def _frame(field: Field, grid: Grid, sense: npt.ArrayLike, *, out: Field) -> Field:
    """The fields times their sense in a frame of one line on every side, shape (n, nlat + 2, nlon + 2).

    The frame holds what lies over the seam or the pole, and NaN where a limited area ends.
    """
    inner = out[:, 1:-1, 1:-1]
    np.multiply(field, sense, out=inner)
    for pole in grid.pole_rows:
        inner[:, pole] = inner[:, pole, :1]
    for beyond, edge in ((0, 0), (-1, -1)):
        if grid.reaches_pole(edge):
            out[:, beyond, 1:-1] = np.roll(inner[:, edge], -(len(grid.lon) // 2), axis=1)
        else:
            out[:, beyond] = np.nan
    if grid.periodic:
        out[:, :, 0], out[:, :, -1] = out[:, :, -2], out[:, :, 1]
    else:
        out[:, :, 0] = out[:, :, -1] = np.nan
    return out


def _in_frame(frame: Field, near: Neighbourhood, threshold: float | None, *, refine: bool, first: int) -> Maxima:
    """The maxima of framed fields, the first of which is number `first` of the stack."""
    step, row, col, strict = _not_below_any(frame, near, threshold)
    lat, lon = near.grid.lat.take(row), near.grid.lon.take(col)
    if refine:
        lat, lon = _between_points(frame, near, step, row, col)
    level = np.flatnonzero(~strict)
    if len(level):
        xyz = unit_vectors(lat[level], lon[level])
        kept, centre_lat, centre_lon = _plateaus(frame, near, step[level], row[level], col[level], xyz)
        kept = level[kept]
        lat[kept], lon[kept], strict[kept] = centre_lat, centre_lon, True
    step, row, col = step[strict], row[strict], col[strict]
    return Maxima(step + first, row, col, frame[step, row + 1, col + 1], lat[strict], lon[strict])


def _not_below_any(
    frame: Field, near: Neighbourhood, threshold: float | None
) -> tuple[IntArray, IntArray, IntArray, BoolArray]:
    """Points not below the threshold nor any neighbour: step, row, column, and whether they stand above them all."""
    at = _not_below_four(frame, near.grid, threshold)
    value, highest = frame.take(at), _highest_of_eight(frame, at)
    left = np.flatnonzero(value >= highest)
    at, value, highest = at.take(left), value.take(left), highest.take(left)
    line, col = np.divmod(at, frame.shape[2])
    step, row = np.divmod(line, frame.shape[1])
    row, col = row - 1, col - 1
    reach = near.stretch.take(row)
    wide = np.flatnonzero(reach > 1)
    highest[wide] = np.maximum(highest[wide], _highest_within(frame, at[wide], reach[wide]))
    for pole in near.grid.pole_rows:
        here = np.flatnonzero(row == pole)
        highest[here] = frame[step[here], near.beside_pole(pole) + 1, 1:-1].max(axis=1)
    left = np.flatnonzero((value >= highest) & near.can_be_centre(row, col))
    return step.take(left), row.take(left), col.take(left), (value > highest).take(left)


def _not_below_four(frame: Field, grid: Grid, threshold: float | None) -> IntArray:
    """Points not below the threshold nor those north, south, west and east of them: the cheap test that leaves few.

    Returns indices into the flat frame, ascending.
    """
    flat, width = frame.reshape(-1), frame.shape[2]
    rises = np.ones(frame.shape, dtype=bool)
    inner = slice(width, len(flat) - width)
    middle, found = flat[inner], rises.reshape(-1)[inner]
    not_below = np.empty_like(found)
    others: list[npt.ArrayLike] = [
        flat[inner.start + offset : inner.stop + offset] for offset in (-width, width, -1, 1)
    ]
    if threshold is not None:
        others.append(threshold)
    for other in others:
        np.greater_equal(middle, other, out=not_below)
        np.logical_and(found, not_below, out=found)
    rises[:, 0] = rises[:, -1] = False
    rises[:, :, 0] = rises[:, :, -1] = False
    for pole in grid.pole_rows:
        rises[:, pole + 1, 2:] = False
    return np.flatnonzero(rises)


def _highest_of_eight(frame: Field, at: IntArray) -> Field:
    """The highest of the eight values around each point of the flat frame; NaN if one is missing."""
    flat, width = frame.reshape(-1), frame.shape[2]
    highest = flat.take(at - 1)
    for offset in (1, -width - 1, -width, 1 - width, width - 1, width, width + 1):
        np.maximum(highest, flat.take(at + offset), out=highest)
    return highest


def _highest_within(frame: Field, at: IntArray, reach: IntArray) -> Field:
    """The highest value up to `reach` columns west and east of each point, in its row and in the two beside it.

    The points themselves are left out; NaN if a value is missing.
    """
    width = frame.shape[2]
    last = width - 2
    col = at % width
    line = at - col
    west, east = line + np.maximum(col - reach, 0), line + np.minimum(col + reach, last) + 1
    # What the seam cuts off stands at the other end of the rows.
    cut = np.flatnonzero((col <= reach) | (col + reach > last))
    to_west = (col <= reach)[cut]
    cut_west = line[cut] + np.where(to_west, (col - reach)[cut] + last, 1)
    cut_east = line[cut] + np.where(to_west, last, (col + reach)[cut] - last) + 1
    start = [west, at + 1, west - width, west + width, cut_west, cut_west - width, cut_west + width]
    stop = [at, east, east - width, east + width, cut_east, cut_east - width, cut_east + width]
    found = _highest_between(frame.reshape(-1), np.concatenate(start), np.concatenate(stop))
    highest: Field = found[: 4 * len(at)].reshape(4, -1).max(axis=0)
    highest[cut] = np.maximum(highest[cut], found[4 * len(at) :].reshape(3, -1).max(axis=0))
    return highest


def _highest_between(flat: Field, start: IntArray, stop: IntArray) -> Field:
    """The highest value from each start up to, not including, its stop, or at the start if that lies no further."""
    # From the last start back to the first: what lies between a stop and the next start is else looked at, too.
    order = np.argsort(-start, kind="stable")
    bounds = np.stack([start[order], stop[order]], axis=-1).reshape(-1)
    highest = np.empty(len(start), dtype=flat.dtype)
    highest[order] = np.maximum.reduceat(flat, bounds)[::2]
    return highest


def _plateaus(
    frame: Field, near: Neighbourhood, step: IntArray, row: IntArray, col: IntArray, xyz: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Join equal neighbours into plateaus and keep those that nothing overtops.

    Returns the index of each kept plateau's first point and the centroid, in degrees, of its points' places `xyz`.
    """
    nlat, nlon = near.grid.shape
    count = len(step)
    value = frame[step, row + 1, col + 1]
    key = (step * nlat + row) * nlon + col  # ascending, as the points come in order
    point, rows, cols = near.around(row, col)
    other = frame[step[point], rows + 1, cols + 1]
    same = np.flatnonzero(other == value[point])
    other_key = (step[point[same]] * nlat + rows[same]) * nlon + cols[same]
    other_point = np.minimum(np.searchsorted(key, other_key), count - 1)
    inside = key[other_point] == other_key
    label = _joined(point[same[inside]], other_point[inside], count)
    # A plateau with an equal point that is overtopped is a shoulder; one with nothing lower is a constant field.
    good = np.zeros(count, dtype=bool)
    good[label[point[other < value[point]]]] = True
    good[label[point[same[~inside]]]] = False
    first = np.flatnonzero(good)
    sums = [np.bincount(label, xyz[:, axis], minlength=count)[first] for axis in range(3)]
    return first, np.rad2deg(np.arctan2(sums[2], np.hypot(sums[0], sums[1]))), np.rad2deg(np.arctan2(sums[1], sums[0]))


def _joined(one: IntArray, two: IntArray, count: int) -> IntArray:
    """For each of `count` points the least that it is joined to, by pairs and directly or not."""
    least = np.arange(count)
    while True:
        of_one, of_two = least[one], least[two]
        if (of_one == of_two).all():
            return least
        lesser = np.minimum(of_one, of_two)
        np.minimum.at(least, of_one, lesser)
        np.minimum.at(least, of_two, lesser)
        least = least[least]


def _between_points(
    frame: Field, near: Neighbourhood, step: IntArray, row: IntArray, col: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Positions between grid points, in degrees: the top of the fitted quadratic, at most half a cell away."""
    weights, reach = near.fits
    flat, (_, height, width), nlon = frame.reshape(-1), frame.shape, len(near.grid.lon)
    stretch = near.stretch.take(row)
    line = (step * height + row) * width + 1
    columns = (col - stretch) % nlon, col, (col + stretch) % nlon
    quadratic = np.zeros((5, len(row)))
    # Summed term by term: rounding must not depend on how many points are handled together.
    for k, (drow, column) in enumerate(product((0, 1, 2), columns)):
        values = flat.take(line + (drow * width + column)).astype(np.float64)
        quadratic += weights[k].take(row, axis=1) * values
    x, y = top(quadratic)
    reach_x, reach_y = reach.take(row, axis=1)
    x, y = np.clip(x, -reach_x, reach_x), np.clip(y, -reach_y, reach_y)
    lat, lon = from_tangent_plane(near.grid.lat.take(row), near.grid.lon.take(col), x, y)
    for pole in near.grid.pole_rows:
        at = np.flatnonzero(row == pole)
        if len(at):
            lat[at], lon[at] = _on_pole(frame, near, step[at], pole)
    return lat, lon


def _on_pole(frame: Field, near: Neighbourhood, step: IntArray, pole: int) -> tuple[FloatArray, FloatArray]:
    """The same for maxima on a pole, from it and the whole row beside it."""
    weights, reach = near.pole_fits[pole]
    ring = frame[step, near.beside_pole(pole) + 1, 1:-1]
    values = np.concatenate([frame[step, pole + 1, 1:2], ring], axis=1).astype(np.float64)
    x, y = top(np.add.accumulate(weights * values[:, None], axis=-1)[..., -1].T)
    shrink = np.minimum(1.0, reach / np.maximum(np.hypot(x, y), 1e-9))
    lat0 = np.full(len(x), near.grid.lat[pole])
    return from_tangent_plane(lat0, np.zeros(len(x)), x * shrink, y * shrink)
