"""Find and follow cyclones in every member of an ensemble reanalysis or forecast.

Names are loaded when they are first used, so that ``import stormtracks`` and ``stormtracks --help`` cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stormtracks.errors import InputError, ResultNotFoundError, ResultsError, StormtracksError
    from stormtracks.results import StormtracksResultsManager
    from stormtracks.tasks import track_file
    from stormtracks.tracks import Tracks, read_tracks

_HOME = {
    "InputError": "stormtracks.errors",
    "ResultNotFoundError": "stormtracks.errors",
    "ResultsError": "stormtracks.errors",
    "StormtracksError": "stormtracks.errors",
    "StormtracksResultsManager": "stormtracks.results",
    "Tracks": "stormtracks.tracks",
    "read_tracks": "stormtracks.tracks",
    "track_file": "stormtracks.tasks",
}

__all__ = [
    "InputError",
    "ResultNotFoundError",
    "ResultsError",
    "StormtracksError",
    "StormtracksResultsManager",
    "Tracks",
    "read_tracks",
    "track_file",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'stormtracks' has no attribute {name!r}")
