"""A catalogue of storms of known truth: where they are, how strong, and how the members differ."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError
from stormtracks.grid import EARTH_RADIUS_KM, unit_vectors

__all__ = ["Period", "StormStatistics", "Storms", "draw_catalogue", "perturb"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
StrArray = npt.NDArray[np.str_]

logger = logging.getLogger(__name__)

_ROUNDS = 40  # how often places are drawn anew for the storms that were too close to others
_PADDING = 12  # hours before birth and after death during which others keep away too, lest two lives look like one
_TURN = np.deg2rad(45)  # spread of the change of heading over a life
_DELIBERATE = ("north pole", "south pole", "date line", "greenwich", "new year")


@dataclass(frozen=True)
class StormStatistics:
    """What the storms of an ensemble are like.

    Parameters
    ----------
    per_day : float
        Storms born a day, on the whole globe.
    separation_km : float
        Least distance of two storms of a member while both live, and for 12 hours before and after. The default is
        more than a storm at full speed covers in two steps of six hours.
    radius_km : tuple of float
        Least and greatest radius, the distance at which vorticity is down to exp(-1/2).
    peak : tuple of float
        Least and greatest vorticity at the centre in the middle of life, s-1.
    weakest : float
        Vorticity at the centre that a storm never falls below, s-1.
    speed : tuple of float
        Least and greatest speed along the common path, m s-1. The members' deviations add at most 3 m s-1.
    life_days : tuple of float
        Shortest and longest life.
    min_latitude : float
        Degrees from the equator that the common path keeps.
    spread_km : float
        Farthest that a member strays from the common path; at most 150.

    Raises
    ------
    InputError
        If a range is empty or a value cannot be.
    """

    per_day: float = 1.25
    separation_km: float = 1500.0
    radius_km: tuple[float, float] = (250.0, 500.0)
    peak: tuple[float, float] = (1e-4, 2.4e-4)
    weakest: float = 6e-5
    speed: tuple[float, float] = (2.0, 27.0)
    life_days: tuple[float, float] = (2.5, 8.0)
    min_latitude: float = 12.0
    spread_km: float = 120.0

    def __post_init__(self) -> None:
        for name in ("radius_km", "peak", "speed", "life_days"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(f"{name} runs from {low:g} to {high:g}", remedy="give least and greatest, above 0")
        if not 0 < self.weakest <= self.peak[0]:
            raise InputError(
                f"storms of {self.weakest:g} s-1 at the weakest that peak at {self.peak[0]:g} or more",
                remedy="the weakest must be above 0 and not above the least peak",
            )
        if self.per_day < 0 or self.separation_km < 0 or not 0 <= self.min_latitude < 80:
            raise InputError(
                f"storms: {self.per_day:g} a day, {self.separation_km:g} km apart, {self.min_latitude:g} degrees "
                "from the equator",
                remedy="give 0 or more, and less than 80 degrees",
            )
        if not 0 <= self.spread_km <= 150:
            raise InputError(f"members stray {self.spread_km:g} km", remedy="give a spread of 0 to 150 km")


@dataclass(frozen=True)
class Period:
    """The time that the data cover, in hours since their start.

    Parameters
    ----------
    hours : float
        Length.
    new_years : tuple of float
        Every 1 January 00:00 within.
    """

    hours: float
    new_years: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Storms:
    """Storms with their paths, as one array per property; times in hours since the start of the data.

    A path turns the point `centre` at a constant rate about the axis `rotation`: a small circle, along which the
    storm keeps its speed and its heading turns steadily. A member strays from it by a smooth, bounded wobble.

    Parameters
    ----------
    birth, death : shape (n,)
        First and last hour of life.
    middle : shape (n,)
        When the path passes `centre`.
    centre, heading, rotation : shape (n, 3)
        Unit vector to a point of the path, unit vector along the path there, and angular velocity in rad per hour.
    radius_km, peak : shape (n,)
        Radius, and the greatest vorticity of life in s-1, positive.
    sign : shape (n,)
        1 in the northern hemisphere, -1 in the southern.
    wobble_km, wobble_period, wobble_phase : shape (n, 2)
        Deviation along and across the path: km, hours, radians.
    """

    birth: FloatArray
    death: FloatArray
    middle: FloatArray
    centre: FloatArray
    heading: FloatArray
    rotation: FloatArray
    radius_km: FloatArray
    peak: FloatArray
    sign: FloatArray
    wobble_km: FloatArray
    wobble_period: FloatArray
    wobble_phase: FloatArray

    def __len__(self) -> int:
        return len(self.birth)

    def __getitem__(self, index: IntArray | slice) -> Storms:
        return Storms(**{part.name: getattr(self, part.name)[index] for part in fields(self)})

    def positions(self, storm: IntArray, hour: FloatArray) -> FloatArray:
        """Where storms are.

        Parameters
        ----------
        storm, hour : numpy.ndarray, shape (n,)
            Which storm, and when.

        Returns
        -------
        numpy.ndarray, shape (n, 3)
            Unit vectors.
        """
        age = hour - self.middle[storm]
        along = _rotate(self.heading[storm], self.rotation[storm], age)
        centre = _rotate(self.centre[storm], self.rotation[storm], age)
        phase = 2 * np.pi * age[:, np.newaxis] / self.wobble_period[storm] + self.wobble_phase[storm]
        stray = self.wobble_km[storm] / EARTH_RADIUS_KM * np.sin(phase)
        angle = np.hypot(stray[:, 0], stray[:, 1])[:, np.newaxis]
        across = np.cross(centre, along)
        aside = stray[:, :1] * along + stray[:, 1:] * across
        return np.asarray(np.cos(angle) * centre + np.sinc(angle / np.pi) * aside)

    def amplitudes(self, storm: IntArray, hour: FloatArray, *, least: float) -> FloatArray:
        """Signed vorticity at the centre, s-1, shape (n,).

        With x from -1 at birth to 1 at death it is ``peak (1 - x**4)``, but no weaker than `least`: it grows in the
        first fifth of life and decays in the last.
        """
        half_life = 0.5 * (self.death[storm] - self.birth[storm])
        x = (hour - self.birth[storm]) / half_life - 1
        strength = np.maximum(least, self.peak[storm] * (1 - x**4))
        return np.asarray(self.sign[storm] * strength)


def draw_catalogue(period: Period, statistics: StormStatistics, rng: np.random.Generator) -> Storms:
    """The storms that all members share.

    Some of them pass over a pole, 180 degrees, 0 degrees and the new year on purpose: one and one more for every
    40 storms of each kind. The others are drawn evenly over the sphere and in time. A storm that comes too close to
    another or to the equator is drawn anew; what does not fit after 40 rounds is left out, and that is logged.

    Parameters
    ----------
    period : Period
    statistics : StormStatistics
    rng : numpy.random.Generator

    Returns
    -------
    Storms
        In order of birth, without wobble.
    """
    requested = round(statistics.per_day * period.hours / 24)
    kinds = _kinds(requested, period)
    accepted: list[Storms] = []
    occupied = _Occupancy(statistics.separation_km + 2 * statistics.spread_km, statistics.min_latitude)
    for _ in range(_ROUNDS):
        candidates = _candidates(kinds, period, statistics, rng)
        fits = occupied.admit(candidates)
        accepted.append(candidates[np.flatnonzero(fits)])
        kinds = kinds[~fits]
        if not len(kinds):
            break
    if len(kinds):
        logger.warning("%d of %d synthetic storms did not fit: too dense", len(kinds), requested)
    storms = Storms(
        **{part.name: np.concatenate([getattr(some, part.name) for some in accepted]) for part in fields(Storms)}
    )
    return storms[np.argsort(storms.birth, kind="stable")]


def perturb(storms: Storms, statistics: StormStatistics, rng: np.random.Generator) -> Storms:
    """The storms as one member has them.

    Each is born up to 12 hours later and dies up to 12 hours earlier, but lives no shorter than the shortest life;
    strays from the common path by up to `spread_km`; and is stronger or weaker, larger or smaller by about a tenth.
    """
    n = len(storms)
    spare = np.maximum(0, storms.death - storms.birth - 24 * statistics.life_days[0])
    cut = np.minimum(12.0, 0.5 * spare)[:, np.newaxis] * rng.random((n, 2))
    return replace(
        storms,
        birth=storms.birth + cut[:, 0],
        death=storms.death - cut[:, 1],
        radius_km=np.clip(storms.radius_km * np.exp(0.1 * rng.standard_normal(n)), *statistics.radius_km),
        peak=np.clip(storms.peak * np.exp(0.1 * rng.standard_normal(n)), *statistics.peak),
        wobble_km=statistics.spread_km / np.sqrt(2) * rng.uniform(0.3, 1.0, (n, 2)),
        wobble_period=rng.uniform(96.0, 192.0, (n, 2)),
        wobble_phase=rng.uniform(0, 2 * np.pi, (n, 2)),
    )


def _kinds(requested: int, period: Period) -> StrArray:
    wanted = _DELIBERATE if period.new_years else _DELIBERATE[:-1]
    deliberate = list(wanted) * (1 + requested // 40)
    return np.array((deliberate + ["free"] * requested)[:requested], dtype="U16")


def _candidates(kinds: StrArray, period: Period, statistics: StormStatistics, rng: np.random.Generator) -> Storms:
    """One storm of each kind asked for, wherever chance puts it."""
    n = len(kinds)
    life = 24 * rng.uniform(*statistics.life_days, n)
    middle = _middles(kinds, life, period, rng)
    lat, lon, bearing = _crossings(kinds, statistics, rng)
    centre = unit_vectors(lat, lon)
    heading = _heading(lat, lon, bearing)
    speed = 3.6 * rng.uniform(*statistics.speed, n) / EARTH_RADIUS_KM
    turn = _TURN * np.clip(rng.standard_normal(n), -2, 2) / life
    return Storms(
        birth=middle - 0.5 * life,
        death=middle + 0.5 * life,
        middle=middle,
        centre=centre,
        heading=heading,
        rotation=speed[:, np.newaxis] * np.cross(centre, heading) + turn[:, np.newaxis] * centre,
        radius_km=rng.uniform(*statistics.radius_km, n),
        peak=rng.uniform(*statistics.peak, n),
        sign=np.sign(lat),
        wobble_km=np.zeros((n, 2)),
        wobble_period=np.full((n, 2), 96.0),
        wobble_phase=np.zeros((n, 2)),
    )


def _middles(kinds: StrArray, life: FloatArray, period: Period, rng: np.random.Generator) -> FloatArray:
    """Hour of the middle of each life: free storms are born at any time, the others live within the period."""
    n = len(kinds)
    middle = 0.5 * life + rng.random(n) * np.where(kinds == "free", period.hours, np.maximum(0, period.hours - life))
    over = kinds == "new year"
    if over.any():
        nearby = life[over] * rng.uniform(-0.25, 0.25, int(over.sum()))
        middle[over] = np.maximum(rng.choice(period.new_years, int(over.sum())) + nearby, 0.5 * life[over])
    return middle


def _crossings(
    kinds: StrArray, statistics: StormStatistics, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Latitude, longitude and bearing (degrees, degrees, radians from north) in the middle of each life."""
    n = len(kinds)
    lowest = np.sin(np.deg2rad(statistics.min_latitude))
    lat = rng.choice((-1.0, 1.0), n) * np.rad2deg(np.arcsin(rng.uniform(lowest, 1, n)))
    lon = rng.uniform(0, 360, n)
    bearing = rng.uniform(0, 2 * np.pi, n)
    lat[kinds == "north pole"] = 90
    lat[kinds == "south pole"] = -90
    lon[kinds == "date line"] = 180
    lon[kinds == "greenwich"] = 0
    over_line = np.isin(kinds, ("date line", "greenwich"))
    # Eastward or westward within 45 degrees, so that the line is really crossed.
    bearing[over_line] = np.pi * (np.floor(bearing[over_line] / np.pi) + 0.25 + 0.5 * (bearing[over_line] / np.pi % 1))
    return lat, lon, bearing


