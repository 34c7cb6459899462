"""Empty maps: sea, land and labelled degrees, ready to be drawn on; and what of a field lies on them.

The maps are equirectangular; on a regional one a degree of longitude is as wide as it is at the middle latitude. Needs
matplotlib; `stormtracks.plot`, which says so when that is missing, is the way in.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from scipy.interpolate import RectBivariateSpline

from stormtracks.errors import InputError
from stormtracks.grid import Grid

__all__ = ["INK", "Region", "blank_map", "coastline", "field_on_map", "region_of", "region_round", "write_title"]

FloatArray = npt.NDArray[np.float64]

Region = tuple[float, float, float, float]
"""West, south, east and north of a map in degrees; may cross 0 or 180."""

INK = "#2b2b2b"
_SEA, _LAND, _COAST, _PALE_INK = "#f3f7fa", "#e3e1da", "#9a968c", "#555555"

_WORLD: Region = (-180.0, -90.0, 180.0, 90.0)
_MARGIN = 10.0  # degrees round the points, and what the edges of the map are rounded to
_WHOLE_CIRCLE_GAP = 60.0  # points that leave less than this free go round the globe; degrees of longitude
_STEPS = (1, 2, 5, 10, 15, 30, 60)  # between labelled degrees
_FINE_ENOUGH = 600  # points per axis

# Inches.
_WIDEST, _TALLEST = 10.0, 7.5
_LEFT, _BOTTOM, _TOP, _RIGHT, _RIGHT_WITH_COLOUR_BAR = 0.65, 0.45, 0.65, 0.35, 1.15


@cache
def coastline() -> tuple[FloatArray, ...]:
    """Shorelines of the world, each of shape (n, 2): longitude and latitude in degrees.

    Natural Earth 4.1, land at 1:50 million, which is in the public domain: points that lie within 0.05 degrees of the
    line through their neighbours and islands smaller than 0.2 degrees are left out. Rings are closed and run on over
    the date line; the first one alone is open: Antarctica, from 180 to -180.
    """
    with files("stormtracks").joinpath("coastline.npz").open("rb") as file, np.load(file) as data:
        # Kept as differences in hundredths of a degree, which compress to half the size.
        points = np.cumsum(data["steps"], axis=1, dtype=np.int64).T / 100.0
        ends = np.cumsum(data["sizes"], dtype=np.int64)
    return tuple(np.split(points, ends[:-1]))


def region_round(lon: FloatArray, lat: FloatArray) -> Region:
    """The smallest box round some points, with a margin; the whole circle of longitude if they go round the globe.

    Parameters
    ----------
    lon, lat : shape (n,)
        Degrees. Without any, the region is the globe.
    """
    if not len(lon):
        return _WORLD
    south = max(-90.0, _MARGIN * (np.floor(lat.min() / _MARGIN) - 1))
    north = min(90.0, _MARGIN * (np.ceil(lat.max() / _MARGIN) + 1))
    ordered = np.sort(np.mod(lon, 360.0))
    gaps = np.diff(ordered, append=ordered[0] + 360.0)
    widest = int(np.argmax(gaps))
    if gaps[widest] < _WHOLE_CIRCLE_GAP:
        return (_WORLD[0], south, _WORLD[2], north)
    east = ordered[widest]
    west = east + gaps[widest] - 360.0
    return (
        float(_MARGIN * (np.floor(west / _MARGIN) - 1)),
        south,
        float(_MARGIN * (np.ceil(east / _MARGIN) + 1)),
        north,
    )


def region_of(grid: Grid) -> Region:
    """The region that a grid covers; the whole circle is centred on Greenwich."""
    west, east = (_WORLD[0], _WORLD[2]) if grid.periodic else (float(grid.lon[0]), float(grid.lon[-1]))
    return (west, float(grid.lat.min()), east, float(grid.lat.max()))


def blank_map(region: Region, *, colour_bar: bool) -> Axes:
    """Axes with sea, land and labelled degrees, in a figure of their own that they fill.

    Parameters
    ----------
    region : (west, south, east, north)
        Degrees.
    colour_bar : bool
        Whether to leave room for one at the right.

    Raises
    ------
    InputError
        If `region` is not a region.
    """
    west, south, east, north = _checked(region)
    aspect = 1.0 / np.cos(np.deg2rad(0.5 * (south + north)))
    height_over_width = (north - south) * aspect / (east - west)
    width = min(_WIDEST, _TALLEST / height_over_width)
    height = width * height_over_width
    full_width = _LEFT + width + (_RIGHT_WITH_COLOUR_BAR if colour_bar else _RIGHT)
    full_height = _BOTTOM + height + _TOP
    figure = Figure(figsize=(full_width, full_height), facecolor="white")
    axes = figure.add_axes((_LEFT / full_width, _BOTTOM / full_height, width / full_width, height / full_height))
    axes.set(xlim=(west, east), ylim=(south, north), aspect=aspect, facecolor=_SEA)
    _draw_land(axes)
    _label_degrees(axes)
    return axes


def write_title(axes: Axes, title: str, note: str) -> None:
    """A title above a map, and a line of small print between the two."""
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=24)
    axes.annotate(
        note, (0, 1), xytext=(0, 7), xycoords="axes fraction", textcoords="offset points", fontsize=10, color=_PALE_INK
    )


def field_on_map(values: FloatArray, grid: Grid, axes: Axes) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What of a field lies on a map, and a little more; a coarse one on a finer grid, by a bicubic spline.

    Parameters
    ----------
    values : shape (nlat, nlon)
        NaN where missing; a field with such points is not refined.
    grid : Grid
    axes : Axes
        Those of a `blank_map`.

    Returns
    -------
    lon : shape (n,)
        Degrees as on the map, ascending.
    lat : shape (m,)
        Degrees, ascending.
    values : shape (m, n)

    Raises
    ------
    InputError
        If nothing of the grid lies there.
    """
    return _refined(*_cut_out(values, grid, axes))


