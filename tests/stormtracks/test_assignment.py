"""The links of least cost: against the dense solution, against all choices there are, and where the answer is plain."""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from stormtracks import assignment
from stormtracks.assignment import Links, assign

Costs = npt.NDArray[np.float64]
"""Of each track and centre, shape (n_tracks, n_centres); infinite where they cannot be linked."""


@pytest.fixture(autouse=True)
def _search_however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "_MANY", 0)


def links_of(costs: Costs) -> Links:
    centre, track = np.nonzero(np.isfinite(costs.T))
    return Links(track, centre, costs[track, centre])


def total(costs: Costs, track_at: npt.NDArray[np.int64], alone: float) -> float:
    """What a choice costs; it must not link anything twice."""
    centre = np.flatnonzero(track_at >= 0)
    assert len(np.unique(track_at[centre])) == len(centre)
    return float(costs[track_at[centre], centre].sum() + alone * (len(costs) - len(centre)))


def by_dense_matrix(costs: Costs, alone: float) -> npt.NDArray[np.int64]:
    n_tracks, n_centres = costs.shape
    matrix = np.concatenate([np.where(np.isfinite(costs), costs, 1e9), np.full((n_tracks, n_tracks), alone)], axis=1)
    track, column = linear_sum_assignment(matrix)
    track_at = np.full(n_centres, -1)
    track_at[column[column < n_centres]] = track[column < n_centres]
    return track_at


def squared_distances(seed: int, n_tracks: int, n_centres: int, width: float) -> Costs:
    """Of places strewn over a square, as far as they are less than 1 apart."""
    rng = np.random.default_rng(seed)
    tracks, centres = rng.uniform(0, width, (n_tracks, 1, 2)), rng.uniform(0, width, (1, n_centres, 2))
    square = ((tracks - centres) ** 2).sum(axis=-1)
    return np.where(square < 1, square, np.inf)


@settings(max_examples=150)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60), st.floats(0.5, 12))
def test_the_links_are_those_of_the_dense_solution(seed: int, n_tracks: int, n_centres: int, width: float) -> None:
    costs = squared_distances(seed, n_tracks, n_centres, width)
    got = assign(links_of(costs), n_tracks, n_centres, alone=1.0)
    assert got.tolist() == by_dense_matrix(costs, 1.0).tolist()


@pytest.mark.parametrize(("n_tracks", "n_centres"), [(700, 700), (700, 600), (600, 700)])
def test_many_are_linked_as_by_the_dense_solution(n_tracks: int, n_centres: int) -> None:
    costs = squared_distances(1, n_tracks, n_centres, 8.0)
    got = assign(links_of(costs), n_tracks, n_centres, alone=1.0)
    assert got.tolist() == by_dense_matrix(costs, 1.0).tolist()


def choices(costs: Costs) -> Iterator[npt.NDArray[np.int64]]:
    """All ways to link."""
    n_tracks, n_centres = costs.shape
    for track_at in itertools.product(range(-1, n_tracks), repeat=n_centres):
        linked = [(track, centre) for centre, track in enumerate(track_at) if track >= 0]
        tracks = [track for track, _ in linked]
        if len(set(tracks)) == len(tracks) and all(np.isfinite(costs[pair]) for pair in linked):
            yield np.array(track_at)


few_whole_costs = st.integers(1, 3).flatmap(
    lambda n_centres: st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, np.inf]), min_size=n_centres, max_size=n_centres),
        min_size=1,
        max_size=4,
    )
)


@settings(max_examples=300)
@given(few_whole_costs, st.sampled_from([4.0, 7.0, 3.0 + 1e-9]))
def test_no_choice_costs_less_and_ties_are_known(rows: list[list[float]], alone: float) -> None:
    costs = np.array(rows)
    links = links_of(costs)
    got = assign(links, *costs.shape, alone=alone)
    all_costs = sorted(total(costs, choice, alone) for choice in choices(costs))
    assert total(costs, got, alone) == pytest.approx(all_costs[0])
    search = assignment.Search(links, *costs.shape, alone)
    search.run(links)
    assert total(costs, search.track_at[: costs.shape[1]], alone) == pytest.approx(all_costs[0])
    others = sum(cost < all_costs[0] + 1e-10 for cost in all_costs) - 1
    assert search.is_only_choice(links) == (others == 0)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("alone", "moved"), [(99.5, False), (100.5, True)])
def test_a_hundred_tracks_move_up_if_that_is_cheaper_than_leaving_one_alone(
    alone: float, moved: bool, turned: bool
) -> None:
    # Tracks at 0, 1, ..., 99, centres at 1, 2, ..., 100, which reach each other over 3.
    distance = np.arange(1, 101) - np.arange(100)[:, None]
    costs = np.where(np.abs(distance) <= 3, distance.astype(float) ** 2, np.inf)
    if turned:
        costs = costs[::-1, ::-1]
    got = assign(links_of(costs), 100, 100, alone=alone)
    ahead = np.arange(100) if moved else np.append(np.arange(1, 100), -1)
    expected = np.where(ahead >= 0, 99 - ahead, -1)[::-1] if turned else ahead
    assert got.tolist() == expected.tolist()


def test_there_may_be_nothing_to_link() -> None:
    none = np.empty(0, np.int64)
    assert assign(Links(none, none, np.empty(0)), 3, 2, alone=1.0).tolist() == [-1, -1]
    assert assign(Links(none, none, np.empty(0)), 0, 2, alone=1.0).tolist() == [-1, -1]
    assert assign(Links(none, none, np.empty(0)), 3, 0, alone=1.0).tolist() == []


@given(st.integers(0, 10_000))
def test_few_links_are_those_of_the_search_too(seed: int) -> None:
    costs = squared_distances(seed, 30, 30, 4.0)
    links = links_of(costs)
    searched = assign(links, 30, 30, alone=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "_MANY", len(links) + 1)
        assert assign(links, 30, 30, alone=1.0).tolist() == searched.tolist()
