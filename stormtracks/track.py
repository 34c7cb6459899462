"""Trackers: centres of one time step are linked to those of the step before, and the links make tracks.

A link into a step depends only on the centres since the tracker last started. It starts at the beginning of the data,
after every gap, and afresh at each new year, from the last `WARM_UP` steps before it. So each year's links come out the
same whether the years are tracked in one run or each by a task of its own, and however the data are cut into blocks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from stormtracks.assemble import Linked, Points, by_chain, entries
from stormtracks.assignment import Links, assign
from stormtracks.detect import Centres
from stormtracks.grid import EARTH_RADIUS_KM, unit_vectors
from stormtracks.settings.campaign import TrackingSettings

__all__ = ["WARM_UP", "Heads", "Moment", "TrackBuilder", "link_assignment", "link_nearest"]

WARM_UP = 8
"""Time steps before a new year from which that year's tracker starts."""

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_Array = TypeVar("_Array", FloatArray, IntArray, BoolArray)

_NONE = np.iinfo(np.int64).min


class Moment(NamedTuple):
    """What is known of one time step beside its centres."""

    seconds: int
    """Since 1970-01-01 in the data's calendar."""
    year: int
    """Calendar year."""
    season_year: int | None
    """Year of the season that holds it, None outside the season."""
    cut: bool
    """Whether the tracks end before it: the first step of the data, or the first after a gap."""


@dataclass(frozen=True, eq=False)
class Heads:
    """Where the living tracks were last seen; one record each.

    Parameters
    ----------
    xyz, before : shape (n, 3)
        Unit vectors of the last point and of the one before it; the same where there was none.
    seconds, before_seconds : shape (n,)
        Their times.
    step : shape (n,)
        Number of the time step of the last point.
    """

    xyz: FloatArray
    before: FloatArray
    seconds: IntArray
    before_seconds: IntArray
    step: IntArray

    @classmethod
    def none(cls) -> Heads:
        """No track at all."""
        no = np.empty(0, dtype=np.int64)
        return cls(np.empty((0, 3)), np.empty((0, 3)), no, no, no)

    def __len__(self) -> int:
        return len(self.step)

    def predicted(self, seconds: int) -> FloatArray:
        """Where each track would be at a later time if it went on along its great circle at its speed, shape (n, 3)."""
        angle = 2 * np.arcsin(np.minimum(0.5 * np.linalg.norm(self.xyz - self.before, axis=1), 1.0))
        moving = (angle > 1e-12) & (self.seconds > self.before_seconds)
        angle = np.where(moving, angle, 1.0)
        ratio = (seconds - self.seconds) / np.where(moving, self.seconds - self.before_seconds, 1)
        onward = np.sin((1 + ratio) * angle)[:, None] * self.xyz - np.sin(ratio * angle)[:, None] * self.before
        return np.asarray(np.where(moving[:, None], onward / np.sin(angle)[:, None], self.xyz))


def _chord(km: npt.ArrayLike) -> FloatArray:
    """Length of the chord on the unit sphere that spans a great-circle distance."""
    return np.asarray(2 * np.sin(np.minimum(np.asarray(km) / (2 * EARTH_RADIUS_KM), np.pi / 2)))


def _reach(heads: Heads, seconds: int, max_speed: float) -> FloatArray:
    """How far each track can have come, in km."""
    return np.asarray(max_speed * 1e-3 * (seconds - heads.seconds), dtype=np.float64)


def link_nearest(heads: Heads, centres: FloatArray, seconds: int, settings: TrackingSettings) -> IntArray:
    """Each track to the nearest centre within reach; of several that claim one centre the nearest keeps it.

    Parameters
    ----------
    heads : Heads
    centres : numpy.ndarray, shape (n, 3)
        Unit vectors of this step's centres.
    seconds : int
        Time of this step.
    settings : TrackingSettings

    Returns
    -------
    numpy.ndarray, shape (n,), int64
        For each centre the index of the track it belongs to, -1 for none.
    """
    previous = np.full(len(centres), -1, dtype=np.int64)
    if len(heads) == 0 or len(centres) == 0:
        return previous
    distance, nearest = cKDTree(centres).query(heads.xyz)
    able = np.flatnonzero(distance <= _chord(_reach(heads, seconds, settings.max_speed)))
    # The last to write keeps the centre: go from far to near, and from late to early where equally near.
    order = able[np.lexsort((-able, -distance[able]))]
    previous[nearest[order]] = order
    return previous


