"""What a manager tells and asks of that which outlasts it: the record of a campaign, and its published results.

The two classes here keep nothing and know of nothing: a manager with them works for the moment. `ledger` and
`published` hold those of a campaign.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, NamedTuple

from stormtracks.cluster.backends.base import Worker
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Attempt, Outcome

__all__ = ["Held", "Published", "Record"]


class Held(NamedTuple):
    """An attempt that was under way when the last manager ended, and may be still."""

    attempt: Attempt
    worker: str
    incarnation: str
    process: Process | None = None
    """The worker's, if that is known."""


class Record:
    """Keeps what happens: nothing until `save`, then all that was told since the last time, or nothing of it."""

    @property
    def at_a_time(self) -> float:
        """How many attempts may be under way at a time."""
        return inf

    def joined(self, worker: Worker) -> None:
        """A worker can be used."""

    def begun(self, attempt: Attempt, worker: Worker) -> None:
        """An attempt is about to be handed out."""

    def resumed(self, attempt: Attempt) -> None:
        """An attempt that seemed lost goes on."""

    def ended(self, outcome: Outcome) -> None:
        """An attempt that was begun has ended."""

    def found(self, attempt: Attempt, result: Mapping[str, Any]) -> None:
        """A task needs no attempt: its result is there."""

    def again(self, year: int, ensemble_member: int, reason: str) -> None:
        """A task that was complete is to be done again."""

    def forgiven(self, attempts: Iterable[Attempt]) -> None:
        """Attempts that failed do not count against their tasks any more."""

    def quarantined(self, worker: Worker, reason: str) -> None:
        """A worker gets no more work."""

    def unreadable(self, count: int) -> None:
        """So many results of before were not checked, as their input is not there any more."""

    def save(self) -> None:
        """Commit what was told.

        Raises
        ------
        StoreError
            If it cannot be kept. What was told since the last time is dropped.
        """

    def held(self) -> tuple[Held, ...]:
        """The attempts that were under way when the record was opened."""
        return ()

    def completed(self) -> tuple[tuple[int, int], ...]:
        """Year and member of the tasks that were complete when the record was opened."""
        return ()

    def attempts(self, year: int, ensemble_member: int) -> int:
        """How many attempts were made at a task."""
        return 0

    def result(self, year: int, ensemble_member: int) -> Mapping[str, Any]:
        """The result of a complete task."""
        return {}

    def is_rerun(self, year: int, ensemble_member: int) -> bool:
        """Whether a task is to be done again although its result is there."""
        return False


class Published:
    """The results as they lie on disk."""

    unreadable: int = 0
    """How many were looked at that cannot be checked, as their input is not there any more; they count."""

    def find(self, year: int, ensemble_member: int) -> Mapping[str, Any] | None:
        """The result of a task, if one is there that is intact and would come out the same again."""
        return None

    def fault(self, year: int, ensemble_member: int, result: Mapping[str, Any]) -> str:
        """Why the result that a task once had does not count any more; empty if it does."""
        return ""
