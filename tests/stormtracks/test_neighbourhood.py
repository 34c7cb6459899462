"""Which grid points touch which."""

import numpy as np

from stormtracks.grid import Grid
from stormtracks.neighbourhood import Neighbourhood, neighbourhood

POLAR = Grid(np.linspace(-90, 90, 91), np.arange(0, 360, 2.0))
OFFSET = Grid(np.linspace(89, -89, 90), np.arange(-180, 180, 2.0))


def test_stretch_spans_one_row_in_km() -> None:
    at = {0: 0, 1: 29, 5: 6, 15: 2, 45: 1, 75: 2}  # the first row is the pole
    assert {row: int(Neighbourhood(POLAR).stretch[row]) for row in at} == at


def test_over_the_pole_lies_the_other_side() -> None:
    row, col = (array.tolist() for array in Neighbourhood(OFFSET).shift(np.array([0]), np.array([10]), -1, 3))
    assert (row, col) == ([0], [103])
    row, col = (array.tolist() for array in Neighbourhood(POLAR).shift(np.array([1]), np.array([10]), -1, 3))
    assert (row, col) == ([0], [0])


def test_a_pole_touches_its_whole_ring_and_other_points_a_cells_width() -> None:
    point, row, col = Neighbourhood(POLAR).around(np.array([90, 45]), np.array([0, 7]))
    assert row[point == 0].tolist() == [89] * 180
    assert sorted(col[point == 0]) == list(range(180))
    assert sorted(zip(row[point == 1] - 45, col[point == 1] - 7, strict=True)) == [
        (drow, dcol) for drow in (-1, 0, 1) for dcol in (-1, 0, 1) if drow or dcol
    ]


def test_grids_of_the_same_points_share_one() -> None:
    same, other = Grid(POLAR.lat.copy(), POLAR.lon.copy()), Grid(POLAR.lat[::-1], POLAR.lon)
    assert neighbourhood(POLAR) is neighbourhood(same)
    assert neighbourhood(POLAR) is not neighbourhood(other)
