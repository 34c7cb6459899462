"""Links between centres, and the seams of blocks and years that must not show in them."""

import itertools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from stormtracks.assemble import assemble
from stormtracks.blocks import Block
from stormtracks.detect import Centres
from stormtracks.follow import Pass
from stormtracks.grid import Grid, great_circle_distance, unit_vectors
from stormtracks.reanalysis.archive import Quantity
from stormtracks.settings.campaign import CampaignSettings, TrackingSettings
from stormtracks.times import TimeAxis, seconds_of
from stormtracks.track import WARM_UP, Heads, Moment, TrackBuilder, link_assignment, link_nearest
from stormtracks.tracks import Tracks, digest
from tests.stormtracks.memory_archive import MemoryArchive, blocks_of

SIX_HOURS = 21600


def heads_at(lat: list[float], lon: list[float], *, before: tuple[list[float], list[float]] | None = None) -> Heads:
    count = len(lat)
    xyz = unit_vectors(lat, lon)
    old = xyz if before is None else unit_vectors(*before)
    seconds = np.zeros(count, np.int64)
    return Heads(xyz, old, seconds, seconds - (0 if before is None else SIX_HOURS), seconds)


def test_nearest_keeps_the_nearest_of_several_claims() -> None:
    heads = heads_at([50, 50, 50], [0, 3, 20])
    links = link_nearest(heads, unit_vectors([50, 50], [4, 25]), SIX_HOURS, TrackingSettings())
    assert links.tolist() == [1, 2]


def test_nearest_across_the_seam_and_the_pole() -> None:
    heads = heads_at([50, 89, -89], [359.5, 10, 40])
    centres = unit_vectors([50, 89, -89], [1, 190, 220])
    assert link_nearest(heads, centres, SIX_HOURS, TrackingSettings()).tolist() == [0, 1, 2]


@pytest.mark.parametrize("link", [link_nearest, link_assignment])
@pytest.mark.parametrize("hours", [1, 3, 6, 12])
def test_no_link_is_faster_than_the_limit_whatever_the_step(link: object, hours: int) -> None:
    limit = TrackingSettings(max_speed=40)
    km = 40 * 3.6 * hours
    for factor, linked in ((0.999, 0), (1.001, -1)):
        lon = np.rad2deg(factor * km / 6371)
        assert link(heads_at([0], [0]), unit_vectors([0], [lon]), hours * 3600, limit).tolist() == [linked]  # type: ignore[operator]


def test_assignment_finds_the_links_that_are_best_together() -> None:
    # Both tracks are nearest to the first centre; nearest leaves one of them without a link.
    heads = heads_at([50, 50], [0, 3])
    centres = unit_vectors([50, 50], [2, 7])
    assert link_nearest(heads, centres, SIX_HOURS, TrackingSettings()).tolist() == [1, -1]
    assert link_assignment(heads, centres, SIX_HOURS, TrackingSettings()).tolist() == [0, 1]


def test_assignment_expects_storms_to_go_on_as_they_did() -> None:
    # Two storms pass each other at six degrees of longitude a step.
    heads = heads_at([50, 51], [10, 12], before=([50, 51], [4, 18]))
    centres = unit_vectors([51, 50], [6, 16])
    assert link_assignment(heads, centres, SIX_HOURS, TrackingSettings()).tolist() == [1, 0]


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12))
def test_assignment_equals_the_dense_solution(seed: int, n_heads: int, n_centres: int) -> None:
    rng = np.random.default_rng(seed)
    lat, lon = rng.uniform(40, 60, n_heads), rng.uniform(0, 25, n_heads)
    heads = heads_at(lat.tolist(), lon.tolist(), before=((lat - 1).tolist(), (lon - 2).tolist()))
    centre_lat, centre_lon = rng.uniform(40, 60, n_centres), rng.uniform(0, 25, n_centres)
    centres = unit_vectors(centre_lat, centre_lon)
    links = link_assignment(heads, centres, SIX_HOURS, TrackingSettings())

    reach = 40 * 21.6
    ahead = heads.predicted(SIX_HOURS)
    ahead_lat, ahead_lon = np.rad2deg(np.arcsin(ahead[:, 2])), np.rad2deg(np.arctan2(ahead[:, 1], ahead[:, 0]))
    cost = great_circle_distance(ahead_lat[:, None], ahead_lon[:, None], centre_lat, centre_lon) ** 2
    cost[great_circle_distance(lat[:, None], lon[:, None], centre_lat, centre_lon) > reach] = np.inf
    cost[cost >= reach**2] = np.inf
    dense = np.full((n_heads, n_centres + n_heads), 1e12)
    dense[:, :n_centres] = np.where(np.isfinite(cost), cost, 1e12)
    dense[np.arange(n_heads), n_centres + np.arange(n_heads)] = reach**2
    least = dense[linear_sum_assignment(dense)].sum()
    linked = np.flatnonzero(links >= 0)
    got = cost[links[linked], linked].sum() + (n_heads - len(linked)) * reach**2
    assert len(set(links[linked].tolist())) == len(linked)
    assert got == pytest.approx(least)


