"""Which members go through the data together, from which year on, and what comes of each of them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar

from stormtracks.blocks import BlockReader
from stormtracks.errors import InputError
from stormtracks.follow import Outcome, Pass
from stormtracks.inputs import DIGESTS, Stamp, input_digest
from stormtracks.reanalysis import open_archive
from stormtracks.reanalysis.archive import Archive, Series
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.track import WARM_UP
from stormtracks.tracks import Attributes, Tracks

__all__ = ["to_each", "track_members"]

T = TypeVar("T")


def track_members(
    campaign: CampaignSettings,
    year: int,
    members: Sequence[int],
    *,
    at: Callable[[int | None], None] = lambda member: None,
    cores: int = 1,
) -> Generator[tuple[int, Outcome], None, None]:
    """What `vort_track` makes of each of several members, in as few passes over the data as their layout allows.

    Parameters
    ----------
    campaign : CampaignSettings
    year : int
    members : sequence of int
        Each once.
    at : callable, optional
        Called with a member when work for it alone begins, with None when work for all begins, such as reading.
    cores : int
        Cores to count on: with more than one, data are read while those before are computed.

    Yields
    ------
    member : int
        Each once, as it ends.
    outcome : Tracks or Exception
        What `vort_track` returns or raises for it. An error on opening or reading what several members share is that
        of all of them that have not ended.
    """
    at(None)
    yield from to_each(members, _passes(campaign, year, members, at, cores))


def _passes(
    campaign: CampaignSettings, year: int, members: Sequence[int], at: Callable[[int | None], None], cores: int
) -> Generator[tuple[int, Outcome], None, None]:
    """Members that need the same years of the data and share chunks go through them together."""
    archive = _SteadyArchive(open_archive(campaign.data))
    alike: dict[tuple[int, int], list[int]] = {}
    for member in members:
        try:
            alike.setdefault(_beginning(archive, campaign, year, member), []).append(member)
        except Exception as error:
            yield member, error
    for (first, _), those in alike.items():
        yield from to_each(those, _passes_from(first, archive, campaign, year, those, at, cores))


def _passes_from(
    first: int,
    archive: _SteadyArchive,
    campaign: CampaignSettings,
    year: int,
    members: Sequence[int],
    at: Callable[[int | None], None],
    cores: int,
) -> Generator[tuple[int, Outcome], None, None]:
    """Those that begin with the same year, each that shares chunks with others together with these."""
    for together in archive.passes(first, members):
        at(None)
        yield from to_each(together, _pass(archive, campaign, year, first, together, at, cores))


def _beginning(archive: _SteadyArchive, campaign: CampaignSettings, year: int, member: int) -> tuple[int, int]:
    """The first year that a member is followed through, and the earliest that holds steps of the warm-up."""
    first = year
    if not archive.has_year(year, member):
        if not (campaign.season.over_new_year and archive.has_year(year + 1, member)):
            archive.open_year(year, [member]).close()  # says what is missing
            archive.check(member)
        first = year + 1  # of a season over new year, the part after it
    earliest, needed = first, WARM_UP
    while needed > 0 and archive.has_year(earliest - 1, member):
        earliest -= 1
        needed -= len(archive.open_year(earliest, [member]).times)
    return first, earliest


def _pass(
    archive: _SteadyArchive,
    campaign: CampaignSettings,
    year: int,
    first: int,
    members: Sequence[int],
    at: Callable[[int | None], None],
    cores: int,
) -> Generator[tuple[int, Outcome], None, None]:
    reader = BlockReader(archive, campaign.data, warm_up=WARM_UP, cores=cores)
    followed = Pass(campaign, members, year, at=at)

    @functools.cache
    def digest(inputs: tuple[tuple[str, Stamp], ...]) -> str:
        return input_digest(campaign.data.root, dict(inputs), kept_in=campaign.results.root / DIGESTS)

    with closing(_through_years(archive, reader, followed, first)) as outcomes:
        for member, outcome in outcomes:
            reader.settle()
            if isinstance(outcome, Tracks):
                try:
                    absent = [str(y) for y in (year - 1, year, year + 1) if not archive.has_year(y, member)]
                    archive.check(member)
                    at(None)  # what is computed once is for all
                    input_digest_now = digest(tuple(sorted(followed.inputs.items())))
                    at(member)
                    made_from: Attributes = {
                        "input_digest": input_digest_now,
                        "absent_years": ", ".join(absent),
                    }
                    outcome = replace(outcome, attributes=outcome.attributes | made_from)
                except Exception as error:
                    outcome = error
            yield member, outcome


def _through_years(
    archive: Archive, reader: BlockReader, followed: Pass, first: int
) -> Generator[tuple[int, Outcome], None, None]:
    """Year after year, for as long as there is a member that has it and has not ended."""
    for year in itertools.count(first):
        yield from followed.end([member for member in followed.members if not archive.has_year(year, member)])
        for member, error in _shut_out(archive, year, followed.members):
            yield from followed.end([member], error)
        if not followed.members:
            return
        yield from followed.through(reader.read(year, followed.members))


def _shut_out(archive: Archive, year: int, members: Sequence[int]) -> list[tuple[int, InputError]]:
    """Members whose year cannot be opened, such as those that one of two files lacks, each with the reason."""
    found = []
    try:
        if members:
            archive.open_year(year, members).close()
    except InputError:
        for member in members:
            try:
                archive.open_year(year, [member]).close()
            except InputError as error:
                found.append((member, error))
    return found


def to_each(keys: Iterable[T], outcomes: Generator[tuple[T, Any], None, None]) -> Iterator[tuple[T, Any]]:
    """The outcomes; an error that ends them is that of every key that has none yet."""
    left = dict.fromkeys(keys)
    try:
        with closing(outcomes):
            for key, outcome in outcomes:
                del left[key]
                yield key, outcome
    except Exception as error:
        yield from ((key, error) for key in left)


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

    def passes(self, year: int, members: Sequence[int]) -> list[tuple[int, ...]]:
        return self._archive.passes(year, members)

    def open_year(self, year: int, members: Sequence[int]) -> Series:
        return self._archive.open_year(year, members)

    def check(self, member: int) -> None:
        """See that what a member had is there still, and nothing else has come."""
        for year in sorted(year for year, asked_of in self._asked if asked_of == member):
            if self._archive.has_year(year, member) != self._has_year(year, member):
                raise InputError(
                    f"the data of {year}, member {member}, have come or gone while others were read",
                    remedy="let the files stay as they are while a campaign runs, and run it again",
                    permanent=False,
                )