def link_assignment(heads: Heads, centres: FloatArray, seconds: int, settings: TrackingSettings) -> IntArray:
    """The one-to-one links that are best together.

    Each track is expected where its great circle and speed take it. A link costs the square of the distance between
    expected and found; a track left without one costs the square of the farthest it could travel in one step; the
    sum is least. A link faster than `max_speed` is never made. Parameters and result are those of `link_nearest`.

    Notes
    -----
    Squared displacement is the likelihood of independent Gaussian departures: Crocker and Grier (1996), *Journal of
    Colloid and Interface Science* 179, 298-310.
    """
    if len(heads) == 0 or len(centres) == 0:
        return np.full(len(centres), -1, dtype=np.int64)
    reach = _reach(heads, seconds, settings.max_speed)
    alone = float(reach.min()) ** 2
    head, centre = _within(heads, centres, reach)
    cost = _squared_km(heads.predicted(seconds), centres, head, centre)
    possible = np.flatnonzero(cost < alone)
    return assign(Links(head[possible], centre[possible], cost[possible]), len(heads), len(centres), alone=alone)


def _within(heads: Heads, centres: FloatArray, reach: FloatArray) -> tuple[IntArray, IntArray]:
    """All pairs of a track and a centre that it can have reached, in order of centre, then of track."""
    chord = _chord(reach)
    pairs = cKDTree(centres).sparse_distance_matrix(cKDTree(heads.xyz), chord.max(), output_type="ndarray")
    pairs = pairs[pairs["v"] <= chord[pairs["j"]]]
    centre, head = np.divmod(np.sort(pairs["i"] * len(heads) + pairs["j"]), len(heads))
    return head, centre


def _squared_km(places: FloatArray, centres: FloatArray, place: IntArray, centre: IntArray) -> FloatArray:
    """Square of the great-circle distance between pairs of places and centres."""
    square = np.zeros(len(place))
    for axis in range(3):
        square += (places[:, axis].copy()[place] - centres[:, axis].copy()[centre]) ** 2
    return np.asarray((2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(0.5 * np.sqrt(square), 1.0))) ** 2)


_LINKERS = {"nearest": link_nearest, "assignment": link_assignment}


class _Handover(NamedTuple):
    """Who becomes what in a time step."""

    centre: IntArray
    """The centres that continue a track, ascending."""
    head: IntArray
    """The index of each one's track in the old heads."""
    waiting: IntArray
    """Index in the old heads of the unseen tracks that may still come back."""

    def add_waiting(self, seen: _Array, old: _Array) -> _Array:
        """What is known of this step's centres, then what was known of the tracks that wait."""
        return np.concatenate([seen, old[self.waiting]]) if len(self.waiting) else seen


def _advance(
    heads: Heads, xyz: FloatArray, seconds: int, step: int, settings: TrackingSettings
) -> tuple[Heads, _Handover]:
    """One time step of a tracker; the new heads are in order of the centres, the waiting ones after them."""
    previous = _LINKERS[settings.method](heads, xyz, seconds, settings)
    linked = np.flatnonzero(previous >= 0)
    source = previous[linked]
    waiting = source[:0]
    if settings.max_gap:
        unseen = np.ones(len(heads), dtype=bool)
        unseen[source] = False
        waiting = np.flatnonzero(unseen & (step - heads.step <= settings.max_gap))
    handover = _Handover(linked, source, waiting)
    now = np.full(len(xyz), seconds, dtype=np.int64)
    before, before_seconds = xyz.copy(), now.copy()
    before[linked], before_seconds[linked] = heads.xyz[source], heads.seconds[source]
    new = Heads(
        handover.add_waiting(xyz, heads.xyz),
        handover.add_waiting(before, heads.before),
        handover.add_waiting(now, heads.seconds),
        handover.add_waiting(before_seconds, heads.before_seconds),
        handover.add_waiting(np.full(len(xyz), step, dtype=np.int64), heads.step),
    )
    return new, handover