def _checked(region: Region) -> Region:
    """The same region with west in -180..180 and east beyond it."""
    west, south, east, north = region
    if not (np.isfinite(region).all() and -90 <= south < north <= 90 and 0 < abs(east - west) <= 360):
        raise InputError(
            f"{west:g}, {south:g}, {east:g}, {north:g} is no region",
            remedy="give west, south, east, north in degrees, south below north, at most 360 degrees wide",
        )
    width = (east - west) % 360.0 or 360.0
    west = (west + 180.0) % 360.0 - 180.0
    return (west, south, west + width, north)


def _draw_land(axes: Axes) -> None:
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    shores = []
    for turn in (-360.0, 0.0, 360.0):
        for ring in coastline():
            shore = np.add(ring, (turn, 0.0))
            (left, low), (right, high) = shore.min(axis=0), shore.max(axis=0)
            if left <= east and right >= west and low <= north and high >= south:
                shores.append(shore)
    if shores:
        land = Outline.make_compound_path(*(Outline(_outline(shore)) for shore in shores))
        # As an artist: for a patch matplotlib would work out its extent, point by point.
        axes.add_artist(PathPatch(land, facecolor=_LAND, edgecolor="none", zorder=1, gid="land"))
        coast = LineCollection(shores, colors=_COAST, linewidths=0.6, zorder=2, gid="coast")
        axes.add_collection(coast, autolim=False)


def _outline(shore: FloatArray) -> FloatArray:
    """What encloses the land inside a shore: Antarctica's is closed along the pole, where no shore is drawn."""
    if shore[0, 0] == shore[-1, 0]:
        return shore
    return np.concatenate([shore, [[shore[-1, 0], -90.0], [shore[0, 0], -90.0]]])


def _label_degrees(axes: Axes) -> None:
    meridians = _multiples(axes.get_xlim(), at_most=9)
    parallels = _multiples(axes.get_ylim(), at_most=7)
    axes.set_xticks(meridians, [_degrees((lon + 180) % 360 - 180, "EW") for lon in meridians])
    axes.set_yticks(parallels, [_degrees(lat, "NS") for lat in parallels])
    axes.tick_params(labelsize=9, length=3, color=INK, labelcolor=INK)
    axes.grid(color=_COAST, linewidth=0.4, linestyle=(0, (1, 3)), zorder=2.5)
    axes.set_axisbelow(False)  # else the grid lies beneath the land, whatever its zorder
    for spine in axes.spines.values():
        spine.set(color=INK, linewidth=0.8, zorder=7)


def _multiples(limits: tuple[float, float], *, at_most: int) -> list[float]:
    """Round numbers of degrees within the limits, about so many."""
    low, high = limits
    step = next((step for step in _STEPS if (high - low) / step <= at_most), _STEPS[-1])
    return [float(step * i) for i in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _degrees(value: float, sides: str) -> str:
    if value == 0 or abs(value) == 180:
        return f"{abs(value):g}°"
    return f"{abs(value):g}°{sides[value < 0]}"


def _cut_out(values: FloatArray, grid: Grid, axes: Axes) -> tuple[FloatArray, FloatArray, FloatArray]:
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    turns = 0.0 if grid.periodic else np.rint((west + east - grid.lon[0] - grid.lon[-1]) / 720.0)
    start = grid.lon[0] + 360.0 * turns
    first, last = np.floor((west - start) / grid.lon_step) - 1, np.ceil((east - start) / grid.lon_step) + 1
    columns = np.arange(first, last + 1).astype(np.int64)
    if not grid.periodic:
        columns = columns[(columns >= 0) & (columns < len(grid.lon))]
    margin = 2 * np.abs(np.diff(grid.lat)).max()
    rows = np.flatnonzero((grid.lat >= south - margin) & (grid.lat <= north + margin))
    if len(rows) < 2 or len(columns) < 2:
        raise InputError(
            "the field has no points in the region of the map", remedy="choose a region that the grid covers"
        )
    rows = rows[np.argsort(grid.lat[rows])]
    return start + columns * grid.lon_step, grid.lat[rows], values[np.ix_(rows, np.mod(columns, len(grid.lon)))]


def _refined(lon: FloatArray, lat: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fine enough that contours of a coarse field are no polygons."""
    times = _FINE_ENOUGH // max(values.shape)
    if times < 2 or min(values.shape) < 4 or not np.isfinite(values).all():
        return lon, lat, values
    fine_lon, fine_lat = (
        np.interp(np.arange(times * (len(axis) - 1) + 1) / times, np.arange(len(axis)), axis) for axis in (lon, lat)
    )
    return fine_lon, fine_lat, np.asarray(RectBivariateSpline(lat, lon, values)(fine_lat, fine_lon))
