"""Members that share a pass over the data: what comes of each is what would come of it alone, to the byte."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stormtracks.errors import InputError, StormtracksError
from stormtracks.grid import Grid
from stormtracks.publish import is_temporary
from stormtracks.reanalysis import open_archive
from stormtracks.reanalysis.sources import SourceReader
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings, DataSettings
from stormtracks.synthetic import SyntheticEnsemble, write
from stormtracks.tasks import run_bundle, run_task, track_file, track_members, vort_track
from stormtracks.tracks import Tracks
from tests.stormtracks.reanalysis.field_files import Along, hours, latitudes, longitudes, write_field

Layout = Literal["c20", "c20v3", "cf"]
LAYOUTS: tuple[Layout, ...] = ("c20", "c20v3", "cf")
GRID = Grid(np.linspace(90, -90, 19), np.arange(0, 360, 10.0))
MEMBERS = range(1, 8)
HAS_GAPS, IS_FLAT, HALF_IN_2002, NOT_IN_2002, NOWHERE = 3, 4, 5, 6, 7
"""Members with values missing early in 2002; without any storm; without v in 2002; not in 2002; not there at all."""
IN_2000 = (1, 2)
STEPS = {2000: slice(0, 20), 2001: slice(20, 68), 2002: slice(68, 148)}
"""Five days of 2000, twelve of 2001 and twenty of 2002, each to or from new year."""


def members_of(layout: Layout, year: int, name: str) -> list[int]:
    if layout == "cf":
        return [member for member in MEMBERS if member != NOWHERE]
    if year == 2000:
        return list(IN_2000)
    away = {NOWHERE} if year == 2001 else {NOWHERE, NOT_IN_2002} | ({HALF_IN_2002} if name == "v850" else set())
    return [member for member in MEMBERS if member not in away]


def winds() -> dict[str, npt.NDArray[np.float32]]:
    """Of each component the steps of all members, shape (steps, members, lat, lon)."""
    fields: dict[str, list[npt.NDArray[np.float32]]] = {"u850": [], "v850": []}
    ensemble = SyntheticEnsemble((2001, 12, 1), (2002, 1, 7), members=len(MEMBERS), grid=GRID)
    for member in MEMBERS:
        blocks = list(ensemble.blocks(member, ("u850", "v850")))
        for which, name in enumerate(fields):
            fields[name].append(np.concatenate([block[which] for block in blocks])[:148])
    stacked = {name: np.stack(members, axis=1) for name, members in fields.items()}
    stacked["v850"][STEPS[2002].start + 9, HAS_GAPS - 1, 4, 5] = np.nan
    for field in stacked.values():
        field[:, IS_FLAT - 1] = 0
    return stacked


def write_ensemble(root: Path, layout: Layout, fields: dict[str, npt.NDArray[np.float32]]) -> None:
    for (year, steps), (name, field) in itertools.product(STEPS.items(), fields.items()):
        first = {2000: "2000-12-27", 2001: "2001-12-20", 2002: "2002-01-01"}[year]
        lat, lon = latitudes(GRID.lat), longitudes(GRID.lon)
        axes = {"time": hours(steps.stop - steps.start, since=first), "lat": lat, "lon": lon}
        members = members_of(layout, year, name)
        if layout == "c20v3":
            upper = {"u850": "UGRD850", "v850": "VGRD850"}[name]
            for member in members:
                path = root / f"{year}/{upper}.{year}_mem{member:03d}.nc"
                write_field(path, upper, axes=axes, values=field[steps, member - 1], zlib=True)
        else:
            path = root / (f"{year}/{name}_{year}.nc" if layout == "c20" else f"{name}_{year}.nc")
            shape = (3, len(members) if layout == "c20" else 2, *GRID.shape)
            values = field[steps][:, [member - 1 for member in members]]
            axes["member"] = Along(np.array(members))
            dims = ("time", "member", "lat", "lon")
            write_field(path, name, dims=dims, axes=axes, values=values, zlib=True, chunksizes=shape)
    for path in root.rglob("*.nc"):
        os.utime(path, (1e9, 1e9))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    fields = winds()
    for layout in LAYOUTS:
        write_ensemble(root / layout, layout, fields)
    return root


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stormtracks.reanalysis.series._BLOCK_BYTES", 1)


def campaign_of(data: Path, out: Path, layout: Layout = "c20", season: str = "year") -> CampaignSettings:
    return CampaignSettings.model_validate(
        {
            "data": {"root": data, "layout": layout},
            "season": season,
            "detection": {"threshold": 2e-5},
            "tracking": {"min_points": 3},
            "results": {"root": out},
        }
    )


def described(outcome: object, results: Path) -> object:
    """What can be compared: a result with the bytes of its file; an error with all that it says."""
    if isinstance(outcome, dict):
        return outcome, (results / outcome["path"]).read_bytes()
    assert isinstance(outcome, StormtracksError), repr(outcome)
    return type(outcome), outcome.what, outcome.remedy, outcome.permanent


def alone(campaign: CampaignSettings, year: int, member: int) -> object:
    """What comes of one member, read in blocks of the usual size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stormtracks.reanalysis.series._BLOCK_BYTES", 16 * 2**20)
        return _alone(campaign, year, member)


