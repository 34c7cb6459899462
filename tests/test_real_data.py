"""Real reanalyses through the command that a user types, with the campaigns of settings/examples."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import huracanpy
import netCDF4
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from stormtracks.grid import Grid, great_circle_distance
from stormtracks.match import match_tracks
from stormtracks.synthetic import SyntheticEnsemble, write
from stormtracks.tracks import Tracks, concatenate, read_tracks

EXAMPLES = Path(__file__).resolve().parents[1] / "settings" / "examples"
HOUR = 3600
DECEMBER, MARCH = (int(np.datetime64(day, "s").astype(np.int64)) for day in ("2025-12-01", "2026-03-01"))

FloatArray = npt.NDArray[np.float64]


def stormtracks(*arguments: str | Path, **settings: str | Path) -> str:
    """Run a command, with settings in its environment; what it printed."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("STORMTRACKS_")}
    environment |= {f"STORMTRACKS_{name}": str(value) for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "stormtracks.cli", *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Run:
    """A campaign that has run: where its results are and what it said last."""

    out: Path
    last_line: str

    @cached_property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.out.glob("results/vort_track/*/*.nc"))}

    @cached_property
    def tracks(self) -> Tracks:
        return concatenate([read_tracks(path) for path in sorted(self.out.glob("results/vort_track/*/*.nc"))])


def run(example: str, root: Path, out: Path, *options: str, **settings: str) -> Run:
    lines = stormtracks("run", EXAMPLES / f"{example}.toml", "--out", out, *options, DATA__ROOT=root, **settings)
    return Run(out, lines.splitlines()[-1])