@given(st.floats(-80, 80), st.floats(0, 360), st.floats(0, 360), st.floats(50, 800))
def test_a_prediction_goes_on_along_the_great_circle(lat: float, lon: float, bearing: float, km: float) -> None:
    start = unit_vectors(lat, lon)
    north = np.array([0, 0, 1]) - start[2] * start
    north /= np.linalg.norm(north)
    east = np.cross(north, start) * -1
    direction = np.cos(np.deg2rad(bearing)) * north + np.sin(np.deg2rad(bearing)) * east
    points = [np.cos(k * km / 6371) * start + np.sin(k * km / 6371) * direction for k in (0, 1, 2, 3)]
    zero = np.array([0])
    heads = Heads(points[1][None], points[0][None], zero, zero - SIX_HOURS, zero)
    assert np.allclose(heads.predicted(SIX_HOURS)[0], points[2], atol=1e-9)
    assert np.allclose(heads.predicted(2 * SIX_HOURS)[0], points[3], atol=1e-9)


def walk(builder: TrackBuilder, places: list[list[tuple[float, float]]], *, cuts: tuple[int, ...] = ()) -> None:
    for step, at in enumerate(places):
        lat, lon = np.array([p[0] for p in at]), np.array([p[1] for p in at])
        centres = Centres(np.zeros(len(at), np.int64), lat, lon, np.ones(len(at)), np.ones(len(at), bool))
        builder.add(centres, Moment(step * SIX_HOURS, 1970, 1970, step in cuts))


@pytest.mark.parametrize("method", ["nearest", "assignment"])
@pytest.mark.parametrize(("max_gap", "lengths"), [(0, [3, 2]), (1, [5]), (2, [5])])
def test_a_gap_is_bridged_only_as_far_as_allowed(method: str, max_gap: int, lengths: list[int]) -> None:
    builder = TrackBuilder(TrackingSettings.model_validate({"method": method, "max_gap": max_gap}))
    walk(builder, [[(50, 0)], [(50, 2)], [(50, 4)], [], [(50, 8)], [(50, 10)]])
    assert np.bincount(builder.linked().points.chain).tolist() == lengths


def test_a_cut_ends_every_track_and_is_noted() -> None:
    builder = TrackBuilder(TrackingSettings())
    walk(builder, [[(50, 0)], [(50, 1)], [(50, 2)], [(50, 3)]], cuts=(0, 2))
    linked = builder.linked()
    assert np.bincount(linked.points.chain).tolist() == [2, 2]
    assert sorted(linked.begun.tolist()) == [0, 1]
    assert sorted(linked.ended.tolist()) == [0, 1]


def test_memory_follows_what_is_kept() -> None:
    builder = TrackBuilder(TrackingSettings(min_points=3, max_speed=1), room=500)
    rng = np.random.default_rng(0)
    walk(builder, [[(50, 0.01 * k), *((float(rng.uniform(-40, 40)), float(rng.uniform(0, 360))) for _ in range(20))]
                   for k in range(300)])  # fmt: skip
    assert len(builder._stored) < 1600
    assert builder._chains < 1600
    assert np.bincount(builder.linked().points.chain).max() == 300


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(0, 2), st.integers(1, 5))
def test_what_is_forgotten_leaves_no_trace(seed: int, max_gap: int, min_points: int) -> None:
    tracking = TrackingSettings.model_validate({"max_gap": max_gap, "min_points": min_points, "max_speed": 20})
    campaign = CampaignSettings.model_validate({"data": {"variable": "x"}}).model_copy(update={"tracking": tracking})
    found = []
    for room in (20, 1 << 18):
        rng = np.random.default_rng(seed)
        builder = TrackBuilder(tracking, room=room)
        for step in range(40):
            lat, lon = np.round(rng.uniform(30, 60, (2, 12)), 4)
            centres = Centres(np.zeros(12, np.int64), lat, lon, rng.random(12), lat + lon > 70)
            builder.add(centres, Moment(step * SIX_HOURS, 1970, 1970, step in (0, 15)))
        grid = Grid(np.arange(-90, 91.0), np.arange(360.0))
        quantity = Quantity("x", "", "1")
        tracks, counts = assemble(builder.linked(), campaign, grid, quantity, calendar="standard", member=1, year=None)
        found.append((digest(tracks), counts, len(builder._stored)))
    assert found[0][:2] == found[1][:2]
    assert found[0][2] < found[1][2] or min_points == 1


