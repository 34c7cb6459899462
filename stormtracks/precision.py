"""How precisely centres are kept: far more finely than any grid can tell, and far more coarsely than processors round.

Processors of different kinds differ in the last bits of a sine or an arc tangent. What is kept of a centre is rounded
before anything is made of it, so that links and files come out the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["DIGITS", "POSITION_DECIMALS", "round_latitude", "round_longitude", "round_values"]

FloatArray = npt.NDArray[np.float64]

POSITION_DECIMALS = 4
"""Of degrees: 11 m or less."""
DIGITS = 7
"""Significant digits of all else."""

_LEAST_EXPONENT = -60
# Each the double nearest to it: a power that is computed may be another one elsewhere.
_POWERS = np.array([float(f"1e{exponent}") for exponent in range(_LEAST_EXPONENT, 61)])


def round_latitude(lat: FloatArray) -> FloatArray:
    """Latitudes in degrees north, to 1e-4."""
    return np.asarray(np.round(lat, POSITION_DECIMALS) + 0.0)


def round_longitude(lon: FloatArray) -> FloatArray:
    """Longitudes in degrees east, to 1e-4, within [0, 360)."""
    return np.asarray(np.round(lon % 360, POSITION_DECIMALS) % 360)


def round_values(values: FloatArray) -> FloatArray:
    """Values that float32 can hold, to 7 significant digits, as the nearest float32; zero has no sign.

    Rounding again changes nothing.
    """
    size = np.maximum(np.abs(values), np.finfo(np.float32).smallest_subnormal)
    # Of digits before the point; compared instead of computed by a logarithm, whose last bit would decide at 1000.
    before = np.searchsorted(_POWERS, size, side="right") + _LEAST_EXPONENT
    scale = _POWERS[DIGITS - before - _LEAST_EXPONENT]
    return np.asarray((np.rint(values * scale) / scale + 0.0).astype(np.float32).astype(np.float64))
