"""How well tracks agree with the truth: hits, misses, false alarms, and the error of positions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stormtracks.errors import InputError
from stormtracks.match import close_pairs, one_to_one
from stormtracks.tracks import Tracks

__all__ = ["Verification", "false_alarm_ratio", "pool", "probability_of_detection", "verify"]


def probability_of_detection(hits: int, misses: int) -> float:
    """Share of what there was that was found: ``hits / (hits + misses)``; NaN if there was nothing.

    Source: Wilks (2011), *Statistical Methods in the Atmospheric Sciences*, 3rd edition, section 8.2.2 (hit rate).
    """
    return hits / (hits + misses) if hits + misses else math.nan


def false_alarm_ratio(hits: int, false_alarms: int) -> float:
    """Share of what was found that was not there: ``false_alarms / (hits + false_alarms)``; NaN if nothing was found.

    Source: Wilks (2011), *Statistical Methods in the Atmospheric Sciences*, 3rd edition, section 8.2.2.
    """
    return false_alarms / (hits + false_alarms) if hits + false_alarms else math.nan


@dataclass(frozen=True)
class Verification:
    """The outcome of comparing tracks with the truth.

    Parameters
    ----------
    hits, misses : int
        True tracks that were found, and that were not.
    false_alarms : int
        Tracks found that match no true one.
    matched_points : int
        Points that the hits have in common with the truth.
    mean_position_error_km : float
        Mean great-circle distance over these points; NaN if there are none.
    """

    hits: int
    misses: int
    false_alarms: int
    matched_points: int
    mean_position_error_km: float

    @property
    def probability_of_detection(self) -> float:
        """See `probability_of_detection`."""
        return probability_of_detection(self.hits, self.misses)

    @property
    def false_alarm_ratio(self) -> float:
        """See `false_alarm_ratio`."""
        return false_alarm_ratio(self.hits, self.false_alarms)


def verify(
    tracks: Tracks, truth: Tracks, *, min_points: int = 6, min_overlap: int = 6, max_mean_distance: float = 500.0
) -> Verification:
    """Compare the tracks of one member with the truth.

    Parameters
    ----------
    tracks, truth : Tracks
        Of one member, over the same stretch of time.
    min_points : int
        Shortest track that was kept in tracking. True tracks with fewer points, such as those of storms that are born
        or die at the edge of the data, cannot be found: they are no misses, and tracks that match nothing but such a
        one are neither hits nor false alarms.
    min_overlap, max_mean_distance
        What counts as a match, in points and km; see `stormtracks.match.match_tracks`.

    Returns
    -------
    Verification
        A true track found in several pieces is one hit; the other pieces are false alarms.

    Raises
    ------
    InputError
        If there are tracks of several members, or the calendars differ.
    """
    members = np.union1d(tracks.member, truth.member)
    if len(members) > 1:
        raise InputError(
            f"tracks of {len(members)} members ({', '.join(map(str, members[:10]))}) at once",
            remedy="verify each member alone and pool the outcomes",
        )
    pairs = close_pairs(tracks, truth, max_mean_distance=max_mean_distance, min_overlap=min_overlap)
    long_enough = truth.row_size >= min_points
    counted = long_enough[pairs.reference]
    matches = one_to_one(pairs[counted])
    excused = np.setdiff1d(pairs.track[~counted], matches.track)
    points = int(matches.points.sum())
    distance = float((matches.points * matches.mean_distance_km).sum())
    return Verification(
        hits=len(matches),
        misses=int(long_enough.sum()) - len(matches),
        false_alarms=len(tracks) - len(matches) - len(excused),
        matched_points=points,
        mean_position_error_km=distance / points if points else math.nan,
    )


def pool(verifications: Iterable[Verification]) -> Verification:
    """The outcome of several comparisons as one: counts add up, errors are weighted by their points."""
    parts = list(verifications)
    points = sum(part.matched_points for part in parts)
    distance = sum(part.matched_points * part.mean_position_error_km for part in parts if part.matched_points)
    return Verification(
        hits=sum(part.hits for part in parts),
        misses=sum(part.misses for part in parts),
        false_alarms=sum(part.false_alarms for part in parts),
        matched_points=points,
        mean_position_error_km=distance / points if points else math.nan,
    )
