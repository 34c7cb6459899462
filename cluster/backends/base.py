"""The contract of a backend: it carries attempts to slots and brings back their outcomes, and decides nothing.

A backend is never asked what is done: that is the manager's to know. The function that a slot runs is handed to the
backend when it is made. It is called as ``function(year, ensemble_member, task, confirm=..., **arguments)`` and returns
a dict of plain values (text, numbers, None, and lists and dicts of these); its top-level whole numbers are added up in
the campaign's summary. It calls ``confirm()`` right before it moves a result into place: that raises LeaseLostError if
the attempt may not publish any more. Or it makes all attempts of an assignment in one go; see `LocalBackend`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome

__all__ = ["Backend", "Running", "Worker"]


@dataclass(frozen=True, slots=True)
class Worker:
    """Somewhere that work can be sent: a machine of so many slots, each of which takes one assignment at a time.

    A worker that was given up is used again only when it comes with another session.

    Parameters
    ----------
    name : str
    slots : int
    session : str
        Another one each time it is greeted.
    incarnation : str
        Another one each time its process is started; what an earlier one was given is not known to have ended.
    process : Process, optional
        Which process it is, on which `host`.
    host : str
    running : tuple of Attempt
        What it was at when this session began and is at still: a manager that was started again goes on with these.
    facts : mapping
        Versions and processor features, by name; for the campaign's record.
    """

    name: str
    slots: int
    session: str = ""
    incarnation: str = ""
    process: Process | None = None
    host: str = ""
    running: tuple[Attempt, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """What tells its process from any other: its incarnation, or its name, if it cannot be started anew."""
        return self.incarnation or self.name


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt under way: in which slot of its worker, counted from 1, and for how many seconds so far."""

    attempt: Attempt
    slot: int
    seconds: float


class Backend(ABC):
    """Carries attempts. A context manager that closes itself."""

    @abstractmethod
    def workers(self) -> tuple[Worker, ...]:
        """The workers that can be used now; later calls may know more, or fewer."""

    @abstractmethod
    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        """Begin assignments, cancel attempts, and bring back what has ended.

        One caller at a time per worker. Each attempt that was begun comes back exactly once, by itself: with the task's
        answer, or as ``failure``, ``timeout`` or ``lost`` with the reason. Assignments beyond the worker's slots wait
        there.

        Parameters
        ----------
        worker : str
            Name of the worker.
        begin : sequence of Assignment
            What to begin.
        cancel : sequence of Attempt
            What to end at once; comes back as ``lost``, unless it has ended by itself. While others of its assignment
            go on, it may go on as well, but publishes nothing.
        wait : float
            Seconds to wait at most for something to end. It is waited even if nothing runs, so that a loop of calls
            is a heartbeat.

        Raises
        ------
        WorkerEndedError
            If all that the worker was at has surely ended.
        BackendError
            If there is no such worker, or it cannot work. What it is at may go on until its lease ends.
        """

    @abstractmethod
    def running(self, worker: str) -> tuple[Running, ...]:
        """The attempts under way on a worker, in order of slot; from any thread."""

    def troubles(self) -> Mapping[str, str]:
        """Why workers that should be there cannot be used now, by name."""
        return {}

    @property
    def hopeless(self) -> bool:
        """Whether no worker can come, however long it is waited for; `troubles` says why."""
        return False

    @abstractmethod
    def close(self) -> None:
        """End everything that was started, within a bound; may be called again, and from any thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
