"""What can go wrong in the cluster room: one base, on the house's pattern of what, where, given, needed and remedy."""

from __future__ import annotations

from stormtracks.errors import StormtracksError

__all__ = [
    "BackendError",
    "CampaignHeldError",
    "CertificateError",
    "ClusterError",
    "GoneError",
    "HostError",
    "LeaseLostError",
    "ListenError",
    "NoAnswerError",
    "NotScheduledError",
    "ParameterSetError",
    "SessionError",
    "StoreChangedError",
    "StoreDamagedError",
    "StoreError",
    "TransportError",
    "UnknownFormatError",
    "UnknownStatusError",
    "UnknownTaskError",
    "WorkerEndedError",
    "WorkerRefusedError",
    "WorkflowNotFoundError",
]


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


class WorkerEndedError(BackendError):
    """A worker cannot work, and nothing that it was given goes on."""


class LeaseLostError(ClusterError):
    """An attempt may not publish its result any more: its task may have been handed out again."""


class StoreError(ClusterError):
    """A campaign's store cannot be used as it is."""


class StoreDamagedError(StoreError):
    """A campaign's store cannot be read: it was cut short or changed by something else than this program."""


class StoreChangedError(StoreError):
    """Another writer has changed a campaign's store since it was read."""


class ParameterSetError(StoreError, RuntimeError):
    """A value that is written once has been written already."""


class UnknownFormatError(StoreError, ValueError):
    """There is no kind of campaign store of this name."""


class WorkflowNotFoundError(StoreError, LookupError):
    """There is no campaign in a folder."""


class CampaignHeldError(ClusterError):
    """Another manager has the campaign."""


class ListenError(ClusterError):
    """An address cannot be listened on, or must not be."""


class TransportError(ClusterError):
    """A call to another process has failed on the way, or inside it for no reason that it knows."""


class CertificateError(TransportError):
    """A certificate is missing, has expired, or is not trusted by the one or the other side."""


class NoAnswerError(TransportError):
    """No answer came in time; whoever was called may be cut off, hanging or gone."""


class GoneError(TransportError):
    """Nobody is there any more: the process that had this address has ended."""


class WorkerRefusedError(ClusterError):
    """A worker cannot be used for a campaign as it is."""


class SessionError(ClusterError):
    """A worker knows nothing of this session, or has given itself to another manager since."""


class HostError(ClusterError):
    """A host of the cluster cannot be reached, or did not do what it was asked."""
