"""What can go wrong in the cluster room: one base, on the house's pattern of what, where, given, needed and remedy."""

from __future__ import annotations

from stormtracks.errors import StormtracksError

__all__ = ["BackendError", "ClusterError", "NotScheduledError", "UnknownStatusError", "UnknownTaskError"]


class ClusterError(StormtracksError):
    """Base of every error of the cluster room."""


class UnknownTaskError(ClusterError, ValueError):
    """There is no task of this name."""


class UnknownStatusError(ClusterError, ValueError):
    """There is no status of this name."""


class NotScheduledError(ClusterError, LookupError):
    """The year or member is not in the schedule."""


class BackendError(ClusterError):
    """A backend cannot carry work: it is misused, its workers cannot start, or it has none left."""
