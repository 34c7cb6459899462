"""Attempts that are out with workers which do not answer: they may go on, until the lease of the worker is over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stormtracks.cluster.backends.base import Worker
from stormtracks.cluster.listener import WorkerState
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Attempt
from stormtracks.cluster.record import Held

__all__ = ["Silent", "SilentWorkers"]


class Silent(NamedTuple):
    """Who has an attempt and does not answer, since when it has it, and what is known of the silence."""

    worker: str
    incarnation: str
    since: float
    problem: str
    process: Process | None = None
    """The worker's, if that is known."""


class SilentWorkers:
    """What workers hold that do not answer."""

    def __init__(self) -> None:
        self._held: dict[Attempt, Silent] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, attempt: Attempt, silent: Silent) -> None:
        """An attempt is out with a worker that does not answer."""
        self._held[attempt] = silent

    def take_over(self, attempts: Iterable[Held], now: float) -> None:
        """Attempts were under way when the last manager ended."""
        for held in attempts:
            problem = "at work since before this start"
            self.add(held.attempt, Silent(held.worker, held.incarnation, now, problem, held.process))

    def remove(self, attempt: Attempt) -> Silent | None:
        """An attempt is not out any more, or its worker answers again; what was known of it."""
        return self._held.pop(attempt, None)

    def remove_all(self, incarnation: str) -> dict[Attempt, Silent]:
        """A worker answers again: what it was given."""
        found = {attempt: silent for attempt, silent in self._held.items() if silent.incarnation == incarnation}
        for attempt in found:
            del self._held[attempt]
        return found

    def ended(self) -> set[str]:
        """Incarnations of those whose process has surely ended, so that there is no lease to be waited for."""
        processes = {silent.incarnation: silent.process for silent in self._held.values() if silent.process is not None}
        return {incarnation for incarnation, process in processes.items() if process.has_ended}

    def states(self, now: float) -> Iterator[WorkerState]:
        """Each of these workers with its attempts."""
        by_worker: dict[tuple[str, str], list[tuple[Attempt, float]]] = {}
        for attempt, silent in self._held.items():
            by_worker.setdefault((silent.worker, silent.problem), []).append((attempt, now - silent.since))
        for (worker, problem), running in by_worker.items():
            yield WorkerState(Worker(worker, 0), tuple(running), problem)
