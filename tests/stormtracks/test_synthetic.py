"""Synthetic ensembles: closed forms of vortex and noise, the truth in its bounds and in the fields, and the files."""

from __future__ import annotations

import itertools
import logging
import resource
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stormtracks.errors import InputError, ResultsError
from stormtracks.grid import EARTH_RADIUS_KM, Grid, great_circle_distance, unit_vectors
from stormtracks.synthetic import NoiseStatistics, StormStatistics, SyntheticEnsemble, write
from stormtracks.synthetic.noise import BLOCK_STEPS, Synthesis, red_noise
from stormtracks.synthetic.vortex import pressure_deficit, vortex_shape, vortex_wind
from stormtracks.times import decode_times
from stormtracks.tracks import Tracks
from stormtracks.vorticity import relative_vorticity

FloatArray = npt.NDArray[np.float64]

R = 1000 * EARTH_RADIUS_KM
CALM = NoiseStatistics(vorticity=0.0)
CROWD = StormStatistics(per_day=4.0)
NO_STORMS = StormStatistics(per_day=0.0)


def coarse(step: float = 6.0) -> Grid:
    return Grid(np.linspace(90, -90, round(180 / step) + 1), np.arange(0, 360, step))


def local_curl_and_divergence(at: tuple[float, float], **vortex: Any) -> tuple[float, float]:
    """Centred differences over 2 x 0.004 degrees round a point, with the metric term."""
    d = 0.004
    near = Grid(at[0] + np.array([-d, 0, d]), at[1] + np.array([-d, 0, d]))
    u, v = vortex_wind(near, **vortex)
    cosine = np.cos(np.deg2rad(near.lat))
    width = np.deg2rad(2 * d) * R
    curl = (v[1, 2] - v[1, 0]) - (u[2, 1] * cosine[2] - u[0, 1] * cosine[0])
    divergence = (u[1, 2] - u[1, 0]) + (v[2, 1] * cosine[2] - v[0, 1] * cosine[0])
    return curl / (width * cosine[1]), divergence / (width * cosine[1])


def assert_one_vector_on_each_pole(grid: Grid, u: FloatArray, v: FloatArray, *, atol: float) -> None:
    """Going round a pole, a vector turns against the axes: north at 0 is where east at 270 (or 90) points."""
    quarter = grid.shape[1] // 4
    for row in grid.pole_rows:
        sign = np.sign(grid.lat[row])
        np.testing.assert_allclose(v[..., row, :], sign * np.roll(u[..., row, :], -quarter, axis=-1), atol=atol)
        np.testing.assert_allclose(u[..., row, :].sum(axis=-1), 0, atol=atol * grid.shape[1])


def points_of(tracks: Tracks) -> npt.NDArray[np.int64]:
    """Index of the track of each record."""
    return np.repeat(np.arange(len(tracks)), tracks.row_size)


# --- the vortex


@settings(max_examples=60)
@given(
    lat0=st.floats(-90, 90),
    lon0=st.floats(0, 360),
    lat=st.floats(-88, 88),
    lon=st.floats(-180, 180),
    radius_km=st.floats(150, 6000),
    amplitude=st.sampled_from([1e-4, -1e-4]),
)
def test_vortex_has_the_vorticity_of_its_closed_form(
    lat0: float, lon0: float, lat: float, lon: float, radius_km: float, amplitude: float
) -> None:
    curl, divergence = local_curl_and_divergence(
        (lat, lon), lat=lat0, lon=lon0, amplitude=amplitude, radius_km=radius_km
    )
    distance = float(great_circle_distance(lat, lon, lat0, lon0)) / EARTH_RADIUS_KM
    kappa = (EARTH_RADIUS_KM / radius_km) ** 2
    mean = (1 - np.exp(-2 * kappa)) / (2 * kappa)
    assert curl == pytest.approx(amplitude * (np.exp(kappa * (np.cos(distance) - 1)) - mean), abs=1e-9)
    assert divergence == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("near", [0.0, 1.0, 30.0])
