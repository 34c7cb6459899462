"""Candidate centres: sense of the hemisphere, threshold, region, merging, missing values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from stormtracks.detect import PRESSURE, VORTICITY, Centres, Detector, in_region
from stormtracks.grid import EARTH_RADIUS_KM, Grid, great_circle_distance, unit_vectors
from stormtracks.reanalysis.archive import Quantity
from stormtracks.settings.campaign import DetectionSettings

GRID = Grid(np.linspace(-90, 90, 91), np.arange(0, 360, 2.0))
VO = (Quantity("vo850", VORTICITY, "s-1"),)
MSL = (Quantity("prmsl", PRESSURE, "Pa"),)


def bumps(*storms: tuple[float, float, float]) -> np.ndarray:
    """Gaussian bumps of 400 km at (latitude, longitude) with a height each."""
    points = unit_vectors(GRID.lat[:, None], GRID.lon)
    field = np.zeros(GRID.shape)
    for lat, lon, height in storms:
        field += height * np.exp((EARTH_RADIUS_KM / 400) ** 2 * (points @ unit_vectors(lat, lon) - 1))
    return field.astype(np.float32)[None]


def find(field: np.ndarray, source: tuple[Quantity, ...], **settings: object) -> Centres:
    return Detector(DetectionSettings.model_validate(settings), GRID, source).find((field,))[0]


def test_vorticity_is_cyclonic_in_both_hemispheres() -> None:
    field = bumps((40, 10, 1e-4), (-40, 100, -1.2e-4), (50, 200, -1e-4), (-50, 300, 1e-4))
    found = find(field, VO)
    assert [(round(lat), round(lon)) for lat, lon in zip(found.lat, found.lon, strict=True)] == [(-40, 100), (40, 10)]
    assert found.value == pytest.approx([-1.2e-4, 1e-4], rel=0.01)


def test_without_a_threshold_a_storm_must_still_turn_the_right_way() -> None:
    found = find(bumps((40, 10, 1e-6), (50, 200, -1e-6)), VO, threshold="none")
    assert [round(lat) for lat in found.lat] == [40]


def test_pressure_is_sought_for_minima() -> None:
    field = 101325 + bumps((40, 10, -3000), (40, 60, 3000))
    assert find(field, MSL).value == pytest.approx([98325], abs=50)
    assert len(find(field, MSL, threshold=98000)) == 0
    assert len(find(field, MSL, mode="max")) >= 1


def test_the_threshold_is_the_least_a_centre_may_be() -> None:
    field = bumps((40, 10, 3.9e-5), (40, 60, 4.2e-5))
    assert find(field, VO).lon.round() == pytest.approx([60])
    assert len(find(field, VO, threshold=3e-5)) == 2
    assert len(find(field, VO, threshold=5e-5)) == 0


@pytest.mark.parametrize(
    ("region", "inside"),
    [
        ((350, 0, 20, 60), [10, 355]),
        ((-10, 0, 20, 60), [10, 355]),
        ((170, 0, -170, 60), [180]),
        ((0, 0, 360, 60), [10, 180, 355]),
        ((260, 0, 340, 60), []),
    ],
)
def test_a_region_may_cross_any_meridian(region: tuple[float, ...], inside: list[float]) -> None:
    found = find(bumps((40, 10, 1e-4), (40, 180, 1e-4), (40, 355, 1e-4)), VO, region=region)
    assert sorted(found.lon[found.inside].round()) == inside
    assert len(found) == 3


def test_the_weaker_of_a_close_pair_is_absorbed_and_counted() -> None:
    field = bumps((40, 0, 2e-4), (40, 344, 1e-4), (40, 20, 1.5e-4))
    apart = great_circle_distance(40, 0, 40, 344)
    detector = Detector(DetectionSettings(merge_km=float(apart) + 60), GRID, VO)
    found, counts = detector.find((field,))
    assert sorted(found.lon.round() % 360) == [0, 20]
    assert counts["extrema"].tolist() == [3]
    assert counts["merged"].tolist() == [1]
    assert len(find(field, VO, merge_km=100)) == 3


def test_the_absorbed_absorb_nothing() -> None:
    # In a chain of three, each within reach of the next, the last is not touched by the first.
    field = bumps((40, 0, 3e-4), (40, 16, 2e-4), (40, 32, 1e-4))
    found = find(field, VO, merge_km=1500)
    assert sorted(found.lon.round() % 360) == [0, 32]


@given(st.floats(0, 360), st.floats(1, 359), st.floats(-720, 720))
def test_a_box_holds_what_lies_east_of_its_west_edge(west: float, width: float, shift: float) -> None:
    lon = np.array([(west + 0.5 * width + shift * 0) % 360, (west + width + 0.5 * (360 - width)) % 360])
    assert in_region(np.zeros(2), lon, (west, -10, west + width - 360, 10)).tolist() == [True, False]


def test_positions_are_rounded_and_lie_in_0_to_360() -> None:
    found = find(bumps((40.31, 359.99999, 1e-4)), VO)
    assert 0 <= found.lon[0] < 360
    assert found.lon[0] == round(found.lon[0], 4)
    assert found.lat[0] == round(found.lat[0], 4)


def test_a_subset_of_the_globe_has_the_same_centres_away_from_its_edges() -> None:
    field = gaussian_filter(np.random.default_rng(1).normal(size=GRID.shape), 1.5, mode=("nearest", "wrap")).astype(
        "f4"
    )
    rows, cols = slice(50, 86), slice(20, 90)
    subset = Grid(GRID.lat[rows], GRID.lon[cols])
    settings = DetectionSettings(threshold="none")
    quantity = (Quantity("x", "", "1"),)
    whole, _ = Detector(settings, GRID, quantity).find((field[None],))
    part, _ = Detector(settings, subset, quantity).find((np.ascontiguousarray(field[None, rows, cols]),))
    inner = (whole.lat > 12) & (whole.lat < 78) & (whole.lon > 52) & (whole.lon < 166)
    points = set(zip(part.lat.tolist(), part.lon.tolist(), strict=True))
    expected = set(zip(whole.lat[inner].tolist(), whole.lon[inner].tolist(), strict=True))
    assert len(expected) > 25
    assert expected <= points


def test_a_wind_gives_vorticity() -> None:
    # Solid-body rotation turns cyclonically everywhere and has its extrema on the poles.
    u = 20 * np.cos(np.deg2rad(GRID.lat))[:, None] * np.ones(GRID.shape)
    wind = (Quantity("u", "eastward_wind", "m s-1"), Quantity("v", "northward_wind", "m s-1"))
    detector = Detector(DetectionSettings(threshold="none"), GRID, wind)
    found, _ = detector.find((u[None].astype(np.float32), np.zeros((1, *GRID.shape), np.float32)))
    assert sorted(found.lat) == [-90, 90]
    assert detector.quantity == Quantity("vorticity", VORTICITY, "s-1")
