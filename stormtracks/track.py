"""Trackers: centres of one time step are linked to those of the step before, and the links make tracks.

A link into a step depends only on the centres since the tracker last started. It starts at the beginning of the data,
after every gap, and afresh at each new year, from the last `WARM_UP` steps before it. So each year's links come out the
same whether the years are tracked in one run or each by a task of its own, and however the data are cut into blocks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from stormtracks.assemble import POINT, Linked
from stormtracks.detect import Centres
from stormtracks.grid import EARTH_RADIUS_KM, unit_vectors
from stormtracks.settings.campaign import TrackingSettings

__all__ = ["WARM_UP", "Heads", "Moment", "TrackBuilder", "link_assignment", "link_nearest"]

WARM_UP = 8
"""Time steps before a new year from which that year's tracker starts."""

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Points = npt.NDArray[np.void]

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
    Colloid and Interface Science* 179, 298-310. Solved on the sparse graph of possible links by
    `scipy.sparse.csgraph.min_weight_full_bipartite_matching`, where one private column a track stands for no link.
    """
    previous = np.full(len(centres), -1, dtype=np.int64)
    if len(heads) == 0 or len(centres) == 0:
        return previous
    reach = _reach(heads, seconds, settings.max_speed)
    one_step = float(reach.min())
    tree = cKDTree(centres)
    lists = tree.query_ball_point(heads.xyz, _chord(reach), return_sorted=True)
    counts = np.array([len(found) for found in lists])
    head = np.repeat(np.arange(len(heads)), counts)
    centre = np.fromiter((index for found in lists for index in found), dtype=np.int64, count=int(counts.sum()))
    miss = np.linalg.norm(heads.predicted(seconds)[head] - centres[centre], axis=1)
    cost = (2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(0.5 * miss, 1.0))) ** 2
    possible = cost < one_step**2
    head, centre, cost = head[possible], centre[possible], cost[possible]
    alone = np.arange(len(heads))
    # Every track has exactly one column in the solution, so a constant on all costs changes nothing but keeps a
    # perfect link from being taken for an absent one.
    graph = coo_array(
        (
            np.concatenate([cost, np.full(len(heads), one_step**2)]) + 1.0,
            (np.concatenate([head, alone]), np.concatenate([centre, len(centres) + alone])),
        ),
        shape=(len(heads), len(centres) + len(heads)),
    )
    row, column = min_weight_full_bipartite_matching(graph.tocsr())
    linked = column < len(centres)
    previous[column[linked]] = row[linked]
    return previous


_LINKERS = {"nearest": link_nearest, "assignment": link_assignment}


def _advance(
    heads: Heads, xyz: FloatArray, seconds: int, step: int, settings: TrackingSettings
) -> tuple[IntArray, Heads, IntArray]:
    """One time step of a tracker.

    Returns
    -------
    previous : shape (n,)
        For each centre the index in `heads` of the track it continues, -1 for a new one.
    heads : Heads
        One record per centre, in the centres' order, then the unseen tracks that may still come back.
    waiting : shape (m,)
        The index in the old heads of these last.
    """
    previous = _LINKERS[settings.method](heads, xyz, seconds, settings)
    linked = np.flatnonzero(previous >= 0)
    source = previous[linked]
    before, before_seconds = xyz.copy(), np.full(len(xyz), seconds, dtype=np.int64)
    before[linked], before_seconds[linked] = heads.xyz[source], heads.seconds[source]
    seen = np.zeros(len(heads), dtype=bool)
    seen[source] = True
    waiting = np.flatnonzero(~seen & (step - heads.step <= settings.max_gap))
    now = Heads(
        np.concatenate([xyz, heads.xyz[waiting]]),
        np.concatenate([before, heads.before[waiting]]),
        np.concatenate([np.full(len(xyz), seconds, dtype=np.int64), heads.seconds[waiting]]),
        np.concatenate([before_seconds, heads.before_seconds[waiting]]),
        np.concatenate([np.full(len(xyz), step, dtype=np.int64), heads.step[waiting]]),
    )
    return previous, now, waiting


@dataclass(eq=False)
class TrackBuilder:
    """Makes tracks of centres that are fed to it step by step.

    Parameters
    ----------
    tracking : TrackingSettings
    """

    tracking: TrackingSettings
    _heads: Heads = field(default_factory=Heads.none)
    # Of each head: its chain, the season that publishes it (`_NONE` while outside region or season), if in the region.
    _chain: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    _season: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    _inside: BoolArray = field(default_factory=lambda: np.empty(0, bool))
    _recent: deque[tuple[FloatArray, int]] = field(default_factory=lambda: deque(maxlen=WARM_UP))
    _year: int | None = None
    _step: int = 0
    _points: list[Points] = field(default_factory=list)
    _stored: int = 0
    _kept: int = 0
    _room: int = 1 << 18  # points that may gather before those of no use are dropped
    _length: IntArray = field(default_factory=lambda: np.zeros(1024, np.int64))
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
        previous, self._heads, waiting = _advance(self._heads, xyz, moment.seconds, self._step, self.tracking)
        new = self._continue(centres, moment, previous, waiting)
        if cut:
            self._begun.append(new)
        self._recent.append((xyz, moment.seconds))
        self._year = moment.year
        self._step += 1
        if self._stored > max(self._room, 2 * self._kept):
            self._compact()

    def alive(self, season_year: int) -> bool:
        """Whether a track that the season of this year publishes may still go on."""
        return bool((self._season == season_year).any())

    def out_of_sight(self, season_year: int) -> bool:
        """Whether such a track was not seen at the last step, but may come back."""
        return bool((self._season[len(self._recent[-1][0]) :] == season_year).any())

    def linked(self) -> Linked:
        """All points of all tracks. The data are taken to end here: tracks still alive end where they do."""
        stored = np.concatenate([np.empty(0, POINT), *self._points])
        none = np.empty(0, np.int64)
        return Linked(
            stored[np.argsort(stored["chain"], kind="stable")],
            np.concatenate([none, *self._begun]),
            np.concatenate([none, *self._ended, self._chain]),
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
            _, fresh, _ = _advance(fresh, xyz, seconds, self._step - len(self._recent) + back, self.tracking)
        self._heads = Heads(
            fresh.xyz[:count],
            fresh.before[:count],
            fresh.seconds[:count],
            fresh.before_seconds[:count],
            fresh.step[:count],
        )
        self._ended.append(self._chain[count:])
        self._chain, self._season, self._inside = self._chain[:count], self._season[:count], self._inside[:count]

    def _continue(self, centres: Centres, moment: Moment, previous: IntArray, waiting: IntArray) -> IntArray:
        """Hand the tracks on to this step's centres and store these; returns the chains that begin here."""
        linked = np.flatnonzero(previous >= 0)
        source = previous[linked]
        fresh = np.arange(self._chains, self._chains + len(centres) - len(linked))
        self._chains += len(fresh)
        chain = np.empty(len(centres), dtype=np.int64)
        chain[previous < 0] = fresh
        chain[linked] = self._chain[source]
        season = np.where(centres.inside, _NONE if moment.season_year is None else moment.season_year, _NONE)
        went_on = self._inside[source] & centres.inside[linked]
        season[linked[went_on]] = self._season[source[went_on]]
        self._chain = np.concatenate([chain, self._chain[waiting]])
        self._season = np.concatenate([season, self._season[waiting]])
        self._inside = np.concatenate([centres.inside, self._inside[waiting]])
        if self._chains > len(self._length):
            self._length = np.concatenate([self._length, np.zeros(self._chains, np.int64)])
        self._length[chain] += 1
        points = np.empty(len(centres), POINT)
        points["chain"], points["seconds"] = chain, moment.seconds
        for name in ("lat", "lon", "value", "inside"):
            points[name] = getattr(centres, name)
        self._points.append(points)
        self._stored += len(points)
        return fresh

    def _compact(self) -> None:
        """Forget ended tracks too short to be kept, so that memory follows what is kept and not what was seen."""
        keep = self._length >= self.tracking.min_points
        keep[self._chain] = True
        stored = np.concatenate(self._points)
        stored = stored[keep[stored["chain"]]]
        self._points, self._stored, self._kept = [stored], len(stored), len(stored)