def _alone(campaign: CampaignSettings, year: int, member: int) -> object:
    try:
        outcome: object = run_task(
            year, member, "vort_track", settings=campaign.model_dump(mode="json"), first_years=[2001]
        )
    except StormtracksError as error:
        outcome = error
    return described(outcome, campaign.results.root)


def bundle(campaign: CampaignSettings, year: int, members: Sequence[int], **named: Any) -> Iterator[tuple[int, Any]]:
    attempts = [(year, member, "vort_track") for member in members]
    return run_bundle(attempts, settings=campaign.model_dump(mode="json"), first_years=[2001], **named)


def results_in(root: Path) -> list[str]:
    """All files but kept digests, by their path in the results root."""
    found = (path for path in root.rglob("*") if path.is_file() and not path.is_relative_to(root / "inputs"))
    return sorted(path.relative_to(root).as_posix() for path in found)


ALONE: dict[tuple[str, str, int, int], object] = {}


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    members=st.lists(st.sampled_from(MEMBERS), min_size=1, unique=True),
    year=st.sampled_from([2001, 2002, 2000]),
    season=st.sampled_from(["year", "DJF", "JJA"]),
    cores=st.integers(1, 2),
)
def test_each_is_as_it_would_be_alone(
    inputs: Path, tmp_path: Path, layout: Layout, members: list[int], year: int, season: str, cores: int
) -> None:
    single = campaign_of(inputs / layout, tmp_path / "alone", layout, season)
    campaign = campaign_of(inputs / layout, tmp_path / "together", layout, season)
    outcomes = dict(bundle(campaign, year, members, cores=cores))
    assert sorted(outcomes) == list(range(len(members)))
    for place, outcome in outcomes.items():
        key = (layout, season, year, members[place])
        if key not in ALONE:
            ALONE[key] = alone(single, year, members[place])
        assert described(outcome, campaign.results.root) == ALONE[key]


def test_what_is_told_apart_here_really_differs(inputs: Path, tmp_path: Path) -> None:
    campaign = campaign_of(inputs / "c20", tmp_path)
    of_2001, of_2002 = (dict(track_members(campaign, year, MEMBERS)) for year in (2001, 2002))
    absent = {member: o.attributes["absent_years"] for member, o in of_2001.items() if isinstance(o, Tracks)}
    assert absent == {1: "", 2: "", NOT_IN_2002: "2000, 2002"}
    assert "missing values at 2002-01-03 06:00:00" in str(of_2001[HAS_GAPS]) == str(of_2002[HAS_GAPS])
    assert "no candidate" in str(of_2001[IS_FLAT])
    assert str(of_2001[HALF_IN_2002]).startswith(f"member {HALF_IN_2002} is not in {inputs}/c20/2002/v850_2002.nc")
    assert "member 7 is not in" in str(of_2001[NOWHERE])
    assert [len(o) > 3 for o in of_2002.values() if isinstance(o, Tracks)] == [True, True]


