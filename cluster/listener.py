"""Who follows a campaign, and what is told: each change of a task, snapshots on request, and a summary at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from stormtracks.cluster.backends.base import Worker
from stormtracks.cluster.pyro_task import Attempt, Failure

__all__ = ["Change", "Listener", "Progress", "Snapshot", "Summary", "WorkerState"]


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a task.

    Parameters
    ----------
    event : str
        ``begun``; ``complete``; ``found``: complete already, and not run again; ``failure``; ``timeout``;
        ``lost``: the attempt ended through no fault of its own; the task will be handed out again, and until then is
        outstanding, or shows a timeout if its worker is gone.
    attempt : Attempt
    worker : str
    seconds : float
        How long the attempt ran.
    result : mapping
        What the task returned, if complete or found.
    error : str
        The reason, if it failed, timed out or was lost.
    """

    event: str
    attempt: Attempt
    worker: str
    seconds: float = 0.0
    result: Mapping[str, Any] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the campaign is; throughput in tasks per minute and time left in seconds are None until known."""

    finished: int
    total: int
    per_minute: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker, and the attempts it makes with the seconds since they were handed out."""

    worker: Worker
    running: tuple[tuple[Attempt, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a board shows, at one moment: `rows` holds each year with one glyph per member."""

    task: str
    members: tuple[int, ...]
    rows: tuple[tuple[int, str], ...]
    counts: Mapping[str, int]
    progress: Progress
    seconds: float
    workers: tuple[WorkerState, ...] = ()
    last_failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """How a campaign ended.

    Parameters
    ----------
    counts : mapping
        Number of tasks by status.
    total : int
        Number of tasks.
    found : int
        Tasks that were complete already and not run again.
    totals : mapping
        The sum of each whole number in the results of all complete tasks, by its name.
    failures : tuple of tuple of Failure
        For each task that failed or timed out in the end: every reason, in order.
    interrupted : bool
        Whether it was stopped before its end.
    problem : str
        Why it could not go on; empty if it could.
    seconds : float
        How long it took.
    resume : str
        The command that goes on with it.
    """

    counts: Mapping[str, int]
    total: int
    found: int
    totals: Mapping[str, int]
    failures: tuple[tuple[Failure, ...], ...]
    interrupted: bool
    problem: str
    seconds: float
    resume: str = ""

    @property
    def ok(self) -> bool:
        """Whether every task is complete."""
        return self.counts["complete"] == self.total


class Listener(Protocol):
    """Who is told what happens; always from the thread that runs the manager."""

    def begin(self, snapshot: Snapshot) -> None:
        """The campaign begins."""

    def changed(self, change: Change, progress: Progress) -> None:
        """Something happened to a task."""

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """Called often, at least with every heartbeat; ask for a snapshot only if it is time to show one."""

    def end(self, snapshot: Snapshot, summary: Summary) -> None:
        """The campaign has ended, well or not."""
