"""Which track is which: one-to-one matches between two sets of tracks, by their distance at common times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from stormtracks.errors import InputError
from stormtracks.grid import great_circle_distance
from stormtracks.tracks import Tracks

__all__ = ["Matches", "close_pairs", "match_tracks", "one_to_one"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of a track and a reference track.

    Parameters
    ----------
    track, reference : numpy.ndarray, shape (n,), int64
        Index of each, counted from 0 as they stand in their containers; ascending by `track`, then by `reference`.
    points : numpy.ndarray, shape (n,), int64
        How many times both share.
    mean_distance_km : numpy.ndarray, shape (n,), float64
        Mean great-circle distance at these times.
    """

    track: IntArray
    reference: IntArray
    points: IntArray
    mean_distance_km: FloatArray

    def __len__(self) -> int:
        return len(self.track)

    def __getitem__(self, keep: IntArray | BoolArray) -> Matches:
        return Matches(self.track[keep], self.reference[keep], self.points[keep], self.mean_distance_km[keep])


def match_tracks(
    tracks: Tracks, reference: Tracks, *, max_mean_distance: float = 500.0, min_overlap: int = 6
) -> Matches:
    """Match two sets of tracks one to one.

    A pair can match if it shares at least `min_overlap` times and its mean great-circle distance at these is at most
    `max_mean_distance`. Of all ways to match, the one with the most pairs is taken, and of these the one whose mean
    distances have the least sum. The order of the tracks does not matter.

    Parameters
    ----------
    tracks, reference : Tracks
        In one calendar. Members are not looked at: give one member's tracks at a time.
    max_mean_distance : float
        km.
    min_overlap : int
        Points.

    Returns
    -------
    Matches
        No track and no reference track occurs twice.

    Raises
    ------
    InputError
        If the calendars differ.
    """
    return one_to_one(
        close_pairs(tracks, reference, max_mean_distance=max_mean_distance, min_overlap=min_overlap),
    )


def close_pairs(tracks: Tracks, reference: Tracks, *, max_mean_distance: float, min_overlap: int) -> Matches:
    """All pairs that could match; parameters and errors as in `match_tracks`."""
    if tracks.calendar != reference.calendar:
        raise InputError(
            f"tracks in the {tracks.calendar} calendar have no time in common with {reference.calendar} ones",
            remedy="convert one of them to the calendar of the other",
        )
    first, second = _same_time(tracks.time, reference.time)
    distance = great_circle_distance(tracks.lat[first], tracks.lon[first], reference.lat[second], reference.lon[second])
    track = np.repeat(np.arange(len(tracks)), tracks.row_size)[first]
    other = np.repeat(np.arange(len(reference)), reference.row_size)[second]
    pairs, which = np.unique(track * max(len(reference), 1) + other, return_inverse=True)
    points = np.bincount(which, minlength=len(pairs))
    mean = np.bincount(which, weights=distance, minlength=len(pairs)) / np.maximum(points, 1)
    close = (points >= min_overlap) & (mean <= max_mean_distance)
    track, other = np.divmod(pairs, max(len(reference), 1))
    return Matches(track, other, points, mean)[close]


def one_to_one(pairs: Matches) -> Matches:
    """The pairs that are best together, so that nothing is matched twice: the most pairs, then the least distance.

    Notes
    -----
    Solved on the sparse graph of pairs by `scipy.sparse.csgraph.min_weight_full_bipartite_matching`. A private
    column a track stands for no match and costs more than all distances together, so that one more pair is always
    worth its distance.
    """
    if len(pairs) == 0:
        return pairs
    track, row = np.unique(pairs.track, return_inverse=True)
    reference, column = np.unique(pairs.reference, return_inverse=True)
    alone = np.arange(len(track))
    unmatched = np.full(len(track), 1.0 + len(track) * pairs.mean_distance_km.max())
    # Every track has exactly one column in the solution, so a constant on all costs changes nothing but keeps a
    # distance of zero from being taken for an absent pair.
    graph = coo_array(
        (
            np.concatenate([pairs.mean_distance_km, unmatched]) + 1.0,
            (np.concatenate([row, alone]), np.concatenate([column, len(reference) + alone])),
        ),
        shape=(len(track), len(reference) + len(track)),
    )
    rows, columns = min_weight_full_bipartite_matching(graph.tocsr())
    chosen = np.full(len(track), -1)
    chosen[rows] = columns
    return pairs[chosen[row] == column]


def _same_time(first: IntArray, second: IntArray) -> tuple[IntArray, IntArray]:
    """All pairs of indices at which two lists of times agree, ascending by the first."""
    order = np.argsort(second, kind="stable")
    start = np.searchsorted(second[order], first, side="left")
    count = np.searchsorted(second[order], first, side="right") - start
    left = np.repeat(np.arange(len(first)), count)
    within = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
    return left, order[start[left] + within]
