"""Pictures: maps of tracks and of fields, with coastlines that need no download.

Last in the data path. Needs the extra ``plot``. Every map is returned as a `matplotlib.figure.Figure` that belongs to
no window, and the global state of matplotlib is left alone, so that this works without a display and in any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError, StormtracksError
from stormtracks.grid import Grid
from stormtracks.publish import make_folder, publish
from stormtracks.reanalysis.archive import Quantity
from stormtracks.times import TimeAxis
from stormtracks.tracks import Tracks

try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection, PathCollection
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    from stormtracks.maps import INK, Region, blank_map, coastline, field_on_map, region_of, region_round, write_title
except ImportError as error:
    raise StormtracksError(
        f"pictures need matplotlib, which cannot be imported ({error})",
        remedy="pip install 'stormtracks-ensemble[plot]'",
    ) from error

__all__ = ["Region", "coastline", "field_map", "save", "track_map"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_VORTICITY_UNITS, _PRESSURE_UNITS = "10⁻⁵ s⁻¹", "hPa"
_SHOWN_AS = {"s-1": (1e5, _VORTICITY_UNITS), "Pa": (1e-2, _PRESSURE_UNITS), "m s-1": (1.0, "m s⁻¹")}

_REFERENCE, _CONTOUR = "#8d99a3", "#36495c"
_SHARPEST_TURN = 90.0  # degrees of longitude in one step that a straight line can still show
_PRESSURE_INTERVAL = 4.0  # hPa
_MOST_CONTOURS = 20
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def track_map(
    tracks: Tracks,
    *,
    reference: Tracks | None = None,
    reference_label: str = "reference",
    colour_by: Literal["value", "member"] = "value",
    region: Region | None = None,
    title: str = "Storm tracks",
) -> Figure:
    """A map of tracks, coloured by their strength or by member, with a dot where each storm was born.

    Parameters
    ----------
    tracks : Tracks
        Any number of tracks, of any number of members. A line lies between consecutive points and takes the mean of
        their values; the strongest is drawn last. A track whose start was cut off has no dot. A step that turns by more
        than 90 degrees of longitude, which only a storm within some 600 km of a pole can do, has no straight image on
        this map and is left out.
    reference : Tracks, optional
        Known or best tracks, drawn in grey beneath.
    reference_label : str
        What the legend calls them.
    colour_by : {"value", "member"}
        Vorticity is shown as its magnitude in 1e-5 s-1, pressure in hPa, all else in its own units.
    region : (west, south, east, north), optional
        Degrees; ``(0, -90, 360, 90)`` is the globe centred on 180 degrees. By default the box round all tracks; where
        they go round the globe, the whole circle centred on Greenwich.
    title : str
        Printed above the map, with the numbers of tracks and members and the months of the points beneath it.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If `region` is no region, or `colour_by` is not one of the two.
    """
    colouring = _colouring(tracks, colour_by)
    if region is None:
        shown = [tracks] if reference is None else [tracks, reference]
        region = region_round(
            np.concatenate([each.lon for each in shown]), np.concatenate([each.lat for each in shown])
        )
    axes = blank_map(region, colour_bar=len(tracks) > 0)
    write_title(axes, title, _census(tracks))
    legend: list[LineCollection | Line2D] = []
    if reference is not None:
        legend.append(_draw_reference(axes, reference, reference_label))
    if len(tracks):
        legend.append(_draw_tracks(axes, tracks, colouring))
    if legend:
        axes.legend(handles=legend, loc="lower left", fontsize=9, framealpha=0.9, edgecolor="none").set_zorder(6)
    return _figure(axes)


def field_map(
    field: npt.ArrayLike,
    grid: Grid,
    *,
    quantity: Quantity,
    centres: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike] | None = None,
    region: Region | None = None,
    interval: float | None = None,
    title: str = "",
) -> Figure:
    """A map of one field as contours, with the centres that members found as coloured dots.

    Parameters
    ----------
    field : array_like, shape (nlat, nlon)
        One field, the ensemble mean say, in the units of `quantity`; NaN where missing. The contours of a coarse one
        are drawn through a bicubic spline.
    grid : Grid
        Its grid.
    quantity : Quantity
        What `field` and the values of `centres` are; shown in the units that `track_map` uses.
    centres : (longitudes, latitudes, values), optional
        One of each per centre, shape (n,): degrees, degrees, and the units of `quantity`.
    region : (west, south, east, north), optional
        Degrees; by default the whole grid.
    interval : float, optional
        Between contours, in the units shown; by default 4 or 8 hPa for pressure and a round number for all else.
    title : str
        Printed above the map.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If `field` has another shape than `grid`, `region` is no region or holds none of the grid, or `interval` is not
        positive.
    """
    values = np.asarray(field, dtype=np.float64)
    if values.shape != grid.shape:
        raise InputError(
            f"the field has shape {values.shape}, its grid {grid.shape}", remedy="give the field's own grid"
        )
    if interval is not None and not interval > 0:
        raise InputError(f"the contour interval is {interval:g}", remedy="give a positive one")
    display = _display(quantity)
    axes = blank_map(region or region_of(grid), colour_bar=centres is not None)
    lon, lat, values = field_on_map(values * display.factor, grid, axes)
    if interval is None:
        interval = _interval(values, display)
    _draw_contours(axes, lon, lat, values, interval)
    note = f"contours every {interval:g} {display.units}".rstrip()
    if centres is not None:
        found_lon, found_lat, found = (np.asarray(each, dtype=np.float64) for each in centres)
        note = f"{_draw_centres(axes, found_lon, found_lat, found, display)}  ·  {note}"
    write_title(axes, title, note)
    return _figure(axes)


def save(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Write a picture, whole or not at all, in the format that `path` ends in: ``.png`` or ``.pdf``.

    Raises
    ------
    InputError
        If `path` ends in anything else.
    ResultsError
        If the disk refuses.
    """
    path = Path(path)
    # matplotlib would write its version or the hour into the file, and equal pictures would differ.
    unstamped = {".png": {"Software": None}, ".pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    if path.suffix not in unstamped:
        raise InputError(f"no picture can be written as {path.name}", remedy="give a name that ends in .png or .pdf")
    picture = BytesIO()
    figure.savefig(picture, dpi=dpi, format=path.suffix[1:], metadata=unstamped[path.suffix])
    make_folder(path.parent)
    publish(path, picture.getvalue())
    return path


@dataclass(frozen=True)
class _Display:
    """How a quantity is shown: its name and units in print, and how many of those units one of its own is."""

    name: str
    units: str
    factor: float


def _display(quantity: Quantity) -> _Display:
    name = (quantity.standard_name or quantity.name).removeprefix("atmosphere_").replace("_", " ")
    factor, units = _SHOWN_AS.get(quantity.units, (1.0, quantity.units))
    return _Display(name[:1].upper() + name[1:], units, factor)


class _Colouring(NamedTuple):
    """A number per point, what colour it takes, and which points lie on top."""

    numbers: FloatArray
    strength: FloatArray
    colours: ListedColormap
    norm: BoundaryNorm
    label: str
    ticks: dict[float, str] | None = None


def _colouring(tracks: Tracks, colour_by: str) -> _Colouring:
    if colour_by == "member":
        return _colouring_by_member(np.repeat(tracks.member, tracks.row_size))
    if colour_by == "value":
        return _colouring_by_value(tracks.value, _display(tracks.quantity))
    raise InputError(f"tracks cannot be coloured by {colour_by!r}", remedy="colour them by value or by member")


def _colouring_by_value(values: FloatArray, display: _Display) -> _Colouring:
    numbers, name = values * display.factor, display.name
    if display.units == _VORTICITY_UNITS:
        # Cyclones of the southern hemisphere turn the other way and are as strong.
        numbers, name = np.abs(numbers), f"{name}, magnitude"
    low_is_strong = display.units == _PRESSURE_UNITS
    finite = numbers[np.isfinite(numbers)]
    typical = np.percentile(finite, [2, 98]) if len(finite) else np.array([0.0, 1.0])
    levels = MaxNLocator(10, steps=[1, 2, 2.5, 5, 10]).tick_values(*typical)
    extend: Literal["neither", "both", "min", "max"] = "neither"
    if len(finite):
        below, above = bool(finite.min() < levels[0]), bool(finite.max() > levels[-1])
        extend = "both" if below and above else "min" if below else "max" if above else "neither"
    # The palest colours would be lost against the sea; the strong end is dark.
    colours = _part_of("inferno", 0.12, 0.90) if low_is_strong else _part_of("inferno", 0.90, 0.12)
    label = f"{name} ({display.units})" if display.units else name
    norm = BoundaryNorm(levels, colours.N, extend=extend)
    return _Colouring(numbers, -numbers if low_is_strong else numbers, colours, norm, label)


def _colouring_by_member(member: IntArray) -> _Colouring:
    members, index = np.unique(member, return_inverse=True)
    colours = _part_of("turbo", 0.05, 0.95)
    norm = BoundaryNorm(np.arange(max(len(members), 1) + 1) - 0.5, colours.N)
    every = max(1, -(-len(members) // 12))
    ticks = {float(i): str(members[i]) for i in range(0, len(members), every)}
    return _Colouring(index.astype(np.float64), np.zeros(len(index)), colours, norm, "Member", ticks)


def _part_of(name: str, start: float, stop: float) -> ListedColormap:
    return ListedColormap(colormaps[name](np.linspace(start, stop, 256)))


def _draw_tracks(axes: Axes, tracks: Tracks, colouring: _Colouring) -> Line2D:
    """Draw lines and dots; what the legend shows of them, in no track's colour."""
    west = axes.get_xlim()[0]
    lines, records = _segments(tracks, west)
    numbers, strength = (0.5 * (each[records] + each[records + 1]) for each in (colouring.numbers, colouring.strength))
    order = np.argsort(strength, kind="stable")
    painted = LineCollection(
        list(lines[order]),
        array=numbers[order],
        cmap=colouring.colours,
        norm=colouring.norm,
        linewidths=_line_width(tracks),
        capstyle="round",
        zorder=4,
        gid="tracks",
    )
    axes.add_collection(painted, autolim=False)
    births = _first_records(tracks)[~tracks.starts_cut]
    axes.scatter(
        _east_of(tracks.lon[births], west),
        tracks.lat[births],
        c=colouring.numbers[births],
        cmap=colouring.colours,
        norm=colouring.norm,
        s=6 * _line_width(tracks) ** 2 + 4,
        edgecolors=INK,
        linewidths=0.5,
        zorder=5,
        gid="genesis",
    )
    _add_colour_bar(axes, painted, colouring)
    return Line2D([], [], linestyle="", marker="o", color="white", markeredgecolor=INK, markersize=5, label="genesis")


def _draw_reference(axes: Axes, reference: Tracks, label: str) -> LineCollection:
    lines, _ = _segments(reference, axes.get_xlim()[0])
    painted = LineCollection(
        list(lines),
        colors=_REFERENCE,
        linewidths=1.6 * _line_width(reference),
        capstyle="round",
        zorder=3,
        gid="reference",
        label=label,
    )
    axes.add_collection(painted, autolim=False)
    return painted


def _draw_centres(axes: Axes, lon: FloatArray, lat: FloatArray, values: FloatArray, display: _Display) -> str:
    """Draw the dots, the strongest on top; what is to be said of them."""
    count = _count(len(lon), "centre")
    if not len(lon):
        return count
    colouring = _colouring_by_value(values, display)
    order = np.argsort(colouring.strength, kind="stable")
    dots = axes.scatter(
        _east_of(lon, axes.get_xlim()[0])[order],
        lat[order],
        c=colouring.numbers[order],
        cmap=colouring.colours,
        norm=colouring.norm,
        s=42,
        edgecolors="white",
        linewidths=0.8,
        zorder=5,
        gid="centres",
    )
    _add_colour_bar(axes, dots, colouring)
    return f"{count}, {np.nanmin(colouring.numbers):.4g} to {np.nanmax(colouring.numbers):.4g} {display.units}".rstrip()


def _draw_contours(axes: Axes, lon: FloatArray, lat: FloatArray, values: FloatArray, interval: float) -> None:
    seen = values[np.isfinite(values)]
    if not len(seen):
        return
    levels = interval * np.arange(np.ceil(seen.min() / interval), np.floor(seen.max() / interval) + 1)
    if len(levels):
        # Lines that ran on beyond the map would have their labels there, or on its edge.
        columns, rows = _just_round(lon, axes.get_xlim()), _just_round(lat, axes.get_ylim())
        lon, lat, values = lon[columns], lat[rows], values[rows, columns]
        contours = axes.contour(lon, lat, values, levels=levels, colors=_CONTOUR, linewidths=1.0, zorder=3)
        axes.clabel(contours, fontsize=8, fmt="%g", inline_spacing=3)


def _just_round(ascending: FloatArray, limits: tuple[float, float]) -> slice:
    """The points between two limits, and one on either side."""
    first, last = np.searchsorted(ascending, limits[0], "right") - 1, np.searchsorted(ascending, limits[1], "left")
    return slice(max(int(first), 0), int(last) + 1)


def _add_colour_bar(axes: Axes, painted: LineCollection | PathCollection, colouring: _Colouring) -> None:
    figure = _figure(axes)
    inches = axes.get_position().width * figure.get_figwidth()
    bar = figure.colorbar(painted, cax=axes.inset_axes((1 + 0.15 / inches, 0.0, 0.16 / inches, 1.0)))
    if colouring.ticks is not None:
        bar.set_ticks(list(colouring.ticks), labels=list(colouring.ticks.values()))
        bar.ax.minorticks_off()
    bar.set_label(colouring.label, fontsize=10, color=INK)
    bar.ax.tick_params(labelsize=9, length=2, color=INK, labelcolor=INK)


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _first_records(tracks: Tracks) -> IntArray:
    return np.cumsum(tracks.row_size) - tracks.row_size


def _east_of(lon: FloatArray, west: float) -> FloatArray:
    return west + np.mod(lon - west, 360.0)


def _segments(tracks: Tracks, west: float) -> tuple[FloatArray, IntArray]:
    """Lines between consecutive points of each track on a map that begins at `west`.

    Returns
    -------
    lines : shape (n, 2, 2)
        Start and end of each line: longitude, latitude. A step over the seam of the map is there twice, running out of
        it at one edge and into it at the other.
    records : shape (n,)
        The record at which each line starts.
    """
    linked = np.ones(len(tracks.lon), dtype=bool)
    linked[_first_records(tracks) + tracks.row_size - 1] = False
    records = np.flatnonzero(linked)
    turn = np.mod(tracks.lon[records + 1] - tracks.lon[records] + 180.0, 360.0) - 180.0
    straight = np.abs(turn) <= _SHARPEST_TURN
    records, turn = records[straight], turn[straight]
    start = _east_of(tracks.lon[records], west)
    x, y = np.stack([start, start + turn], axis=1), np.stack([tracks.lat[records], tracks.lat[records + 1]], axis=1)
    lines = np.stack([x, y], axis=2)
    round_trip = np.select([x[:, 1] < west, x[:, 1] > west + 360.0], [360.0, -360.0], 0.0)
    again = np.flatnonzero(round_trip)
    copies = np.stack([x[again] + round_trip[again, None], y[again]], axis=2)
    return np.concatenate([lines, copies]), np.concatenate([records, records[again]])


def _line_width(tracks: Tracks) -> float:
    """Points; the more tracks, the thinner."""
    return float(np.clip(2.4 - 0.5 * np.log10(max(len(tracks), 1)), 0.5, 2.0))


def _census(tracks: Tracks) -> str:
    notes = [_count(len(tracks), "track")]
    if len(tracks):
        notes.append(_count(len(np.unique(tracks.member)), "member"))
        ends = TimeAxis(np.array([tracks.time.min(), tracks.time.max()]), tracks.calendar).dates()
        months = [f"{_MONTHS[date.month - 1]} {date.year}" for date in ends]
        notes.append(" – ".join(dict.fromkeys(months)))
    return "  ·  ".join(notes)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _interval(values: FloatArray, display: _Display) -> float:
    """A customary or round interval between contours that gives neither too few nor too many."""
    seen = values[np.isfinite(values)]
    if not len(seen):
        return 1.0
    if display.units == _PRESSURE_UNITS:
        return _PRESSURE_INTERVAL * (2 if np.ptp(seen) > _MOST_CONTOURS * _PRESSURE_INTERVAL else 1)
    levels = MaxNLocator(10, steps=[1, 2, 5, 10]).tick_values(float(seen.min()), float(seen.max()))
    return float(levels[1] - levels[0])
