"""From linked points to published tracks: cut at the region, kept by length and season, flagged where cut."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stormtracks.grid import Grid
from stormtracks.reanalysis.archive import Quantity
from stormtracks.settings.campaign import CampaignSettings, Season, month_day
from stormtracks.times import TimeAxis, seconds_of
from stormtracks.tracks import Tracks

__all__ = ["READ_ON_DAYS", "Linked", "Points", "assemble", "by_chain", "entries", "season_end"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

READ_ON_DAYS = 90
"""Days after the end of its season at which a track is cut and flagged, if it lives that long."""


class Points(NamedTuple):
    """Points of chains of links: which chain, when, where, how strong, whether in the region; each of shape (n,)."""

    chain: IntArray
    seconds: IntArray
    lat: FloatArray
    lon: FloatArray
    value: FloatArray
    inside: BoolArray

    def at(self, index: IntArray) -> Points:
        """Some of the points."""
        return Points._make(column[index] for column in self)


class Linked(NamedTuple):
    """What a tracker makes of all centres."""

    points: Points
    order: IntArray
    """Indices that put the points in order of chain, and of time within each."""
    begun: IntArray
    """Chains that begin where the data do, or after a gap."""
    ended: IntArray
    """Chains that end where the data do, or before a gap."""
    forgotten: int
    """Stretches inside the region of chains that are too short and not among the points any more."""

    def at(self, place: IntArray) -> Points:
        """The points at places in their order."""
        return self.points.at(self.order[place])


_NO_YEAR = np.iinfo(np.int64).min


def season_end(season: Season, year: int, calendar: str) -> int:
    """The first second after the season of a year, since 1970-01-01 of `calendar`."""
    month, day = month_day(season.end)
    year_of_end = year if (month, day) > month_day(season.start) else year + 1
    # Counted from the first of the month: not every calendar has the 31st.
    return seconds_of(calendar, year_of_end, month) + (day - 1) * 86400


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Stretches of chains inside the region, as ranges of the sorted points; all of shape (n,)."""

    start: IntArray
    stop: IntArray
    starts_cut: BoolArray
    ends_cut: BoolArray
    year: IntArray
    """Season year of the first point; `_NO_YEAR` outside the season."""

    def __getitem__(self, keep: npt.NDArray[np.generic]) -> _Pieces:
        return _Pieces(self.start[keep], self.stop[keep], self.starts_cut[keep], self.ends_cut[keep], self.year[keep])


def assemble(
    linked: Linked,
    campaign: CampaignSettings,
    grid: Grid,
    quantity: Quantity,
    *,
    calendar: str,
    member: int,
    year: int | None,
) -> tuple[Tracks, Counter[str]]:
    """Tracks of linked points.

    Parameters
    ----------
    linked : Linked
    campaign : CampaignSettings
        Its season and its shortest track decide what is kept.
    grid : Grid
        Tells which tracks the edge of a limited area cut.
    quantity, calendar, member
        What the tracks are of.
    year : int or None
        Publish only the season of this year; None for all.

    Returns
    -------
    tracks : Tracks
        In order of first time, latitude and longitude.
    counts : Counter
        Of stretches inside the region: ``linked``, and of these ``too short``, ``out of season``, and ``of another
        year``; ``born before`` counts those of another year that reach into the one asked for.
    """
    pieces, counts = _keep(_stretches(linked), linked, campaign, calendar)
    if year is not None:
        ours = pieces.year == year
        before = (pieces.year < year) & (linked.at(pieces.stop - 1).seconds >= seconds_of(calendar, year))
        counts.update({"of another year": int((~ours).sum()), "born before": int(before.sum())})
        pieces = pieces[ours]
    pieces = _flag_edges(pieces, linked, grid)
    first = linked.at(pieces.start)
    pieces = pieces[np.lexsort((first.lon, first.lat, first.seconds))]
    row_size = pieces.stop - pieces.start
    record = linked.order[_ranges(pieces.start, row_size)]
    tracks = Tracks(
        row_size=row_size,
        track_id=np.arange(1, len(row_size) + 1, dtype=np.int64),
        year=pieces.year,
        member=np.full(len(row_size), member, dtype=np.int64),
        starts_cut=pieces.starts_cut,
        ends_cut=pieces.ends_cut,
        time=linked.points.seconds[record],
        lon=linked.points.lon[record],
        lat=linked.points.lat[record],
        value=linked.points.value[record],
        quantity=quantity,
        calendar=calendar,
    )
    return tracks, counts


def _keep(pieces: _Pieces, linked: Linked, campaign: CampaignSettings, calendar: str) -> tuple[_Pieces, Counter[str]]:
    """Those that are long enough and start in the season, and how many are not."""
    min_points = campaign.tracking.min_points
    all_of_them = len(pieces.start) + linked.forgotten
    # Most are too short: their dates are not worth the time.
    pieces = pieces[pieces.stop - pieces.start >= min_points]
    pieces = _season_years(pieces, linked, campaign.season, calendar)
    pieces = _limit(pieces, linked, campaign.season, calendar)
    pieces = pieces[pieces.stop - pieces.start >= min_points]
    in_season = pieces.year != _NO_YEAR
    counts = {
        "linked": all_of_them,
        "too short": all_of_them - len(in_season),
        "out of season": int((~in_season).sum()),
    }
    return pieces[in_season], Counter(counts)


