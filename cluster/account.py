"""What a campaign has come to so far: pace, totals and failures, and the changes that are still to be told of."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from stormtracks.cluster.listener import Change, Listener, Progress, Summary
from stormtracks.cluster.pyro_task import Failure, PyroTaskSchedule
from stormtracks.cluster.schedule.attempts import FAILED

__all__ = ["Account"]

LAST_FAILURES = 8
"""Failures that a snapshot shows."""
_PACE_OVER = 200
"""Tasks over which the throughput is taken."""


class Account:
    """Counts what happens. A change counts and is told of only when the manager has written it down.

    Parameters
    ----------
    schedule : PyroTaskSchedule
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, schedule: PyroTaskSchedule, clock: Callable[[], float]) -> None:
        self.found = 0
        self.totals: Counter[str] = Counter()
        self.last_failures: deque[Failure] = deque(maxlen=LAST_FAILURES)
        self._schedule = schedule
        self._clock = clock
        self._finish_times: deque[float] = deque(maxlen=_PACE_OVER)
        self._left = schedule.left
        self._untold: list[tuple[Change, Progress]] = []

    def note(self, change: Change) -> None:
        """Something has happened; it will be told of, with the progress of now."""
        begins, left = change.event == "begun" and not self._finish_times, self._schedule.left
        if begins or (change.event in ("complete", "failure", "timeout") and left < self._left):
            self._finish_times.append(self._clock())
        self._left = left
        self._untold.append((change, self.progress()))

    def tell(self, listener: Listener) -> None:
        """Tell of what has happened since the last time; it is written down by now."""
        untold, self._untold = self._untold, []
        for change, progress in untold:
            self._count(change)
            listener.changed(change, progress)

    def take_back(self) -> None:
        """What has happened but was not written down has not happened, as far as anyone can ever tell."""
        for change, _ in self._untold:
            if change.event != "quarantined":
                self._schedule.find(change.attempt.year, change.attempt.ensemble_member).status = "outstanding"
        self._untold = []

    def add_found(self, result: Mapping[str, Any]) -> None:
        """Count a result of before."""
        self.found += 1
        self._add_up(result)

    def progress(self) -> Progress:
        """How far the campaign is, and how fast."""
        total, left = len(self._schedule), self._schedule.left
        count = len(self._finish_times) - 1
        seconds = self._clock() - self._finish_times[0] if count > 0 else 0.0
        if seconds <= 0:
            return Progress(total - left, total)
        return Progress(total - left, total, per_minute=60 * count / seconds, seconds_left=left * seconds / count)

    def summary(self, **how_it_ended: Any) -> Summary:
        """How the campaign ended: its tasks, and what else there is to say, as `Summary` takes it."""
        failures = (reasons for task, reasons in self._schedule.failures() if task.status in FAILED)
        return Summary(
            counts=self._schedule.counts,
            total=len(self._schedule),
            found=self.found,
            totals=dict(self.totals),
            failures=tuple(failures),
            **how_it_ended,
        )

    def _count(self, change: Change) -> None:
        if change.event == "found":
            self.add_found(change.result or {})
        elif change.event == "complete":
            self._add_up(change.result or {})
        elif change.event in FAILED:
            self.last_failures.append(Failure(change.attempt, change.event, change.worker, change.error))

    def _add_up(self, result: Mapping[str, Any]) -> None:
        self.totals.update({name: value for name, value in result.items() if type(value) is int})
