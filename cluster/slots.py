"""The slots of one worker, shared by all who call it: attempts go in from any thread, and each finds its outcome."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from itertools import count
from threading import Condition, Thread

from stormtracks.cluster.backends.base import Running
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.errors import BackendError
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome

__all__ = ["SharedSlots"]

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0


class SharedSlots:
    """A local backend with one thread that serves it, so that several callers can wait for what is theirs.

    Parameters
    ----------
    backend : LocalBackend
        The slots; closed with this.
    """

    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend
        (self._worker,) = backend.workers()
        self._changed = Condition()
        self._begin: list[Assignment] = []
        self._cancel: list[Attempt] = []
        self._ended: list[Outcome] = []
        self._singles: dict[Attempt, Outcome | None] = {}
        self._single_numbers = count(1)
        self._problem: str = ""
        self._closed = False
        self._thread = Thread(target=self._serve, name="stormtracks-shared-slots", daemon=True)
        self._thread.start()

    @property
    def slots(self) -> int:
        """How many there are."""
        return self._worker.slots

    def exchange(self, begin: Sequence[Assignment], cancel: Collection[Attempt], wait: float) -> list[Outcome]:
        """Begin and cancel attempts and bring back what has ended, as `Backend.exchange` does.

        Raises
        ------
        BackendError
            If the slots cannot work, or have been closed.
        """
        with self._changed:
            self._order(begin, cancel)
            self._changed.wait_for(lambda: self._ended or self._problem, wait)
            if self._problem:
                raise BackendError(self._problem)
            ended, self._ended = self._ended, []
        return ended

    def run(self, year: int, ensemble_member: int, task: str) -> Outcome:
        """Make one attempt, however long it takes, behind those that were begun before it.

        Raises
        ------
        BackendError
            If the slots cannot work, or have been closed.
        """
        # No schedule numbers its attempts like this.
        attempt = Attempt(-next(self._single_numbers), year, ensemble_member, task)
        with self._changed:
            self._singles[attempt] = None
            self._order([(attempt,)], ())
            self._changed.wait_for(lambda: self._singles[attempt] or self._problem)
            outcome = self._singles.pop(attempt)
            if outcome is None:
                raise BackendError(self._problem)
        return outcome

    def running(self) -> tuple[Running, ...]:
        """The attempts under way, in order of slot."""
        return self._backend.running(self._worker.name)

    def close(self) -> None:
        """End everything at once; whoever waits gets a BackendError."""
        with self._changed:
            self._closed = True
            self._problem = self._problem or "the worker has ended this session"
            self._changed.notify_all()
        self._backend.wake()
        self._thread.join()
        self._backend.close()

    def _order(self, begin: Sequence[Assignment], cancel: Collection[Attempt]) -> None:
        if begin or cancel:
            self._begin += begin
            self._cancel += cancel
            self._backend.wake()

    def _serve(self) -> None:
        while not self._closed:
            with self._changed:
                begin, self._begin = self._begin, []
                cancel, self._cancel = self._cancel, []
            try:
                outcomes = self._backend.exchange(self._worker.name, begin, cancel, _LONGEST_WAIT)
            except Exception as error:
                logger.warning("the slots cannot go on", exc_info=not isinstance(error, BackendError))
                self._give_up(str(error))
                return
            with self._changed:
                for outcome in outcomes:
                    if outcome.attempt in self._singles:
                        self._singles[outcome.attempt] = outcome
                    else:
                        self._ended.append(outcome)
                self._changed.notify_all()

    def _give_up(self, problem: str) -> None:
        with self._changed:
            self._problem = self._problem or problem
            self._changed.notify_all()
