"""What a variable is: CF standard names behind the names that centres use, and the units they come in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from stormtracks.errors import InputError

__all__ = ["EASTWARD_WIND", "NORTHWARD_WIND", "Identity", "identify", "match_name", "normal_standard_name", "si_units"]

EASTWARD_WIND = "eastward_wind"
NORTHWARD_WIND = "northward_wind"
_SEA_LEVEL_PRESSURE = "air_pressure_at_mean_sea_level"
_VORTICITY = "atmosphere_relative_vorticity"
_SURFACE_PRESSURE = "surface_air_pressure"

# One name for one quantity: CF keeps older and newer spellings as aliases of each other. On a grid of true
# longitudes and latitudes, which is the only kind read here, x and y are east and north.
_SAME_STANDARD_NAME = {
    "air_pressure_at_sea_level": _SEA_LEVEL_PRESSURE,
    "atmosphere_upward_relative_vorticity": _VORTICITY,
    "x_wind": EASTWARD_WIND,
    "y_wind": NORTHWARD_WIND,
    "unknown": "",
}

# Names of variables without their level, as NOAA, ECMWF, CMIP and others write them, in lower case.
_STEMS = {
    EASTWARD_WIND: ("u", "ua", "uwnd", "ugrd", "u_component_of_wind"),
    NORTHWARD_WIND: ("v", "va", "vwnd", "vgrd", "v_component_of_wind"),
    _VORTICITY: ("vo", "vor", "vort", "rv", "relv", "vorticity", "relative_vorticity"),
    _SEA_LEVEL_PRESSURE: ("prmsl", "msl", "psl", "slp", "mslp", "pmsl", "mean_sea_level_pressure"),
    _SURFACE_PRESSURE: ("sp", "ps", "psfc", "surface_pressure"),
    "air_temperature": ("t", "ta", "tmp"),
}
_STANDARD_NAME_OF_STEM = {stem: name for name, stems in _STEMS.items() for stem in stems}

_AT_TEN_METRES = {"uas": EASTWARD_WIND, "10u": EASTWARD_WIND, "vas": NORTHWARD_WIND, "10v": NORTHWARD_WIND}

_KNOT = 1852 / 3600  # m s-1


class _Units(NamedTuple):
    si: str
    spellings: dict[float, tuple[str, ...]]  # by SI value divided by stored value


_PRESSURE = _Units(
    "Pa",
    {
        1.0: ("Pa", "pascal", "pascals"),
        100.0: ("hPa", "hectopascal", "hectopascals", "mb", "mbar", "millibar", "millibars"),
        1000.0: ("kPa", "kilopascal", "kilopascals"),
    },
)
_SPEED = _Units(
    "m s-1",
    {
        1.0: ("m s-1", "m s**-1", "m s^-1", "m.s-1", "m*s-1", "m/s", "m/sec", "meter/second", "metre/second",
              "meters/second", "metres/second", "meter second-1", "metre second-1",
              "meters per second", "metres per second"),
        _KNOT: ("knots", "knot", "kt", "kts"),
    },
)  # fmt: skip
_ROTATION = _Units("s-1", {1.0: ("s-1", "s**-1", "s^-1", "1/s", "/s", "1/sec", "per second", "second-1")})

_UNITS = {
    "air_pressure": _PRESSURE,
    _SEA_LEVEL_PRESSURE: _PRESSURE,
    _SURFACE_PRESSURE: _PRESSURE,
    EASTWARD_WIND: _SPEED,
    NORTHWARD_WIND: _SPEED,
    "wind_speed": _SPEED,
    _VORTICITY: _ROTATION,
    "atmosphere_absolute_vorticity": _ROTATION,
}


@dataclass(frozen=True)
class Identity:
    """What a variable's name says about it.

    Parameters
    ----------
    standard_name : str
        CF standard name, empty if the name is not a common one.
    level : float or str or None
        Pressure in hPa, another level in words (``"10 m"``), or None if the name has none.
    """

    standard_name: str
    level: float | str | None = None


def normal_standard_name(standard_name: str) -> str:
    """A CF standard name in the one spelling used here; ``unknown``, which some writers put, is none."""
    name = standard_name.strip()
    return _SAME_STANDARD_NAME.get(name, name)


def identify(name: str) -> Identity:
    """What a variable's name, or a CF standard name, stands for.

    ``u850``, ``UGRD850`` and ``ua850`` are the eastward wind at 850 hPa, ``u9950`` that at sigma 0.995,
    ``u10`` and ``uwnd.10m`` that at 10 m, ``msl`` and ``prmsl`` the pressure at mean sea level.
    """
    lower = name.strip().lower()
    normal = normal_standard_name(lower)
    if normal in _UNITS or normal in _STEMS:
        return Identity(normal)
    if lower in _AT_TEN_METRES:
        return Identity(_AT_TEN_METRES[lower], "10 m")
    match = re.fullmatch(r"([a-z_]+?)(?:[_.]?(\d+)(hpa|mb|m)?)?", lower)
    standard_name = _STANDARD_NAME_OF_STEM.get(match[1], "") if match else ""
    if not match or not standard_name:
        return Identity("")
    return Identity(standard_name, _level(match[2], match[3]) if match[2] else None)


def _level(digits: str, unit: str | None) -> float | str:
    if digits == "9950" and unit is None:
        return "sigma 0.995"
    # Below 150 a bare number is as often metres (u10, u100) as hPa: only with its unit is it a pressure.
    is_pressure = unit in ("hpa", "mb") or (unit is None and 150 <= int(digits) <= 1100)
    return float(digits) if is_pressure else f"{int(digits)} m"


def match_name(wanted: str, available: list[str]) -> str | None:
    """The one of `available` that names the same as `wanted`: that very name, or the only common alias of it."""
    if wanted in available:
        return wanted
    identity = identify(wanted)
    if not identity.standard_name:
        return None
    same = [name for name in available if identify(name) == identity]
    return same[0] if len(same) == 1 else None


def si_units(standard_name: str, units: str, *, variable: str, file: str) -> tuple[str, float]:
    """SI units of a quantity, and the factor that leads to them.

    Parameters
    ----------
    standard_name : str
        CF standard name; empty or one not known here leaves the units alone.
    units : str
        Units as the file gives them; empty if it gives none.
    variable, file : str
        For the message.

    Returns
    -------
    units : str
        ``Pa``, ``m s-1``, ``s-1``, or `units` as they are.
    factor : float
        SI value divided by stored value.

    Raises
    ------
    InputError
        If the quantity is known and its units are missing or not among the accepted ones.
    """
    if standard_name not in _UNITS:
        return units, 1.0
    si, spellings = _UNITS[standard_name]
    spelling = " ".join(units.lower().split())
    for factor, names in spellings.items():
        if spelling in [name.lower() for name in names]:
            return si, factor
    accepted = ", ".join(name for names in spellings.values() for name in names)
    given = f"units {units!r}" if units else "no units"
    raise InputError(
        f"variable {variable!r} in {file} is {standard_name} and has {given}; accepted are {accepted}",
        remedy=f"say what the numbers are in; if that is {si}: ncatted -a units,{variable},o,c,'{si}' {file}",
    )