def test_vorticity_at_the_centre_is_the_amplitude_less_the_mean(near: float) -> None:
    curl, _ = local_curl_and_divergence((50.0, near), lat=50.0, lon=near, amplitude=2e-4, radius_km=300.0)
    assert curl == pytest.approx(2e-4 * (1 - 0.5 * (300 / EARTH_RADIUS_KM) ** 2), abs=1e-9)


@pytest.mark.parametrize("lat", [90.0, -90.0, 87.3, -60.0])
def test_vortex_is_regular_on_the_poles_at_its_centre_and_at_the_antipode(lat: float) -> None:
    grid = Grid(np.linspace(-90, 90, 91), np.arange(0, 360, 2.0))
    u, v = vortex_wind(grid, lat, 124.0, amplitude=1e-4, radius_km=400)
    assert np.isfinite(u).all() and np.isfinite(v).all()
    assert_one_vector_on_each_pole(grid, u, v, atol=1e-9)
    for at_lat, at_lon in ((lat, 124), (-lat, 304)):
        at = int(np.abs(grid.lat - at_lat).argmin()), int(np.abs(grid.lon - at_lon).argmin())
        if grid.lat[at[0]] == at_lat:
            assert np.hypot(u[at], v[at]) < 1e-5


def test_a_very_wide_vortex_is_solid_body_rotation() -> None:
    # With g = 1 + kappa (mu - 1) to first order, zeta = A kappa mu: that of rotation at the rate A kappa / 2.
    grid, radius_km = coarse(), 1000 * EARTH_RADIUS_KM
    u, v = vortex_wind(grid, 90.0, 0.0, amplitude=2e6, radius_km=radius_km)
    np.testing.assert_allclose(u, R * np.cos(np.deg2rad(grid.lat))[:, None] * np.ones(60), rtol=1e-4, atol=1)
    np.testing.assert_allclose(v, 0, atol=1e-3)


def test_pressure_is_lowest_at_the_centre_and_falls_off_with_the_radius() -> None:
    grid = Grid(np.array([40.0, 42.0, 44.0]), np.array([0.0, 2.0, 4.0]))
    deficit = pressure_deficit(grid, 42.0, 2.0, amplitude=-1e-4, radius_km=400)
    assert deficit[1, 1] == deficit.max() == pytest.approx(1.2e-4 * 1e-4 * 400e3**2)
    north = float(great_circle_distance(44, 2, 42, 2))
    shape = vortex_shape(grid, 42.0, 2.0, radius_km=north)
    assert shape[2, 1] == pytest.approx(np.exp(-0.5), rel=1e-3)


# --- the noise


def noise_vorticity(grid: Grid, statistics: NoiseStatistics, blocks: int, seed: int = 1) -> FloatArray:
    """Noise vorticity itself, by undoing the inverse Laplacian of the streamfunction; (blocks x steps, nlat, nlon)."""
    synthesis = Synthesis(grid, statistics.wavenumbers)
    coefficients = red_noise(synthesis, statistics, np.random.default_rng(seed))
    laplacian = -synthesis.degree * (synthesis.degree + 1) / R**2
    return np.concatenate([synthesis.streamfunction(next(coefficients) * laplacian) for _ in range(blocks)])


@pytest.fixture(scope="module")
def long_noise() -> FloatArray:
    return noise_vorticity(coarse(10.0), NoiseStatistics(), 100)


def test_noise_has_its_standard_deviation_and_no_mean(long_noise: FloatArray) -> None:
    weights = np.cos(np.deg2rad(coarse(10.0).lat))[:, None]
    variance = float((long_noise**2 * weights).mean() / weights.mean())
    assert np.sqrt(variance) == pytest.approx(1e-5, rel=0.01)
    assert np.abs((long_noise * weights).mean(axis=(1, 2))).max() < 0.01 * 1e-5


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_noise_is_red_in_time(long_noise: FloatArray, lag: int) -> None:
    product = (long_noise[lag:] * long_noise[:-lag])[:, 1:-1].mean()
    assert product / (long_noise[:, 1:-1] ** 2).mean() == pytest.approx(0.8**lag, abs=0.02)