@pytest.mark.parametrize("cores", [1, 2])
def test_it_is_told_for_whom_work_is_done_and_each_is_confirmed_by_itself(
    inputs: Path, tmp_path: Path, cores: int
) -> None:
    campaign = campaign_of(inputs / "c20", tmp_path)
    members = [NOT_IN_2002, 1, HAS_GAPS, 2]
    events: list[tuple[str, int | None]] = []
    shown: dict[int, list[str]] = {}

    def confirm(place: int) -> None:
        events.append(("confirm", place))
        shown[place] = results_in(tmp_path)

    for place, _ in bundle(
        campaign, 2001, members, cores=cores, confirm=confirm, at=lambda place: events.append(("at", place))
    ):
        events.append(("end", place))
    assert events[0] == ("at", None)
    ended = [place for event, place in events if event == "end"]
    assert sorted(ended) == [0, 1, 2, 3] and [place for event, place in events if event == "confirm"] == [
        place for place in ended if members[place] != HAS_GAPS
    ]
    for number, (event, place) in enumerate(events):
        if event == "confirm":
            assert events[number - 1] == ("at", place) and events[number + 1] == ("end", place)
            name = f"results/vort_track/2001/m{members[place or 0]:03d}.nc"
            assert name not in shown[place or 0]
            assert sum(is_temporary(Path(path).name) for path in shown[place or 0]) == 1
    # Reading goes on for all that are left after each block; nobody's own work is left unsaid.
    assert Counter(event for event, _ in events if event != "at")["end"] == 4
    assert {place for event, place in events if event == "at"} == {None, 0, 1, 2, 3}


def test_one_that_is_refused_or_cannot_be_written_is_alone_in_that(inputs: Path, tmp_path: Path) -> None:
    campaign = campaign_of(inputs / "c20", tmp_path)
    results = StormtracksResultsManager(tmp_path)
    (tmp_path / "results/vort_track/2001/m002.nc").mkdir(parents=True)

    def confirm(place: int) -> None:
        if place == 2:
            raise StormtracksError("handed out again")

    outcomes = dict(bundle(campaign, 2001, [1, 2, NOT_IN_2002], confirm=confirm))
    assert outcomes[0]["path"] == "results/vort_track/2001/m001.nc"
    assert "m002.nc" in str(outcomes[1]) and isinstance(outcomes[1], StormtracksError)
    assert str(outcomes[2]) == "handed out again"
    assert results_in(tmp_path) == ["results/vort_track/2001/m001.nc"]
    (tmp_path / "results/vort_track/2001/m002.nc").rmdir()
    assert results.list_results() == [(2001, 1)]


def test_once_the_folder_is_another_campaigns_nothing_more_is_published(inputs: Path, tmp_path: Path) -> None:
    campaign = campaign_of(inputs / "c20", tmp_path)
    results = StormtracksResultsManager(tmp_path)
    results.claim(campaign.science, campaign.settings_hash)
    other = campaign_of(inputs / "c20", tmp_path, season="DJF")

    asked: list[int] = []

    def confirm(place: int) -> None:
        asked.append(place)
        if len(asked) == 2:
            results.claim(other.science, other.settings_hash, replace=True)

    outcomes = dict(bundle(campaign, 2001, [1, 2], confirm=confirm))
    assert "path" in outcomes[asked[0]]
    assert f"of settings {other.settings_hash} now" in str(outcomes[asked[1]])
    assert results.list_results() == []


