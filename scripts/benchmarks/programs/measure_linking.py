"""measure_linking.py CENTRES STEPS: how long linking alone takes, ours and PyStormTracker's; prints JSON.

Storms that drift eastward, each seen at a dozen steps in the mean, are born all over the sphere as others end, so that
there are as many at every step. Ours links them by both methods; once, twice and four times as many by the nearest, to
see how that grows. PyStormTracker's `simple` linker gets the very same centres. Each takes what its own detection would
give it and ends with tracks; none writes them. Everything has run on a few steps before the clock begins.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from stormtracks.detect import Centres
from stormtracks.settings.campaign import TrackingSettings
from stormtracks.track import Moment, TrackBuilder

FloatArray = npt.NDArray[np.float64]
Step = tuple[FloatArray, FloatArray]

STEP_SECONDS = 6 * 3600
MEAN_LIFE = 12  # steps
DRIFT_KM = 250.0  # in a step, as at 11.6 m/s
KM_PER_DEGREE = 111.2
WARM_UP = 3
TIMES = (1, 2, 4)


def main() -> None:
    """Link, and tell how long it took."""
    centres, steps = int(sys.argv[1]), int(sys.argv[2])
    series = {times: storms(times * centres // steps, steps) for times in TIMES}
    found: dict[str, Any] = {}
    linkers: dict[str, tuple[Callable[[list[Step]], int], int]] = {
        **{f"nearest_{times}x": (lambda given: link(given, "nearest"), times) for times in TIMES},
        "assignment_1x": (lambda given: link(given, "assignment"), 1),
    }
    if importlib.util.find_spec("pystormtracker") is None:
        found["missing"] = "PyStormTracker"
    else:
        linkers["pystormtracker_1x"] = (link_as_pystormtracker, 1)
    for name, (linker, times) in linkers.items():
        linker(series[times][:WARM_UP])
        began = time.perf_counter()
        tracks = linker(series[times])
        found[f"{name}_s"] = time.perf_counter() - began
        found[f"{name}_tracks"] = tracks
    print(json.dumps(found))


def storms(count: int, steps: int) -> list[Step]:
    """Latitude and longitude of so many storms at each step, in order of place as detection has them."""
    rng = np.random.default_rng(count)
    lat, lon = newborn(rng, count)
    found = []
    for _ in range(steps):
        order = np.lexsort((lon, -lat))
        found.append((lat[order], lon[order]))
        lat = np.clip(lat + rng.normal(scale=0.4, size=count), -89.0, 89.0)
        lon = (lon + DRIFT_KM / KM_PER_DEGREE / np.cos(np.radians(lat))) % 360
        ends = np.flatnonzero(rng.random(count) < 1 / MEAN_LIFE)
        lat[ends], lon[ends] = newborn(rng, len(ends))
    return found


def newborn(rng: np.random.Generator, count: int) -> Step:
    """Places, equally likely all over the sphere."""
    return np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, count))), rng.uniform(0.0, 360.0, count)


def link(series: list[Step], method: str) -> int:
    """Ours; how many tracks it makes."""
    builder = TrackBuilder(TrackingSettings.model_validate({"method": method}))
    for step, (lat, lon) in enumerate(series):
        inside = np.ones(len(lat), dtype=bool)
        centres = Centres(np.zeros(len(lat), dtype=np.int64), lat, lon, np.ones(len(lat)), inside)
        builder.add(centres, Moment(step * STEP_SECONDS, 1970, 1970, step == 0))
    return len(np.unique(builder.linked().points.chain))


def link_as_pystormtracker(series: list[Step]) -> int:
    """The linker of PyStormTracker's `simple` tracker, at its defaults."""
    linker = importlib.import_module("pystormtracker.simple").SimpleLinker()
    tracks = importlib.import_module("pystormtracker.models").Tracks()
    for step, (lat, lon) in enumerate(series):
        moment = np.datetime64(step * STEP_SECONDS, "s")
        linker.append(tracks, (moment, lat, lon, {"value": np.ones(len(lat))}))
    return len(tracks)


if __name__ == "__main__":
    main()