def test_noise_starts_in_its_stationary_state() -> None:
    first = [noise_vorticity(coarse(10.0), NoiseStatistics(), 1, seed=seed)[0] for seed in range(60)]
    assert np.std(np.array(first)[:, 4:-4]) == pytest.approx(1e-5, rel=0.05)


def test_noise_is_as_strong_at_every_latitude_and_on_the_poles(long_noise: FloatArray) -> None:
    rows = long_noise.std(axis=(0, 2))
    np.testing.assert_allclose(rows, 1e-5, rtol=0.12)
    np.testing.assert_allclose(rows[2:-2], 1e-5, rtol=0.05)


def test_noise_is_isotropic(long_noise: FloatArray) -> None:
    """Points 20 degrees apart are as alike eastward as northward: as the spectrum's covariance function says."""
    degrees = np.arange(5, 18)
    share = degrees**-2.0 / np.sum(degrees**-2.0)
    expected = np.polynomial.legendre.legval(np.cos(np.deg2rad(20)), [0] * 5 + list(share))
    equator = 9
    eastward = (long_noise[:, equator] * np.roll(long_noise[:, equator], 2, axis=-1)).mean()
    northward = (long_noise[:, equator - 1] * long_noise[:, equator + 1]).mean()
    over_the_pole = (long_noise[:, 1] * np.roll(long_noise[:, 1], 18, axis=-1)).mean()
    for covariance in (eastward, northward, over_the_pole):
        assert covariance / 1e-10 == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize(("slope", "centre_of_spectrum"), [(-2.0, 8.3), (0.0, 11.0), (1.0, 12.3)])
def test_the_slope_sets_how_the_variance_falls_with_wavenumber(slope: float, centre_of_spectrum: float) -> None:
    statistics = NoiseStatistics(slope=slope)
    synthesis = Synthesis(coarse(10.0), statistics.wavenumbers)
    block = next(red_noise(synthesis, statistics, np.random.default_rng(0)))
    power = np.abs(block) ** 2 * np.where(synthesis.order == 0, 1, 2)
    assert (power * synthesis.degree).sum() / power.sum() == pytest.approx(centre_of_spectrum, abs=0.4)


def test_the_wind_of_noise_has_its_vorticity_and_is_one_vector_on_each_pole() -> None:
    grid = coarse(0.5)
    synthesis = Synthesis(grid, (5, 20))
    block = next(red_noise(synthesis, NoiseStatistics(), np.random.default_rng(3)))[:1]
    u, v = synthesis.eastward_wind(block), synthesis.northward_wind(block)
    zeta = synthesis.streamfunction(block * -synthesis.degree * (synthesis.degree + 1) / R**2)
    found = relative_vorticity(u.astype(np.float32), v.astype(np.float32), grid, order=4)
    np.testing.assert_allclose(found[:, 10:-10], zeta[:, 10:-10], atol=2e-8)
    assert_one_vector_on_each_pole(grid, u, v, atol=1e-9)
    assert np.hypot(u, v).max() < 40


@pytest.mark.parametrize(
    ("grid", "band"),
    [
        (coarse(1.0), (5, 89)),
        (Grid(np.linspace(-90, 90, 181), np.arange(-180, 180, 1.0)), (5, 89)),
        (Grid(np.arange(20, 72, 2.0), np.arange(-80, 42, 2.0)), (5, 89)),
        (Grid(np.array([-88.0, -87, -86, 30, 31, 32]), np.arange(0.0, 360, 60)), (1, 1)),
    ],
    ids=["finer", "ascending, from 180 west", "part of the globe", "few rows and columns"],
)
def test_noise_and_storms_are_the_same_on_every_grid(grid: Grid, band: tuple[int, int]) -> None:
    """Where grids share points they share values, so long as they resolve all wavenumbers."""

    def fields(on: Grid) -> tuple[npt.NDArray[np.float32], ...]:
        ensemble = SyntheticEnsemble(end=(2001, 12, 3), grid=on, noise=NoiseStatistics(wavenumbers=band))
        return ensemble.fields(1, 3, 6, ("u850", "v850", "prmsl"))

    two_degrees = SyntheticEnsemble().grid
    same_lat, row, two_row = np.intersect1d(grid.lat, two_degrees.lat, return_indices=True)
    same_lon, col, two_col = np.intersect1d(grid.lon % 360, two_degrees.lon, return_indices=True)
    assert len(same_lat) > 2 and len(same_lon) > 2
    for there, here, atol in zip(fields(grid), fields(two_degrees), (1e-4, 1e-4, 0.1), strict=True):
        np.testing.assert_allclose(there[:, row][..., col], here[:, two_row][..., two_col], atol=atol)