# --- blocks and years -------------------------------------------------------------------------------------------------

ROWS, COLS, HOURS = 16, 24, 10 * 24


def moving_noise(seed: int, calendar: str) -> MemoryArchive:
    """Three years of smooth noise at 10-day steps on a coarse globe: many short tracks, many over each new year."""
    start, end = seconds_of(calendar, 2001), seconds_of(calendar, 2004)
    seconds = np.arange(start, end, HOURS * 3600)
    field = np.random.default_rng(seed).normal(size=(len(seconds), ROWS, COLS))
    field = gaussian_filter(field, 1.2, mode=("nearest", "nearest", "wrap")).astype(np.float32)
    grid = Grid(np.linspace(-84.375, 84.375, ROWS), np.arange(COLS) * 360 / COLS)
    return MemoryArchive(grid, TimeAxis(seconds, calendar), (Quantity("x", "", "1"),), (field,))


def records(tracks: Tracks) -> list[tuple[object, ...]]:
    ends = np.cumsum(tracks.row_size)
    return sorted(
        (
            int(tracks.year[i]),
            bool(tracks.starts_cut[i]),
            bool(tracks.ends_cut[i]),
            *(
                getattr(tracks, name)[ends[i] - tracks.row_size[i] : ends[i]].tobytes()
                for name in ("time", "lat", "lon")
            ),
        )
        for i in range(len(tracks))
    )


def follow(blocks: Generator[Block, None, None], campaign: CampaignSettings, year: int | None) -> Tracks:
    followed = Pass(campaign, [1], year)
    ((_, tracks),) = [*followed.through(blocks), *followed.end(followed.members)]
    assert isinstance(tracks, Tracks)
    return tracks


def unbroken(archive: MemoryArchive, campaign: CampaignSettings) -> Tracks:
    return follow(blocks_of(archive, campaign.data, archive.years()), campaign, None)


def from_year(archive: MemoryArchive, campaign: CampaignSettings, year: int) -> Generator[Block, None, None]:
    years = itertools.takewhile(lambda y: archive.has_year(y, 1), itertools.count(year))
    return blocks_of(archive, campaign.data, years, warm_up=WARM_UP)


def of_year(archive: MemoryArchive, campaign: CampaignSettings, year: int) -> Tracks:
    return follow(from_year(archive, campaign, year), campaign, year)


campaigns = st.builds(
    lambda method, max_gap, min_points, max_speed, region, season: CampaignSettings.model_validate(
        {
            "data": {"variable": "x"},
            "detection": {"threshold": 0.05, "region": region},
            "tracking": {"method": method, "max_gap": max_gap, "min_points": min_points, "max_speed": max_speed},
            "season": season,
        }
    ),
    st.sampled_from(["nearest", "assignment"]),
    st.integers(0, 2),
    st.integers(1, 5),
    st.floats(2, 7),
    st.sampled_from([None, (300, -40, 60, 70)]),
    st.sampled_from(["year", "DJF", "JJA"]),
)


@settings(max_examples=40)
@given(st.integers(0, 10_000), campaigns, st.sampled_from(["noleap", "360_day", "standard"]), st.integers(1, 60))
def test_years_tracked_one_by_one_give_the_tracks_of_the_unbroken_run(
    seed: int, campaign: CampaignSettings, calendar: str, block_steps: int
) -> None:
    archive = moving_noise(seed, calendar)
    whole = unbroken(archive, campaign)
    archive.block_steps = block_steps
    parts = [of_year(archive, campaign, year) for year in (2001, 2002, 2003)]
    expected = [record for record in records(whole) if record[0] >= 2001]  # type: ignore[operator]
    assert sorted(itertools.chain.from_iterable(map(records, parts))) == expected
    assert expected


def split(blocks: Iterable[Block], lengths: Iterator[int]) -> Generator[Block, None, None]:
    """The same blocks, cut at other places."""
    for block in blocks:
        start = 0
        while start < len(block.times):
            part = slice(start, start + next(lengths))
            fields = tuple(field[:, part] for field in block.fields)
            yield replace(block, fields=fields, times=block.times[part], cut=block.cut[:, part])
            start = part.stop


