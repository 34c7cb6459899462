"""Candidate centres of storms in blocks of fields: threshold, merging of close ones, region."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from stormtracks.errors import InputError
from stormtracks.extrema import local_maxima
from stormtracks.grid import EARTH_RADIUS_KM, Grid, unit_vectors
from stormtracks.neighbourhood import neighbourhood
from stormtracks.precision import round_latitude, round_longitude, round_values
from stormtracks.reanalysis.archive import Quantity
from stormtracks.settings.campaign import DetectionSettings
from stormtracks.vorticity import relative_vorticity

__all__ = ["PRESSURE", "VORTICITY", "VORTICITY_THRESHOLD", "Centres", "Detector"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

VORTICITY = "atmosphere_relative_vorticity"
PRESSURE = "air_pressure_at_mean_sea_level"
VORTICITY_THRESHOLD = 4e-5
"""s-1: four times the noise that an analysis carries at two degrees, two thirds of a weak storm's vorticity."""


@dataclass(frozen=True, eq=False)
class Centres:
    """Candidate centres of a block, in order of time step.

    Parameters
    ----------
    step : shape (n,), int64
        Time step within the block.
    lat, lon : shape (n,), float64
        Degrees, rounded to 1e-4; longitude in [0, 360).
    value : shape (n,), float64
        The field at the centre's grid point, rounded to 7 significant digits.
    inside : shape (n,), bool
        Whether the centre lies in the region asked for. Those outside are followed too, so that the region never
        changes a link; it only cuts what is published.
    """

    step: IntArray
    lat: FloatArray
    lon: FloatArray
    value: FloatArray
    inside: BoolArray

    def __len__(self) -> int:
        return len(self.step)

    def at(self, first: int, last: int) -> Centres:
        """The centres at steps `first` up to, not including, `last`; steps are counted from `first`."""
        start, stop = np.searchsorted(self.step, (first, last))
        cut = slice(start, stop)
        return Centres(self.step[cut] - first, self.lat[cut], self.lon[cut], self.value[cut], self.inside[cut])