# --- the storms


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), member=st.integers(1, 40))
def test_storms_keep_within_their_bounds(seed: int, member: int) -> None:
    ensemble = SyntheticEnsemble(seed=seed, members=40)
    storms = ensemble.true_storms(member)
    truth = storms.tracks
    assert len(truth) >= 60
    assert ((storms.radius_km >= 250) & (storms.radius_km <= 500)).all()
    strength = truth.value * np.sign(truth.lat)
    assert strength.min() >= 6e-5 * (1 - 1e-6) and strength.max() <= 2.4e-4 * (1 + 1e-6)
    assert (truth.row_size[~truth.ends_cut] >= 10).all()
    assert (truth.row_size <= 33).all()
    assert np.abs(truth.lat).min() > 10
    assert ((truth.lon >= 0) & (truth.lon < 360)).all()
    within = np.diff(points_of(truth)) == 0
    step = great_circle_distance(truth.lat[:-1], truth.lon[:-1], truth.lat[1:], truth.lon[1:])[within]
    assert step.max() <= 30 * 21.6
    assert (np.diff(truth.time)[within] == 21600).all()
    assert not truth.starts_cut.any()


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), member=st.integers(1, 40))
def test_storms_keep_apart_in_every_member(seed: int, member: int) -> None:
    ensemble = SyntheticEnsemble(end=(2001, 12, 21), seed=seed, members=40, storms=CROWD)
    truth = ensemble.truth(member)
    xyz = unit_vectors(truth.lat, truth.lon)
    for time in np.unique(truth.time):
        here = xyz[truth.time == time]
        cosine = (here @ here.T)[~np.eye(len(here), dtype=bool)]
        assert cosine.max(initial=-1) <= np.cos(1500 / EARTH_RADIUS_KM)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_none_is_born_where_another_has_just_died(seed: int) -> None:
    """Within 12 hours, not where the dead one would be by then: a tracker would take the two lives for one."""
    storms = SyntheticEnsemble(end=(2001, 12, 21), seed=seed, storms=CROWD).catalogue
    since_death = storms.birth[None, :] - storms.death[:, None]
    dead, born = np.nonzero((since_death > 0) & (since_death <= 12))
    assert len(dead) > 10
    cosine = (storms.positions(dead, storms.birth[born]) * storms.positions(born, storms.birth[born])).sum(axis=1)
    assert cosine.max() <= np.cos(1500 / EARTH_RADIUS_KM)


@pytest.mark.parametrize("seed", range(5))
def test_some_storms_pass_over_each_pole_each_seam_and_the_new_year(seed: int) -> None:
    ensemble = SyntheticEnsemble(seed=seed)
    truth = ensemble.truth(3)
    assert truth.lat.max() > 85 and truth.lat.min() < -85
    within = (np.diff(points_of(truth)) == 0) & (np.abs(truth.lat[1:]) < 75)
    for meridian in (0, 180):
        east_of_it = (truth.lon - meridian + 180) % 360 - 180
        steps = np.abs(np.diff(east_of_it)) < 90
        assert (within & steps & (np.diff(np.sign(east_of_it)) != 0)).sum() >= 2
    last = np.cumsum(truth.row_size) - 1
    new_year = decode_times([0.0], "seconds since 2002-01-01").seconds[0]
    over = (truth.time[last] >= new_year) & (truth.year == 2001)
    assert over.sum() >= 2


