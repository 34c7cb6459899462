"""Red noise of vorticity, homogeneous and isotropic on the sphere, as wind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft
from scipy.special import sph_legendre_p

from stormtracks.errors import InputError
from stormtracks.grid import EARTH_RADIUS_KM, Grid

__all__ = ["BLOCK_STEPS", "NoiseStatistics", "Synthesis", "red_noise"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

EARTH_RADIUS = 1000 * EARTH_RADIUS_KM  # m

BLOCK_STEPS = 16
"""Time steps that are always computed together, so that a product of matrices rounds the same in every call."""


@dataclass(frozen=True)
class NoiseStatistics:
    """What the noise is like.

    It is red in time and in space: noise that is white down to the two degrees of a grid moves the maximum of a vortex
    of 6e-5 s-1 by more than 80 km on average, so that its true place cannot be told from the field.

    Parameters
    ----------
    vorticity : float
        Standard deviation of the vorticity, s-1; 0 for none.
    autocorrelation : float
        Correlation of one time step with the next, in [0, 1).
    wavenumbers : tuple of int
        Least and greatest total wavenumber l; a grid that does not resolve the greatest cuts it. With the default
        the noise has neither planetary waves, whose winds would be stronger than any storm's, nor scales that two
        degrees cannot hold, and is the same on every grid that is as fine.
    slope : float
        The variance within total wavenumber l goes with ``l**slope``. -2 is red noise, as that of an AR(1) process;
        0 has the same variance in every wavenumber, and 1 is nearly white.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    vorticity: float = 1e-5
    autocorrelation: float = 0.8
    wavenumbers: tuple[int, int] = (5, 89)
    slope: float = -2.0

    def __post_init__(self) -> None:
        if not (self.vorticity >= 0 and 0 <= self.autocorrelation < 1):
            raise InputError(
                f"noise of {self.vorticity:g} s-1 with autocorrelation {self.autocorrelation:g}",
                remedy="give a standard deviation of 0 or more and an autocorrelation of at least 0 and below 1",
            )
        if not 1 <= self.wavenumbers[0] <= self.wavenumbers[1]:
            raise InputError(
                f"noise of wavenumbers {self.wavenumbers[0]} to {self.wavenumbers[1]}",
                remedy="give least and greatest, 1 or more",
            )


def red_noise(synthesis: Synthesis, statistics: NoiseStatistics, rng: np.random.Generator) -> Iterator[ComplexArray]:
    """Spectral coefficients of noise vorticity, block after block without end.

    Parameters
    ----------
    synthesis : Synthesis
        Which coefficients there are.
    statistics : NoiseStatistics
    rng : numpy.random.Generator

    Yields
    ------
    numpy.ndarray, shape (BLOCK_STEPS, n_coefficients), complex
        s-1.

    Notes
    -----
    Every coefficient is an AR(1) process in time, started in its stationary state. The 2 l + 1 coefficients of one
    wavenumber have one variance, so the noise is homogeneous and isotropic, and ``var (2 l + 1) / (4 pi)`` summed over
    all wavenumbers is the variance at every point.
    """
    rho = statistics.autocorrelation
    lowest, finest = synthesis.wavenumbers
    degrees = np.arange(lowest, finest + 1, dtype=np.float64)
    share = degrees**statistics.slope / np.sum(degrees**statistics.slope)
    variance = statistics.vorticity**2 * share * 4 * np.pi / (2 * degrees + 1)
    std = np.sqrt(variance)[synthesis.degree - lowest]
    zonal = synthesis.order == 0
    # The coefficients of the zonal mean are real; the others share their variance between both parts.
    real, imaginary = np.where(zonal, std, std / np.sqrt(2)), np.where(zonal, 0.0, std / np.sqrt(2))

    def draw(steps: int) -> ComplexArray:
        normal = rng.standard_normal((steps, 2, len(zonal)))
        return np.asarray(real * normal[:, 0] + 1j * (imaginary * normal[:, 1]))

    state = draw(1)[0]
    while True:
        innovation = np.sqrt(1 - rho**2) * draw(BLOCK_STEPS)
        block = np.empty_like(innovation)
        for step in range(BLOCK_STEPS):
            block[step] = state
            state = rho * state + innovation[step]
        yield block


