"""Any NetCDF files that follow the CF conventions, however the variables and years are spread over them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

from stormtracks.errors import InputError
from stormtracks.inputs import Stamp, opening, stamp_of, unchanged
from stormtracks.reanalysis.archive import Archive, Series
from stormtracks.reanalysis.candidates import Request, requests
from stormtracks.reanalysis.folders import as_ranges, existing_folder
from stormtracks.reanalysis.netcdf import open_netcdf
from stormtracks.reanalysis.series import FileSeries, in_order, sharing_chunks
from stormtracks.reanalysis.sources import Source, field_names, find_source
from stormtracks.settings.campaign import DataSettings
from stormtracks.times import one_calendar

__all__ = ["CFArchive"]


class CFArchive(Archive):
    """CF NetCDF files below a folder, or named one by one.

    Each file may hold one or more of the variables, for any stretch of time; files of one variable must not overlap
    in time. Members have the numbers of the member coordinate, or 1 to n without one; files without a member axis
    hold member 1.

    Parameters
    ----------
    data : DataSettings
        Where the files are and what to read of them.
    files : sequence of pathlib.Path, optional
        The files to read, in any order, in place of those that the settings' root and pattern name.

    Raises
    ------
    InputError
        If there are no files.
    """

    def __init__(self, data: DataSettings, *, files: Sequence[Path] | None = None) -> None:
        self._requests = requests(data)
        if files is None:
            self.root = existing_folder(data.root)
            self.files = _matching(self.root, data.pattern)
        else:
            self.files = sorted({file.absolute() for file in files})
            if not self.files:
                raise InputError("no file is given", remedy="name at least one NetCDF file")
            self.root = Path(os.path.commonpath([file.parent for file in self.files]))

    def years(self) -> list[int]:
        """The calendar years in which every variable has a time step, ascending."""
        return list(self._years)

    def members(self) -> list[int]:
        """The members that all files have, ascending."""
        return list(self._members)

    def has_year(self, year: int, member: int) -> bool:
        """Whether every variable has a time step in this year, and all files have this member."""
        return year in self._years and member in self._members

    def passes(self, year: int, members: Sequence[int]) -> list[tuple[int, ...]]:
        """The members in groups that lie in the same chunks."""
        return sharing_chunks([source for sources in self._sources for source in sources], members)

    def open_year(self, year: int, members: Sequence[int]) -> Series:
        """The steps of one calendar year of some members.

        Raises
        ------
        InputError
            If a file cannot be used, the year or a member is not there, or u and v differ in grid or times.
        """
        if year not in self._years:
            raise InputError(
                f"there is no data of {self._names()} in {year} below {self.root}",
                remedy=f"the years there are {as_ranges(self._years) or 'none'}",
            )
        return FileSeries(self._sources, members=members, year=year, root=self.root)

    @cached_property
    def _years(self) -> list[int]:
        return sorted(
            set.intersection(
                *({int(year) for s in sources for year in set(s.times.years())} for sources in self._sources)
            )
        )

    @cached_property
    def _members(self) -> list[int]:
        return sorted(set.intersection(*({*(s.members or (1,))} for sources in self._sources for s in sources)))

    @cached_property
    def _sources(self) -> tuple[tuple[Source, ...], ...]:
        return _scan(self._requests, tuple((path, stamp_of(path)) for path in self.files))

    def _names(self) -> str:
        return " and ".join(repr(request.name) for request in self._requests)


@lru_cache(maxsize=4)  # every task of a campaign opens the archive anew, and there may be thousands of files
def _scan(requests: tuple[Request, ...], files: tuple[tuple[Path, Stamp], ...]) -> tuple[tuple[Source, ...], ...]:
    """For each request the files that hold it, in order of time."""
    found: list[list[Source]] = [[] for _ in requests]
    for path, stamp in files:
        with unchanged(path, stamp), open_netcdf(path) as dataset:
            for request, sources in zip(requests, found, strict=True):
                source = find_source(dataset, path, request, stamp=stamp)
                if source is not None:
                    sources.append(source)
    for request, sources in zip(requests, found, strict=True):
        if not sources:
            raise _missing_variable(request.name, [path for path, _ in files])
    # All at once: what the winds are given in, and what one year and the next are, must not differ either.
    axes = iter(one_calendar([source.times for sources in found for source in sources]))
    return tuple(tuple(in_order([replace(source, times=next(axes)) for source in sources])) for sources in found)


def _missing_variable(name: str, files: Sequence[Path]) -> InputError:
    fields: set[str] = set()
    for path in files:
        with open_netcdf(path) as dataset:
            fields.update(field_names(dataset, path))
    among = f"in none of {len(files)} files, {files[0]} to {files[-1].name}"
    where = among if len(files) > 1 else f"not in {files[0]}"
    return InputError(
        f"variable {name!r} is {where}; the fields there are {', '.join(sorted(fields)) or 'none'}",
        remedy="set variable or wind to names in the files, or to CF standard names",
    )


def _matching(root: Path, pattern: str) -> list[Path]:
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise InputError(f"pattern {pattern!r} leads out of {root}", remedy="give a glob below root, such as *.nc")
    try:
        with opening(root):
            files = sorted(path for path in root.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"pattern {pattern!r}: {error}", remedy="give a glob below root, such as *.nc") from error
    if not files:
        raise InputError(
            f"no file below {root} matches {pattern!r}",
            remedy="set pattern under [data], such as *.nc or **/*.nc for folders within folders",
        )
    return files