def test_track_ids_count_within_the_year_of_the_first_point() -> None:
    truth = SyntheticEnsemble(seed=4).truth(1)
    for year in (2001, 2002):
        np.testing.assert_array_equal(truth.track_id[truth.year == year], 1 + np.arange((truth.year == year).sum()))
    first = np.cumsum(truth.row_size) - truth.row_size
    years = decode_times(truth.time[first], "seconds since 1970-01-01").years()
    np.testing.assert_array_equal(truth.year, years)
    assert truth.quantity.standard_name == "atmosphere_relative_vorticity" and truth.quantity.units == "s-1"


def test_a_storm_that_outlives_the_data_is_cut_and_flagged() -> None:
    short = SyntheticEnsemble(end=(2002, 1, 20), seed=2)
    truth = short.truth(2)
    last = np.cumsum(truth.row_size) - 1
    at_the_end = truth.time[last] == short.times.seconds[-1]
    assert truth.ends_cut.any()
    assert at_the_end[truth.ends_cut].all()
    assert not truth.ends_cut[~at_the_end].any()


def test_members_differ_as_an_ensemble_does() -> None:
    ensemble = SyntheticEnsemble(seed=6)
    one, two = ensemble.true_storms(1), ensemble.true_storms(2)
    # The first storm is born well before the second in both: it is the same one.
    a, b = (member.tracks.row_size[0] for member in (one, two))
    common, at_a, at_b = np.intersect1d(one.tracks.time[:a], two.tracks.time[:b], return_indices=True)
    distance = great_circle_distance(
        one.tracks.lat[:a][at_a], one.tracks.lon[:a][at_a], two.tracks.lat[:b][at_b], two.tracks.lon[:b][at_b]
    )
    assert len(common) >= 6
    assert distance.min() > 0
    assert distance.max() <= 2 * 120
    assert one.radius_km[0] != two.radius_km[0]


def test_storms_do_not_depend_on_step_or_grid() -> None:
    six, three = SyntheticEnsemble().truth(2), SyntheticEnsemble(step_hours=3, grid=coarse()).truth(2)
    every_six_hours = three.time % 21600 == 0
    order_six = np.lexsort((six.lat, six.time))
    order_three = np.flatnonzero(every_six_hours)[np.lexsort((three.lat[every_six_hours], three.time[every_six_hours]))]
    for name in ("time", "lat", "lon", "value"):
        np.testing.assert_array_equal(getattr(six, name)[order_six], getattr(three, name)[order_three])


def test_too_many_storms_are_left_out_and_that_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    crowded = SyntheticEnsemble(end=(2001, 12, 11), storms=StormStatistics(per_day=20.0))
    with caplog.at_level(logging.WARNING):
        fitted = len(crowded.catalogue)
    assert 20 < fitted < 200
    assert f"{200 - fitted} of 200" in caplog.text


def test_no_storms_at_all() -> None:
    truth = SyntheticEnsemble(storms=NO_STORMS).truth(1)
    assert len(truth) == 0 and len(truth.time) == 0


# --- the truth in the fields


def test_maxima_of_the_fields_are_where_the_truth_says() -> None:
    ensemble = SyntheticEnsemble(end=(2001, 12, 17), noise=CALM, seed=3)
    truth, grid = ensemble.truth(1), ensemble.grid
    u, v = ensemble.fields(1, 0, len(ensemble.times))
    cyclonic = relative_vorticity(u, v, grid, order=4) * np.sign(grid.lat)[:, None]
    step = np.searchsorted(ensemble.times.seconds, truth.time)
    lats, lons = np.meshgrid(grid.lat, grid.lon, indexing="ij")
    error = []
    for i in range(len(step)):
        distance = great_circle_distance(truth.lat[i], truth.lon[i], lats, lons)
        near = np.where(distance < 700, cyclonic[step[i]], -np.inf)
        top = np.unravel_index(near.argmax(), near.shape)
        error.append(distance[top])
        assert near[top] == pytest.approx(abs(truth.value[i]), rel=0.35)
    assert np.abs(truth.lat).max() > 88
    assert len(error) > 200
    # Half the diagonal of a cell of two degrees, and a little for the differences.
    assert max(error) < 157 + 15
    assert np.mean(error) < 85