@dataclass(frozen=True, eq=False)
class Synthesis:
    """From spherical harmonics of vorticity to fields on a grid.

    Parameters
    ----------
    grid : Grid
        Any latitudes; longitudes whose spacing divides the circle, all round it or not.
    band : tuple of int
        Least and greatest total wavenumber wanted.

    Raises
    ------
    InputError
        If the spacing of the longitudes does not divide 360 degrees, or the grid is too coarse for the band.

    Notes
    -----
    A field is the real part of ``sum over l, m of (1 if m == 0 else 2) a[l, m] P[l, m](theta) exp(i m lon)``, m >= 0,
    with theta the colatitude and P normalised so that its square times 2 pi integrates to 1 over the sphere. Of the
    streamfunction, ``-R**2 / (l (l + 1))`` times the vorticity, the wind is::

        u = (1/R) dpsi/dtheta,   v = (1 / (R sin theta)) dpsi/dlon

    with exact derivatives of P. On a pole ``P / sin(theta)`` vanishes for all m but 1, where its limit is the
    derivative of P towards the equator.
    """

    grid: Grid
    band: tuple[int, int]

    def __post_init__(self) -> None:
        step = self.grid.lon_step
        if abs(self._circle * step - 360) > 0.01 * step:
            raise InputError(
                f"noise is made round whole circles, and longitudes {step:g} degrees apart do not close one",
                remedy="choose a spacing that divides 360 degrees, or a noise of 0",
            )
        lowest, finest = self.wavenumbers
        if finest < lowest:
            raise InputError(
                f"the grid resolves wavenumbers up to {finest}, and the noise begins at {lowest}",
                remedy="choose a finer grid, a noise of longer waves, or none",
            )

    @cached_property
    def _circle(self) -> int:
        return round(360 / self.grid.lon_step)

    @cached_property
    def wavenumbers(self) -> tuple[int, int]:
        """Least and greatest total wavenumber: those of `band`, as far as the grid resolves them."""
        along_meridian = round(180 / float(np.abs(np.diff(self.grid.lat)).max())) - 1
        return self.band[0], min(self.band[1], along_meridian, self._circle // 2 - 1)

    @cached_property
    def _degrees(self) -> list[IntArray]:
        """The total wavenumbers l that go with each zonal wavenumber m = 0, 1, ..."""
        lowest, finest = self.wavenumbers
        return [np.arange(max(lowest, m), finest + 1) for m in range(finest + 1)]

    @cached_property
    def degree(self) -> IntArray:
        """Total wavenumber l of each coefficient, ascending within each m, shape (n_coefficients,)."""
        return np.concatenate(self._degrees)

    @cached_property
    def order(self) -> IntArray:
        """Zonal wavenumber m of each coefficient, ascending, shape (n_coefficients,)."""
        return np.repeat(np.arange(len(self._degrees)), [len(degrees) for degrees in self._degrees])

    def eastward_wind(self, vorticity: ComplexArray) -> FloatArray:
        """Eastward wind of a block of vorticity.

        Parameters
        ----------
        vorticity : numpy.ndarray, shape (n, n_coefficients)
            s-1.

        Returns
        -------
        numpy.ndarray, shape (n, nlat, nlon)
            m s-1.
        """
        return self._field(self._streamfunction(vorticity) / EARTH_RADIUS, self._meridional)

    def northward_wind(self, vorticity: ComplexArray) -> FloatArray:
        """Northward wind of a block of vorticity; see `eastward_wind`."""
        return self._field(1j * self._streamfunction(vorticity) / EARTH_RADIUS, self._zonal)

    def streamfunction(self, vorticity: ComplexArray) -> FloatArray:
        """Streamfunction of a block of vorticity, m2 s-1, shape (n, nlat, nlon)."""
        return self._field(self._streamfunction(vorticity), self._values)

    def _streamfunction(self, vorticity: ComplexArray) -> ComplexArray:
        phase = np.exp(1j * self.order * np.deg2rad(self.grid.lon[0]))
        return np.asarray(vorticity * (-(EARTH_RADIUS**2) / (self.degree * (self.degree + 1)) * phase))

    def _field(self, coefficients: ComplexArray, tables: list[FloatArray]) -> FloatArray:
        n, nlat = len(coefficients), len(self.grid.lat)
        spectrum = np.zeros((n, nlat, self._circle // 2 + 1), dtype=np.complex128)
        first = 0
        for m, table in enumerate(tables):
            part = coefficients[:, first : first + table.shape[1]]
            rows = np.concatenate([part.real, part.imag]) @ table.T
            spectrum[:, :, m].real, spectrum[:, :, m].imag = rows[:n], rows[n:]
            first += table.shape[1]
        waves: FloatArray = irfft(spectrum, self._circle, norm="forward")
        return waves[:, :, : len(self.grid.lon)]

    @cached_property
    def _legendre(self) -> list[tuple[FloatArray, FloatArray]]:
        """P and dP/dtheta of each m, (nlat, number of l)."""
        theta = np.deg2rad(90 - self.grid.lat)[:, np.newaxis]
        tables = (sph_legendre_p(degrees, m, theta, diff_n=1) for m, degrees in enumerate(self._degrees))
        return [(np.asarray(p), np.asarray(derivative)) for p, derivative in tables]

    @cached_property
    def _values(self) -> list[FloatArray]:
        return [p for p, _ in self._legendre]

    @cached_property
    def _meridional(self) -> list[FloatArray]:
        return [derivative for _, derivative in self._legendre]

    @cached_property
    def _zonal(self) -> list[FloatArray]:
        """``m P / sin(theta)`` of each m, (nlat, number of l)."""
        poles = list(self.grid.pole_rows)
        sine = np.cos(np.deg2rad(self.grid.lat))[:, np.newaxis]
        sine[poles] = np.inf
        tables = [m * p / sine for m, (p, _) in enumerate(self._legendre)]
        towards_equator = np.sign(self.grid.lat[poles])[:, np.newaxis]
        tables[1][poles] = towards_equator * self._meridional[1][poles]
        return tables
