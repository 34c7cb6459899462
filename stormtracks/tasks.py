"""What a worker can be asked to do: each a pure function of inputs, settings and code, the same bytes out always."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from stormtracks.blocks import BlockReader
from stormtracks.claim import check_claim
from stormtracks.errors import InputError
from stormtracks.follow import SCIENCE_VERSION, Outcome, Pass, attributes_of
from stormtracks.inputs import DIGESTS, input_digest, stamp_of
from stormtracks.passes import to_each, track_members
from stormtracks.reanalysis import open_files
from stormtracks.reanalysis.archive import Archive
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings, DataSettings, DetectionSettings, TrackingSettings
from stormtracks.tracks import Tracks, concatenate

__all__ = [
    "SCIENCE_VERSION",
    "TASKS",
    "is_current",
    "run_bundle",
    "run_task",
    "summary_of",
    "track_file",
    "track_members",
    "vort_track",
]

T = TypeVar("T")


def vort_track(campaign: CampaignSettings, year: int, member: int) -> Tracks:
    """Track the storms of one member that the season of one year publishes.

    Parameters
    ----------
    campaign : CampaignSettings
    year, member : int

    Returns
    -------
    Tracks
        Whole, wherever they end; `attributes` say what they were made of and how many were dropped for what reason.

    Raises
    ------
    InputError
        If the input cannot be used.
    """
    return _only(track_members(campaign, year, [member]))


def _only(outcomes: Iterable[tuple[Any, T | BaseException]]) -> T:
    """What came of the only one, or its error."""
    ((_, outcome),) = outcomes
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def is_current(tracks: Tracks, campaign: CampaignSettings, archive: Archive, member: int) -> bool:
    """Whether `vort_track` would make the same of the same input again, as far as can be told without doing it.

    No input file is read whose digest is known; see `stormtracks.inputs`.

    Raises
    ------
    InputError
        If one of its input files is not there any more, or cannot be read, and nothing else speaks against it.
    """
    made_of = tracks.attributes
    absent = [int(year) for year in str(made_of.get("absent_years", "")).split(", ") if year]
    return (
        made_of.get("settings_hash") == campaign.settings_hash
        and made_of.get("science_version") == SCIENCE_VERSION
        and not any(archive.has_year(year, member) for year in absent)
        and made_of.get("input_digest") == _input_digest_now(campaign, str(made_of["inputs"]).split(", "))
    )


def _input_digest_now(campaign: CampaignSettings, names: list[str]) -> str:
    """The digest of these input files as they are now."""
    root = campaign.data.root
    return input_digest(root, {name: stamp_of(root / name) for name in names}, kept_in=campaign.results.root / DIGESTS)


TASKS = {"vort_track": track_members}
"""For each task what makes the tracks of some members of a year."""


def run_task(
    year: int,
    ensemble_member: int,
    task: str,
    *,
    settings: dict[str, Any],
    first_years: Sequence[int],
    confirm: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Run one task and publish its result: what `run_bundle` does for one alone.

    Parameters
    ----------
    year, ensemble_member : int
    task : str
        A key of `TASKS`.
    settings : dict
        `CampaignSettings` as plain JSON values.
    first_years : sequence of int
        Years of the campaign that follow on none of its years.
    confirm : callable, optional
        Called right before the result is moved into its place; whatever it raises stops that.

    Returns
    -------
    dict
        Plain values: those of `summary_of`, and the ``path`` and ``sha256`` of the file.

    Raises
    ------
    InputError
        If the input cannot be used.
    ResultsError
        If the disk refuses, or the results folder belongs to other settings by now.
    """
    attempts = [(year, ensemble_member, task)]

    def ask(place: int) -> None:
        if confirm is not None:
            confirm()

    return _only(run_bundle(attempts, settings=settings, first_years=first_years, confirm=ask))


def run_bundle(
    attempts: Sequence[tuple[int, int, str]],
    *,
    settings: dict[str, Any],
    first_years: Sequence[int],
    confirm: Callable[[int], None] = lambda place: None,
    at: Callable[[int | None], None] = lambda place: None,
    cores: int = 1,
) -> Iterator[tuple[int, dict[str, Any] | Exception]]:
    """Run tasks of one year that share their data, and publish each result; what a worker's child process does.

    Parameters
    ----------
    attempts : sequence of tuple of year, member, task
        The task is a key of `TASKS`, and it and the year are the same for all.
    settings, first_years
        As in `run_task`.
    confirm : callable, optional
        Called with the place of an attempt right before its result is moved into its place; whatever it raises stops
        that, and is what comes of the attempt.
    at : callable, optional
        Called with the place of an attempt when work for it alone begins, with None when work for all begins.
    cores : int
        Cores to count on.

    Yields
    ------
    place : int
        Of an attempt in the sequence, each once, as it ends.
    outcome : dict or Exception
        What `run_task` returns or raises for it.
    """
    yield from to_each(range(len(attempts)), _published(attempts, settings, first_years, confirm, at, cores))


