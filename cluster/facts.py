"""What a process computes with: versions that must be the same on every host, and what is kept for the record."""

from __future__ import annotations

import platform
from importlib.metadata import version

from stormtracks import __version__
from stormtracks.cluster.cpu import processor

__all__ = ["facts", "versions"]


def versions() -> dict[str, str]:
    """What must be the same on every host for results to be the same."""
    return {
        "stormtracks": __version__,
        "numpy": version("numpy"),
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


def facts() -> dict[str, str]:
    """What may differ between hosts and is kept in the campaign's record, by name."""
    return {"processor": processor(), "C library": " ".join(platform.libc_ver()).strip()}
