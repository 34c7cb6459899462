"""The tangent plane of a place on the sphere, and quadratics in it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.grid import great_circle_distance
from stormtracks.tangent_plane import from_tangent_plane, quadratic_fit, tangent_plane, top


@given(st.floats(-90, 90), st.floats(0, 360), st.floats(-3000, 3000), st.floats(-3000, 3000))
def test_the_tangent_plane_keeps_distance_and_inverts(lat: float, lon: float, x: float, y: float) -> None:
    there = from_tangent_plane(np.array(lat), np.array(lon), np.array(x), np.array(y))
    assert great_circle_distance(lat, lon, *there) == pytest.approx(np.hypot(x, y), abs=1e-6)
    back = tangent_plane(lat, lon, *there)
    assert np.allclose(back, (x, y), atol=1e-5)


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.1, 3), st.floats(-1, 1))
def test_the_top_of_a_quadratic_is_found_from_its_values(x0: float, y0: float, steepness: float, tilt: float) -> None:
    x, y = (axis.ravel() for axis in np.meshgrid([-100.0, 0.0, 100.0], [-100.0, 0.0, 100.0]))
    u, v = x - x0, y - y0
    values = 7 - steepness * (u * u + tilt * u * v + v * v)
    found = top((quadratic_fit(x, y) @ values)[:, None])
    assert np.ravel(found) == pytest.approx([x0, y0], abs=1e-6)


def test_a_bowl_a_saddle_and_a_plane_have_no_top() -> None:
    bowl, saddle, plane = [1, 1, 1, 0, 1], [1, 1, -1, 0, 1], [1, 1, 0, 0, 0]
    assert np.array(top(np.array([bowl, saddle, plane], dtype=float).T)).tolist() == [[0, 0, 0], [0, 0, 0]]
