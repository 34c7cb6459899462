"""Archives with one folder per year, in which the name of a file says what it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

from stormtracks.errors import InputError
from stormtracks.inputs import Stamp, opening, stamp_of, unchanged
from stormtracks.reanalysis.archive import Archive, Series
from stormtracks.reanalysis.candidates import Request, requests
from stormtracks.reanalysis.netcdf import open_netcdf
from stormtracks.reanalysis.quantities import match_name
from stormtracks.reanalysis.series import FileSeries, sharing_chunks
from stormtracks.reanalysis.sources import Source, field_names, find_source
from stormtracks.settings.campaign import DataSettings

__all__ = ["YearFolders", "as_ranges", "existing_folder"]

_EVERY = -1
"""In place of a member: the file that holds all of them."""


class YearFolders(Archive):
    """An archive laid out as ``<root>/<year>/<file>``.

    Parameters
    ----------
    data : DataSettings
        Where it is and what to read.

    Raises
    ------
    InputError
        If the root is no folder.
    """

    layout: ClassVar[str]
    """How a path is made, for messages: ``<root>/<year>/<variable>_<year>.nc``."""
    file_name: ClassVar[re.Pattern[str]]
    """Groups ``variable``, ``year`` and, where files hold one member each, ``member``."""
    lone_variable: ClassVar[bool] = False
    """Whether the only field in a file is the one in its name, whatever it is called inside."""

    def __init__(self, data: DataSettings) -> None:
        self.root = existing_folder(data.root)
        self._requests = requests(data)
        self._file_per_member = "member" in self.file_name.groupindex

    def years(self) -> list[int]:
        """The calendar years for which there are files of every variable, ascending."""
        return list(self._years)

    def members(self) -> list[int]:
        """The members, ascending: those of the file names, else those in the first file of the first variable."""
        return list(self._members)

    def has_year(self, year: int, member: int) -> bool:
        """Whether there are files of every variable for this member, or that have it."""
        there = self._complete(year)
        if self._file_per_member or not there:
            return member in there
        return member in (self._source(year, member, self._requests[0]).members or (1,))

    def passes(self, year: int, members: Sequence[int]) -> list[tuple[int, ...]]:
        """The members in groups that lie in the same chunks; each alone where each has a file."""
        if self._file_per_member:
            return [(member,) for member in members]
        return sharing_chunks(self._sources(year, members[0]), members)

    def open_year(self, year: int, members: Sequence[int]) -> Series:
        """The steps of one calendar year of some members; of one alone where each has a file.

        Raises
        ------
        InputError
            If a file is missing or cannot be used, or u and v differ in grid or times.
        """
        if self._file_per_member and len(members) != 1:
            raise ValueError(f"members {members} have files of their own: open them one by one")
        sources = self._sources(year, members[0])
        for source in sources:
            there = sorted(set(source.times.years().tolist()))
            if year not in there:
                raise InputError(
                    f"{source.path} has no time step in {year}, but in {as_ranges(there)}",
                    remedy=f"put it where it belongs: {self.layout}",
                )
        return FileSeries(
            [[source] for source in sources],
            members=members,
            file_per_member=self._file_per_member,
            year=year,
            root=self.root,
        )

    @cached_property
    def _years(self) -> list[int]:
        with opening(self.root):
            names = [folder.name for folder in self.root.iterdir()]
        years = sorted(int(name) for name in names if name.isdecimal() and len(name) >= 4)
        return [year for year in years if self._complete(year)]

    @cached_property
    def _members(self) -> list[int]:
        if not self._years:
            raise InputError(
                f"no year below {self.root} has files of {', '.join(request.name for request in self._requests)}",
                remedy=f"the layout is {self.layout}; check root, layout and the names of the variables",
            )
        if self._file_per_member:
            return sorted(set().union(*map(self._complete, self._years)))
        return sorted(self._source(self._years[0], 1, self._requests[0]).members or (1,))

    def _files(self, year: int, request: Request) -> dict[int, Path]:
        """The files of one variable in one year, by member; under `_EVERY` where a file holds all of them."""
        folder = self.root / f"{year:04d}"
        found: dict[str, dict[int, Path]] = {}
        with opening(folder):
            paths = list(folder.iterdir()) if folder.is_dir() else []
        for path in paths:
            match = self.file_name.fullmatch(path.name)
            if match and int(match["year"]) == year:
                member = int(match["member"]) if self._file_per_member else _EVERY
                found.setdefault(match["variable"], {})[member] = path
        name = match_name(request.name, sorted(found))
        return {} if name is None else found[name]

    def _complete(self, year: int) -> set[int]:
        """The keys of `_files` that every variable has."""
        return set.intersection(*(set(self._files(year, request)) for request in self._requests))

    def _sources(self, year: int, member: int) -> list[Source]:
        return [self._source(year, member, request) for request in self._requests]

    def _source(self, year: int, member: int, request: Request) -> Source:
        path = self._files(year, request).get(member if self._file_per_member else _EVERY)
        if path is None:
            raise self._missing_file(year, member, request)
        return _described(path, stamp_of(path), request, self.lone_variable)

    def _missing_file(self, year: int, member: int, request: Request) -> InputError:
        path = self.layout.replace("<root>", str(self.root)).replace("<variable>", request.name)
        path = path.replace("<year>", f"{year:04d}").replace("<member>", f"{member:03d}")
        there = f"the years there are {as_ranges(self._years)}" if self._years else "no year there is complete"
        return InputError(f"there is no file {path}", remedy=f"the layout is {self.layout}; {there}")


@lru_cache(maxsize=256)  # all members of a campaign may be in one file
def _described(path: Path, stamp: Stamp, request: Request, lone: bool) -> Source:
    """What a file holds of one request."""
    with unchanged(path, stamp), open_netcdf(path) as dataset:
        source = find_source(dataset, path, request, stamp=stamp, lone=lone)
        if source is None:
            fields = ", ".join(field_names(dataset, path)) or "none"
            raise InputError(
                f"variable {request.name!r} is not in {path}; the fields there are {fields}",
                remedy="set variable or wind to the names in the files",
            )
    return source


def existing_folder(root: Path) -> Path:
    """The root of an archive, made sure of.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    with opening(root):
        is_folder, exists = root.is_dir(), root.exists()
    if not is_folder:
        what = "is not a folder" if exists else "does not exist"
        raise InputError(f"the data root {root} {what}", remedy="set root under [data] to the folder of the archive")
    return root


def as_ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in words: ``2001-2003, 2005``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
