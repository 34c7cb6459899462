"""Local maxima on the sphere: every seam, both poles, plateaus, and the position between grid points."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from stormtracks.extrema import local_maxima
from stormtracks.grid import EARTH_RADIUS_KM, Grid, great_circle_distance, unit_vectors
from stormtracks.neighbourhood import Neighbourhood
from stormtracks.tangent_plane import tangent_plane

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


def neighbours(grid: Grid, row: int, col: int) -> list[tuple[int, int] | None]:
    """All points that touch one, each as often as it is met; None where the area ends."""
    nlat, nlon = grid.shape
    if row in grid.pole_rows:
        return [(1 if row == 0 else nlat - 2, other) for other in range(nlon)]
    # As many columns to either side as span one row's height.
    height = np.gradient(grid.lat)[row] / grid.lon_step
    reach = min(max(round(abs(height) / max(np.cos(np.deg2rad(grid.lat[row])), 1e-3)), 1), max(nlon // 4, 1))
    touched: list[tuple[int, int] | None] = []
    for drow in (-1, 0, 1):
        for dcol in range(-reach, reach + 1):
            r, c = row + drow, col + dcol
            if drow == dcol == 0:
                continue
            if not 0 <= r < nlat:
                if not grid.reaches_pole(0 if r < 0 else -1):
                    touched.append(None)
                    continue
                r, c = row, c + nlon // 2
            if not grid.periodic and not 0 <= c < nlon:
                touched.append(None)
                continue
            touched.append((r, 0 if r in grid.pole_rows else c % nlon))
    return touched


def by_definition(field: np.ndarray, grid: Grid, threshold: float) -> list[tuple[int, int]]:
    """First points of the maxima of one field, point by point and plateau by plateau."""
    strict, level = set(), {}
    for row, col in np.ndindex(grid.shape):
        around = neighbours(grid, row, col)
        if (row in grid.pole_rows and (col > 0 or not grid.periodic)) or None in around:
            continue
        values = [field[point] for point in around]
        if field[row, col] >= threshold and all(field[row, col] >= value for value in values):
            if all(field[row, col] > value for value in values):
                strict.add((row, col))
            else:
                level[row, col] = {point for point in around if field[point] == field[row, col]}
    return sorted(strict | {min(plateau) for plateau in plateaus(level) if is_top(plateau, level, field, grid)})


def plateaus(level: dict[tuple[int, int], set[tuple[int, int]]]) -> list[set[tuple[int, int]]]:
    """Points of equal height that touch, directly or through others."""
    groups: list[set[tuple[int, int]]] = []
    for point, equal in level.items():
        touching = [
            group for group in groups if point in group or equal & group or any(point in level[p] for p in group)
        ]
        groups = [group for group in groups if group not in touching] + [{point}.union(*touching)]
    return groups


def is_top(
    plateau: set[tuple[int, int]], level: dict[tuple[int, int], set[tuple[int, int]]], field: np.ndarray, grid: Grid
) -> bool:
    """Whether nothing goes on from a plateau on its own height, and something lies lower."""
    whole = set().union(*(level[point] for point in plateau)) <= plateau
    return whole and any(field[other] < field[point] for point in plateau for other in neighbours(grid, *point))


SMALL = {
    "pole rows": Grid(np.linspace(-90, 90, 13), np.arange(0, 360, 15.0)),
    "half-offset": Grid(np.linspace(82.5, -82.5, 12), np.arange(-180, 180, 15.0)),
    "odd half-offset": Grid(np.linspace(82.5, -82.5, 12), np.arange(23) * (360 / 23)),
    "gaussian": Grid(np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(12)[0])), np.arange(0, 360, 15.0)),
    "uneven": Grid(np.array([-90, -88, -70, -35, -20, 3, 5, 40, 80, 86, 90.0]), np.arange(0, 360, 12.0)),
    "area": Grid(np.linspace(60, 84, 9), np.arange(300, 345, 1.5)),
    "cap": Grid(np.linspace(90, 60, 11), np.arange(0, 360, 10.0)),
    "three by three": Grid(np.array([-60.0, 0.0, 60.0]), np.arange(0, 360, 120.0)),
}


@pytest.mark.parametrize("grid", SMALL.values(), ids=SMALL.keys())
@given(
    seed=st.integers(0, 10**6),
    smooth=st.sampled_from([0.0, 0.7, 1.5]),
    levels=st.sampled_from([1, 2, 4, 30, 10**6]),
    missing=st.sampled_from([0.0, 0.0, 0.02]),
    threshold=st.sampled_from([-np.inf, 0.0, 0.5]),
)
@settings(max_examples=25)
def test_equals_the_definition(
    grid: Grid, seed: int, smooth: float, levels: int, missing: float, threshold: float
) -> None:
    random = np.random.default_rng(seed)
    field = gaussian_filter(random.normal(size=(2, *grid.shape)), (0, smooth, smooth), mode="wrap")
    field = (np.round(field / np.abs(field).max() * levels) / levels).astype(np.float32)
    field[random.random(field.shape) < missing] = np.nan
    found = local_maxima(field, Neighbourhood(grid), threshold=None if threshold < 0 else threshold)
    got = [
        list(zip(found.row[found.step == step].tolist(), found.col[found.step == step].tolist(), strict=True))
        for step in range(len(field))
    ]
    assert got == [by_definition(one, grid, threshold) for one in field]
    assert (found.value == field[found.step, found.row, found.col]).all()


@pytest.mark.parametrize("grid", [POLAR, OFFSET], ids=["pole rows", "half-offset"])
def test_equals_the_definition_on_a_large_grid(grid: Grid) -> None:
    field = noise(grid, 0, 1)
    found = local_maxima(field, Neighbourhood(grid))
    assert list(zip(found.row.tolist(), found.col.tolist(), strict=True)) == by_definition(field[0], grid, -np.inf)
    assert len(found) > 100


@given(seed=st.integers(0, 1000))
def test_minima_are_the_maxima_of_what_is_turned_over(seed: int) -> None:
    field, near = np.round(noise(POLAR, seed), 2), Neighbourhood(POLAR)
    minima, maxima = local_maxima(field, near, sense=-1.0), local_maxima(-field, near)
    assert minima.lat.tobytes() == maxima.lat.tobytes()
    assert minima.lon.tobytes() == maxima.lon.tobytes()
    assert minima.value.tobytes() == maxima.value.tobytes()


@pytest.mark.parametrize("grid", [POLAR, OFFSET], ids=["pole rows", "half-offset"])
def test_a_maximum_stands_where_a_quadratic_by_least_squares_is_highest(grid: Grid) -> None:
    field = noise(grid, 5, 1)
    found = local_maxima(field, Neighbourhood(grid))
    compared = 0
    for row, col, lat, lon in zip(found.row, found.col, found.lat, found.lon, strict=True):
        stretch = round(1 / np.cos(np.deg2rad(grid.lat[row])))
        rows = np.repeat([row - 1, row, row + 1], 3)
        if 3 < row < grid.shape[0] - 4:
            cols = (col + np.tile([-stretch, 0, stretch], 3)) % grid.shape[1]
            x, y = tangent_plane(grid.lat[row], grid.lon[col], grid.lat[rows], grid.lon[cols])
            terms = np.stack([np.ones(9), x, y, x * x, x * y, y * y], axis=-1)
            _, gx, gy, xx, xy, yy = np.linalg.lstsq(terms, field[0, rows, cols].astype(float), rcond=None)[0]
            peaked = xx < 0 and 4 * xx * yy > xy * xy
            east, north = np.linalg.solve([[2 * xx, xy], [xy, 2 * yy]], [-gx, -gy]) if peaked else (0.0, 0.0)
            east = np.clip(east, *(0.5 * x[[3, 5]]))
            north = np.clip(north, *np.sort(0.5 * y[[1, 7]]))
            there = tangent_plane(grid.lat[row], grid.lon[col], lat, lon)
            assert there == pytest.approx((east, north), abs=1e-3)
            compared += 1
    assert compared > 100


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


def test_a_maximum_on_a_pole_moves_no_farther_than_half_a_row() -> None:
    field = np.zeros((1, *POLAR.shape), np.float32)
    field[0, -1] = 1
    field[0, -2] = 0.9 + 0.09 * np.sign(np.cos(np.deg2rad(POLAR.lon)).round(6))
    found = local_maxima(field, Neighbourhood(POLAR))
    assert great_circle_distance(found.lat, found.lon, 89, 0) == pytest.approx([0], abs=1e-6)


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


@given(seed=st.integers(0, 100), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
@example(seed=0, sizes=[3, 70, 1])  # more than are worked on at a time
def test_fields_are_judged_one_by_one(seed: int, sizes: list[int]) -> None:
    field = noise(OFFSET, seed, sum(sizes))
    near = Neighbourhood(OFFSET)
    whole = local_maxima(field, near)
    starts = np.cumsum([0, *sizes[:-1]])
    parts = [local_maxima(field[start : start + size], near) for start, size in zip(starts, sizes, strict=True)]
    step = np.concatenate([part.step + start for part, start in zip(parts, starts, strict=True)])
    assert step.tobytes() == whole.step.tobytes()
    for name in ("row", "col", "value", "lat", "lon"):
        assert np.concatenate([getattr(part, name) for part in parts]).tobytes() == getattr(whole, name).tobytes()
