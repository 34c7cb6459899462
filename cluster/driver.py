"""A thread for each worker, which carries orders to the backend and brings answers back; it decides nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from queue import SimpleQueue

from stormtracks.cluster.backends.base import Backend, Worker
from stormtracks.cluster.errors import WorkerEndedError
from stormtracks.cluster.listener import WorkerState
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome

__all__ = ["Answer", "Driver"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an exchange brought: outcomes, or the problem for which the worker cannot go on.

    Parameters
    ----------
    driver : Driver
    outcomes : sequence of Outcome
    problem : str
    ended : bool
        Whether all that the worker was at has surely ended with the problem.
    """

    driver: Driver
    outcomes: Sequence[Outcome] = ()
    problem: str = ""
    ended: bool = False


class Driver(threading.Thread):
    """Carries one worker's orders to the backend and its answers to the manager, one for one.

    Parameters
    ----------
    worker : Worker
    backend : Backend
    heartbeat : float
        Seconds that an exchange may wait.
    answers : queue of Answer
        The manager's.
    """

    def __init__(self, worker: Worker, backend: Backend, heartbeat: float, answers: SimpleQueue[Answer | None]) -> None:
        # A daemon, so that a backend that never returns cannot keep the process from ending.
        super().__init__(name=f"stormtracks-{worker.name}", daemon=True)
        self.worker = worker
        self.running: dict[Attempt, float] = {}
        """Attempts at the worker and when they were handed out; the manager's to change."""
        self.stale: tuple[Attempt, ...] = ()
        """Attempts at the worker that count no more and are to be cancelled; the manager's to change."""
        self.offered = True
        """Whether the backend still offers it, so that it may be given work."""
        self.ordered_at = inf
        """When it was given what it carries now; infinite while it carries nothing."""
        self.orders: SimpleQueue[tuple[Sequence[Assignment], Sequence[Attempt]] | None] = SimpleQueue()
        """What to begin and to cancel next; None ends the thread."""
        self._backend = backend
        self._heartbeat = heartbeat
        self._answers = answers

    @property
    def key(self) -> str:
        """The incarnation of the worker, by which the schedule knows it; its name, if it cannot be started anew."""
        return self.worker.key

    def state(self, now: float, trouble: str) -> WorkerState:
        """What the worker is at, and why it gets no more, if so."""
        return WorkerState(self.worker, tuple((one, now - since) for one, since in self.running.items()), trouble)

    def run(self) -> None:
        """Carry orders until there are no more."""
        while (orders := self.orders.get()) is not None:
            try:
                outcomes = self._backend.exchange(self.worker.name, *orders, self._heartbeat)
            except Exception as error:
                logger.debug("exchange with %s failed", self.worker.name, exc_info=True)
                ended = isinstance(error, WorkerEndedError)
                self._answer(Answer(self, problem=f"{type(error).__name__}: {error}", ended=ended))
                return
            self._answer(Answer(self, outcomes))

    def _answer(self, answer: Answer) -> None:
        self.ordered_at = inf
        self._answers.put(answer)
