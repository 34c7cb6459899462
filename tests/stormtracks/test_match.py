"""One-to-one matches of tracks: closed cases, the best of all assignments, and what must not matter."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.errors import InputError
from stormtracks.grid import EARTH_RADIUS_KM
from stormtracks.match import Matches, close_pairs, match_tracks, one_to_one
from stormtracks.synthetic import SyntheticEnsemble
from tests.stormtracks.made_tracks import eastward, tracks_of

DEGREE = np.pi / 180 * EARTH_RADIUS_KM  # km along a meridian


def pairs_of(matches: Matches) -> list[tuple[int, int]]:
    return list(zip(matches.track.tolist(), matches.reference.tolist(), strict=True))


def test_a_set_of_tracks_matches_itself() -> None:
    truth = SyntheticEnsemble(seed=1).truth(1)
    matches = match_tracks(truth, truth)
    long_enough = np.flatnonzero(truth.row_size >= 6)
    np.testing.assert_array_equal(matches.track, long_enough)
    np.testing.assert_array_equal(matches.reference, long_enough)
    np.testing.assert_array_equal(matches.points, truth.row_size[long_enough])
    np.testing.assert_array_equal(matches.mean_distance_km, 0)


def test_tracks_without_a_common_time_or_place_do_not_match() -> None:
    here = tracks_of(eastward(50, 10), eastward(-30, 200))
    assert len(match_tracks(here, tracks_of(eastward(50, 10, first=8)))) == 0
    assert len(match_tracks(here, tracks_of(eastward(50, 20), eastward(30, 200)))) == 0


@pytest.mark.parametrize(("left", "right"), [((), ()), ((eastward(50, 10),), ()), ((), (eastward(50, 10),))])
def test_nothing_matches_nothing(left: tuple[list[tuple[int, float, float]]], right: tuple[()]) -> None:
    assert len(match_tracks(tracks_of(*left), tracks_of(*right))) == 0


def test_the_distance_is_the_mean_over_common_times() -> None:
    track = tracks_of([(i, 40.0, 30.0) for i in range(10)])
    reference = tracks_of([(i, 40.0 + (i >= 6), 30.0) for i in range(2, 14)])
    matches = match_tracks(track, reference)
    assert matches.points.tolist() == [8]
    assert matches.mean_distance_km[0] == pytest.approx(4 / 8 * DEGREE)


def test_distances_are_taken_across_the_date_line_greenwich_and_the_pole() -> None:
    track = tracks_of(eastward(60, 176.5), eastward(60, -4.5), [(i, 88.0, 10.0) for i in range(8)])
    reference = tracks_of(eastward(60, 177.5), eastward(60, -3.5), [(i, 88.0, 190.0) for i in range(8)])
    matches = match_tracks(track, reference)
    assert pairs_of(matches) == [(0, 0), (1, 1), (2, 2)]
    np.testing.assert_allclose(matches.mean_distance_km, [0.5 * DEGREE, 0.5 * DEGREE, 4 * DEGREE], rtol=1e-4)


def test_overlap_and_distance_decide_who_can_match() -> None:
    track = tracks_of([(i, 40.0, 30.0) for i in range(10)])
    off = tracks_of([(i, 41.0, 30.0) for i in range(4, 14)])
    assert len(match_tracks(track, off, min_overlap=6)) == 1
    assert len(match_tracks(track, off, min_overlap=7)) == 0
    assert len(match_tracks(track, off, max_mean_distance=DEGREE + 0.01)) == 1
    assert len(match_tracks(track, off, max_mean_distance=DEGREE - 0.01)) == 0


def test_of_two_tracks_near_one_reference_the_nearer_matches() -> None:
    tracks = tracks_of(eastward(52, 10), eastward(51, 10))
    matches = match_tracks(tracks, tracks_of(eastward(50, 10)))
    assert pairs_of(matches) == [(1, 0)]


def test_two_pairs_are_better_than_one_however_close() -> None:
    # The first track lies upon the first reference, but the second track can match no other.
    tracks = tracks_of(eastward(50, 10), eastward(47, 10))
    references = tracks_of(eastward(50, 10), eastward(54, 10))
    assert pairs_of(close_pairs(tracks, references, max_mean_distance=500, min_overlap=6)) == [(0, 0), (0, 1), (1, 0)]
    assert pairs_of(match_tracks(tracks, references)) == [(0, 1), (1, 0)]


@given(
    pairs=st.dictionaries(
        st.tuples(st.integers(0, 4), st.integers(0, 4)), st.floats(0, 500, allow_subnormal=False), max_size=16
    )
)
def test_matches_are_the_best_of_all_that_there_are(pairs: dict[tuple[int, int], float]) -> None:
    """Against every possible assignment: the most pairs, then the least sum of distances."""
    keys = sorted(pairs)
    chosen = one_to_one(
        Matches(
            np.array([track for track, _ in keys], dtype=np.int64),
            np.array([reference for _, reference in keys], dtype=np.int64),
            np.full(len(keys), 8),
            np.array([pairs[key] for key in keys]),
        )
    )
    assert set(pairs_of(chosen)) <= set(keys)
    assert len(set(chosen.track.tolist())) == len(set(chosen.reference.tolist())) == len(chosen)
    options = (
        [(track, reference) for track, reference in enumerate(order) if (track, reference) in pairs]
        for order in itertools.permutations(range(5))
    )
    count, total = min((-len(option), sum(pairs[pair] for pair in option)) for option in options)
    assert len(chosen) == -count
    assert chosen.mean_distance_km.sum() == pytest.approx(total, abs=1e-6)


@given(data=st.data())
def test_the_order_of_tracks_changes_neither_number_nor_distance(data: st.DataObject) -> None:
    starts = st.tuples(st.integers(0, 3), st.floats(40, 46), st.floats(0, 6))
    made = st.lists(starts, min_size=1, max_size=6)
    left, right = (
        [eastward(lat, lon, first=first) for first, lat, lon in data.draw(made)] for _ in ("tracks", "references")
    )
    shuffled_left, shuffled_right = data.draw(st.permutations(left)), data.draw(st.permutations(right))
    plain = match_tracks(tracks_of(*left), tracks_of(*right))
    shuffled = match_tracks(tracks_of(*shuffled_left), tracks_of(*shuffled_right))
    assert len(shuffled) == len(plain)
    assert shuffled.mean_distance_km.sum() == pytest.approx(plain.mean_distance_km.sum())


def test_the_same_pairs_match_in_any_order() -> None:
    ensemble = SyntheticEnsemble(seed=2)
    one, two = ensemble.truth(1), ensemble.truth(2)
    reverse = np.arange(len(one))[::-1]
    first = np.cumsum(one.row_size) - one.row_size
    records = np.concatenate([first[i] + np.arange(one.row_size[i]) for i in reverse])
    backwards = replace(
        one, row_size=one.row_size[reverse], time=one.time[records], lat=one.lat[records], lon=one.lon[records]
    )
    plain, turned = match_tracks(one, two), match_tracks(backwards, two)
    assert sorted((len(one) - 1 - i, j) for i, j in pairs_of(turned)) == pairs_of(plain)
    np.testing.assert_array_equal(turned.mean_distance_km[::-1], plain.mean_distance_km)


def test_matching_is_symmetric() -> None:
    ensemble = SyntheticEnsemble(seed=2)
    one, two = ensemble.truth(1), ensemble.truth(2)
    there, back = match_tracks(one, two), match_tracks(two, one)
    assert len(there) > 70
    assert sorted(pairs_of(there)) == sorted((j, i) for i, j in pairs_of(back))
    assert there.mean_distance_km.max() < 240


def test_calendars_must_agree() -> None:
    with pytest.raises(InputError, match="360_day"):
        match_tracks(tracks_of(eastward(50, 10)), tracks_of(eastward(50, 10), calendar="360_day"))
