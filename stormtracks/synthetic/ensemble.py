"""An ensemble of known truth: its time axis, the storms of each member, and its fields block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError
from stormtracks.grid import Grid
from stormtracks.reanalysis.archive import Field, Quantity
from stormtracks.synthetic.fields import VARIABLES, Vortices, noise_fields, storm_fields
from stormtracks.synthetic.noise import BLOCK_STEPS, NoiseStatistics, Synthesis, red_noise
from stormtracks.synthetic.storms import Period, Storms, StormStatistics, draw_catalogue, perturb
from stormtracks.times import TimeAxis, seconds_of
from stormtracks.tracks import Tracks

__all__ = ["SyntheticEnsemble", "TrueStorms", "two_degree_grid"]

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

VORTICITY = Quantity("vorticity", "atmosphere_relative_vorticity", "s-1")

_CATALOGUE, _MEMBER, _NOISE = range(3)  # what a stream of random numbers is for


def two_degree_grid() -> Grid:
    """The grid of 20CR version 2: 91 x 180 points, from the north pole southward and from 0 degrees eastward."""
    return Grid(np.linspace(90, -90, 91), np.arange(0, 360, 2.0))


@dataclass(frozen=True, eq=False)
class TrueStorms:
    """The storms of one member as the data have them.

    Parameters
    ----------
    tracks : Tracks
        Where and how strong, at the time steps of the data.
    radius_km : numpy.ndarray, shape (n_tracks,)
    """

    tracks: Tracks
    radius_km: FloatArray

    def vortices(self, times: TimeAxis) -> Vortices:
        """All points of all tracks in order of time, as steps of a time axis."""
        step = np.searchsorted(times.seconds, self.tracks.time)
        order = np.argsort(step, kind="stable")
        radius_km = np.repeat(self.radius_km, self.tracks.row_size)
        lat, lon, amplitude = self.tracks.lat, self.tracks.lon, self.tracks.value
        return Vortices(step[order], lat[order], lon[order], amplitude[order], radius_km[order])


@dataclass(frozen=True, eq=False)
class SyntheticEnsemble:
    """Storms of known truth in red noise, the same for the same seed.

    All members share a catalogue of storms and differ by perturbations of each and by their noise. A member is the
    same whatever the number of members, and the storms are the same whatever the grid and the time step.

    Parameters
    ----------
    start, end : tuple of int
        First day, and day after the last: year, month, day.
    members : int
        How many; they are numbered from 1.
    step_hours : float
        Time step.
    grid : Grid
        Any; the default is that of 20CR version 2, two degrees.
    calendar : str
        CF calendar.
    seed : int
        Where all random numbers come from.
    storms : StormStatistics
    noise : NoiseStatistics

    Raises
    ------
    InputError
        If the period is empty, or a number is out of range.
    """

    start: tuple[int, int, int] = (2001, 12, 1)
    end: tuple[int, int, int] = (2002, 2, 1)
    members: int = 6
    step_hours: float = 6.0
    grid: Grid = field(default_factory=two_degree_grid)
    calendar: str = "standard"
    seed: int = 0
    storms: StormStatistics = field(default_factory=StormStatistics)
    noise: NoiseStatistics = field(default_factory=NoiseStatistics)

    def __post_init__(self) -> None:
        if self.members < 1:
            raise InputError(f"an ensemble of {self.members} members", remedy="ask for at least 1")
        if not self.step_hours > 0 or (3600 * self.step_hours) % 1:
            raise InputError(f"a time step of {self.step_hours:g} hours", remedy="give a whole number of seconds")
        if self._bounds[0] >= self._bounds[1]:
            raise InputError(
                f"the period from {self.start} to {self.end} is empty", remedy="the end must lie after the start"
            )

    @cached_property
    def _bounds(self) -> tuple[int, int]:
        try:
            return seconds_of(self.calendar, *self.start), seconds_of(self.calendar, *self.end)
        except ValueError as error:
            raise InputError(
                f"{self.start} or {self.end} is no day of the {self.calendar} calendar: {error}",
                remedy="give year, month and day, and a CF calendar",
            ) from error

    @cached_property
    def times(self) -> TimeAxis:
        """The time steps."""
        first, stop = self._bounds
        return TimeAxis(np.arange(first, stop, round(3600 * self.step_hours), dtype=np.int64), self.calendar)

    @cached_property
    def catalogue(self) -> Storms:
        """The storms that all members share."""
        first, stop = self._bounds
        turns = (seconds_of(self.calendar, year) for year in range(self.start[0] + 1, self.end[0] + 1))
        period = Period((stop - first) / 3600, tuple((turn - first) / 3600 for turn in turns if first < turn < stop))
        return draw_catalogue(period, self.storms, self._rng(_CATALOGUE))

    def truth(self, member: int) -> Tracks:
        """The storms of one member, as a perfect tracker would find them.

        Parameters
        ----------
        member : int
            1 to `members`.

        Returns
        -------
        Tracks
            Of the whole globe, whatever the grid covers. `value` is the vorticity at the centre, negative in the
            southern hemisphere. A storm that outlives the data is cut there and flagged. `track_id` counts in order
            of birth within each year.

        Raises
        ------
        InputError
            If the ensemble has no such member.
        """
        return self.true_storms(member).tracks

    def true_storms(self, member: int) -> TrueStorms:
        """The storms of one member with their radii; see `truth`."""
        if not 1 <= member <= self.members:
            raise InputError(f"member {member} of an ensemble of {self.members}", remedy="members count from 1")
        storms = perturb(self.catalogue, self.storms, self._rng(_MEMBER, member))
        step = self.step_hours
        first = np.ceil(storms.birth / step).astype(np.int64)
        unbroken = np.floor(storms.death / step).astype(np.int64) + 1
        stop = np.minimum(unbroken, len(self.times))
        # In order of birth as this member has it; what is born after the last step is not in the data at all.
        order = np.argsort(first, kind="stable")
        order = order[(stop > first)[order]]
        storms, first, stop, unbroken = storms[order], first[order], stop[order], unbroken[order]
        row_size = stop - first
        which = np.repeat(np.arange(len(storms)), row_size)
        index = np.arange(len(which)) - np.repeat(np.cumsum(row_size) - row_size, row_size) + first[which]
        hour = np.asarray(step * index, dtype=np.float64)
        lat, lon = _degrees(storms.positions(which, hour))
        value = storms.amplitudes(which, hour, least=self.storms.weakest)
        year = self.times.years()[first]
        tracks = Tracks(
            row_size=row_size,
            track_id=np.arange(len(storms)) - np.searchsorted(year, year) + 1,
            year=year,
            member=np.full(len(storms), member, dtype=np.int64),
            starts_cut=np.zeros(len(storms), dtype=bool),
            ends_cut=unbroken > stop,
            time=self.times.seconds[index],
            lon=lon,
            lat=lat,
            value=value.astype(np.float32).astype(np.float64),
            quantity=VORTICITY,
            calendar=self.calendar,
        )
        return TrueStorms(tracks, storms.radius_km)

    def blocks(self, member: int, variables: Sequence[str] = ("u850", "v850")) -> Iterator[tuple[Field, ...]]:
        """The fields of one member, some time steps after another.

        Parameters
        ----------
        member : int
            1 to `members`.
        variables : sequence of str
            Some of `VARIABLES`.

        Yields
        ------
        tuple of numpy.ndarray, shape (n, nlat, nlon), float32
            One per variable: u850 and v850 in m s-1, prmsl in Pa; n is `BLOCK_STEPS`, at the end fewer.

        Raises
        ------
        InputError
            If a variable or member is none of this ensemble's.
        """
        unknown = sorted(set(variables) - set(VARIABLES))
        if unknown:
            raise InputError(f"no synthetic {', '.join(unknown)}", remedy=f"choose from {', '.join(VARIABLES)}")
        storms = self.true_storms(member)
        noise = red_noise(self._synthesis, self.noise, self._rng(_NOISE, member)) if self.noise.vorticity else None
        return self._blocks(storms, noise, variables)

    def fields(
        self, member: int, start: int, stop: int, variables: Sequence[str] = ("u850", "v850")
    ) -> tuple[Field, ...]:
        """Time steps `start` to `stop` of one member; see `blocks`, from which they are cut."""
        first, last = start // BLOCK_STEPS, -(-stop // BLOCK_STEPS)
        blocks = islice(self.blocks(member, variables), first, last)
        cut = slice(start - first * BLOCK_STEPS, stop - first * BLOCK_STEPS)
        return tuple(np.concatenate(parts)[cut] for parts in zip(*blocks, strict=True))

    def _blocks(
        self, storms: TrueStorms, noise: Iterator[ComplexArray] | None, variables: Sequence[str]
    ) -> Iterator[tuple[Field, ...]]:
        vortices = storms.vortices(self.times)
        for first in range(0, len(self.times), BLOCK_STEPS):
            length = min(BLOCK_STEPS, len(self.times) - first)
            fields = storm_fields(self.grid, vortices.between(first, first + length), length, variables)
            if noise is not None:
                for name, noisy in noise_fields(self._synthesis, next(noise), variables).items():
                    fields[name] += noisy[:length]
            yield tuple(fields[name].astype(np.float32) for name in variables)

    @cached_property
    def _synthesis(self) -> Synthesis:
        return Synthesis(self.grid, self.noise.wavenumbers)

    def _rng(self, purpose: int, member: int = 0) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(purpose, member)))


def _degrees(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Latitude and longitude of unit vectors (n, 3), to 1e-4 degrees, longitude in [0, 360)."""
    lat: FloatArray = np.rad2deg(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    lon: FloatArray = np.rad2deg(np.arctan2(points[:, 1], points[:, 0]))
    return lat.round(4), lon.round(4) % 360
