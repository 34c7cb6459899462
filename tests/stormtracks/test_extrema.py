"""Local maxima on the sphere: every seam, both poles, plateaus, and the position between grid points."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from stormtracks.extrema import Neighbourhood, from_tangent_plane, local_maxima, tangent_plane
from stormtracks.grid import EARTH_RADIUS_KM, Grid, great_circle_distance, unit_vectors

POLAR = Grid(np.linspace(-90, 90, 91), np.arange(0, 360, 2.0))
OFFSET = Grid(np.linspace(89, -89, 90), np.arange(-180, 180, 2.0))
GAUSSIAN = Grid(np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(94)[0])), np.arange(192) * 1.875)
REGION = Grid(np.linspace(20, 60, 21), np.arange(300, 341, 2.0))


def vortex(grid: Grid, lat: float, lon: float, radius_km: float) -> np.ndarray:
    points = unit_vectors(grid.lat[:, None], grid.lon)
    field = np.exp((EARTH_RADIUS_KM / radius_km) ** 2 * (points @ unit_vectors(lat, lon) - 1)).astype(np.float32)
    for pole in grid.pole_rows:
        field[pole] = field[pole, 0]
    return field[None]


def noise(grid: Grid, seed: int, steps: int = 2) -> np.ndarray:
    field = np.random.default_rng(seed).normal(size=(steps, *grid.shape))
    field = gaussian_filter(field, (0, 1, 1), mode=("nearest", "nearest", "wrap")).astype(np.float32)
    for pole in grid.pole_rows:
        field[:, pole] = field[:, pole, :1]
    return field


def by_definition(field: np.ndarray, grid: Grid) -> set[tuple[int, int, int]]:
    """Strict maxima point by point, for fields without ties on a global grid of two degrees."""
    nlat, nlon = grid.shape
    found = set()
    for step, row, col in np.ndindex(field.shape):
        if row in grid.pole_rows:
            beside = field[step, 1 if row == 0 else nlat - 2]
            if col == 0 and (field[step, row, 0] > beside).all():
                found.add((step, row, 0))
            continue
        around = []
        # As many columns to either side as span one row's height.
        reach = min(max(round(1 / np.cos(np.deg2rad(grid.lat[row]))), 1), nlon // 4)
        for drow in (-1, 0, 1):
            for dcol in range(-reach, reach + 1):
                if drow or dcol:
                    r, c = row + drow, col + dcol
                    if not 0 <= r < nlat:
                        r, c = row, c + nlon // 2
                    around.append(field[step, r, c % nlon])
        if (field[step, row, col] > np.array(around)).all():
            found.add((step, row, col))
    return found


@pytest.mark.parametrize("grid", [POLAR, OFFSET], ids=["pole rows", "half-offset"])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_definition(grid: Grid, seed: int) -> None:
    field = noise(grid, seed)
    found = local_maxima(field, Neighbourhood(grid))
    got = set(zip(found.step.tolist(), found.row.tolist(), found.col.tolist(), strict=True))
    assert got == by_definition(field, grid)
    assert len(got) > 200


def test_columns_that_lie_close_together_at_a_pole_are_no_places_of_their_own() -> None:
    # Rounding gives a row 2 degrees from the pole a ripple from column to column, 8 km apart.
    field = np.round(vortex(POLAR, 87.5, 40, 500) * 20).astype(np.float32)
    field[0, -2, ::7] += 0.25
    assert len(local_maxima(field, Neighbourhood(POLAR))) == 1


@pytest.mark.parametrize("grid", [POLAR, OFFSET, GAUSSIAN], ids=["pole rows", "half-offset", "gaussian"])
@given(lat=st.floats(-90, 90), lon=st.floats(-180, 360), radius=st.floats(250, 500))
def test_one_vortex_anywhere_is_one_maximum_within_a_cell(grid: Grid, lat: float, lon: float, radius: float) -> None:
    found = local_maxima(vortex(grid, lat, lon, radius), Neighbourhood(grid), threshold=0.05)
    assert len(found) == 1
    assert great_circle_distance(found.lat[0], found.lon[0], lat, lon) < 110


@given(lat=st.floats(-75, 75), lon=st.floats(0, 360), radius=st.floats(300, 500))
@example(lat=1.0, lon=1.0, radius=300.0)  # four grid points, two of them exactly alike
def test_refinement_finds_the_place_between_grid_points(lat: float, lon: float, radius: float) -> None:
    found = local_maxima(vortex(POLAR, lat, lon, radius), Neighbourhood(POLAR), threshold=0.05)
    assert great_circle_distance(found.lat[0], found.lon[0], lat, lon) < 15


@pytest.mark.parametrize(("lat", "lon"), [(90.0, 0.0), (-90.0, 0.0), (89.3, 77.0), (-89.6, 200.0)])
def test_a_vortex_on_a_pole_is_one_maximum(lat: float, lon: float) -> None:
    found = local_maxima(vortex(POLAR, lat, lon, 400), Neighbourhood(POLAR))
    assert len(found) == 1
    assert great_circle_distance(found.lat[0], found.lon[0], lat, lon) < 10


@given(st.integers(0, 179), st.integers(0, 1000))
def test_rolling_the_longitudes_moves_nothing(columns: int, seed: int) -> None:
    field = noise(POLAR, seed, 1)
    near = Neighbourhood(POLAR)
    plain, rolled = local_maxima(field, near), local_maxima(np.roll(field, columns, axis=2), near)
    there = sorted(zip(plain.lat.round(6), ((plain.lon + 2.0 * columns) % 360).round(6) % 360, strict=True))
    here = sorted(zip(rolled.lat.round(6), (rolled.lon % 360).round(6) % 360, strict=True))
    assert np.allclose(there, here, atol=2e-6)


@pytest.mark.parametrize("grid", [POLAR, OFFSET, GAUSSIAN], ids=["pole rows", "half-offset", "gaussian"])
def test_flipping_the_latitudes_mirrors_everything(grid: Grid) -> None:
    field = noise(grid, 3)
    flipped = Grid(grid.lat[::-1], grid.lon)
    one = local_maxima(field, Neighbourhood(grid))
    two = local_maxima(np.ascontiguousarray(field[:, ::-1]), Neighbourhood(flipped))
    a = sorted(zip(one.step, one.lat.round(6), one.lon.round(6), strict=True))
    b = sorted(zip(two.step, two.lat.round(6), two.lon.round(6), strict=True))
    assert np.allclose(a, b, atol=2e-6)


def test_a_plateau_is_one_centre_at_its_middle_even_across_the_seam() -> None:
    field = np.zeros((1, *POLAR.shape), np.float32)
    field[0, 60:63, [178, 179, 0, 1, 2]] = 1
    found = local_maxima(field, Neighbourhood(POLAR))
    assert len(found) == 1
    assert great_circle_distance(found.lat[0], found.lon[0], 32, 0) < 15


def test_two_equal_neighbours_are_one_centre_between_them() -> None:
    field = vortex(POLAR, 40, 101, 400)
    found = local_maxima(field, Neighbourhood(POLAR))
    assert len(found) == 1
    assert found.lon[0] == pytest.approx(101, abs=1e-3)


def test_a_shoulder_below_a_peak_and_a_constant_field_are_no_maxima() -> None:
    near = Neighbourhood(POLAR)
    field = np.zeros((1, *POLAR.shape), np.float32)
    assert len(local_maxima(field, near)) == 0
    field[0, 60:64, 100:104] = 1
    field[0, 61, 104] = 2
    found = local_maxima(field, near)
    assert [(found.row[0], found.col[0])] == [(61, 104)]
    assert len(found) == 1


def test_a_plateau_over_the_pole_is_one_centre() -> None:
    field = np.zeros((1, *POLAR.shape), np.float32)
    field[0, -2:] = 1
    found = local_maxima(field, Neighbourhood(POLAR))
    assert len(found) == 1
    assert found.lat[0] == pytest.approx(90)


def test_nothing_stands_beside_a_missing_value_or_on_the_edge_of_an_area() -> None:
    field = vortex(POLAR, 40, 100, 400)
    field[0, 64, 49] = np.nan
    assert len(local_maxima(field, Neighbourhood(POLAR), threshold=0.1)) == 0
    near = Neighbourhood(REGION)
    assert len(local_maxima(vortex(REGION, 40, 320, 400), near)) == 1
    assert len(local_maxima(vortex(REGION, 60, 320, 400), near)) == 0
    assert len(local_maxima(vortex(REGION, 40, 300, 400), near)) == 0


@given(st.integers(0, 100), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_fields_are_judged_one_by_one(seed: int, sizes: list[int]) -> None:
    field = noise(OFFSET, seed, sum(sizes))
    near = Neighbourhood(OFFSET)
    whole = local_maxima(field, near)
    lat, lon, start = [], [], 0
    for size in sizes:
        part = local_maxima(field[start : start + size], near)
        lat.append(part.lat)
        lon.append(part.lon)
        start += size
    assert np.concatenate(lat).tobytes() == whole.lat.tobytes()
    assert np.concatenate(lon).tobytes() == whole.lon.tobytes()


@given(st.floats(-90, 90), st.floats(0, 360), st.floats(-3000, 3000), st.floats(-3000, 3000))
def test_the_tangent_plane_keeps_distance_and_inverts(lat: float, lon: float, x: float, y: float) -> None:
    there = from_tangent_plane(np.array(lat), np.array(lon), np.array(x), np.array(y))
    assert great_circle_distance(lat, lon, *there) == pytest.approx(np.hypot(x, y), abs=1e-6)
    back = tangent_plane(lat, lon, *there)
    assert np.allclose(back, (x, y), atol=1e-5)