@dataclass(frozen=True, eq=False)
class Detector:
    """Finds the centres of storms on one grid.

    Parameters
    ----------
    settings : DetectionSettings
    grid : Grid
    source : tuple of Quantity
        What the fields are: one field, or eastward and northward wind.
    """

    settings: DetectionSettings
    grid: Grid
    source: tuple[Quantity, ...]

    @property
    def quantity(self) -> Quantity:
        """What is followed."""
        return Quantity("vorticity", VORTICITY, "s-1") if len(self.source) == 2 else self.source[0]

    @property
    def minima(self) -> bool:
        """Whether minima are sought."""
        mode = self.settings.mode
        return mode == "min" or (mode == "auto" and self.quantity.standard_name == PRESSURE)

    @property
    def threshold(self) -> float | None:
        """Value a centre must reach, in the sense of the search; None for any."""
        given = self.settings.threshold
        if given == "auto":
            return VORTICITY_THRESHOLD if self._cyclonic else None
        return None if given == "none" else float(given)

    @property
    def _cyclonic(self) -> bool:
        """Whether the field turns its sign between the hemispheres, and maxima of its cyclonic sense are sought."""
        return self.quantity.standard_name == VORTICITY and not self.minima

    @property
    def _least_signal(self) -> float | None:
        threshold = self.threshold
        if self._cyclonic:
            # The sense is undefined on the equator, where the signal is zero: a storm must turn the right way at all.
            return max(threshold or 0.0, float(np.finfo(np.float32).tiny))
        return -threshold if threshold is not None and self.minima else threshold

    @cached_property
    def _sense(self) -> Field:
        """What a field is multiplied with so that storms are maxima, shape (nlat, 1)."""
        if self.minima:
            return np.full((len(self.grid.lat), 1), -1, dtype=np.float32)
        if self._cyclonic:
            return np.sign(self.grid.lat).astype(np.float32)[:, None]
        return np.ones((len(self.grid.lat), 1), dtype=np.float32)

    def field(self, block: tuple[Field, ...]) -> Field:
        """The field that is followed, from what was read: itself, or the vorticity of the wind; (n, nlat, nlon)."""
        if len(block) == 2:
            return relative_vorticity(block[0], block[1], self.grid, order=self.settings.vorticity_order)
        return block[0]

    def find(self, block: tuple[Field, ...]) -> tuple[Centres, dict[str, IntArray]]:
        """Centres in a block of fields.

        Parameters
        ----------
        block : tuple of numpy.ndarray, each of shape (n, nlat, nlon)
            As `Series.read` gives it. Points next to missing values are no centres.

        Returns
        -------
        centres : Centres
        counts : dict of numpy.ndarray, each of shape (n,)
            For each step the number of ``extrema`` that reached the threshold, and how many of these were ``merged``
            into a stronger one or lay ``outside region``.
        """
        field = self.field(block)
        found = local_maxima(
            field,
            neighbourhood(self.grid),
            sense=self._sense,
            threshold=self._least_signal,
            refine=self.settings.refine,
        )
        strength = found.value.astype(np.float64)
        keep = np.ones(len(found), dtype=bool)
        if self.settings.merge_km > 0:
            keep = _strongest(found.step, unit_vectors(found.lat, found.lon), strength, self.settings.merge_km)
        lat, lon = round_latitude(found.lat[keep]), round_longitude(found.lon[keep])
        sense = self._sense[found.row[keep], 0].astype(np.float64)
        inside = in_region(lat, lon, self.settings.region)
        counts = {
            name: np.bincount(steps, minlength=len(field))
            for name, steps in (
                ("extrema", found.step),
                ("merged", found.step[~keep]),
                ("outside region", found.step[keep][~inside]),
            )
        }
        return Centres(found.step[keep], lat, lon, round_values(strength[keep] * sense), inside), counts

    def nothing_found(self, block: tuple[Field, ...]) -> InputError:
        """The error that says why a series has no candidate at all, with one of its blocks as an example."""
        field = self.field(block)
        held = field[np.isfinite(field)]
        between = f"it lies between {held.min():g} and {held.max():g}" if held.size else "it has no value at all"
        bound = "" if self.threshold is None else f" that reaches {self.threshold:g} {self.quantity.units}"
        return InputError(
            f"no candidate: {self.quantity.name} has no local {'minimum' if self.minima else 'maximum'}{bound}; "
            f"in the last steps read {between}",
            remedy="check that this is the right variable, or set another threshold (detection.threshold, --threshold)",
        )


def in_region(lat: FloatArray, lon: FloatArray, region: tuple[float, float, float, float] | None) -> BoolArray:
    """Whether points lie in a box of west, south, east, north; the box may cross any meridian."""
    if region is None:
        return np.ones(len(lat), dtype=bool)
    west, south, east, north = region
    width = (east - west) % 360 or 360.0
    return np.asarray((lat >= south) & (lat <= north) & ((lon - west) % 360 <= width))


def _strongest(step: IntArray, xyz: FloatArray, strength: FloatArray, radius_km: float) -> BoolArray:
    """Keep the stronger of each pair of centres closer than `radius_km`, strongest first, step by step."""
    # Imported here, as it takes longer than many a search and merging is seldom asked for.
    from scipy.spatial import cKDTree

    keep = np.ones(len(step), dtype=bool)
    chord = 2 * np.sin(min(radius_km / (2 * EARTH_RADIUS_KM), np.pi / 2))
    # Steps are set far apart in a fourth dimension, so that one tree serves them all.
    tree = cKDTree(np.column_stack([xyz, 4.0 * step]))
    pairs = tree.query_pairs(chord, output_type="ndarray")
    if len(pairs) == 0:
        return keep
    rank = np.empty(len(step), dtype=np.int64)
    rank[np.argsort(-strength, kind="stable")] = np.arange(len(step))
    stronger = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    weaker = pairs.sum(axis=1) - stronger
    for pair in np.lexsort((rank[weaker], rank[stronger])):
        if keep[stronger[pair]]:
            keep[weaker[pair]] = False
    return keep
