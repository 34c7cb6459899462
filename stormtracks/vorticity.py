"""Relative vorticity of the wind on the sphere: between the reader's blocks of u, v and the search for maxima."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError
from stormtracks.grid import EARTH_RADIUS_KM, Grid

__all__ = ["relative_vorticity"]

Field = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
Wind = npt.NDArray[np.floating[Any]]

_RADIUS = 1000 * EARTH_RADIUS_KM  # m

# Steps are worked on few at a time, so that the intermediate arrays stay in a core's own cache.
_POINTS_AT_A_TIME = 65_536


def relative_vorticity(u: Wind, v: Wind, grid: Grid, *, order: Literal[2, 4] = 2) -> Field:
    """Relative vorticity of the horizontal wind on the sphere.

    Parameters
    ----------
    u, v : numpy.ndarray, shape (..., nlat, nlon), float32 or float64
        Eastward and northward wind in m/s. The arithmetic is single precision if both are, else double.
    grid : Grid
        Where the values stand; global or not, ascending or descending latitudes, evenly spaced or not.
    order : {2, 4}
        Order of accuracy, everywhere: at the poles, beside them, and at the edges of a limited area.

    Returns
    -------
    numpy.ndarray, shape (..., nlat, nlon), float32
        Vorticity in s-1. NaN wherever a value that goes into it is NaN or masked.

    Raises
    ------
    InputError
        If u, v and the grid differ in shape, if the grid is too small for the order, or the order is neither 2 nor 4.

    Notes
    -----
    With R = 6371 km::

        zeta = 1 / (R cos(phi)) [dv/dlambda - d(u cos(phi))/dphi]
             = 1 / R [dv/dlambda / cos(phi) - du/dphi + u tan(phi)]

    (Vallis 2017, *Atmospheric and Oceanic Fluid Dynamics*, 2nd ed., section 2.2). The second form is the one that is
    differenced: the error of a difference of u cos(phi) would be divided by cos(phi), which costs an order of
    accuracy beside the poles.

    Derivatives are those of the trigonometric polynomial of degree ``order / 2`` through ``order + 1`` points (Henrici
    1979, *Numerische Mathematik* 33, 225-234), along the parallel and along the great circle that continues the
    meridian. They tend to the usual differences on fine grids, and are exact for the wind of a rotation about any
    axis. Such a wind blows straight across the pole, where the error of the usual differences would again be divided
    by cos(phi).

    - Longitudes wrap round where the grid closes the circle. At the edges of a limited area, in both directions,
      differences are one-sided and of the same order.
    - A meridian goes on beyond a pole as the opposite one, on which u has the other sign. With an odd number of
      longitudes no column stands opposite, and the rows beside the pole take one-sided differences.
    - A row on the pole has one value: by the circulation theorem the mean wind along the nearest ring times its
      length over the area of the plane disc within it; for order 4 two rings are combined so that the next error
      cancels. If the grid does not close the circle there is no such ring, and the value is NaN. The wind on the pole
      itself is never used: as components it differs from column to column, and archives differ in how they store it.

    The value of a point depends neither on how many steps are given at once nor on the order of the latitudes.
    """
    if order not in (2, 4):
        raise InputError(f"vorticity of order {order!r} was asked for", remedy="the order is 2 or 4")
    u, v = _without_mask(u), _without_mask(v)
    if u.shape != v.shape or u.shape[-2:] != grid.shape:
        raise InputError(
            f"u has shape {u.shape}, v has shape {v.shape} and the grid has {grid.shape[0]} latitudes and "
            f"{grid.shape[1]} longitudes",
            remedy="give u and v alike, (..., latitude, longitude), on the points of the grid",
        )
    single = np.result_type(u, v, np.float32) == np.float32
    stencils = _stencils(grid, order, np.dtype(np.float32 if single else np.float64))
    steps = int(np.prod(u.shape[:-2]))
    all_u, all_v = u.reshape(steps, *grid.shape), v.reshape(steps, *grid.shape)
    zeta = np.empty((steps, *grid.shape), dtype=np.float32)
    at_a_time = max(1, _POINTS_AT_A_TIME // (grid.shape[0] * grid.shape[1]))
    for start in range(0, steps, at_a_time):
        few = slice(start, start + at_a_time)
        _off_the_poles(all_u[few], all_v[few], stencils, out=zeta[few])
        _on_the_poles(all_u[few], stencils, out=zeta[few])
    return zeta.reshape(u.shape)


def _without_mask(field: Wind) -> Wind:
    return field.filled(np.nan) if isinstance(field, np.ma.MaskedArray) else np.asarray(field)


# ---- Weights: computed once per grid


@dataclass(frozen=True, eq=False)
class _Pole:
    """A row on a pole: the rings around it, nearest first, and the weight in 1/m of the mean eastward wind on each."""

    row: int
    rings: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Stencils:
    """All that the differences need to know of a grid.

    Rows on a pole are left out of `rows`; `reach` lines are added on each side of a field before it is differenced,
    so that every point then has its full stencil.

    Parameters
    ----------
    rows : slice
        The n rows that do not lie on a pole.
    reach : int
        How many lines a stencil reaches to each side.
    meridional : shape (order + 1, n, 1)
        Weights of u for ``(u tan(phi) - du/dphi) / R``, in 1/m.
    zonal : shape (n, 1)
        Weight of ``v[j + 1] - v[j - 1]`` for ``dv/dlambda / (R cos(phi))``, in 1/m.
    wider_pairs : tuple of float
        Weights of ``v[j + 2] - v[j - 2]`` ... relative to that.
    beyond_rows : two of None or shape (reach, order + 1)
        Beyond the first and the last of `rows`: None for the other side of the pole, else weights that extrapolate.
    beyond_columns : None or shape (reach, order + 1)
        Beyond the first and the last column: None for the wrap round the globe, else weights that extrapolate.
    poles : tuple of _Pole
    """

    rows: slice
    reach: int
    meridional: Wind
    zonal: Wind
    wider_pairs: tuple[float, ...]
    beyond_rows: tuple[Wind | None, ...]
    beyond_columns: Wind | None
    poles: tuple[_Pole, ...]


@lru_cache(maxsize=16)
def _stencils(grid: Grid, order: int, dtype: np.dtype[Any]) -> _Stencils:
    """The weights of a grid, in the precision of the arithmetic."""
    nlat, nlon = grid.shape
    reach = order // 2
    rows = slice(int(0 in grid.pole_rows), nlat - int(nlat - 1 in grid.pole_rows))
    phi = np.deg2rad(grid.lat[rows])
    if min(len(phi), nlon) < order + 1:
        raise InputError(
            f"vorticity of order {order} on {len(phi)} latitudes off the poles and {nlon} longitudes",
            remedy=f"it needs at least {order + 1} of each" + ("; order 2 needs 3" if order == 4 else ""),
        )
    crosses = tuple(grid.reaches_pole(edge) and nlon % 2 == 0 for edge in (0, -1))
    # 360 degrees over the number of columns is the same number in every longitude convention.
    step = 2 * np.pi / nlon if grid.periodic else float(np.deg2rad(grid.lon_step))
    pairs = _slopes(np.arange(-reach, reach + 1) * np.float64(step))[reach + 1 :]
    return _Stencils(
        rows=rows,
        reach=reach,
        meridional=_meridional_weights(phi, crosses, reach)[..., None].astype(dtype),
        zonal=(pairs[0] / (_RADIUS * np.cos(phi)))[:, None].astype(dtype),
        wider_pairs=tuple((pairs[1:] / pairs[0]).tolist()),
        beyond_rows=tuple(
            None if across else _beyond(inward, reach).astype(dtype)
            for across, inward in zip(crosses, (phi, phi[::-1]), strict=True)
        ),
        beyond_columns=None if grid.periodic else _beyond(np.arange(nlon) * np.float64(step), reach).astype(dtype),
        poles=tuple(_pole(grid, row, reach) for row in grid.pole_rows),
    )


def _cardinals(nodes: FloatArray, x: float) -> FloatArray:
    """Values at `x` of the trigonometric polynomials that are 1 at one node and 0 at all others (an odd number)."""
    apart = np.sin((nodes[:, None] - nodes) / 2)
    away = np.sin((x - nodes) / 2)
    others = ~np.eye(len(nodes), dtype=bool)
    return np.array([np.prod(away[mask] / row[mask]) for row, mask in zip(apart, others, strict=True)])


def _slopes(nodes: FloatArray) -> FloatArray:
    """Weights of the values at an odd number of nodes for the derivative at the middle one."""
    middle = len(nodes) // 2
    away = np.sin((nodes - nodes[middle]) / 2)
    apart = np.sin((nodes[:, None] - nodes) / 2)
    weights = np.zeros(len(nodes))
    for k in range(len(nodes)):
        if k != middle:
            others = [j for j in range(len(nodes)) if j not in (k, middle)]
            weights[k] = np.prod(-away[others] / apart[k, others]) / (2 * away[k])
    # A constant has no slope.
    weights[middle] = -weights.sum()
    return weights


def _mirrored(inward: FloatArray, reach: int) -> FloatArray:
    """Where lines are added beyond the edge of an axis that is given from this edge on: the nearest first."""
    return np.asarray(2 * inward[0] - inward[1 : reach + 1])


def _beyond(inward: FloatArray, reach: int) -> FloatArray:
    """Weights, shape (reach, order + 1), that extrapolate to the added lines; a difference then is one-sided."""
    nodes = inward[: 2 * reach + 1]
    return np.stack([_cardinals(nodes, x) for x in _mirrored(inward, reach)])


def _meridional_weights(phi: FloatArray, crosses: tuple[bool, ...], reach: int) -> FloatArray:
    """Weights of u for ``(u tan(phi) - du/dphi) / R`` in 1/m, shape (order + 1, n); `phi` in radians."""
    if phi[0] > phi[-1]:
        # So that rounding does not depend on the order in which the latitudes are stored.
        return np.flip(_meridional_weights(phi[::-1], crosses[::-1], reach))
    south = -np.pi - phi[:reach] if crosses[0] else _mirrored(phi, reach)
    north = np.pi - phi[: -reach - 1 : -1] if crosses[1] else _mirrored(phi[::-1], reach)
    along = np.concatenate([south[::-1], phi, north])
    weights = -np.stack([_slopes(along[i : i + 2 * reach + 1]) for i in range(len(phi))], axis=1)
    weights[reach] += np.tan(phi)
    return np.asarray(weights / _RADIUS)


def _pole(grid: Grid, row: int, reach: int) -> _Pole:
    """How the vorticity on a pole follows from the winds on the rings around it.

    Circulation over the disc within a ring at colatitude s is ``2 pi R sin(s) mean(u) / (pi (R sin(s))**2)``. The mean
    of u is an odd function of s, and half of that, ``mean(u) / (R sin(s))``, its derivative on the pole to second
    order; the centred difference over two rings on each side is the combination of fourth order.
    """
    if not grid.periodic:
        return _Pole(row, (), ())
    rings = tuple(range(1, reach + 1)) if row == 0 else tuple(range(row - 1, row - reach - 1, -1))
    colatitude = np.deg2rad(90 - np.abs(grid.lat[list(rings)]))
    slopes = _slopes(np.concatenate([-colatitude[::-1], [0.0], colatitude]))[reach + 1 :]
    cyclonic = np.sign(grid.lat[row])
    return _Pole(row, rings, tuple((cyclonic * 4 * slopes / _RADIUS).tolist()))


# ---- Arithmetic: on a few steps at a time


def _off_the_poles(u: Wind, v: Wind, stencils: _Stencils, *, out: Field) -> None:
    """Vorticity of all rows but those on a pole; u, v and out of shape (k, nlat, nlon)."""
    zonal = _zonal_term(v[:, stencils.rows], stencils)
    meridional = _meridional_term(u[:, stencils.rows], stencils)
    np.add(zonal, meridional, out=out[:, stencils.rows], casting="same_kind")


def _zonal_term(v: Wind, stencils: _Stencils) -> Wind:
    """``dv/dlambda / (R cos(phi))`` in s-1."""
    reach, (steps, nlat, nlon) = stencils.reach, v.shape
    wide = np.empty((steps, nlat, nlon + 2 * reach), dtype=stencils.zonal.dtype)
    wide[..., reach:-reach] = v
    if stencils.beyond_columns is None:
        wide[..., :reach] = wide[..., nlon : nlon + reach]
        wide[..., -reach:] = wide[..., reach : 2 * reach]
    else:
        from_west = wide.swapaxes(1, 2)
        _extrapolate(from_west, stencils.beyond_columns)
        _extrapolate(from_west[:, ::-1], stencils.beyond_columns)
    term = wide[..., reach + 1 : reach + 1 + nlon] - wide[..., reach - 1 : reach - 1 + nlon]
    for k, weight in enumerate(stencils.wider_pairs, start=2):
        pair = wide[..., reach + k : reach + k + nlon] - wide[..., reach - k : reach - k + nlon]
        pair *= weight
        term += pair
    term *= stencils.zonal
    return term


def _meridional_term(u: Wind, stencils: _Stencils) -> Wind:
    """``(u tan(phi) - du/dphi) / R`` in s-1."""
    reach, weights, (steps, nlat, nlon) = stencils.reach, stencils.meridional, u.shape
    tall = np.empty((steps, nlat + 2 * reach, nlon), dtype=weights.dtype)
    tall[:, reach:-reach] = u
    for inward, beyond in zip((tall, tall[:, ::-1]), stencils.beyond_rows, strict=True):
        if beyond is None:
            _continue_across_pole(inward, reach)
        else:
            _extrapolate(inward, beyond)
    term: Wind = tall[:, reach:-reach] * weights[reach]
    for k in range(1, reach + 1):
        # Both sides are added to each other first: the sum is the same from north to south as from south to north.
        pair = tall[:, reach - k : reach - k + nlat] * weights[reach - k]
        pair += tall[:, reach + k : reach + k + nlat] * weights[reach + k]
        term += pair
    return term


def _extrapolate(lines: Wind, weights: Wind) -> None:
    """Fill the first lines along axis 1 from those that follow, by `weights` of shape (reach, order + 1)."""
    reach = len(weights)
    for k, row in enumerate(weights, start=1):
        lines[:, reach - k] = sum(weight * lines[:, reach + j] for j, weight in enumerate(row))


def _continue_across_pole(rows: Wind, reach: int) -> None:
    """Fill the first rows with those opposite, where east points the other way."""
    half = rows.shape[-1] // 2
    for k in range(reach):
        rows[:, reach - 1 - k, :half] = -rows[:, reach + k, half:]
        rows[:, reach - 1 - k, half:] = -rows[:, reach + k, :half]


def _on_the_poles(u: Wind, stencils: _Stencils, *, out: Field) -> None:
    """The one value of each row that lies on a pole."""
    for pole in stencils.poles:
        value = np.full(len(u), np.nan if not pole.rings else 0.0)
        for ring, weight in zip(pole.rings, pole.weights, strict=True):
            # Contiguous and in double precision: the sum must not show the other steps, nor which column comes first.
            value += weight * np.array(u[:, ring], dtype=np.float64, order="C").mean(axis=-1)
        out[:, pole.row] = value[:, None]
