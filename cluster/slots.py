"""The slots of one worker, shared by all who call it: attempts go in from any thread, and each finds its outcome."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from itertools import count
from threading import Condition, Thread

from stormtracks.cluster.backends.base import Running
from stormtracks.cluster.backends.child_process import GRACE
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.errors import BackendError, SessionError, WorkerEndedError
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome

__all__ = ["SharedSlots"]

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0


class SharedSlots:
    """A local backend with one thread that serves it, so that several callers can wait for what is theirs.

    One tenant at a time exchanges orders for outcomes. What it has begun stays when another one takes over.

    Parameters
    ----------
    backend : LocalBackend
        The slots; closed with this.
    """

    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend
        (self._worker,) = backend.workers()
        self._changed = Condition()
        self._tenant: object = None
        # What the tenant has begun, until it is known that it has heard of the end.
        self._begun: dict[Attempt, None] = {}
        self._told: list[Outcome] = []
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

    @property
    def work(self) -> bool:
        """Whether they can be given orders."""
        return not self._problem

    @property
    def busy(self) -> bool:
        """Whether something is under way, waits, or has ended and was not told yet."""
        return len(self._begun) > len(self._told) or bool(self._singles)

    @property
    def at_work(self) -> int:
        """How many attempts are under way, or wait for a slot."""
        with self._changed:
            singles = sum(outcome is None for outcome in self._singles.values())
            return len(self._begun) - len(self._told) - len(self._ended) + singles

    def hand_over(self, tenant: object) -> tuple[Attempt, ...]:
        """Let someone else give the orders from now on.

        What was brought back last may not have arrived, and is brought back again.

        Returns
        -------
        tuple of Attempt
            What is under way, waits for a slot, or is brought back next.
        """
        with self._changed:
            self._tenant = tenant
            self._ended[:0] = self._told
            self._told = []
            self._changed.notify_all()
            return tuple(self._begun)

    def exchange(
        self, tenant: object, begin: Sequence[Assignment], cancel: Collection[Attempt], wait: float
    ) -> list[Outcome]:
        """Begin and cancel attempts and bring back what has ended, as `Backend.exchange` does.

        The call shows that what the one before has brought back has arrived.

        Raises
        ------
        SessionError
            If the slots were handed over to another tenant.
        WorkerEndedError
            If the slots cannot work, or have been closed.
        BackendError
            If something that is under way is to be begun.
        """
        with self._changed:
            self._check(tenant)
            for outcome in self._told:
                self._begun.pop(outcome.attempt, None)
            self._told = []
            attempts = [attempt for assignment in begin for attempt in assignment]
            if twice := len(attempts) - len({*attempts} - self._begun.keys()):
                raise BackendError(f"{twice} attempts are to be begun that are under way already")
            self._begun |= dict.fromkeys(attempts)
            self._order(begin, cancel)
            self._changed.wait_for(lambda: self._ended or self._problem or self._tenant is not tenant, wait)
            self._check(tenant)
            self._told, self._ended = self._ended, []
            return list(self._told)

    def _check(self, tenant: object) -> None:
        if self._problem:
            raise WorkerEndedError(self._problem)
        if self._tenant is not tenant:
            raise SessionError("another session has taken over what runs")

    def run(self, year: int, ensemble_member: int, task: str) -> Outcome:
        """Make one attempt, however long it takes, behind those that were begun before it.

        Raises
        ------
        WorkerEndedError
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
                raise WorkerEndedError(self._problem)
        return outcome

    def running(self) -> tuple[Running, ...]:
        """The attempts under way, in order of slot."""
        return self._backend.running(self._worker.name)

    def close(self, grace: float = GRACE) -> None:
        """End everything, as `LocalBackend.close` does; whoever waits then gets a WorkerEndedError."""
        self._closed = True
        self._backend.wake()
        self._thread.join()
        self._backend.close(grace)
        self._give_up("the worker has ended this session")

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
