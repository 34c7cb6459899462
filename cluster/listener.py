"""Who follows a campaign, and what is told: each change of a task, snapshots on request, and a summary at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        ``begun``; ``complete``; ``found``: complete already, and not run again; ``again``: was complete, but its
        result is not what it was or should be; ``failure``; ``timeout``; ``lost``: the attempt ended through no fault
        of its own; the task will be handed out again, and until then is outstanding, or shows a timeout if its worker
        is gone; ``quarantined``: after this attempt its worker gets no more work.
    attempt : Attempt
        The last one that was made, where the event is none of an attempt.
    worker : str
        Empty where there was none.
    seconds : float
        How long the attempt ran.
    result : mapping
        What the task returned, if complete or found.
    error : str
        The reason, unless it has begun or is complete.
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
    """A worker, the attempts it makes with the seconds since they were handed out, and why it gets no more, if so."""

    worker: Worker
    running: tuple[tuple[Attempt, float], ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a board shows, at one moment.

    `rows` holds each year with one glyph per member; `unchecked` is the number of results of before that are still to
    be looked at, `unreadable` of those that were kept although their input is not there any more; `draining` says
    whether nothing more is handed out, and what runs is waited for.
    """

    task: str
    members: tuple[int, ...]
    rows: tuple[tuple[int, str], ...]
    counts: Mapping[str, int]
    progress: Progress
    seconds: float
    workers: tuple[WorkerState, ...] = ()
    last_failures: tuple[Failure, ...] = ()
    unchecked: int = 0
    unreadable: int = 0
    draining: bool = False


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
    quarantined : mapping
        Workers that were given no more work because they failed whatever they got, with the reason.
    unreadable : int
        Results of before that were kept although they could not be checked, as their input is not there any more.
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
    quarantined: Mapping[str, str] = field(default_factory=dict)
    unreadable: int = 0

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

    def draining(self, running: int) -> None:
        """The campaign is being stopped: nothing more is handed out, and so many attempts are waited for."""

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """Called often, at least with every heartbeat; ask for a snapshot only if it is time to show one."""

    def end(self, snapshot: Snapshot, summary: Summary) -> None:
        """The campaign has ended, well or not."""
