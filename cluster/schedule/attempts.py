"""The words for what happens to a task: the try at it, how that ended, and why it failed. Plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FAILED", "Assignment", "Attempt", "Failure", "Outcome"]

FAILED = ("failure", "timeout")
"""How an attempt ends that counts against its task."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a task; `number` counts the tries at this task from 1."""

    number: int
    year: int
    ensemble_member: int
    task: str


Assignment = tuple[Attempt, ...]
"""Attempts that one worker makes together, because they share one pass over the data."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended; plain values only, so that it can travel.

    Parameters
    ----------
    attempt : Attempt
    status : str
        ``complete``, ``failure``, ``timeout``, or ``lost``: ended without an answer through no fault of the task
        (cancelled, or its worker went away).
    result : dict
        What the task returned: plain values by name.
    error : str
        The reason, unless complete.
    seconds : float
        How long the attempt ran.
    permanent : bool
        Whether another attempt would surely fail in the same way, as with input that cannot be used.
    exit_code : int, optional
        Of the process that made the attempt, if it has ended with it; negative for a signal.
    """

    attempt: Attempt
    status: str
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    permanent: bool = False
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed or timed out: on which worker, and why.

    Parameters
    ----------
    attempt : Attempt
    status : str
        ``failure``, ``timeout``, or ``lost``: the last of the losses for which a task is given up.
    worker : str
    reason : str
    permanent : bool
        Whether another attempt would surely fail in the same way.
    forgiven : bool
        Whether it was the worker's fault, so that it does not count against the task.
    """

    attempt: Attempt
    status: str
    worker: str
    reason: str
    permanent: bool = False
    forgiven: bool = False
