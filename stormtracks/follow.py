"""Storms of some members, detected and followed through the same blocks: each member ends, or fails, by itself."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stormtracks import __version__
from stormtracks.assemble import READ_ON_DAYS, assemble, season_end
from stormtracks.blocks import Block
from stormtracks.detect import Centres, Detector
from stormtracks.errors import InputError
from stormtracks.inputs import Stamp
from stormtracks.settings.campaign import CampaignSettings, Season
from stormtracks.times import TimeAxis
from stormtracks.track import Moment, TrackBuilder
from stormtracks.tracks import Attributes, Tracks

__all__ = ["SCIENCE_VERSION", "Outcome", "Pass", "attributes_of"]

IntArray = npt.NDArray[np.int64]
Field = npt.NDArray[np.float32]

Outcome = Tracks | Exception
"""What comes of a member: its tracks, or why there are none."""

_ROOM = 1 << 18
"""Points that all members together may gather, beside those that are kept."""

SCIENCE_VERSION = 2
"""Raised whenever the same input and settings give other tracks than before."""


class _Sight(NamedTuple):
    """What one member shows in a block."""

    moments: list[Moment]
    """The steps that are of use."""
    centres: Centres
    found: Mapping[str, IntArray]
    """As `Detector.find` counts them."""
    problem: InputError | None
    """Why no more steps are of use."""


class _Follower:
    """Follows the storms of one member, block by block.

    Parameters
    ----------
    campaign : CampaignSettings
    year : int or None
        Whose season is to be published; None for all.
    room : int
        Points that it may gather, as `TrackBuilder` has it.
    """

    def __init__(self, campaign: CampaignSettings, year: int | None, room: int) -> None:
        self.builder = TrackBuilder(campaign.tracking, room=room)
        self.counts: Counter[str] = Counter()
        self.in_season = False
        self.taken = 0
        """Steps of the last block that were followed."""
        self._year = year

    def add(self, sight: _Sight, season_end: int | None) -> bool:
        """Link the centres of a block; whether no later step can change what is published.

        Raises
        ------
        InputError
            If the member has a problem in the block, and has not ended before it.
        """
        done = False
        self.taken = 0
        for step, moment in enumerate(sight.moments):
            self.builder.add(sight.centres.at(step, step + 1), moment)
            self.taken = step + 1
            self.in_season |= self._year is None or moment.season_year == self._year
            if season_end is not None and self._ended(moment.seconds - season_end):
                done = True
                break
        # Only the steps that were followed count, so that the length of a block does not show.
        self.counts["time steps"] += self.taken
        for name, steps in sight.found.items():
            self.counts[name] += int(steps[: self.taken].sum())
        if sight.problem is not None and not done:
            raise sight.problem
        return done

    def _ended(self, past: int) -> bool:
        """Whether no step can matter any more, so many seconds past the end of the season."""
        if past < 0 or self._year is None:
            return False
        # Past the last day to be read, a storm out of sight is given the time to show that it still lives.
        last_day = past > READ_ON_DAYS * 86400
        return not self.builder.alive(self._year) or (last_day and not self.builder.out_of_sight(self._year))


class Pass:
    """One pass over blocks for several members, of which each goes its own way.

    Parameters
    ----------
    campaign : CampaignSettings
    members : collection of int
    year : int or None
        Whose season is to be published; None for all.
    at : callable, optional
        Called with a member when work for it alone begins, with None when work for all of them does.
    """

    def __init__(
        self,
        campaign: CampaignSettings,
        members: Collection[int],
        year: int | None,
        *,
        at: Callable[[int | None], None] | None = None,
    ) -> None:
        self._campaign = campaign
        self._year = year
        self._at = at or (lambda member: None)
        room = _ROOM // max(1, len(members))
        self._followers = {member: _Follower(campaign, year, room) for member in members}
        self._detector: Detector | None = None
        self._block: Block | None = None
        self.inputs: dict[str, Stamp] = {}
        """All files that were read so far, relative to the data root."""

    @property
    def members(self) -> tuple[int, ...]:
        """Those that are still followed."""
        return tuple(self._followers)

    def through(self, blocks: Generator[Block, None, None]) -> Iterator[tuple[int, Outcome]]:
        """Detect and link to the end of the blocks, or of all members; those that end, as they do.

        A member ends with the last of the tracks that the year publishes, or with its error.
        """
        with closing(blocks):
            for block in blocks:
                for member, error in self._add(block):
                    yield from self.end([member], error)
                if not self._followers:
                    return
                self._at(None)

    def end(self, members: Iterable[int], error: Exception | None = None) -> Iterator[tuple[int, Outcome]]:
        """What comes of members whose data end here, or that end with an error."""
        for member in members:
            self._at(member)
            follower = self._followers.pop(member)
            yield member, error or self._outcome(member, follower)

    def _add(self, block: Block) -> list[tuple[int, Exception | None]]:
        """Find the centres of all members at once and hand each its own; those that end, some with an error."""
        self._block = block
        self.inputs.update(block.inputs)
        if self._detector is None or self._detector.grid is not block.grid:
            self._detector = Detector(self._campaign.detection, block.grid, block.quantities)
        places = [place for place, member in enumerate(block.members) if member in self._followers]
        centres, found = self._detector.find(tuple(_stack(field, places) for field in block.fields))
        season, year, count = self._campaign.season, self._year, len(block.times)
        instants = _instants(block.times, season)
        end = None if year is None else season_end(season, year, block.times.calendar)
        ended: list[tuple[int, Exception | None]] = []
        for start, place in zip(itertools.count(0, count), places):
            member = block.members[place]
            self._at(member)
            step, problem = block.problems.get(place, (count, None))
            cuts = block.cut[place, :step].tolist()
            sight = _Sight(
                [Moment(*instant, cut) for instant, cut in zip(instants, cuts, strict=False)],
                centres.at(start, start + count),
                {name: steps[start : start + count] for name, steps in found.items()},
                problem,
            )
            try:
                if self._followers[member].add(sight, end):
                    ended.append((member, None))
            except Exception as error:
                ended.append((member, error))
        return ended

    def _outcome(self, member: int, follower: _Follower) -> Outcome:
        assert self._block is not None and self._detector is not None, "an archive gives a step of each year it has"
        try:
            if follower.in_season and not follower.counts["extrema"]:
                place, last = self._block.members.index(member), slice(follower.taken - 1, follower.taken)
                raise self._detector.nothing_found(tuple(field[place, last] for field in self._block.fields))
            tracks, kept = assemble(
                follower.builder.linked(),
                self._campaign,
                self._detector.grid,
                self._detector.quantity,
                calendar=self._block.times.calendar,
                member=member,
                year=self._year,
            )
            follower.counts.update(kept)
        except Exception as error:
            return error
        return replace(tracks, attributes=attributes_of(self._campaign, self.inputs, follower.counts))


def attributes_of(campaign: CampaignSettings, inputs: Iterable[str], counts: Mapping[str, int]) -> Attributes:
    """What tracks say of their making."""
    return {
        "settings_hash": campaign.settings_hash,
        "inputs": ", ".join(sorted(inputs)),
        "stormtracks_version": __version__,
        "science_version": SCIENCE_VERSION,
        "counts": json.dumps(counts),
    }


def _stack(field: Field, places: list[int]) -> Field:
    """The steps of members at these places, one member after the other; shape (len(places) * n, nlat, nlon)."""
    members = field if len(places) == len(field) else field[places]
    return members.reshape(-1, *field.shape[2:])


def _instants(times: TimeAxis, season: Season) -> list[tuple[int, int, int | None]]:
    """Of each step the seconds, the calendar year, and the year of the season that holds it, as in `Moment`."""
    dates, day_of = times.days()
    years = [(date.year, season.year_of(date.year, date.month, date.day)) for date in dates]
    return [(second, *years[day]) for second, day in zip(times.seconds.tolist(), day_of.tolist(), strict=True)]
