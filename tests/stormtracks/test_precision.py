"""How precisely centres are kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stormtracks.precision import round_latitude, round_longitude, round_values

LARGEST = float(np.finfo(np.float32).max)
SINGLES = arrays(np.float32, 5, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@given(SINGLES)
def test_values_have_seven_significant_digits(values: np.ndarray) -> None:
    rounded = round_values(values.astype(np.float64))
    for value, kept in zip(values.tolist(), rounded.tolist(), strict=True):
        # At a tie either neighbour is as near.
        digits = 10.0 ** np.floor(np.log10(abs(value))) * 1e-6 if value else 0.0
        assert abs(kept - value) <= 0.500001 * digits + abs(value) * 2**-24 + 1e-45
        assert kept == np.float32(f"{kept:.6e}")


@given(SINGLES)
def test_rounding_again_changes_nothing_and_single_precision_holds_it(values: np.ndarray) -> None:
    once = round_values(values.astype(np.float64))
    np.testing.assert_array_equal(round_values(once), once)
    np.testing.assert_array_equal(once.astype(np.float32), once)
    np.testing.assert_array_equal(round_values(-values.astype(np.float64)), -once)


def test_values_of_note() -> None:
    values = np.array([0.0, -0.0, 1.23456789e-4, -1.23456789e-4, 101325.04, 999999.96, 1000.0, 1e-45, LARGEST])
    expected = [0.0, 0.0, 1.234568e-4, -1.234568e-4, 101325.0, 1000000.0, 1000.0, 1e-45, 3.402823e38]
    rounded = round_values(values)
    np.testing.assert_array_equal(rounded, np.array(expected, dtype=np.float32).astype(np.float64))
    assert not np.signbit(rounded[:2]).any()


@given(arrays(np.float64, 5, elements=st.floats(-1000, 1000) | st.sampled_from([359.99996, -1e-9, 360.0, -0.0])))
def test_longitudes_stay_within_the_circle(lon: np.ndarray) -> None:
    rounded = round_longitude(lon)
    assert ((rounded >= 0) & (rounded < 360)).all()
    assert not np.signbit(rounded).any()
    np.testing.assert_array_equal(round_longitude(rounded), rounded)
    away = np.abs((rounded - lon + 180) % 360 - 180)
    assert (away <= 0.500001e-4).all()


@given(arrays(np.float64, 5, elements=st.floats(-90, 90)))
def test_latitudes_stay_on_the_globe(lat: np.ndarray) -> None:
    rounded = round_latitude(lat)
    assert (np.abs(rounded) <= 90).all() and (np.abs(rounded - lat) <= 0.500001e-4).all()
    assert not np.signbit(rounded[rounded == 0]).any()
    np.testing.assert_array_equal(round_latitude(rounded), rounded)
