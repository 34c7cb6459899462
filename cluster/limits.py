"""How long a manager waits for what."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a manager waits for what.

    Parameters
    ----------
    heartbeat : float
        Seconds a call to the backend may wait; how soon a cancellation or a late worker is seen.
    silence : float
        Seconds without an answer after which a worker is given up, whatever its backend says.
    patience : float
        Seconds to go on without any worker.
    """

    heartbeat: float = 1.0
    silence: float = 30.0
    patience: float = 0.0