def test_pressure_is_lowest_where_the_truth_says() -> None:
    ensemble = SyntheticEnsemble(end=(2001, 12, 9), noise=CALM, seed=3)
    truth, grid = ensemble.truth(1), ensemble.grid
    (pressure,) = ensemble.fields(1, 0, len(ensemble.times), ("prmsl",))
    step = np.searchsorted(ensemble.times.seconds, truth.time)
    lats, lons = np.meshgrid(grid.lat, grid.lon, indexing="ij")
    for i in range(len(step)):
        distance = great_circle_distance(truth.lat[i], truth.lon[i], lats, lons)
        near = np.where(distance < 700, pressure[step[i]], np.inf)
        assert distance.flat[near.argmin()] < 157 + 5
    assert pressure.max() <= 101325
    assert 92000 < pressure.min() < 101000


# --- the same again


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 43), max_size=5, unique=True))
def test_blocks_do_not_show(cuts: list[int]) -> None:
    ensemble = SyntheticEnsemble(end=(2001, 12, 12), grid=coarse())
    edges = [0, *sorted(cuts), len(ensemble.times)]
    whole = ensemble.fields(2, 0, len(ensemble.times), ("u850", "v850", "prmsl"))
    parts = [ensemble.fields(2, a, b, ("u850", "v850", "prmsl")) for a, b in itertools.pairwise(edges)]
    for field, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(field, np.concatenate(pieces))
    assert [len(u) for u, _ in ensemble.blocks(2)] == [BLOCK_STEPS, BLOCK_STEPS, 44 - 2 * BLOCK_STEPS]


def test_a_member_does_not_depend_on_how_many_there_are() -> None:
    few, many = (SyntheticEnsemble(end=(2001, 12, 8), members=n, grid=coarse()) for n in (2, 9))
    np.testing.assert_array_equal(few.truth(2).lat, many.truth(2).lat)
    np.testing.assert_array_equal(few.fields(2, 0, 20), many.fields(2, 0, 20))


def test_seeds_and_members_differ() -> None:
    ensemble = SyntheticEnsemble(end=(2001, 12, 8), grid=coarse())
    u, _ = ensemble.fields(1, 0, 4)
    assert (u != ensemble.fields(2, 0, 4)[0]).any()
    assert (u != SyntheticEnsemble(end=(2001, 12, 8), grid=coarse(), seed=1).fields(1, 0, 4)[0]).any()


# --- the files


def small(**options: Any) -> SyntheticEnsemble:
    made: dict[str, Any] = {"start": (2001, 12, 30), "end": (2002, 1, 3), "members": 3, "grid": coarse(), "seed": 5}
    return SyntheticEnsemble(**(made | options))


def stacked(ensemble: SyntheticEnsemble, name: str) -> npt.NDArray[np.float32]:
    """All of one variable, (time, member, lat, lon)."""
    members = [ensemble.fields(k, 0, len(ensemble.times), (name,))[0] for k in range(1, ensemble.members + 1)]
    return np.stack(members, axis=1)


def read_all(paths: Sequence[Path], name: str) -> npt.NDArray[np.float32]:
    parts = []
    for path in paths:
        with netCDF4.Dataset(path) as dataset:
            parts.append(np.ma.getdata(dataset[name][:]))
    return np.concatenate(parts)