def _published(
    attempts: Sequence[tuple[int, int, str]],
    settings: dict[str, Any],
    first_years: Sequence[int],
    confirm: Callable[[int], None],
    at: Callable[[int | None], None],
    cores: int,
) -> Generator[tuple[int, dict[str, Any] | Exception], None, None]:
    campaign = CampaignSettings.model_validate(settings)
    ((year, task),) = {(year, task) for year, _, task in attempts}
    place_of = {member: place for place, (_, member, _) in enumerate(attempts)}
    results = StormtracksResultsManager(campaign.results.root, task)

    def tell(member: int | None) -> None:
        at(None if member is None else place_of[member])

    with closing(TASKS[task](campaign, year, list(place_of), at=tell, cores=cores)) as outcomes:
        for member, outcome in outcomes:
            place = place_of[member]
            if isinstance(outcome, Exception):
                yield place, outcome
                continue
            try:
                path, sha256 = _publish(results, campaign, year, member, outcome, functools.partial(confirm, place))
            except Exception as error:
                yield place, error
            else:
                yield place, {**summary_of(outcome, first=year in first_years), "path": path, "sha256": sha256}


def _publish(
    results: StormtracksResultsManager,
    campaign: CampaignSettings,
    year: int,
    member: int,
    tracks: Tracks,
    confirm: Callable[[], None],
) -> tuple[str, str]:
    """Path and sha256 of the result."""

    def check() -> None:
        confirm()
        # Another campaign may have taken the place of this one, whose manager nobody hears of here.
        check_claim(results.folder, campaign.settings_hash)

    record = results.add_result(year, member, tracks, confirm=check)
    return record.path, record.sha256


def summary_of(tracks: Tracks, *, first: bool = False) -> dict[str, int]:
    """How many tracks and points there are, and how many candidates and tracks were dropped for what reason.

    Storms that were born before the year are published by the year before, unless this is a `first` year of the
    campaign.
    """
    counts = json.loads(str(tracks.attributes["counts"]))
    born_before = counts.pop("born before", 0)
    lost = {"born before the first year": born_before} if first else {}
    return {"tracks": len(tracks), "points": len(tracks.time), **counts, **lost}


def track_file(
    files: str | Path | Sequence[str | Path],
    *,
    variable: str | None = None,
    wind: tuple[str, str] | None = None,
    member: int | None = None,
    data: DataSettings | None = None,
    detection: DetectionSettings | None = None,
    tracking: TrackingSettings | None = None,
) -> Tracks:
    """Track the storms in CF NetCDF files, taken as one unbroken series.

    Parameters
    ----------
    files : path or sequence of paths
        In any order; a variable may be spread over several of them.
    variable : str, optional
        Name of the variable to follow.
    wind : pair of str, optional
        Names of eastward and northward wind, whose vorticity is followed. Give either this or `variable`.
    member : int, optional
        Ensemble member; all that the files hold if not given.
    data : DataSettings, optional
        Level, and what to do about gaps and missing values.
    detection, tracking : optional
        Parameters; the defaults of a campaign if not given.

    Returns
    -------
    Tracks

    Raises
    ------
    InputError
        If the files cannot be used.
    """
    if (variable is None) == (wind is None):
        raise InputError("nothing to follow", remedy="give either variable= or wind=(eastward, northward)")
    paths = [Path(file) for file in ([files] if isinstance(files, (str, Path)) else files)]
    data = (data or DataSettings()).model_copy(update={"layout": "cf", "variable": variable, "wind": wind})
    campaign = CampaignSettings(
        data=data, detection=detection or DetectionSettings(), tracking=tracking or TrackingSettings()
    )
    archive = open_files(paths, data)
    several = dict(_all_years(archive, campaign, archive.members() if member is None else [member]))
    counts: Counter[str] = Counter()
    for tracks in several.values():
        counts.update(json.loads(str(tracks.attributes["counts"])))
    inputs = {str(tracks.attributes["inputs"]) for tracks in several.values()}
    ordered = [several[member] for member in sorted(several)]
    return replace(concatenate(ordered), attributes=attributes_of(campaign, inputs, counts))


def _all_years(archive: Archive, campaign: CampaignSettings, members: Sequence[int]) -> Iterator[tuple[int, Tracks]]:
    """The tracks of each member in all years, taken as one unbroken series; with the error of the first that fails."""
    years = archive.years()
    if not years:
        raise InputError("no calendar year is covered by all variables", remedy="give files that cover the same time")
    cores = len(os.sched_getaffinity(0))
    for together in archive.passes(years[0], members):
        reader = BlockReader(archive, campaign.data, cores=cores)
        followed = Pass(campaign, together, None)
        for year in years:
            yield from _whole(followed.through(reader.read(year, together)))
        yield from _whole(followed.end(together))


def _whole(outcomes: Iterable[tuple[int, Outcome]]) -> Iterator[tuple[int, Tracks]]:
    for member, outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        yield member, outcome
