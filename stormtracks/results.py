"""The results manager: publishes, reads, lists, deletes and compresses the results of a campaign."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stormtracks.claim import CLAIM, claim_text, differences
from stormtracks.compressed_year import Part, opened_year, pack_year, read_part, verify_year
from stormtracks.errors import ResultNotFoundError, ResultsError
from stormtracks.inputs import DIGESTS
from stormtracks.publish import (
    exists,
    make_folder,
    names_in,
    publish,
    remove_temporaries,
    storage_error,
    storing,
    sync_folder,
)
from stormtracks.tracks import Tracks
from stormtracks.tracks_file import encode

__all__ = ["PublishedResult", "StormtracksResultsManager"]

_log = logging.getLogger(__name__)

_TASK = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_YEAR_FOLDER = re.compile(r"[0-9]{4}")
_YEAR_FILE = re.compile(r"([0-9]{4})\.nc")
_MEMBER_FILE = re.compile(r"m([0-9]{3})\.nc")
_AN_HOUR = 3600.0


@dataclass(frozen=True)
class PublishedResult:
    """What was published.

    Parameters
    ----------
    path : str
        The file, relative to the manager's root.
    sha256 : str
        Of its bytes.
    size : int
        Bytes.
    tracks, points : int
        How many tracks it holds, and how many points these have together.
    """

    path: str
    sha256: str
    size: int
    tracks: int
    points: int


class StormtracksResultsManager:
    """The results of one task: one file of tracks for each year and member, or one for a whole year when compressed.

    The files are ``ROOT/results/TASK/YEAR/mMEMBER.nc`` and ``ROOT/results/TASK/YEAR.nc``. Where a member has both, its
    own file counts. Nothing is ever half-written, whatever kills the writer, and a killed operation is finished by
    starting it again.

    Parameters
    ----------
    root : path-like
        Folder of the campaign; made when the first result is published.
    task : str
        Whose results: a letter, then letters, digits and underscores.

    Raises
    ------
    ResultsError
        If `task` is no such name.
    """

    def __init__(self, root: str | Path, task: str = "vort_track") -> None:
        if not _TASK.fullmatch(task):
            raise ResultsError(
                f"task name {task!r} cannot name a folder of results",
                remedy="use a letter, then letters, digits and underscores only, such as vort_track",
            )
        self.root = Path(root)
        self.task = task
        self.folder = self.root / "results" / task

    def add_result(
        self, year: int, ensemble_member: int, tracks: Tracks, *, confirm: Callable[[], None] | None = None
    ) -> PublishedResult:
        """Publish the tracks of one year and member; an older result of these is replaced in one step.

        Parameters
        ----------
        year, ensemble_member : int
        tracks : Tracks
        confirm : callable, optional
            Called when all that is to be published is on the disk, right before the step that makes it the result.
            Whatever it raises is raised as it is, and nothing has been published then.

        Raises
        ------
        ResultsError
            If tracks are of another year or member or break the container's rules, or the disk refuses.
        """
        path = self._member_path(year, ensemble_member)
        _check_owner(tracks, year, ensemble_member, path)
        data = encode(tracks)
        published = PublishedResult(
            path.relative_to(self.root).as_posix(),
            hashlib.sha256(data).hexdigest(),
            len(data),
            len(tracks),
            len(tracks.time),
        )
        make_folder(path.parent)
        publish(path, data, check=None if confirm is None else lambda written: confirm())
        return published

    def get_result(self, year: int, ensemble_member: int) -> Tracks:
        """The tracks of one year and member.

        Raises
        ------
        ResultNotFoundError
            If there is no such result; the message says what there is.
        ResultsError
            If its file is damaged.
        """
        return self.read_result(year, ensemble_member)[0]

    def read_result(self, year: int, ensemble_member: int) -> tuple[Tracks, str]:
        """The tracks of one year and member, and the sha256 of their file as `add_result` told it.

        Raises
        ------
        ResultNotFoundError
            If there is no such result; the message says what there is.
        ResultsError
            If its file is damaged.
        """
        if not self.has_result(year, ensemble_member):
            raise self._not_found(year, ensemble_member)
        part = self._part(year, ensemble_member)
        return part.tracks, part.sha256

    def has_result(self, year: int, ensemble_member: int) -> bool:
        """Whether there is a result, intact or not."""
        return exists(self._member_path(year, ensemble_member)) or ensemble_member in self._compressed_members(year)

    def is_intact(self, year: int, ensemble_member: int, *, sha256: str | None = None) -> bool:
        """Whether there is a result whose content is what was published.

        Parameters
        ----------
        year, ensemble_member : int
            Which result.
        sha256 : str, optional
            As `add_result` told it: whether it is that very file, too.
        """
        try:
            part = self._part(year, ensemble_member)
        except ResultsError as error:
            _log.info("year %s, member %s is not intact: %s", year, ensemble_member, error.what)
            return False
        return sha256 is None or part.sha256 == sha256

    def delete_result(self, year: int, ensemble_member: int) -> None:
        """Delete one result, from a compressed year too.

        Raises
        ------
        ResultNotFoundError
            If there is no such result.
        """
        if not self.has_result(year, ensemble_member):
            raise self._not_found(year, ensemble_member)
        # The compressed one first: else a kill in between would bring an older result to light.
        if ensemble_member in self._compressed_members(year):
            others = self._compressed_parts(year, leave_out={ensemble_member})
            if others:
                self._write_year(year, others)
            else:
                self._remove(self._year_path(year))
        path = self._member_path(year, ensemble_member)
        if exists(path):
            self._remove(path)
            self._remove_if_empty(path.parent)

    def delete_year(self, year: int) -> None:
        """Delete all results of a year.

        Raises
        ------
        ResultNotFoundError
            If there is none.
        """
        members = self._own_files(year)
        compressed = self._year_path(year)
        if not members and not exists(compressed):
            raise self._not_found(year)
        if exists(compressed):
            self._remove(compressed)
        for member in members:
            self._remove(self._member_path(year, member))
        self._remove_if_empty(self._year_folder(year))

    def list_years(self) -> list[int]:
        """Years of which there are results, ascending."""
        names = names_in(self.folder)
        loose = {int(name) for name in names if _YEAR_FOLDER.fullmatch(name) and self._own_files(int(name))}
        compressed = {int(match[1]) for name in names if (match := _YEAR_FILE.fullmatch(name))}
        return sorted(loose | compressed)

    def list_members(self, year: int) -> list[int]:
        """Members of which there are results of a year, ascending."""
        return sorted({*self._own_files(year), *self._compressed_members(year)})

    def list_results(self) -> list[tuple[int, int]]:
        """Year and member of every result, ascending."""
        return [(year, member) for year in self.list_years() for member in self.list_members(year)]

    def compress_year(self, year: int) -> None:
        """Put all members of a year into one file; their own files are deleted when that has been verified.

        A year that is compressed already stays so; results published since then replace those in it.

        Raises
        ------
        ResultNotFoundError
            If there is no result of the year.
        ResultsError
            If one is damaged, they differ in quantity or calendar, or the disk refuses; nothing is deleted then.
        """
        loose = {member: self._part(year, member) for member in self._own_files(year)}
        if not loose:
            if not exists(self._year_path(year)):
                raise self._not_found(year)
            return
        self._write_year(year, [*self._compressed_parts(year, leave_out=loose.keys()), *loose.values()])
        for member, part in loose.items():
            path = self._member_path(year, member)
            if self._part(year, member).sha256 == part.sha256:
                self._remove(path)
            else:
                _log.info("%s has been published anew while its year was compressed: it stays", path)
        self._remove_if_empty(self._year_folder(year))

    def decompress_year(self, year: int) -> None:
        """Give every member of a year its own file again, byte for byte, and delete the compressed one.

        Own files that exist stay as they are. A year that is not compressed stays so.

        Raises
        ------
        ResultNotFoundError
            If there is no result of the year.
        ResultsError
            If the compressed file is damaged or the disk refuses; it is not deleted then.
        """
        compressed = self._year_path(year)
        if not exists(compressed):
            if not self._own_files(year):
                raise self._not_found(year)
            return
        missing = self._compressed_parts(year, leave_out=set(self._own_files(year)))
        files = {self._member_path(year, part.member): part.to_bytes() for part in missing}
        make_folder(self._year_folder(year))
        for path, data in files.items():
            publish(path, data)
        self._remove(compressed)

    def claim(self, science: Mapping[str, Any], settings_hash: str, *, replace: bool = False) -> None:
        """Make this the folder of one set of settings; ``settings.json`` in it tells which.

        Parameters
        ----------
        science : mapping
            The settings that decide a result, as JSON values.
        settings_hash : str
            Their hash.
        replace : bool
            Whether to delete results of other settings and take the folder over.

        Raises
        ------
        ResultsError
            If the folder belongs to other settings, or its results to unknown ones; the message says how they differ.
        """
        path = self.folder / CLAIM
        conflict = self._conflict(path, science, settings_hash)
        if conflict and not replace:
            raise ResultsError(
                conflict, remedy="choose another folder, or pass --replace (replace=True) to delete these results"
            )
        if conflict:
            _log.warning("replacing results: %s", conflict)
            # The results first: a kill in between must not leave old results under new settings.
            for year in self.list_years():
                self.delete_year(year)
        document = claim_text(science, settings_hash)
        if conflict or not exists(path) or path.read_text() != document:
            make_folder(self.folder)
            publish(path, document.encode())

    def clean(self, *, older_than: float = _AN_HOUR) -> list[Path]:
        """Remove temporary files that killed writers left, and no others.

        Parameters
        ----------
        older_than : float
            Seconds without a change after which a temporary file counts as left behind on a file system that knows no
            locks; elsewhere a writer at work holds one. It needs seconds.

        Returns
        -------
        list of Path
            What was removed.
        """
        years = [self.folder / name for name in names_in(self.folder) if _YEAR_FOLDER.fullmatch(name)]
        digests = [self.root / DIGESTS / name for name in names_in(self.root / DIGESTS)]
        removed = []
        for folder in (self.root, self.folder, *years, *digests):
            removed += remove_temporaries(folder, older_than=older_than)
        return removed

    def _conflict(self, path: Path, science: Mapping[str, Any], settings_hash: str) -> str:
        """Why the folder cannot be claimed; empty if it can."""
        try:
            held = json.loads(path.read_text())
            if held["settings_hash"] == settings_hash or not self.list_years():
                return ""  # ours, or nothing came of them: the folder is free
            lines = [f"{self.folder} holds results of other settings (held -> asked for):"]
            return "\n".join(lines + differences(held["science"], science))
        except (FileNotFoundError, NotADirectoryError):
            return f"{self.folder} holds results of settings unknown: {path} is missing" if self.list_years() else ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{self.folder} holds results of settings unknown: {path} is unreadable: {error!r}"

    def _year_folder(self, year: int) -> Path:
        return self.folder / f"{_number('year', year, 9999):04d}"

    def _year_path(self, year: int) -> Path:
        return self.folder / f"{_number('year', year, 9999):04d}.nc"

    def _member_path(self, year: int, member: int) -> Path:
        return self._year_folder(year) / f"m{_number('member', member, 999):03d}.nc"

    def _own_files(self, year: int) -> list[int]:
        """Members that have a file of their own, ascending."""
        names = names_in(self._year_folder(year))
        return [int(match[1]) for name in names if (match := _MEMBER_FILE.fullmatch(name))]

    def _compressed_members(self, year: int) -> list[int]:
        path = self._year_path(year)
        if not exists(path):
            return []
        with opened_year(path) as compressed:
            return compressed.members

    def _compressed_parts(self, year: int, *, leave_out: Collection[int]) -> list[Part]:
        path = self._year_path(year)
        if not exists(path):
            return []
        with opened_year(path) as compressed:
            return [compressed.part(member) for member in compressed.members if member not in leave_out]

    def _part(self, year: int, member: int) -> Part:
        path = self._member_path(year, member)
        if exists(path):
            part = read_part(path, member)
        else:
            path = self._year_path(year)
            with opened_year(path) as compressed:
                part = compressed.part(member)
        _check_owner(part.tracks, year, member, path)
        return part

    def _write_year(self, year: int, parts: list[Part]) -> None:
        publish(self._year_path(year), pack_year(parts), check=lambda written: verify_year(written, parts))

    def _remove(self, path: Path) -> None:
        with storing("delete", path):
            path.unlink()
            sync_folder(path.parent)

    def _remove_if_empty(self, folder: Path) -> None:
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise storage_error("delete", folder, error) from error

    def _not_found(self, year: int, member: int | None = None) -> ResultNotFoundError:
        members, years = self.list_members(year), self.list_years()
        if member is not None and members:
            there = f"there are members {_ranges(members)} of {year}"
        elif years:
            there = f"there are years {_ranges(years)}"
        else:
            there = "there is none at all"
        which = f"year {year}" if member is None else f"year {year}, member {member}"
        return ResultNotFoundError(
            f"no result of {which} in {self.folder}: {there}", remedy="ask for one of these, or run the campaign for it"
        )


def _check_owner(tracks: Tracks, year: int, member: int, path: Path) -> None:
    if np.any(tracks.year != year) or np.any(tracks.member != member):
        raise ResultsError(
            f"{path} is the place of year {year}, member {member}, not of tracks of years {np.unique(tracks.year)} and "
            f"members {np.unique(tracks.member)}",
            remedy="publish the tracks of each year and member in their own place",
        )


def _number(what: str, value: int, last: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not 0 <= number <= last:
        raise ResultsError(f"{what} {value!r} is not a whole number from 0 to {last}", remedy=f"correct the {what}")
    return number


def _ranges(numbers: list[int]) -> str:
    """``[1, 2, 3, 7]`` as ``1-3, 7``."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
