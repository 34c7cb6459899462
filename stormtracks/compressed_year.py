"""One file for all members of a year: a file of tracks with a member axis that gives every member's own file back.

Dimension ``realization`` is the member axis. The tracks of each member stand together, and `track_count` says how many
each has; what else a member's own file held is kept in variables on the member axis, its bytes' sha256 among them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt

from stormtracks.errors import ResultNotFoundError, ResultsError
from stormtracks.tracks import Tracks, concatenate, digest
from stormtracks.tracks_file import OBS, TRAJECTORY, Variable, encode, load, opened, read_variables, tracks_of

__all__ = ["CompressedYear", "Part", "opened_year", "pack_year", "read_part", "verify_year"]

_MEMBERS = "realization"


@dataclass(frozen=True, eq=False)
class Part:
    """One member of a year.

    Parameters
    ----------
    member : int
        Ensemble member.
    tracks : Tracks
        Its tracks.
    source : str
        The code that wrote its own file.
    sha256 : str
        Of the bytes of its own file.
    """

    member: int
    tracks: Tracks
    source: str
    sha256: str

    def to_bytes(self) -> bytes:
        """The bytes of its own file.

        Raises
        ------
        ResultsError
            If they are not those that `sha256` tells.
        """
        data = encode(self.tracks, source=self.source)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ResultsError(
                f"the file of member {self.member} that {self.source} wrote cannot be made again byte for byte",
                remedy=f"use {self.source} to compress or decompress this year; the tracks themselves can be read",
            )
        return data


def read_part(path: Path, member: int) -> Part:
    """One member of a year from its own file.

    Raises
    ------
    ResultsError
        If the file is missing, damaged or no file of tracks.
    """
    loaded = load(path, verify=True)
    return Part(member, loaded.tracks, loaded.source, loaded.sha256)


def pack_year(parts: Sequence[Part]) -> bytes:
    """The bytes of the file of a year.

    Parameters
    ----------
    parts : sequence of Part
        At least one, each of another member.

    Raises
    ------
    ResultsError
        If they differ in quantity or calendar, or share tracks.
    """
    ordered = sorted(parts, key=lambda part: part.member)

    def variable(kind: type | str, values: list[int] | list[str], long_name: str, **more: str) -> Variable:
        data = np.array(values, dtype=object if kind is str else kind)
        return Variable(_MEMBERS, kind, data, {"long_name": long_name, **more})

    extra = {
        _MEMBERS: variable(
            "i4", [part.member for part in ordered], "ensemble member", standard_name="realization", units="1"
        ),
        "track_count": variable("i4", [len(part.tracks) for part in ordered], "number of tracks of the member"),
        "member_attributes": variable(
            str,
            [json.dumps(part.tracks.attributes, sort_keys=True) for part in ordered],
            "attributes of the member's own file, as JSON",
        ),
        "member_source": variable(str, [part.source for part in ordered], "code that wrote the member's own file"),
        "member_content_sha256": variable(
            str, [digest(part.tracks) for part in ordered], "content_sha256 of the member's own file"
        ),
        "member_file_sha256": variable(str, [part.sha256 for part in ordered], "sha256 of the member's own file"),
    }
    return encode(concatenate([part.tracks for part in ordered]), extra=extra)


def verify_year(path: Path, parts: Sequence[Part]) -> None:
    """See that the file of a year gives the own files of all its members back, byte for byte.

    Raises
    ------
    ResultsError
        If it does not.
    """
    with opened_year(path) as year:
        for part in parts:
            stored = year.part(part.member)
            if stored.sha256 != part.sha256:
                raise ResultsError(
                    f"{path} does not give the file of member {part.member} back", remedy="compress the year again"
                )
            stored.to_bytes()


@contextmanager
def opened_year(path: Path) -> Iterator[CompressedYear]:
    """The file of a year, open for reading.

    Raises
    ------
    ResultsError
        If the file is missing, damaged or of another kind.
    """
    with opened(path) as dataset:
        if not {_MEMBERS, "track_count"} <= dataset.variables.keys():
            raise ResultsError(
                f"{path} is not the file of a compressed year: it has no member axis",
                remedy="move the file away: only the results manager puts files there",
            )
        yield CompressedYear(path, dataset)


class CompressedYear:
    """The members of the file of a year; see `opened_year`."""

    def __init__(self, path: Path, dataset: netCDF4.Dataset) -> None:
        self._path = path
        self._dataset = dataset
        self.members = [int(member) for member in dataset.variables[_MEMBERS][:]]
        """Ensemble members, ascending."""

    def part(self, member: int) -> Part:
        """One member.

        Raises
        ------
        ResultNotFoundError
            If it is not in the file.
        ResultsError
            If the file is damaged there.
        """
        if member not in self.members:
            raise ResultNotFoundError(f"member {member} is not in {self._path}")
        place = self.members.index(member)
        tracks_before = _before(self._dataset.variables["track_count"], place + 1)
        points_before = _before(self._dataset.variables["row_size"], int(tracks_before[place + 1]))
        stretch = slice(int(tracks_before[place]), int(tracks_before[place + 1]))
        parts = {
            _MEMBERS: slice(place, place + 1),
            TRAJECTORY: stretch,
            OBS: slice(int(points_before[stretch.start]), int(points_before[stretch.stop])),
        }
        variables = read_variables(self._dataset, parts)
        texts = {
            name: str(variables[f"member_{name}"].data[0])
            for name in ("attributes", "source", "content_sha256", "file_sha256")
        }
        tracks = tracks_of(variables, json.loads(texts["attributes"]), self._path)
        if digest(tracks) != texts["content_sha256"]:
            raise ResultsError(
                f"{self._path} is damaged: member {member} does not hold the tracks that its checksum tells",
                remedy="make this result again, or fetch an intact copy of the file",
            )
        return Part(member, tracks, texts["source"], texts["file_sha256"])


def _before(counts: netCDF4.Variable[Any], stop: int) -> npt.NDArray[np.int64]:
    """How many there are before each of the first `stop` items, and in all of these together."""
    return np.append(0, np.cumsum(counts[:stop], dtype=np.int64))
