"""Scores of tracks against the truth: closed cases of hits, misses, false alarms and errors of position."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.errors import InputError
from stormtracks.grid import EARTH_RADIUS_KM
from stormtracks.scores import Verification, false_alarm_ratio, pool, probability_of_detection, verify
from stormtracks.synthetic import SyntheticEnsemble
from tests.stormtracks.made_tracks import eastward, tracks_of

DEGREE = np.pi / 180 * EARTH_RADIUS_KM  # km along a meridian


def test_ratios() -> None:
    assert probability_of_detection(3, 1) == 0.75
    assert false_alarm_ratio(3, 1) == 0.25
    assert probability_of_detection(0, 5) == 0
    assert false_alarm_ratio(0, 5) == 1


def test_ratios_of_nothing_are_not_numbers() -> None:
    assert math.isnan(probability_of_detection(0, 0))
    assert math.isnan(false_alarm_ratio(0, 0))


def test_the_truth_verifies_itself() -> None:
    truth = SyntheticEnsemble(seed=1).truth(1)
    outcome = verify(truth, truth, min_points=8)
    assert outcome.hits == (truth.row_size >= 8).sum() > 60
    assert (outcome.misses, outcome.mean_position_error_km) == (0, 0)
    assert outcome.matched_points == truth.row_size[truth.row_size >= 8].sum()
    assert outcome.probability_of_detection == 1
    # The few that the end of the data leaves with 6 or 7 points match only what does not count.
    assert outcome.false_alarms == (truth.row_size < 6).sum()


def test_hits_misses_and_false_alarms() -> None:
    truth = tracks_of(eastward(50, 10), eastward(-40, 100), eastward(30, 300))
    tracks = tracks_of(eastward(51, 10), eastward(-40, 100, first=1), eastward(70, 200), eastward(-60, 0))
    outcome = verify(tracks, truth)
    assert (outcome.hits, outcome.misses, outcome.false_alarms) == (2, 1, 2)
    assert outcome.probability_of_detection == pytest.approx(2 / 3)
    assert outcome.false_alarm_ratio == 0.5
    assert outcome.matched_points == 8 + 7


def test_the_position_error_is_the_mean_over_all_matched_points() -> None:
    truth = tracks_of([(i, 10.0, 30.0) for i in range(6)], [(i, -50.0, 30.0) for i in range(12)])
    tracks = tracks_of([(i, 12.0, 30.0) for i in range(6)], [(i, -51.0, 30.0) for i in range(12)])
    outcome = verify(tracks, truth)
    assert outcome.matched_points == 18
    assert outcome.mean_position_error_km == pytest.approx((6 * 2 + 12 * 1) / 18 * DEGREE)


def test_a_storm_found_in_two_pieces_is_one_hit_and_one_false_alarm() -> None:
    truth = tracks_of(eastward(50, 0, points=20))
    pieces = tracks_of(eastward(50, 0, points=9), eastward(50.1, 10, first=10, points=10))
    outcome = verify(pieces, truth)
    assert (outcome.hits, outcome.misses, outcome.false_alarms) == (1, 0, 1)


def test_storms_too_short_to_be_found_do_not_count() -> None:
    truth = tracks_of(eastward(50, 10, points=7), eastward(-40, 100, points=8))
    found = tracks_of(eastward(50, 10, points=9), eastward(-40, 100, points=8))
    assert verify(found, truth, min_points=8) == Verification(1, 0, 0, 8, 0.0)
    assert verify(tracks_of(), truth, min_points=8).misses == 1
    assert verify(tracks_of(), truth, min_points=7).misses == 2
    # A track that overlaps the short storm for too few points is not excused by it.
    brief = tracks_of(eastward(50, 10 + 4, first=4, points=8), eastward(-40, 100))
    assert verify(brief, truth, min_points=8).false_alarms == 1


def test_a_track_that_matches_a_counted_storm_is_a_hit_though_a_short_one_is_nearer() -> None:
    truth = tracks_of(eastward(50, 10, points=7), eastward(48, 10, points=9))
    assert verify(tracks_of(eastward(50, 10, points=8)), truth, min_points=8).hits == 1


def test_no_tracks_and_no_truth() -> None:
    truth = tracks_of(eastward(50, 10))
    nothing_found = verify(tracks_of(), truth)
    assert (nothing_found.hits, nothing_found.misses, nothing_found.false_alarms) == (0, 1, 0)
    assert math.isnan(nothing_found.mean_position_error_km) and math.isnan(nothing_found.false_alarm_ratio)
    nothing_there = verify(truth, tracks_of())
    assert (nothing_there.hits, nothing_there.misses, nothing_there.false_alarms) == (0, 0, 1)


def test_members_are_verified_one_at_a_time() -> None:
    with pytest.raises(InputError, match=r"2 members \(1, 2\)"):
        verify(tracks_of(eastward(50, 10)), tracks_of(eastward(50, 10), member=2))


@given(shift=st.floats(0, 4), dropped=st.integers(0, 5))
def test_every_track_and_every_true_track_is_counted_once(shift: float, dropped: int) -> None:
    storms = [(k, lat) for k, lat in enumerate((60.0, 40.0, 20.0, -20.0, -50.0))]
    truth = tracks_of(*(eastward(lat, 40 * k, points=6 + k) for k, lat in storms))
    found = tracks_of(*(eastward(lat + shift, 40 * k, points=6 + k) for k, lat in storms[dropped:]))
    outcome = verify(found, truth)
    assert outcome.hits + outcome.misses == len(truth)
    assert outcome.hits + outcome.false_alarms == len(found)
    assert outcome.hits == len(found)
    if outcome.hits:
        assert outcome.mean_position_error_km == pytest.approx(shift * DEGREE, abs=1e-6)


def test_pooled_outcomes_add_up() -> None:
    outcomes = [
        Verification(3, 1, 0, 30, 10.0),
        Verification(1, 0, 2, 10, 50.0),
        Verification(0, 4, 1, 0, math.nan),
    ]
    assert pool(outcomes) == Verification(4, 5, 3, 40, 20.0)
    assert pool(outcomes[:1]) == outcomes[0]
    nothing = pool([])
    assert math.isnan(nothing.mean_position_error_km)
    assert replace(nothing, mean_position_error_km=0.0) == Verification(0, 0, 0, 0, 0.0)