class _Store:
    """Points as they come, in columns with room to grow."""

    def __init__(self) -> None:
        self._columns = [np.empty(1024, kind) for kind in (np.int64, np.int64, float, float, float, bool)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def points(self) -> Points:
        """All of them, not to be changed."""
        return Points._make(column[: self._count] for column in self._columns)

    def append(self, *, chain: IntArray, seconds: int, centres: Centres) -> None:
        """Add the points of a time step."""
        start, self._count = self._count, self._count + len(chain)
        room = len(self._columns[0])
        values = (chain, seconds, centres.lat, centres.lon, centres.value, centres.inside)
        for index, value in enumerate(values):
            if self._count > room:
                # One column after the other, so that little is held twice.
                grown = np.empty(self._count * 3 // 2, self._columns[index].dtype)
                grown[:start] = self._columns[index][:start]
                self._columns[index] = grown
            self._columns[index][start : self._count] = value

    def keep(self, index: IntArray, number: IntArray) -> None:
        """Keep these points alone, their chains numbered anew."""
        self._columns[0][: self._count] = number[self._columns[0][: self._count]]
        self._count = len(index)
        for column in self._columns:
            column[: self._count] = column[index]


@dataclass(eq=False)
class TrackBuilder:
    """Makes tracks of centres that are fed to it step by step.

    Parameters
    ----------
    tracking : TrackingSettings
    room : int
        Points that may gather before those of no use are dropped.
    """

    tracking: TrackingSettings
    room: int = 1 << 18
    _heads: Heads = field(default_factory=Heads.none)
    # Of each head: its chain, the season that publishes it (`_NONE` while outside region or season), if in the region.
    _chain: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    _season: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    _inside: BoolArray = field(default_factory=lambda: np.empty(0, bool))
    _recent: deque[tuple[FloatArray, int]] = field(default_factory=lambda: deque(maxlen=WARM_UP))
    _year: int | None = None
    _step: int = 0
    _stored: _Store = field(default_factory=_Store)
    _kept: int = 0
    _forgotten: int = 0
    _chains: int = 0
    _begun: list[IntArray] = field(default_factory=list)
    _ended: list[IntArray] = field(default_factory=list)

    def add(self, centres: Centres, moment: Moment) -> None:
        """Take the centres of the next time step.

        Parameters
        ----------
        centres : Centres
            Of this step alone.
        moment : Moment
        """
        xyz = unit_vectors(centres.lat, centres.lon)
        cut = moment.cut or self._year is None
        if cut:
            self._end_all()
            self._heads = Heads.none()
            self._recent.clear()
        elif moment.year != self._year:
            self._restart()
        self._heads, handover = _advance(self._heads, xyz, moment.seconds, self._step, self.tracking)
        new = self._continue(centres, moment, handover)
        if cut:
            self._begun.append(new)
        self._recent.append((xyz, moment.seconds))
        self._year = moment.year
        self._step += 1
        if len(self._stored) > max(self.room, 2 * self._kept):
            self._compact()

    def alive(self, season_year: int) -> bool:
        """Whether a track that the season of this year publishes may still go on."""
        return bool((self._season == season_year).any())

    def out_of_sight(self, season_year: int) -> bool:
        """Whether such a track was not seen at the last step, but may come back."""
        return bool((self._season[len(self._recent[-1][0]) :] == season_year).any())

    def linked(self) -> Linked:
        """All points of all tracks. The data are taken to end here: tracks still alive end where they do."""
        points = self._stored.points
        none = np.empty(0, np.int64)
        return Linked(
            points,
            by_chain(points.chain),
            np.concatenate([none, *self._begun]),
            np.concatenate([none, *self._ended, self._chain]),
            self._forgotten,
        )

    def _end_all(self) -> None:
        self._ended.append(self._chain)
        self._chain, self._season, self._inside = self._chain[:0], self._season[:0], self._inside[:0]

    def _restart(self) -> None:
        """Begin a calendar year as if tracking had begun `WARM_UP` steps before it.

        The tracks stay the same; what the tracker remembers of them is what it would then know. A track that was out
        of sight at the turn of the year ends, as no gap spans a restart.
        """
        count = len(self._recent[-1][0])
        fresh = Heads.none()
        for back, (xyz, seconds) in enumerate(self._recent):
            fresh, _ = _advance(fresh, xyz, seconds, self._step - len(self._recent) + back, self.tracking)
        self._heads = Heads(
            fresh.xyz[:count],
            fresh.before[:count],
            fresh.seconds[:count],
            fresh.before_seconds[:count],
            fresh.step[:count],
        )
        self._ended.append(self._chain[count:])
        self._chain, self._season, self._inside = self._chain[:count], self._season[:count], self._inside[:count]

    def _continue(self, centres: Centres, moment: Moment, handover: _Handover) -> IntArray:
        """Hand the tracks on to this step's centres and store these; returns the chains that begin here."""
        linked, source, _ = handover
        fresh = np.arange(self._chains, self._chains + len(centres) - len(linked))
        self._chains += len(fresh)
        chain = np.full(len(centres), -1, dtype=np.int64)
        chain[linked] = self._chain[source]
        chain[chain < 0] = fresh
        season = np.full(len(centres), _NONE)
        if moment.season_year is not None:
            season[centres.inside] = moment.season_year
        went_on = self._inside[source] & centres.inside[linked]
        season[linked[went_on]] = self._season[source[went_on]]
        self._chain = handover.add_waiting(chain, self._chain)
        self._season = handover.add_waiting(season, self._season)
        self._inside = handover.add_waiting(centres.inside, self._inside)
        self._stored.append(chain=chain, seconds=moment.seconds, centres=centres)
        return fresh

    def _compact(self) -> None:
        """Forget ended tracks too short to be kept, so that memory follows what is kept and not what was seen."""
        chain, inside = self._stored.points.chain, self._stored.points.inside
        keep = np.bincount(chain, minlength=self._chains) >= self.tracking.min_points
        keep[self._chain] = True
        going = np.flatnonzero(~keep[chain])
        going = going[by_chain(chain[going])]
        self._forgotten += int(np.count_nonzero(entries(chain[going], inside[going])[1]))
        number = np.cumsum(keep) - 1  # of the chains that stay, in the same order
        self._stored.keep(np.flatnonzero(keep[chain]), number)
        self._kept = len(self._stored)
        self._chains = int(np.count_nonzero(keep))
        self._chain = number[self._chain]
        self._begun, self._ended = ([number[some[keep[some]]] for some in ends] for ends in (self._begun, self._ended))
