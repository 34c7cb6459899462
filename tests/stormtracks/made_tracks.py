"""Tracks made by hand, for the tests of what works on tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stormtracks.reanalysis.archive import Quantity
from stormtracks.tracks import Tracks

VORTICITY = Quantity("vorticity", "atmosphere_relative_vorticity", "s-1")

Path = Sequence[tuple[int, float, float]]
"""Time step of 6 hours, latitude, longitude of each point."""


def tracks_of(*paths: Path, member: int = 1, calendar: str = "standard") -> Tracks:
    """One track per path."""
    points = np.array([point for path in paths for point in path], dtype=np.float64).reshape(-1, 3)
    n = len(paths)
    return Tracks(
        row_size=np.array([len(path) for path in paths], dtype=np.int64),
        track_id=1 + np.arange(n),
        year=np.full(n, 1970),
        member=np.full(n, member),
        starts_cut=np.zeros(n, dtype=bool),
        ends_cut=np.zeros(n, dtype=bool),
        time=21600 * points[:, 0].astype(np.int64),
        lat=points[:, 1],
        lon=points[:, 2] % 360,
        value=np.full(len(points), 1e-4),
        quantity=VORTICITY,
        calendar=calendar,
    )


def eastward(lat: float, lon: float, *, first: int = 0, points: int = 8) -> list[tuple[int, float, float]]:
    """A path along a parallel, one degree a step."""
    return [(first + i, lat, lon + i) for i in range(points)]
