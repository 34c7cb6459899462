"""Axes, poles, and distances that are exact where it matters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.errors import InputError
from stormtracks.grid import EARTH_RADIUS_KM, Grid, great_circle_distance, unit_vectors

LON = np.arange(0, 360, 2.0)


@given(st.floats(-90, 90), st.floats(-360, 360))
def test_a_point_is_at_no_distance_from_itself(lat: float, lon: float) -> None:
    assert great_circle_distance(lat, lon, lat, lon) == 0.0


@given(st.floats(-90, 90), st.floats(0, 360), st.floats(-90, 90), st.floats(0, 360))
def test_distance_is_the_angle_between_unit_vectors(lat1: float, lon1: float, lat2: float, lon2: float) -> None:
    one, two = unit_vectors(lat1, lon1), unit_vectors(lat2, lon2)
    angle = np.arctan2(np.linalg.norm(np.cross(one, two)), one @ two)
    assert great_circle_distance(lat1, lon1, lat2, lon2) == pytest.approx(EARTH_RADIUS_KM * angle, abs=1e-4)


def test_known_distances() -> None:
    quarter = 0.5 * np.pi * EARTH_RADIUS_KM
    assert great_circle_distance(0, 359, 0, 1) == pytest.approx(quarter / 45)
    assert great_circle_distance(90, 17, 0, 200) == pytest.approx(quarter)
    assert great_circle_distance(-90, 0, 90, 0) == pytest.approx(2 * quarter)


@pytest.mark.parametrize(
    ("lat", "lon", "periodic", "poles", "reaches"),
    [
        (np.linspace(-90, 90, 91), LON, True, (0, 90), (True, True)),
        (np.linspace(89, -89, 90), LON - 180, True, (), (True, True)),
        (np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(94)[0])), np.arange(192) * 1.875, True, (), (True, True)),
        (np.linspace(0, 90, 46), LON, True, (45,), (False, True)),
        (np.linspace(20, 60, 21), np.arange(300, 341, 2.0), False, (), (False, False)),
        (np.linspace(90, -90, 73).astype("f4"), (np.arange(144) * 2.5).astype("f4"), True, (0, 72), (True, True)),
    ],
)
def test_what_a_grid_knows_of_itself(
    lat: np.ndarray, lon: np.ndarray, periodic: bool, poles: tuple[int, ...], reaches: tuple[bool, bool]
) -> None:
    grid = Grid(lat, lon)
    assert grid.periodic is periodic
    assert grid.pole_rows == poles
    assert (grid.reaches_pole(0), grid.reaches_pole(-1)) == reaches
    assert grid.same_as(Grid(lat + 1e-6 * np.sign(-lat), lon))


@pytest.mark.parametrize(
    ("lat", "lon", "says"),
    [
        ([0, 1], LON, "at least 3"),
        ([0, 2, 1], LON, "neither ascend nor descend"),
        ([0, 50, 100], LON, "reach 100"),
        ([0, 1, np.nan], LON, "not finite"),
        ([0, 1, 2], [0, 1, 3], "not evenly spaced"),
        ([0, 1, 2], [0, 2, 1], "not evenly spaced"),
        ([0, 1, 2], np.arange(0, 361, 2.0), "more than once round"),
    ],
)
def test_a_bad_axis_is_refused_by_name(lat: list[float], lon: list[float], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Grid(np.array(lat, dtype=float), np.array(lon, dtype=float))
    assert caught.value.remedy


def test_grids_are_equal_by_what_they_hold() -> None:
    lat = np.linspace(-90, 90, 91)
    assert Grid(lat, LON) == Grid(lat.astype(np.float32), LON.copy())
    assert hash(Grid(lat, LON)) == hash(Grid(lat.copy(), LON))
    assert Grid(lat, LON) != Grid(lat[::-1], LON)
    assert Grid(lat, LON) != Grid(lat, LON - 180)