@pytest.mark.parametrize("cores", [1, 2])
def test_damage_ends_all_that_share_the_file_and_have_not_ended(inputs: Path, tmp_path: Path, cores: int) -> None:
    """The member that is not in the damaged file has ended before it is opened."""
    shutil.copytree(inputs / "c20", tmp_path / "data")
    path = tmp_path / "data/2002/u850_2002.nc"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    path.write_bytes(content)
    campaign = campaign_of(tmp_path / "data", tmp_path / "out")
    outcomes = dict(bundle(campaign, 2002, [1, NOT_IN_2002, 2], cores=cores))
    assert str(outcomes[0]) == str(outcomes[2])
    assert isinstance(outcomes[0], InputError) and str(path) in outcomes[0].what
    assert "is not in" in str(outcomes[1])
    with pytest.raises(InputError) as caught:
        vort_track(campaign, 2002, 2)
    assert caught.value.remedy == outcomes[0].remedy
    of_2001 = dict(bundle(campaign, 2001, [1, NOT_IN_2002, 2], cores=cores))
    assert "path" in of_2001[1]


def test_without_an_archive_each_is_told_so(tmp_path: Path) -> None:
    outcomes = dict(bundle(campaign_of(tmp_path / "absent", tmp_path), 2001, [1, 2]))
    assert [str(outcomes[place]).split("\n")[0] for place in (0, 1)] == [
        f"the data root {tmp_path / 'absent'} does not exist"
    ] * 2


