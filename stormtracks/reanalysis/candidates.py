"""Which variable of a file, and which level of it, is meant by the name in the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import netCDF4

from stormtracks.errors import InputError
from stormtracks.reanalysis.axes import Axis, axes_of, level_names, pressure_levels, scalar_coordinates
from stormtracks.reanalysis.netcdf import Variable, attribute
from stormtracks.reanalysis.quantities import EASTWARD_WIND, NORTHWARD_WIND, identify, normal_standard_name
from stormtracks.settings.campaign import DataSettings

__all__ = ["Candidate", "Request", "candidates_in", "choose", "level_index", "requests"]

_LEVEL_TOLERANCE = 0.01  # hPa


@dataclass(frozen=True)
class Request:
    """What the settings ask for.

    Parameters
    ----------
    name : str
        Name of the variable in the file, its CF standard name, or a common alias.
    level : float or None
        Pressure in hPa.
    component : str
        ``eastward_wind`` or ``northward_wind`` where the settings say that it is one, else empty.
    """

    name: str
    level: float | None = None
    component: str = ""

    @property
    def pressure(self) -> float | None:
        """The level to read in hPa: as set, else as the name says (``u850``)."""
        if self.level is not None:
            return self.level
        named = identify(self.name).level
        return named if isinstance(named, float) else None


@dataclass(frozen=True)
class Candidate:
    """A field that a file holds.

    Parameters
    ----------
    name : str
        The variable's name.
    standard_name : str
        From the attribute, else from the name; empty if neither is known.
    axes : tuple of Axis
        Its dimensions.
    levels : tuple of float or None
        Pressures in hPa, of the level axis or of a scalar coordinate; None if there is no such.
    level_names : tuple of str
        The same in words, for any kind of level.
    """

    name: str
    standard_name: str
    axes: tuple[Axis, ...]
    levels: tuple[float, ...] | None
    level_names: tuple[str, ...]

    @property
    def level_axis(self) -> Axis | None:
        """The level axis, if there is one."""
        return next((axis for axis in self.axes if axis.role == "level"), None)

    @property
    def only_level(self) -> str:
        """The one level that the file gives the field other than as a pressure, in words; empty if it is silent."""
        names = [name for name in self.level_names if " " in name]  # a number without units says nothing
        named = identify(self.name).level
        return names[0] if len(names) == 1 else "" if named is None else _in_words(named)

    def at(self, level: float | str | None) -> bool | None:
        """Whether this field holds a level; None if the file does not say which it has."""
        if level is None:
            return True
        if self.levels is not None:
            return isinstance(level, float) and _position(self.levels, level) is not None
        if self.level_names:
            return level in self.level_names
        named = identify(self.name).level
        return None if named is None else named == level


def requests(data: DataSettings) -> tuple[Request, ...]:
    """What the settings ask for: one field, or the eastward and the northward wind."""
    if len(data.variables) == 1:
        return (Request(data.variables[0], data.level),)
    components = (EASTWARD_WIND, NORTHWARD_WIND)
    return tuple(Request(name, data.level, part) for name, part in zip(data.variables, components, strict=True))


def candidates_in(dataset: netCDF4.Dataset, path: Path) -> list[Candidate]:
    """The variables of a file that lie on latitudes and longitudes."""
    return [
        _candidate(dataset, variable, path)
        for variable in dataset.variables.values()
        if variable.ndim >= 2 and {"lat", "lon"} <= {axis.role for axis in axes_of(dataset, variable)}
    ]


def _candidate(dataset: netCDF4.Dataset, variable: Variable, path: Path) -> Candidate:
    axes = tuple(axes_of(dataset, variable))
    level = next((axis.coordinate for axis in axes if axis.role == "level"), None)
    if level is None:
        named = attribute(variable, "coordinates").split()
        scalars = [other for other in scalar_coordinates(dataset, variable, "level") if other.name in named]
        level = scalars[0] if len(scalars) == 1 else None
    standard_name = normal_standard_name(attribute(variable, "standard_name"))
    return Candidate(
        variable.name,
        standard_name or identify(variable.name).standard_name,
        axes,
        None if level is None else pressure_levels(level, path),
        () if level is None else tuple(level_names(level, path)),
    )


def choose(request: Request, candidates: Sequence[Candidate], *, path: Path) -> Candidate | None:
    """The candidate that a request means; None if there is none.

    A variable of that very name comes first. Else the name is taken as a CF standard name or a common alias, and
    the one field of that quantity at that level is meant: one that says it has the level before one that is silent.

    Raises
    ------
    InputError
        If several fields could be meant, or the name and the settings give different levels.
    """
    for candidate in candidates:
        if candidate.name == request.name:
            return candidate
    identity = identify(request.name)
    wanted = identity.standard_name or normal_standard_name(request.name)
    level = identity.level if request.level is None else request.level
    if identity.level is not None and level != identity.level:
        raise InputError(
            f"{request.name!r} means {identity.standard_name} at {_in_words(identity.level)}, "
            f"but level is set to {_in_words(level)}",
            remedy=f"leave level out, or ask for the standard name ({identity.standard_name}) instead",
        )
    same = [candidate for candidate in candidates if candidate.standard_name == wanted]
    certain = [candidate for candidate in same if candidate.at(level)]
    meant = certain or [candidate for candidate in same if candidate.at(level) is None]
    if len(meant) > 1:
        raise InputError(
            f"{request.name!r} could be any of {', '.join(candidate.name for candidate in meant)} in {path}",
            remedy="name the variable as the file does",
        )
    if not meant and isinstance(level, float) and any(candidate.levels for candidate in same):
        meant = [candidate for candidate in same if candidate.levels]  # the level is what is missing
    return meant[0] if meant else None


def level_index(request: Request, candidate: Candidate, *, path: Path) -> int | None:
    """Position of the requested level on the level axis; None if there is no such axis.

    Raises
    ------
    InputError
        If the level is not there, or the file says that the field is at another one, or there are several and none
        is asked for.
    """
    axis, wanted = candidate.level_axis, request.pressure
    where = f"variable {candidate.name!r} in {path}"
    there = ", ".join(candidate.level_names)
    if candidate.levels is not None and wanted is not None:
        index = _position(candidate.levels, wanted)
        if index is None:
            raise InputError(f"{where} has no level {wanted:g} hPa, only {there}", remedy="set level to one of these")
        return None if axis is None else index
    if axis is None or axis.size == 1:
        said = candidate.only_level
        if request.level is not None and said not in ("", _in_words(request.level)):
            raise InputError(
                f"{where} is at {said}, but level is set to {request.level:g} hPa",
                remedy="leave level out, or name a variable at that level",
            )
        return None if axis is None else 0
    if candidate.levels is None:
        raise InputError(
            f"{where} has {axis.size} levels that are no pressures ({there or 'no coordinate'})",
            remedy="give the level axis units of hPa or Pa, or select a level first: ncks -d "
            f"{axis.dimension},INDEX IN OUT",
        )
    raise InputError(f"{where} has the levels {there}", remedy="set level to one of these, in hPa")


def _in_words(level: float | str | None) -> str:
    return f"{level:g} hPa" if isinstance(level, float) else str(level)


def _position(levels: Sequence[float], wanted: float) -> int | None:
    near = [index for index, level in enumerate(levels) if abs(level - wanted) <= _LEVEL_TOLERANCE]
    return near[0] if near else None
