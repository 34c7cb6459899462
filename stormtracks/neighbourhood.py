"""Which grid points touch which, and how a quadratic is fitted to those around a point; once for a grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from stormtracks.grid import Grid
from stormtracks.tangent_plane import quadratic_fit, tangent_plane

__all__ = ["Neighbourhood", "neighbourhood"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Which grid points touch which, and where they lie.

    A point's neighbours are the eight around it and, where meridians draw together, the further columns that lie no
    farther away than the next row: near a pole, columns a few km apart are no places of their own. A pole row is one
    point, held in column 0, that touches the whole row beside it. On a grid that ends half a step short of the pole,
    points of the last row touch those of the same row on the other side.
    """

    grid: Grid

    @cached_property
    def is_pole(self) -> BoolArray:
        """Whether a row is a pole, shape (nlat,)."""
        return np.isin(np.arange(len(self.grid.lat)), self.grid.pole_rows)

    @cached_property
    def stretch(self) -> IntArray:
        """Columns that span about as many km as one row, shape (nlat,); at least 1, on a pole 0."""
        nlon = len(self.grid.lon)
        height = np.abs(np.gradient(self.grid.lat))
        width = self.grid.lon_step * np.cos(np.deg2rad(self.grid.lat))
        columns = np.rint(height / np.maximum(width, self.grid.lon_step * 1e-3)).astype(np.int64)
        return np.where(self.is_pole, 0, np.clip(columns, 1, max(nlon // 4, 1)))

    def beside_pole(self, pole: int) -> int:
        """The row that a pole row touches."""
        return 1 if pole == 0 else pole - 1

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
        return to, np.where(self.is_pole[to], 0, column)

    def around(self, row: IntArray, col: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """All neighbours of each point: index of the point, row and column of the neighbour; shapes (m,)."""
        nlat, nlon = self.grid.shape
        pole = self.is_pole[row]
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
        weights : shape (9, 5, nlat)
            Give the coefficients of x, y, x^2, x y, y^2 from the nine values.
        reach : shape (2, nlat)
            Half the width and height of the stencil's cell, in km: how far a centre may move.
        """
        lat, lon = self.grid.lat, self.grid.lon
        row = np.arange(len(lat))
        col = np.full(len(lat), len(lon) // 2)
        row = row[self.can_be_centre(row, col) & ~self.is_pole]
        rows, cols = self.stencil(row, col[row])
        x, y = tangent_plane(lat[row, None], lon[col[row], None], lat[rows], lon[cols])
        weights = np.zeros((9, 5, len(lat)))
        reach = np.zeros((2, len(lat)))
        weights[:, :, row] = quadratic_fit(x, y).transpose(2, 1, 0)
        reach[0, row] = 0.5 * np.abs(x[:, [3, 5]]).max(axis=1)
        reach[1, row] = 0.5 * np.abs(y[:, [1, 7]]).max(axis=1)
        return weights, reach

    @cached_property
    def pole_fits(self) -> dict[int, tuple[FloatArray, float]]:
        """The same for each pole row, from the pole and the row beside it: weights (5, 1 + nlon), reach in km."""
        return {row: self._pole_fit(row) for row in self.grid.pole_rows}

    def _pole_fit(self, row: int) -> tuple[FloatArray, float]:
        beside = self.beside_pole(row)
        lon = self.grid.lon
        x, y = tangent_plane(
            self.grid.lat[row],
            0.0,
            np.r_[self.grid.lat[row], np.full(len(lon), self.grid.lat[beside])],
            np.r_[0.0, lon],
        )
        return quadratic_fit(x, y), 0.5 * float(np.hypot(x[1], y[1]))


@lru_cache(maxsize=16)
def neighbourhood(grid: Grid) -> Neighbourhood:
    """The neighbourhood of a grid, made once in a process: its fits take milliseconds."""
    return Neighbourhood(grid)
