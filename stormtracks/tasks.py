"""What a worker can be asked to do: each a pure function of inputs, settings and code, the same bytes out always."""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from stormtracks import __version__
from stormtracks.assemble import READ_ON_DAYS, assemble, season_end
from stormtracks.blocks import Block, read_blocks
from stormtracks.claim import check_claim
from stormtracks.detect import Detector
from stormtracks.errors import InputError
from stormtracks.inputs import DIGESTS, Stamp, input_digest, stamp_of
from stormtracks.reanalysis import open_archive, open_files
from stormtracks.reanalysis.archive import Archive, Series
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings, DataSettings, DetectionSettings, Season, TrackingSettings
from stormtracks.track import WARM_UP, Moment, TrackBuilder
from stormtracks.tracks import Tracks, concatenate

__all__ = ["SCIENCE_VERSION", "TASKS", "follow", "is_current", "run_task", "summary_of", "track_file", "vort_track"]

SCIENCE_VERSION = 2
"""Raised whenever the same input and settings give other tracks than before."""


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
    archive = _SteadyArchive(open_archive(campaign.data))
    first = year
    if not archive.has_year(year, member):
        if not (campaign.season.over_new_year and archive.has_year(year + 1, member)):
            archive.open_year(year, member).close()  # says what is missing
        first = year + 1  # of a season over new year, the part after it
    years = itertools.takewhile(lambda y: archive.has_year(y, member), itertools.count(first))
    inputs: dict[str, Stamp] = {}
    blocks = _noting_inputs(read_blocks(archive, campaign.data, member, years, warm_up=WARM_UP), inputs)
    tracks = follow(blocks, campaign, member, year)
    absent = [str(y) for y in (year - 1, year, year + 1) if not archive.has_year(y, member)]
    archive.check()
    made_from: dict[str, str | int | float] = {
        "input_digest": input_digest(campaign.data.root, inputs, kept_in=campaign.results.root / DIGESTS),
        "absent_years": ", ".join(absent),
    }
    return replace(tracks, attributes=tracks.attributes | made_from)


class _SteadyArchive(Archive):
    """An archive of which a year is there or not for as long as a task lasts, whenever it is asked."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._has_year = functools.cache(archive.has_year)
        self._asked: set[tuple[int, int]] = set()

    def years(self) -> list[int]:
        return self._archive.years()

    def members(self) -> list[int]:
        return self._archive.members()

    def has_year(self, year: int, member: int) -> bool:
        self._asked.add((year, member))
        return self._has_year(year, member)

    def open_year(self, year: int, member: int) -> Series:
        return self._archive.open_year(year, member)

    def check(self) -> None:
        """See that what was there is there still, and nothing else has come."""
        for year, member in sorted(self._asked):
            if self._archive.has_year(year, member) != self._has_year(year, member):
                raise InputError(
                    f"the data of {year}, member {member}, have come or gone while others were read",
                    remedy="let the files stay as they are while a campaign runs, and run it again",
                    permanent=False,
                )


def _noting_inputs(blocks: Generator[Block, None, None], inputs: dict[str, Stamp]) -> Generator[Block, None, None]:
    with closing(blocks):
        for block in blocks:
            inputs.update(block.inputs)
            yield block


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


TASKS = {"vort_track": vort_track}


def run_task(
    year: int,
    ensemble_member: int,
    task: str,
    *,
    settings: dict[str, Any],
    first_years: Sequence[int],
    confirm: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Run one task and publish its result; what a worker's child process is asked to do.

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
    campaign = CampaignSettings.model_validate(settings)
    tracks = TASKS[task](campaign, year, ensemble_member)
    results = StormtracksResultsManager(campaign.results.root, task)

    def check() -> None:
        if confirm is not None:
            confirm()
        # Another campaign may have taken the place of this one, whose manager nobody hears of here.
        check_claim(results.folder, campaign.settings_hash)

    record = results.add_result(year, ensemble_member, tracks, confirm=check)
    return {**summary_of(tracks, first=year in first_years), "path": record.path, "sha256": record.sha256}


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
    members = archive.members() if member is None else [member]
    several = [follow(read_blocks(archive, data, m, archive.years()), campaign, m, None) for m in members]
    counts: Counter[str] = Counter()
    for tracks in several:
        counts.update(json.loads(str(tracks.attributes["counts"])))
    inputs = sorted({str(tracks.attributes["inputs"]) for tracks in several})
    return replace(concatenate(several), attributes=_attributes(campaign, inputs, counts))


def follow(blocks: Generator[Block, None, None], campaign: CampaignSettings, member: int, year: int | None) -> Tracks:
    """Detect and link to the end of the blocks, or until the last track has ended that `year` publishes."""
    builder = TrackBuilder(campaign.tracking)
    counts: Counter[str] = Counter()
    inputs: set[str] = set()
    detector: Detector | None = None
    calendar = "standard"
    in_season = False
    with closing(blocks):
        for block in blocks:
            if detector is None or detector.grid is not block.grid:
                detector = Detector(campaign.detection, block.grid, block.quantities)
            calendar = block.times.calendar
            inputs.update(block.inputs)
            centres, found = detector.find(block.fields)
            done, taken = False, 0
            for taken, moment in enumerate(_moments(block, campaign.season), start=1):
                builder.add(centres.at(taken - 1, taken), moment)
                in_season |= year is None or moment.season_year == year
                done = year is not None and _ended(builder, moment, campaign, year, calendar)
                if done:
                    break
            # Only the steps that were followed count, so that the length of a block does not show.
            counts.update({"time steps": taken, **{name: int(n[:taken].sum()) for name, n in found.items()}})
            if done:
                break
    assert detector is not None, "an archive gives at least one step of each year it has"
    if in_season and not counts["extrema"]:
        raise detector.nothing_found(block.fields)
    tracks, kept = assemble(
        builder.linked(), campaign, detector.grid, detector.quantity, calendar=calendar, member=member, year=year
    )
    counts.update(kept)
    return replace(tracks, attributes=_attributes(campaign, sorted(inputs), counts))


def _attributes(campaign: CampaignSettings, inputs: list[str], counts: Counter[str]) -> dict[str, str | int | float]:
    """What tracks say of their making."""
    return {
        "settings_hash": campaign.settings_hash,
        "inputs": ", ".join(inputs),
        "stormtracks_version": __version__,
        "science_version": SCIENCE_VERSION,
        "counts": json.dumps(counts),
    }


def _moments(block: Block, season: Season) -> Iterator[Moment]:
    dates = block.times.dates()
    for seconds, date, cut in zip(block.times.seconds.tolist(), dates, block.cut.tolist(), strict=True):
        yield Moment(seconds, date.year, season.year_of(date.year, date.month, date.day), cut)


def _ended(builder: TrackBuilder, moment: Moment, campaign: CampaignSettings, year: int, calendar: str) -> bool:
    """Whether no later step can change what the season of `year` publishes."""
    past = moment.seconds - season_end(campaign.season, year, calendar)
    # Past the last day to be read, a storm out of sight is given the time to show that it still lives.
    return past >= 0 and (not builder.alive(year) or (past > READ_ON_DAYS * 86400 and not builder.out_of_sight(year)))