def _stretches(linked: Linked) -> _Pieces:
    """The stretches inside the region, flagged where the region or the data cut them."""
    chain, inside = linked.points.chain[linked.order], linked.points.inside[linked.order]
    follows, enters = entries(chain, inside)
    leads = np.append(follows[1:], False)[: len(chain)]  # has a point of its chain after it
    start = np.flatnonzero(enters)
    last = np.flatnonzero(inside & ~(leads & np.append(inside[1:], False)[: len(chain)]))
    return _Pieces(
        start,
        last + 1,
        follows[start] | np.isin(chain[start], linked.begun),
        leads[last] | np.isin(chain[last], linked.ended),
        np.zeros(len(start), dtype=np.int64),
    )


def entries(chain: IntArray, inside: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Which points have one of their chain before them, and at which of them it begins inside the region or enters it.

    Both are given in order of chain, and of time within each.
    """
    follows = np.zeros(len(chain), dtype=bool)
    follows[1:] = chain[1:] == chain[:-1]
    enters = inside.copy()
    enters[1:] &= ~(follows[1:] & inside[:-1])
    return follows, enters


def by_chain(chain: IntArray) -> IntArray:
    """Indices that put points that are in order of time in order of chain, and of time within each."""
    # As a stable argsort gives it, but several times as fast.
    order = chain * len(chain)
    order += np.arange(len(chain))
    order.sort()
    order %= max(len(chain), 1)
    return order


def _season_years(pieces: _Pieces, linked: Linked, season: Season, calendar: str) -> _Pieces:
    days, day_of = TimeAxis(linked.at(pieces.start).seconds, calendar).days()
    years = [season.year_of(day.year, day.month, day.day) for day in days]
    year = np.array([_NO_YEAR if y is None else y for y in years], dtype=np.int64)[day_of]
    return _Pieces(pieces.start, pieces.stop, pieces.starts_cut, pieces.ends_cut, year)


def _limit(pieces: _Pieces, linked: Linked, season: Season, calendar: str) -> _Pieces:
    """Cut what lives on too long after the end of its season."""
    stop, ends_cut = pieces.stop.copy(), pieces.ends_cut.copy()
    last_seconds = linked.at(pieces.stop - 1).seconds
    for year in np.unique(pieces.year[pieces.year != _NO_YEAR]):
        last = season_end(season, int(year), calendar) + READ_ON_DAYS * 86400
        for index in np.flatnonzero((pieces.year == year) & (last_seconds > last)):
            seconds = linked.at(np.arange(pieces.start[index], pieces.stop[index])).seconds
            stop[index] = pieces.start[index] + np.searchsorted(seconds, last, side="right")
            ends_cut[index] = True
    return _Pieces(pieces.start, stop, pieces.starts_cut, ends_cut, pieces.year)


def _flag_edges(pieces: _Pieces, linked: Linked, grid: Grid) -> _Pieces:
    """Flag ends from which the storm, going on as it did, would have left a limited area within a time step."""
    single = pieces.stop - pieces.start < 2
    second = np.where(single, pieces.start, pieces.start + 1)
    last_but_one = np.where(single, pieces.start, pieces.stop - 2)
    starts = _leaves(grid, linked.at(pieces.start), linked.at(second))
    ends = _leaves(grid, linked.at(pieces.stop - 1), linked.at(last_but_one))
    return _Pieces(pieces.start, pieces.stop, pieces.starts_cut | starts, pieces.ends_cut | ends, pieces.year)


def _leaves(grid: Grid, last: Points, before: Points) -> BoolArray:
    """Whether the step after `last`, as long as the one from `before`, comes within a cell of the area's edge."""
    out = np.zeros(len(last.lat), dtype=bool)
    lat = 2 * last.lat - before.lat
    for edge, inner, at in ((grid.lat[0], grid.lat[1], 0), (grid.lat[-1], grid.lat[-2], -1)):
        if not grid.reaches_pole(at):
            out |= (lat - inner) * np.sign(inner - edge) <= 0
    if not grid.periodic:
        east_of_edge = (last.lon - grid.lon[0]) % 360
        lon = east_of_edge + (last.lon - before.lon + 180) % 360 - 180
        # No centre is sought where a neighbour as far away as the next row would lie outside.
        height = np.abs(np.diff(grid.lat)).max()
        margin = np.maximum(grid.lon_step, height / np.cos(np.deg2rad(np.clip(lat, -89, 89))))
        out |= (lon <= margin) | (lon >= grid.lon[-1] - grid.lon[0] - margin)
    return out


def _ranges(start: IntArray, size: IntArray) -> IntArray:
    """The indices start, start + 1, ... of each range, one range after the other."""
    offset = np.cumsum(size) - size
    return np.arange(int(size.sum()), dtype=np.int64) - np.repeat(offset - start, size)
