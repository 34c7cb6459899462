"""Members followed through the same blocks: each as if it were alone, however the blocks are cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormtracks.blocks import BlockReader
from stormtracks.errors import InputError
from stormtracks.follow import Outcome, Pass, _instants
from stormtracks.grid import Grid
from stormtracks.reanalysis.archive import Quantity, Series
from stormtracks.settings.campaign import CampaignSettings, Season
from stormtracks.times import TimeAxis, seconds_of
from stormtracks.track import WARM_UP
from stormtracks.tracks import Tracks
from tests.stormtracks.memory_archive import MemoryArchive

GRID = Grid(np.linspace(-80, 80, 9), np.arange(0, 360, 30.0))
DAY = 86400
Field = npt.NDArray[np.float32]
MEMBERS = 4


class TwoBuffers(MemoryArchive):
    """Reads into two buffers in turn, as a file is read, so that nobody may use a block after the next but one."""

    def open_year(self, year: int, members: Sequence[int]) -> Series:
        series = super().open_year(year, members)
        shape = (len(members), self.block_steps, *GRID.shape)
        buffers = itertools.cycle([np.empty(shape, np.float32), np.empty(shape, np.float32)])
        read = series.read

        def reread(start: int, stop: int) -> tuple[Field, ...]:
            buffer = next(buffers)
            buffer[:, : stop - start] = read(start, stop)[0]
            return (buffer[:, : stop - start],)

        series.read = reread  # type: ignore[method-assign]
        return series


def noise(seed: int, *, missing: Sequence[tuple[int, int, bool]], flat: int | None, gap: int | None) -> MemoryArchive:
    """Noise every ten days over three years; of a member one value or a whole step may be missing, or all be zero."""
    seconds = np.arange(seconds_of("noleap", 2001), seconds_of("noleap", 2004), 10 * DAY)
    field = np.random.default_rng(seed).normal(size=(MEMBERS, len(seconds), *GRID.shape)).astype(np.float32)
    for member, step, whole in missing:
        field[member, step, slice(None) if whole else 4, slice(None) if whole else 3] = np.nan
    if flat is not None:
        field[flat] = 0
    keep = np.ones(len(seconds), dtype=bool)
    if gap is not None:
        keep[gap : gap + 2] = False
    times = TimeAxis(seconds[keep], "noleap")
    return TwoBuffers(GRID, times, (Quantity("x", "", "1"),), (field[:, keep],))


def followed(
    archive: MemoryArchive, campaign: CampaignSettings, members: Sequence[int], year: int | None
) -> dict[int, Outcome]:
    """What comes of members in one pass, read ahead if they are several; what ends the pass, of all that are left."""
    passing = Pass(campaign, members, year)
    reader = BlockReader(archive, campaign.data, warm_up=0 if year is None else WARM_UP, cores=len(members))
    outcomes: dict[int, Outcome] = {}
    try:
        for calendar_year in archive.years() if year is None else itertools.count(year):
            if not passing.members or not archive.has_year(calendar_year, 1):
                break
            outcomes.update(passing.through(reader.read(calendar_year, passing.members)))
        outcomes.update(passing.end(passing.members))
    except InputError as error:
        outcomes.update(dict.fromkeys(passing.members, error))
    return outcomes


def described(outcome: Outcome) -> object:
    if isinstance(outcome, Tracks):
        whole = [getattr(outcome, field.name) for field in fields(Tracks)]
        return [value.tobytes() if isinstance(value, np.ndarray) else value for value in whole]
    assert isinstance(outcome, InputError), repr(outcome)
    return outcome.what


steps = st.integers(0, 108)
nowhere = st.tuples(st.integers(0, MEMBERS - 1), steps, st.booleans())
campaigns = st.builds(
    lambda method, max_gap, season, gaps, missing: CampaignSettings.model_validate(
        {
            "data": {"variable": "x", "gaps": gaps, "missing": missing},
            "detection": {"threshold": 1.0},
            "tracking": {"method": method, "max_gap": max_gap, "min_points": 2, "max_speed": 4},
            "season": season,
        }
    ),
    st.sampled_from(["nearest", "assignment"]),
    st.integers(0, 2),
    st.sampled_from(["year", "DJF", "JJA"]),
    st.sampled_from(["error", "cut"]),
    st.sampled_from(["error", "mask"]),
)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    campaign=campaigns,
    missing=st.lists(nowhere, max_size=3),
    flat=st.none() | st.integers(0, MEMBERS - 1),
    gap=st.none() | st.integers(1, 106),
    year=st.sampled_from([None, 2001, 2002, 2003]),
    members=st.permutations(range(1, MEMBERS + 1)),
    block_steps=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_each_member_goes_its_own_way(
    seed: int,
    campaign: CampaignSettings,
    missing: list[tuple[int, int, bool]],
    flat: int | None,
    gap: int | None,
    year: int | None,
    members: list[int],
    block_steps: tuple[int, int],
) -> None:
    archive = noise(seed, missing=missing, flat=flat, gap=gap)
    archive.block_steps = block_steps[0]
    together = followed(archive, campaign, members, year)
    archive.block_steps = block_steps[1]
    for member in members:
        alone = followed(archive, campaign, [member], year)
        assert described(together[member]) == described(alone[member])


@pytest.mark.parametrize("block_steps", [1, 100])
def test_members_end_as_soon_as_nothing_can_change_them_and_the_pass_with_the_last(block_steps: int) -> None:
    archive = noise(1, missing=[(2, 35, False)], flat=None, gap=None)  # in December, when all have ended
    archive.block_steps = block_steps
    campaign = CampaignSettings.model_validate(
        {
            "data": {"variable": "x"},
            "detection": {"threshold": 1.0},
            "tracking": {"max_speed": 4, "min_points": 1},
            "season": "JJA",
        }
    )
    passing = Pass(campaign, range(1, MEMBERS + 1), 2001)
    blocks = BlockReader(archive, campaign.data).read(2001, passing.members)
    ends = [(member, passing.members) for member, outcome in passing.through(blocks) if isinstance(outcome, Tracks)]
    assert sorted(member for member, _ in ends) == [1, 2, 3, 4]
    assert len(ends[0][1]) == 3 and ends[-1][1] == ()
    assert next(blocks, None) is None  # closed, with the rest of the year unread


def test_where_there_is_no_candidate_it_is_said_alike_for_blocks_of_any_length() -> None:
    archive = noise(1, missing=[], flat=None, gap=None)
    campaign = CampaignSettings.model_validate({"data": {"variable": "x"}, "detection": {"threshold": 50}})
    said = []
    for archive.block_steps in (1, 7, 1000):
        outcomes = followed(archive, campaign, [1, 2], 2001)
        assert all("no candidate" in str(outcome) for outcome in outcomes.values())
        said.append({member: str(outcome) for member, outcome in outcomes.items()})
    assert said[0] == said[1] == said[2] and said[0][1] != said[0][2]


def test_an_error_that_no_one_planned_for_is_of_its_member_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = noise(1, missing=[], flat=None, gap=None)
    campaign = CampaignSettings.model_validate({"data": {"variable": "x"}, "detection": {"threshold": 1.0}})
    passing = Pass(campaign, [1, 2], 2001)
    monkeypatch.setattr(passing._followers[2].builder, "add", lambda *arguments: 1 / 0)
    outcomes = dict(passing.through(BlockReader(archive, campaign.data).read(2001, [1, 2])))
    outcomes.update(passing.end(passing.members))
    assert isinstance(outcomes[1], Tracks) and isinstance(outcomes[2], ZeroDivisionError)


@given(
    first=st.integers(-20_000, 30_000),
    count=st.integers(1, 2000),
    hours=st.sampled_from([1, 3, 6, 24, 240]),
    calendar=st.sampled_from(["standard", "noleap", "360_day", "all_leap", "julian"]),
    season=st.sampled_from(["year", "DJF", "JJA"]) | st.tuples(st.dates(), st.dates()),
)
@settings(max_examples=30)
def test_seasons_of_steps_are_those_of_their_dates(
    first: int, count: int, hours: int, calendar: str, season: object
) -> None:
    given_season = (
        season
        if isinstance(season, str)
        else dict(
            zip(("start", "end"), (f"{day:%m-%d}" for day in season), strict=True)  # type: ignore[attr-defined]
        )
    )
    chosen = Season.model_validate(given_season)
    times = TimeAxis(first * DAY + np.arange(count) * hours * 3600, calendar)
    dates = times.dates()
    expected = [
        (second, date.year, chosen.year_of(date.year, date.month, date.day))
        for second, date in zip(times.seconds.tolist(), dates, strict=True)
    ]
    assert _instants(times, chosen) == expected