@settings(max_examples=30)
@given(st.integers(0, 10_000), campaigns, st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_the_length_of_a_block_never_shows(seed: int, campaign: CampaignSettings, lengths: list[int]) -> None:
    archive = moving_noise(seed, "noleap")
    expected = of_year(archive, campaign, 2002)
    got = follow(split(from_year(archive, campaign, 2002), itertools.cycle(lengths)), campaign, 2002)
    assert records(got) == records(expected)
    assert got.attributes == expected.attributes


def one_storm(first: tuple[int, int, int], steps: int) -> MemoryArchive:
    """A bump that stands still for `steps` six-hourly steps; the series is three days longer at either end."""
    lead = 12
    seconds = seconds_of("standard", *first) + (np.arange(steps + 2 * lead) - lead) * SIX_HOURS
    field = np.zeros((len(seconds), ROWS, COLS), np.float32)
    field[lead : lead + steps, 10, 3] = 1
    grid = Grid(np.linspace(-84.375, 84.375, ROWS), np.arange(COLS) * 360 / COLS)
    return MemoryArchive(grid, TimeAxis(seconds, "standard"), (Quantity("x", "", "1"),), (field,))


VARIABLE = CampaignSettings.model_validate({"data": {"variable": "x"}, "detection": {"threshold": 0.5}})


def flags(tracks: Tracks) -> list[tuple[int, bool, bool]]:
    return [
        (int(n), bool(s), bool(e)) for n, s, e in zip(tracks.row_size, tracks.starts_cut, tracks.ends_cut, strict=True)
    ]


def test_a_storm_over_new_year_is_published_whole_by_the_year_of_its_birth() -> None:
    archive = one_storm((2001, 12, 30), 16)
    assert flags(of_year(archive, VARIABLE, 2001)) == [(16, False, False)]
    after = of_year(archive, VARIABLE, 2002)
    assert flags(after) == []
    assert '"born before": 1' in str(after.attributes["counts"])


def test_an_absent_neighbour_cuts_and_flags() -> None:
    archive = one_storm((2001, 12, 30), 16)
    archive.keep = frozenset({2001})
    assert flags(of_year(archive, VARIABLE, 2001)) == [(8, False, True)]
    archive.keep = frozenset({2002})
    assert flags(of_year(archive, VARIABLE, 2002)) == [(8, True, False)]


def test_a_track_that_outlives_ninety_days_is_cut_there_in_both_ways_of_tracking() -> None:
    archive = one_storm((2001, 12, 31), 4 * 100)
    expected = [(4 + 4 * 90 + 1, False, True)]
    assert flags(of_year(archive, VARIABLE, 2001)) == expected
    assert flags(unbroken(archive, VARIABLE)) == expected


@pytest.mark.parametrize(
    ("season", "first", "published"),
    [
        ("DJF", (2001, 12, 31), {2001: 1, 2002: 0}),
        ("DJF", (2002, 1, 5), {2001: 1, 2002: 0}),
        ("DJF", (2001, 11, 30), {2001: 0}),
        ("JJA", (2001, 8, 31), {2001: 1}),
        ("JJA", (2001, 5, 31), {2001: 0}),
    ],
)
def test_a_season_keeps_whole_what_starts_in_it(
    season: Literal["DJF", "JJA"], first: tuple[int, int, int], published: dict[int, int]
) -> None:
    campaign = VARIABLE.model_copy(update={"season": CampaignSettings.model_validate({"season": season}).season})
    archive = one_storm(first, 16)
    for year, count in published.items():
        if year in archive.years():
            assert flags(of_year(archive, campaign, year)) == [(16, False, False)] * count


@pytest.mark.parametrize("lon", [3, 22])
def test_a_region_cuts_what_is_published_and_flags_it(lon: int) -> None:
    archive = one_storm((2001, 6, 1), 20)
    archive.fields[0][:] = 0
    for step in range(30):  # one column a step, eastward through the box
        archive.fields[0][step, 10, (lon - 15 + step) % COLS] = 1
    west = (lon - 3) * 15 - 7.5
    campaign = CampaignSettings.model_validate(
        {
            "data": {"variable": "x"},
            "detection": {"threshold": 0.5, "region": (west, 0, (west + 105) % 360, 60)},
            "tracking": {"max_speed": 80, "min_points": 1},
        }
    )
    assert flags(unbroken(archive, campaign)) == [(7, True, True)]


def test_the_edge_of_a_limited_area_flags_a_storm_that_leaves_it() -> None:
    grid = Grid(np.arange(30, 61.0), np.arange(300, 341.0))
    field = np.zeros((60, *grid.shape), np.float32)
    for step in range(41):
        field[step, 15, step] = 1
    field[45:55, 15, 20] = 1  # one that is born and dies in the middle
    times = TimeAxis(seconds_of("standard", 2001, 6) + np.arange(60) * SIX_HOURS)
    archive = MemoryArchive(grid, times, (Quantity("x", "", "1"),), (field,))
    assert flags(unbroken(archive, VARIABLE)) == [(39, True, True), (10, False, False)]
