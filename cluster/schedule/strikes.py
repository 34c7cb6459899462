"""Whose fault it was: failures and losses of tasks, and workers that fail one task after another.

A failure counts against the task and against the worker. A task that has failed too often is given up. A worker that
fails several different tasks in a row is the common cause: it is *quarantined*, gets no more work, and its failures
are forgiven. A loss is when a task goes down with its worker; it never counts as a failure, for machines break, but a
task that was lost too often may well be what breaks them, and is given up as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from stormtracks.cluster.schedule.assignments import Key
from stormtracks.cluster.schedule.attempts import Failure
from stormtracks.cluster.schedule.rules import Rules

__all__ = ["Strikes"]

SUSPECT_AFTER = 2
"""Losses after which a task is suspected of breaking its workers."""


@dataclass(slots=True)
class Strikes:
    """What counts against tasks, by their index, and against workers, by their name; only of those that are touched."""

    rules: Rules
    failures: dict[int, list[Failure]] = field(default_factory=dict)
    losses: dict[int, list[str]] = field(default_factory=dict)
    returned: Counter[int] = field(default_factory=Counter)
    """How often tasks came back through no fault of their own, as when their bundle ended with another one of it."""
    quarantined: dict[str, tuple[str, str]] = field(default_factory=dict)
    """For each worker that gets no more work its incarnation, and why."""
    _rows: dict[str, dict[int, Key | None]] = field(default_factory=dict)
    """For each worker the tasks it failed since it last completed one, with the assignments of which they were."""
    _earlier: dict[str, dict[int, None]] = field(default_factory=dict)
    """The same of an earlier schedule, in which it may have completed others: they are forgiven, but prove nothing."""

    def failed(self, index: int, failure: Failure, assignment: Key | None) -> Failure:
        """A task has failed on a worker; the failure as it is kept, forgiven if the worker is known to be bad."""
        if not failure.permanent and failure.worker in self.quarantined:
            failure = replace(failure, forgiven=True)
        elif not failure.permanent:
            self._rows.setdefault(failure.worker, {})[index] = assignment
        self.failures.setdefault(index, []).append(failure)
        return failure

    def given_up(self, index: int, failure: Failure) -> None:
        """A task is given up for its losses."""
        self.failures.setdefault(index, []).append(failure)

    def restore(self, index: int, failures: Iterable[Failure]) -> None:
        """A task has a record from an earlier schedule."""
        if kept := list(failures):
            self.failures[index] = kept
        for failure in kept:
            self._earlier.setdefault(failure.worker, {})[index] = None

    def completed(self, worker: str) -> None:
        """A worker has completed a task: it can do so."""
        self._rows.pop(worker, None)
        self._earlier.pop(worker, None)

    def lost(self, index: int, worker: str, reason: str) -> None:
        """A task was lost with its worker."""
        self.losses.setdefault(index, []).append(f"{worker} ({reason})" if reason else worker)

    def found_again(self, index: int) -> None:
        """The last loss of a task was none."""
        self.losses[index].pop()

    def count(self, index: int) -> int:
        """How many failures count against a task."""
        return sum(map(_counts, self.failures.get(index, ())))

    def last_failed_at(self, index: int) -> str:
        """The worker that was the last to fail a task, empty if there is none."""
        failures = self.failures.get(index)
        return failures[-1].worker if failures else ""

    def is_suspect(self, index: int) -> bool:
        """Whether a task was lost so often that no other such task should be given to the same worker."""
        return len(self.losses.get(index, ())) >= SUSPECT_AFTER

    def company(self, index: int, largest: int) -> int:
        """How many tasks may travel together if this is one of them, where no bundle has more than `largest`.

        A suspect one goes alone, and one that has failed. What came back again and again goes with half as many each
        time, so that whatever makes the bundles end is found.
        """
        if self.is_suspect(index) or self.count(index):
            return 1
        return max(1, largest >> max(0, self.returned[index] - 1))

    def lost_too_often(self, index: int) -> bool:
        """Whether a task is given up for its losses."""
        return len(self.losses.get(index, ())) >= self.rules.max_losses

    def gives_up(self, index: int) -> bool:
        """Whether a task is not to be tried again."""
        hopeless = any(failure.permanent for failure in self.failures.get(index, ()))
        return hopeless or self.count(index) >= self.rules.max_attempts or self.lost_too_often(index)

    def why_lost(self, index: int) -> str:
        """With which workers a task was lost."""
        losses = self.losses[index]
        return f"lost with its worker {len(losses)} times: {'; '.join(losses)}"

    def fails_everything(self, worker: str) -> bool:
        """Whether a worker has failed so many different tasks in a row that it must be its own fault.

        Those of one assignment count as one: it may be what they share that is at fault.
        """
        row = self._rows.get(worker)
        return row is not None and len(set(row.values())) >= self.rules.worker_strikes

    def quarantine(self, worker: str, incarnation: str) -> dict[int, list[Failure]]:
        """Blame a worker for what it failed in a row: the failures that are now forgiven, by their tasks."""
        forgiven: dict[int, list[Failure]] = {}
        row = self._rows.pop(worker)
        for index in {**row, **self._earlier.pop(worker, {})}:
            failures = self.failures[index]
            for place, failure in enumerate(failures):
                if failure.worker == worker and _counts(failure) and not failure.permanent:
                    failures[place] = replace(failure, forgiven=True)
                    forgiven.setdefault(index, []).append(failures[place])
        last = forgiven[next(reversed(row))][-1]
        reason = f"failed {len(row)} different tasks in a row, at last {last.attempt.year} member "
        reason += f"{last.attempt.ensemble_member}: {last.reason}"
        self.quarantined[worker] = incarnation, reason
        return forgiven

    def release(self, worker: str, incarnation: str) -> None:
        """A worker has been started anew: it may try again."""
        if self.quarantined.get(worker, (incarnation, ""))[0] != incarnation:
            del self.quarantined[worker]


def _counts(failure: Failure) -> bool:
    """Whether a failure counts against its task."""
    return not failure.forgiven and failure.status != "lost"