def _heading(lat: FloatArray, lon: FloatArray, bearing: FloatArray) -> FloatArray:
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)], axis=-1)
    east = np.stack([-np.sin(lam), np.cos(lam), np.zeros_like(lam)], axis=-1)
    return np.asarray(np.cos(bearing)[:, np.newaxis] * north + np.sin(bearing)[:, np.newaxis] * east)


def _rotate(vector: FloatArray, rotation: FloatArray, hours: FloatArray) -> FloatArray:
    """Vectors (n, 3) turned for some hours (n,) at angular velocities (n, 3), by Rodrigues's formula."""
    rate = np.linalg.norm(rotation, axis=-1, keepdims=True)
    axis = rotation / rate
    angle = rate * hours[:, np.newaxis]
    lengthwise = np.sum(axis * vector, axis=-1, keepdims=True) * axis
    turned = np.cos(angle) * (vector - lengthwise) + np.sin(angle) * np.cross(axis, vector) + lengthwise
    return np.asarray(turned)


class _Occupancy:
    """Which storm is where in each hour, so that none comes too close to another."""

    def __init__(self, separation_km: float, min_latitude: float) -> None:
        self._too_close = np.cos(min(separation_km / EARTH_RADIUS_KM, np.pi))
        self._lowest = np.sin(np.deg2rad(min_latitude))
        self._paths: list[tuple[int, FloatArray]] = []
        self._by_day: dict[int, set[int]] = {}

    def admit(self, candidates: Storms) -> BoolArray:
        """Take in those that keep their distance, each from all before it; True for these, shape (n,)."""
        first = np.floor(candidates.birth - _PADDING).astype(np.int64)
        size = np.ceil(candidates.death + _PADDING).astype(np.int64) - first + 1
        stop = np.cumsum(size)
        storm = np.repeat(np.arange(len(candidates)), size)
        hour = np.arange(len(storm)) - np.repeat(stop - size - first, size)
        points = candidates.positions(storm, hour.astype(np.float64))
        spans = zip(first.tolist(), size.tolist(), stop.tolist(), strict=True)
        return np.array([self._admit(start, points[end - n : end]) for start, n, end in spans], dtype=bool)

    def _admit(self, start: int, path: FloatArray) -> bool:
        if np.abs(path[:, 2]).min() < self._lowest:
            return False
        days = range(start // 24, (start + len(path)) // 24 + 1)
        for other in set().union(*(self._by_day.get(day, set()) for day in days)):
            if self._meet(start, path, *self._paths[other]):
                return False
        for day in days:
            self._by_day.setdefault(day, set()).add(len(self._paths))
        self._paths.append((start, path))
        return True

    def _meet(self, start: int, path: FloatArray, other_start: int, other: FloatArray) -> bool:
        first = max(start, other_start)
        last = min(start + len(path), other_start + len(other))
        if last <= first:
            return False
        cosine = np.sum(path[first - start : last - start] * other[first - other_start : last - other_start], axis=-1)
        return bool(cosine.max() > self._too_close)