def test_nothing_is_read_while_others_may_use_netcdf(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SourceReader.read
    reading, met = threading.Lock(), threading.Event()

    def slow(self: SourceReader, start: int, stop: int) -> Any:
        with reading:
            # Long enough for whoever does not wait for it.
            _ = threading.current_thread() is threading.main_thread() or met.wait(0.02)
            return read(self, start, stop)

    def confirm(place: int) -> None:
        assert not reading.locked()

    monkeypatch.setattr(SourceReader, "read", slow)
    campaign = campaign_of(inputs / "c20", tmp_path)
    for _, outcome in bundle(campaign, 2002, [1, 2], confirm=confirm, cores=2):
        assert "path" in outcome
    # Storms of 2001 end in 2002, in the middle of what is read.
    for _, outcome in bundle(campaign, 2001, [1, 2], confirm=confirm, cores=2):
        assert "path" in outcome


def test_what_comes_or_goes_meanwhile_concerns_those_that_it_belongs_to(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs / "c20v3", tmp_path / "data")
    came = [tmp_path / f"data/2000/{name}.2000_mem006.nc" for name in ("UGRD850", "VGRD850")]

    def at(place: int | None) -> None:
        if place == 0:
            for path in came:
                shutil.copy(tmp_path / "data/2000" / path.name.replace("006", "001"), path)

    campaign = campaign_of(tmp_path / "data", tmp_path / "out", "c20v3")
    outcomes = dict(bundle(campaign, 2001, [1, NOT_IN_2002], at=at))
    assert "path" in outcomes[0]
    assert "the data of 2000, member 6, have come or gone" in str(outcomes[1])


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_closed_before_its_end_it_leaves_nothing_behind(inputs: Path, tmp_path: Path, taken: int, cores: int) -> None:
    campaign = campaign_of(inputs / "c20", tmp_path)

    def open_files() -> list[str]:
        links = (str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
        return sorted(link for link in links if link.startswith((str(inputs), str(tmp_path))))

    threads = threading.enumerate()
    outcomes = bundle(campaign, 2001, [NOT_IN_2002, 1, 2], cores=cores)
    assert len([next(outcomes) for _ in range(taken)]) == taken
    outcomes.close()  # type: ignore[attr-defined]
    assert threading.enumerate() == threads
    assert open_files() == []
    assert len(results_in(tmp_path)) == taken


def test_every_step_of_a_file_is_read_once_for_all(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SourceReader.read
    steps: Counter[tuple[str, int]] = Counter()

    def counted(self: SourceReader, start: int, stop: int) -> Any:
        steps.update((self.source.path.name, step) for step in range(start, stop))
        return read(self, start, stop)

    monkeypatch.setattr(SourceReader, "read", counted)
    assert len([o for _, o in bundle(campaign_of(inputs / "c20", tmp_path), 2001, [1, 2]) if "path" in o]) == 2
    assert set(steps.values()) == {1}
    # Of 2000 the eight steps of the warm-up, 2001 whole, and 2002 as long as a storm of 2001 lives.
    assert {steps["u850_2000.nc", step] for step in range(12)} == {0}
    assert all(steps["v850_2001.nc", step] for step in range(48))
    steps.clear()
    assert len(dict(bundle(campaign_of(inputs / "cf", tmp_path / "cf", "cf"), 2001, [1, 2, 5, 6]))) == 4
    # Members 1 and 2 share chunks, and so do 5 and 6.
    assert {steps["u850_2001.nc", step] for step in range(48)} == {max(steps.values())} == {2}


def test_the_digest_of_a_file_is_computed_once(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while a file is so young that its digest cannot be kept."""
    from hashlib import file_digest

    shutil.copytree(inputs / "c20", tmp_path / "data")
    for path in (tmp_path / "data").rglob("*.nc"):
        os.utime(path)
    computed: list[str] = []

    def counted(file: Any, name: str) -> Any:
        computed.append(file.name)
        return file_digest(file, name)

    monkeypatch.setattr("stormtracks.inputs.hashlib.file_digest", counted)
    monkeypatch.setattr("stormtracks.inputs._SETTLED", 1e12)
    outcomes = dict(bundle(campaign_of(tmp_path / "data", tmp_path / "out"), 2002, [1, 2]))
    assert all("path" in outcome for outcome in outcomes.values())
    assert len(computed) == len(set(computed)) == 4


def test_a_file_of_all_members_is_followed_as_each_member_is(tmp_path: Path) -> None:
    files = write(SyntheticEnsemble((2001, 12, 25), (2002, 1, 7), members=3, grid=GRID), tmp_path, layout="cf")
    together = track_file(files, wind=("u850", "v850"))
    single = [track_file(files, wind=("u850", "v850"), member=member) for member in (1, 2, 3)]
    assert min(len(tracks) for tracks in single) > 3
    for name in ("row_size", "track_id", "member", "time", "lon", "lat", "value", "starts_cut", "ends_cut"):
        expected = np.concatenate([getattr(tracks, name) for tracks in single])
        np.testing.assert_array_equal(getattr(together, name), expected, err_msg=name)
    counts = [json.loads(str(tracks.attributes["counts"])) for tracks in single]
    assert json.loads(str(together.attributes["counts"])) == {name: sum(c[name] for c in counts) for name in counts[0]}
    assert together.attributes["inputs"] == single[0].attributes["inputs"]


def test_members_in_different_chunks_are_passed_one_after_the_other(inputs: Path) -> None:
    for layout, groups in (("cf", [(1, 2), (3,), (5, 6)]), ("c20", [(1, 2, 3, 5, 6)])):
        archive = open_archive(DataSettings(layout=layout, root=inputs / layout))
        assert archive.passes(2001, [6, 1, 2, 5, 3]) == groups
    archive = open_archive(DataSettings(layout="c20v3", root=inputs / "c20v3"))
    assert archive.passes(2001, [6, 1]) == [(6,), (1,)]
    with pytest.raises(ValueError, match="one by one"):
        archive.open_year(2001, [6, 1])


def test_files_that_cover_no_common_year_are_told_so(inputs: Path) -> None:
    files = [inputs / "cf/u850_2001.nc", inputs / "cf/v850_2002.nc"]
    with pytest.raises(InputError, match="no calendar year"):
        track_file(files, wind=("u850", "v850"))