def test_c20_has_one_file_a_year_and_variable_with_all_members_in_a_chunk(tmp_path: Path) -> None:
    ensemble = small()
    paths = write(ensemble, tmp_path, layout="c20", variables=("u850", "v850", "prmsl"))
    names = [f"{year}/{name}_{year}.nc" for year in (2001, 2002) for name in ("prmsl", "u850", "v850")]
    assert [str(path.relative_to(tmp_path)) for path in paths] == names
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == paths
    with netCDF4.Dataset(tmp_path / "2001" / "u850_2001.nc") as dataset:
        u = dataset["u850"]
        assert u.dimensions == ("time", "member", "lat", "lon")
        assert u.shape == (8, 3, 31, 60) and u.dtype == np.float32 and u.units == "m s-1"
        assert u.chunking() == [1, 3, 31, 60]
        assert u.filters()["zlib"] and u.filters()["shuffle"] and u.filters()["complevel"] == 1
        np.testing.assert_array_equal(dataset["member"][:], [1, 2, 3])
        np.testing.assert_array_equal(dataset["lat"][:], ensemble.grid.lat)
        assert dataset["time"].units == "hours since 1-1-1 00:00:0.0"
        # The mixed calendar counts two days more since the year 1 than the proleptic one, which Python's dates use.
        assert dataset["time"][0] == 24 * (date(2001, 12, 30).toordinal() - date(1, 1, 1).toordinal() + 2)
        times = decode_times(dataset["time"][:], dataset["time"].units)
        np.testing.assert_array_equal(times.seconds, ensemble.times.seconds[:8])
    for name in ("u850", "v850", "prmsl"):
        of_name = [path for path in paths if path.name.startswith(name)]
        np.testing.assert_array_equal(read_all(of_name, name), stacked(ensemble, name))


def test_c20v3_has_one_file_a_year_variable_and_member(tmp_path: Path) -> None:
    ensemble = small()
    paths = write(ensemble, tmp_path, layout="c20v3", variables=("u850", "prmsl"))
    assert len(paths) == 2 * 2 * 3
    for k in (1, 2, 3):
        mine = [tmp_path / str(year) / f"UGRD850.{year}_mem{k:03d}.nc" for year in (2001, 2002)]
        np.testing.assert_array_equal(read_all(mine, "UGRD850"), stacked(ensemble, "u850")[:, k - 1])
    with netCDF4.Dataset(tmp_path / "2002" / "PRMSL.2002_mem002.nc") as dataset:
        assert dataset["PRMSL"].dimensions == ("time", "lat", "lon")
        assert dataset["PRMSL"].units == "Pa"
        assert dataset["PRMSL"].chunking() == [1, 31, 60]
        times = decode_times(dataset["time"][:], dataset["time"].units)
        np.testing.assert_array_equal(times.seconds, ensemble.times.seconds[8:])


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day", "proleptic_gregorian", "julian"])
@pytest.mark.parametrize("ascending", [False, True])
def test_cf_files_follow_the_convention_in_any_calendar(tmp_path: Path, calendar: str, ascending: bool) -> None:
    grid = Grid(np.linspace(-87, 87, 30), np.arange(-180, 180, 6.0)) if ascending else coarse()
    ensemble = small(calendar=calendar, grid=grid, end=(2002, 1, 2), step_hours=3)
    paths = write(ensemble, tmp_path, layout="cf")
    assert [path.name for path in paths] == ["u850_2001.nc", "u850_2002.nc", "v850_2001.nc", "v850_2002.nc"]
    with xr.open_dataset(paths[0]) as first, xr.open_dataset(paths[1]) as second:
        data = xr.concat([first, second], dim="time", data_vars="minimal", coords="minimal", compat="equals")
        u = data["u850"]
        assert u.dims == ("time", "realization", "lat", "lon")
        assert u.attrs["standard_name"] == "eastward_wind" and u.attrs["units"] == "m s-1"
        assert data.attrs["Conventions"] == "CF-1.11"
        assert float(data["plev"]) == 85000 and data["plev"].attrs["units"] == "Pa"
        standard_names = {"time": "time", "realization": "realization", "lat": "latitude", "lon": "longitude"}
        for axis, name in standard_names.items():
            assert data[axis].attrs["standard_name"] == name
        assert data["time"].encoding["calendar"] == calendar
        stamps = [(t.year, t.month, t.day, t.hour) for t in data.indexes["time"]]
        assert stamps == [(t.year, t.month, t.day, t.hour) for t in ensemble.times.dates()]
        np.testing.assert_array_equal(data["lon"], grid.lon)
        np.testing.assert_array_equal(u, stacked(ensemble, "u850"))