@pytest.fixture(scope="module")
def seasons(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The winter of 2025/26 by pressure, by vorticity and by the vorticity of the wind."""
    out = tmp_path_factory.mktemp("era5")
    names = ("pressure", "vorticity", "wind")
    return {name: run(f"era5_{name}", shared_data / "era5_djf", out / name) for name in names}


@pytest.fixture(scope="module")
def great_storm(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The members' minima of pressure on 16 October 1987, 06 UTC, over north-west Europe."""
    out = tmp_path_factory.mktemp("20cr2c")
    return run("20cr2c_october_1987", shared_data / "20cr2c_1987101606", out, "--workers", "2")


def first_records(tracks: Tracks) -> npt.NDArray[np.int64]:
    return np.asarray(np.cumsum(tracks.row_size) - tracks.row_size)


def speeds(tracks: Tracks) -> FloatArray:
    """Of each step of each track, in m/s."""
    here = np.setdiff1d(np.arange(len(tracks.time)), first_records(tracks) + tracks.row_size - 1)
    km = great_circle_distance(tracks.lat[here], tracks.lon[here], tracks.lat[here + 1], tracks.lon[here + 1])
    return np.asarray(1000 * km / (tracks.time[here + 1] - tracks.time[here]))


@pytest.mark.parametrize(
    ("name", "number", "median_speed"),
    [("pressure", (400, 620), (6, 10)), ("vorticity", (1600, 2300), (8, 11)), ("wind", (750, 1050), (9, 12))],
)
def test_a_winter_of_era5(
    seasons: dict[str, Run], name: str, number: tuple[int, int], median_speed: tuple[float, float]
) -> None:
    season, tracks = seasons[name], seasons[name].tracks
    assert re.match(rf"1 of 1 tasks complete; {len(tracks)} tracks; ", season.last_line)
    assert list(season.files) == ["m001.nc"]
    assert number[0] < len(tracks) < number[1]
    assert set(tracks.year.tolist()) == {2025}
    assert tracks.row_size.min() >= 8
    assert set(np.unique(tracks.time % (6 * HOUR))) == {0}
    assert median_speed[0] < np.median(speeds(tracks)) < median_speed[1]
    assert speeds(tracks).max() <= 40.01


@pytest.mark.parametrize("name", ["pressure", "vorticity", "wind"])
def test_others_read_the_files(seasons: dict[str, Run], name: str) -> None:
    tracks = seasons[name].tracks
    (path,) = seasons[name].out.glob("results/vort_track/2025/m001.nc")
    with xr.open_dataset(path) as dataset:
        np.testing.assert_array_equal(dataset["row_size"], tracks.row_size)
        assert dataset["time"].values.min() == np.datetime64("2025-12-01T00:00:00")
        assert dataset["time"].values.max() == np.datetime64("2026-02-28T18:00:00")
    records = huracanpy.load(str(path))
    assert len(np.unique(records["track_id"])) == len(tracks)
    np.testing.assert_array_equal(records["lat"], tracks.lat)


@pytest.mark.parametrize("name", ["pressure", "vorticity", "wind"])
def test_tracks_are_cut_where_data_or_region_end_and_nowhere_else(seasons: dict[str, Run], name: str) -> None:
    tracks = seasons[name].tracks
    first, last = first_records(tracks), first_records(tracks) + tracks.row_size - 1
    at_start, at_end = tracks.time[first] == DECEMBER, tracks.time[last] == MARCH - 6 * HOUR
    assert at_start.any() and at_end.any()
    assert tracks.starts_cut[at_start].all() and tracks.ends_cut[at_end].all()
    # The region ends at 70 S: no storm goes more than 8 degrees in six hours.
    assert tracks.lat.min() >= -70
    assert tracks.lat[first][tracks.starts_cut & ~at_start].max() < -62
    assert tracks.lat[last][tracks.ends_cut & ~at_end].max() < -62


def test_the_deepest_lows_are_tracked(seasons: dict[str, Run], shared_data: Path) -> None:
    tracks = seasons["pressure"].tracks
    with netCDF4.Dataset(shared_data / "era5_djf" / "prmsl.nc") as dataset:
        field, lat, lon = (np.asarray(dataset[name][:]) for name in ("prmsl", "lat", "lon"))
    for region, tracked in ((lat > 0, tracks.lat > 0), ((lat < 0) & (lat >= -70), tracks.lat < 0)):
        step, row, column = np.unravel_index(np.argmin(field[:, region]), field[:, region].shape)
        deepest = int(np.argmin(np.where(tracked, tracks.value, np.inf)))
        assert tracks.value[deepest] == pytest.approx(field[:, region].min(), rel=5e-7)
        assert tracks.time[deepest] == DECEMBER + 6 * HOUR * step
        # Off the grid point by half a cell at most.
        assert abs(tracks.lat[deepest] - lat[region][row]) <= 1.25
        assert abs(tracks.lon[deepest] - lon[column]) <= 1.25


@pytest.mark.parametrize(("name", "share", "distance_km"), [("vorticity", 0.6, 280), ("wind", 0.7, 250)])
def test_strong_lows_have_a_track_of_vorticity(
    seasons: dict[str, Run], name: str, share: float, distance_km: float
) -> None:
    pressure = seasons["pressure"].tracks
    strong = np.minimum.reduceat(pressure.value, first_records(pressure)) <= 97500
    assert strong.sum() > 150
    matches = match_tracks(seasons[name].tracks, pressure)
    matches = matches[strong[matches.reference]]
    assert len(matches) >= share * strong.sum()
    assert np.average(matches.mean_distance_km, weights=matches.points) < distance_km


def test_a_season_is_the_same_when_it_runs_again(seasons: dict[str, Run], shared_data: Path, tmp_path: Path) -> None:
    again = run("era5_wind", shared_data / "era5_djf", tmp_path, "--workers", "1")
    assert again.files == seasons["wind"].files
    written = (tmp_path / "results/vort_track/2025/m001.nc").stat().st_mtime_ns
    resumed = run("era5_wind", shared_data / "era5_djf", tmp_path)
    assert resumed.last_line.startswith(f"1 of 1 tasks complete (1 already before); {len(again.tracks)} tracks; ")
    assert (tmp_path / "results/vort_track/2025/m001.nc").stat().st_mtime_ns == written


def test_files_are_tracked_without_a_campaign(seasons: dict[str, Run], shared_data: Path, tmp_path: Path) -> None:
    files = [shared_data / "era5_djf" / f"{name}.nc" for name in ("u850", "v850")]
    out = tmp_path / "tracks.nc"
    options = ("--wind", "u850,v850", "--min-points", "8", "-o", str(out))
    lines = stormtracks("track", *files, *options, DETECTION__REGION="[0, -70, 360, 90]").splitlines()
    tracks = read_tracks(out)
    assert lines[0] == "time steps: 360"
    assert lines[-1] == f"{len(tracks)} tracks of {len(tracks.time)} points written to {out}"
    # Of second order, which sees a smaller vorticity than the campaign's fourth.
    assert 0.7 < len(tracks) / len(seasons["wind"].tracks) < 0.9
    assert len(match_tracks(tracks, seasons["wind"].tracks)) > 0.8 * len(tracks)


def test_the_great_storm_of_1987_is_in_every_member(great_storm: Run) -> None:
    tracks = great_storm.tracks
    assert great_storm.last_line.startswith(f"56 of 56 tasks complete; {len(tracks)} tracks; ")
    assert set(tracks.row_size.tolist()) == {1}
    # The data begin and end at this one time.
    assert tracks.starts_cut.all() and tracks.ends_cut.all()
    assert set(tracks.time.tolist()) == {int(np.datetime64("1987-10-16T06:00:00", "s").astype(np.int64))}

    storm = great_circle_distance(55.0, -0.7, tracks.lat, tracks.lon) < 500
    assert tracks.member[storm].tolist() == list(range(1, 57))
    depth = tracks.value[storm] / 100
    assert depth.mean() == pytest.approx(965.7, abs=0.5)
    assert 0.2 < depth.std(ddof=1) < 0.5
    lat, lon = tracks.lat[storm], (tracks.lon[storm] + 180) % 360 - 180
    assert (lat.mean(), lon.mean()) == (pytest.approx(55.0, abs=0.3), pytest.approx(-0.7, abs=0.3))
    distance = great_circle_distance(lat.mean(), lon.mean(), lat, lon)
    assert 3 < np.sqrt((distance**2).mean()) < 10
    # Nothing else over north-west Europe but a second centre west of Ireland in some members, far shallower.
    assert (~storm).sum() < 15
    assert tracks.value[~storm].min() > 97900


def test_members_are_the_same_whoever_else_is_tracked(great_storm: Run, shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "20cr2c_1987101606"
    some = run("20cr2c_october_1987", root, tmp_path, "--workers", "1", MEMBERS="1,17,56")
    assert some.files == {name: great_storm.files[name] for name in ("m001.nc", "m017.nc", "m056.nc")}


def test_the_great_storm_in_the_wind_at_10_metres(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "20cr2c_1987101606"
    files = [root / f"20CR2c.1987101606.{component}wnd.10m.nc" for component in "uv"]
    stormtracks("track", *files, "--wind", "u10m,v10m", "--min-points", "1", "-o", tmp_path / "tracks.nc")
    tracks = read_tracks(tmp_path / "tracks.nc")
    storm = great_circle_distance(55.0, -0.7, tracks.lat, tracks.lon) < 500
    assert tracks.member[storm].tolist() == list(range(1, 57))
    assert tracks.value[storm].mean() == pytest.approx(1.19e-4, rel=0.05)
    # South of the centre of pressure, towards the strongest wind.
    assert (tracks.lat[storm].mean(), tracks.lon[storm].mean()) == (
        pytest.approx(53.2, abs=0.5),
        pytest.approx(358.5, abs=0.8),
    )


@pytest.mark.parametrize(("example", "layout"), [("20cr_v2_atlantic", "c20"), ("20cr_v3", "c20v3")])
def test_the_other_examples_run_on_files_in_their_layout(example: str, layout: str, tmp_path: Path) -> None:
    grid = Grid(np.linspace(90, -90, 61), np.arange(0, 360, 3.0))
    write(
        SyntheticEnsemble((1955, 8, 1), (1955, 9, 1), members=2, grid=grid),
        tmp_path / "data",
        layout="c20" if layout == "c20" else "c20v3",
    )
    done = run(example, tmp_path / "data", tmp_path / "out", YEARS="1955", MEMBERS="1-2")
    assert done.last_line.startswith("2 of 2 tasks complete; ")
    assert list(done.files) == ["m001.nc", "m002.nc"]
    assert len(done.tracks) > 0