def test_cf_without_member_axis_and_packed(tmp_path: Path) -> None:
    ensemble = small(members=1)
    variables = ("u850", "prmsl")
    paths = write(ensemble, tmp_path, layout="cf", variables=variables, member_axis=False, packed=True)
    for name, half_a_step in (("u850", 0.0025), ("prmsl", 0.25)):
        of_name = [path for path in paths if path.name.startswith(name)]
        with netCDF4.Dataset(of_name[0]) as dataset:
            assert dataset[name].dtype == np.int16
            assert dataset[name].dimensions == ("time", "lat", "lon")
            assert dataset[name].coordinates == "plev" if name == "u850" else "plev" not in dataset.variables
        np.testing.assert_allclose(read_all(of_name, name), stacked(ensemble, name)[:, 0], atol=1.02 * half_a_step)


def test_written_again_the_files_are_the_same_bytes(tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in write(small(), tmp_path)}
    again = write(small(), tmp_path)
    assert {path.name: path.read_bytes() for path in again} == first


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "2002").write_text("a file where a folder should be")
    with pytest.raises(ResultsError, match=r"2002/u850_2002\.nc cannot be written"):
        write(small(), tmp_path)
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["2002", "u850_2001.nc", "v850_2001.nc"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ResultsError, match=r"_2001\.nc cannot be written.*\n.*remedy: free some space"):
            write(small(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert len(write(small(), tmp_path)) == 4


# --- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "0 members"),
        ({"step_hours": 0.0}, "time step"),
        ({"step_hours": 1 / 7}, "time step"),
        ({"end": (2001, 12, 1)}, "empty"),
        ({"end": (2001, 12, 31), "calendar": "360_day"}, "360_day"),
        ({"calendar": "maya"}, "maya"),
    ],
)
def test_impossible_ensembles_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SyntheticEnsemble(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"radius_km": (500.0, 250.0)},
        {"speed": (0.0, 27.0)},
        {"weakest": 2e-4},
        {"per_day": -1.0},
        {"min_latitude": 85.0},
        {"spread_km": 400.0},
    ],
)
def test_impossible_storms_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        StormStatistics(**options)


@pytest.mark.parametrize("options", [{"vorticity": -1.0}, {"autocorrelation": 1.0}, {"wavenumbers": (5, 4)}])
def test_impossible_noise_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        NoiseStatistics(**options)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (Grid(np.linspace(-80, 80, 17), np.arange(0, 350, 7.0)), "do not close"),
        (Grid(np.linspace(-60, 60, 3), np.arange(0, 360, 60.0)), "up to 2"),
    ],
)
def test_noise_says_which_grids_it_cannot_serve(grid: Grid, message: str) -> None:
    noisy = SyntheticEnsemble(end=(2001, 12, 2), grid=grid)
    with pytest.raises(InputError, match=message):
        noisy.fields(1, 0, 1)
    assert np.isfinite(SyntheticEnsemble(end=(2001, 12, 2), grid=grid, noise=CALM).fields(1, 0, 1)).all()


def test_unknown_members_variables_and_layouts_are_named(tmp_path: Path) -> None:
    ensemble = small()
    with pytest.raises(InputError, match="member 4 of an ensemble of 3"):
        ensemble.truth(4)
    with pytest.raises(InputError, match="t850"):
        write(ensemble, tmp_path, variables=("u850", "t850"))
    with pytest.raises(InputError, match="era5"):
        write(ensemble, tmp_path, layout="era5")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="3 members and no member axis"):
        write(ensemble, tmp_path, layout="cf", member_axis=False)
    with pytest.raises(InputError, match="360_day"):
        write(small(calendar="360_day"), tmp_path, layout="c20")
    assert not any(tmp_path.iterdir())
