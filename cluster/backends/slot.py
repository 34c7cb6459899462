"""A slot of this machine: room for one assignment, and the child process that makes its attempts."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from stormtracks.cluster.backends.base import Running
from stormtracks.cluster.backends.bundle import Bundle
from stormtracks.cluster.backends.child_process import Child, ChildDied, end_children
from stormtracks.cluster.errors import BackendError
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome

__all__ = ["Slot"]

logger = logging.getLogger(__name__)

START_LIMIT = 120.0
"""Seconds a child may take until it is ready for its first attempt."""
FAILED_STARTS = 3
"""Children of one slot that may die in a row before they are ready."""


class Slot:
    """Room for one assignment, which its child makes whole, or in parts one after the other.

    Parameters
    ----------
    number : int
        Counted from 1.
    time_limit : float
        Seconds an attempt may take.
    may_publish : callable
        Asked with an attempt that is about to move its result into place.
    """

    def __init__(self, number: int, time_limit: float, may_publish: Callable[[Attempt], bool]) -> None:
        self.queue: deque[Assignment] = deque()
        """The parts that wait."""
        self.child: Child | None = None
        self._number = number
        self._time_limit = time_limit
        self._may_publish = may_publish
        self._bundle: Bundle | None = None
        self._look_at = 0.0
        self._failed_starts = 0

    @property
    def busy(self) -> bool:
        """Whether it has something to do."""
        return self._bundle is not None or bool(self.queue)

    def running(self) -> list[Running]:
        """The attempts under way; from any thread."""
        bundle = self._bundle
        return [Running(attempt, self._number, seconds) for attempt, seconds in (bundle.seconds() if bundle else ())]

    def next_look(self, now: float) -> float:
        """Seconds until it is worth a look whether what goes on here, attempts or a child's start, takes too long."""
        if self._bundle is not None:
            return self._look_at - now
        if self.child is not None and not self.child.ready:
            return self.child.started + START_LIMIT - now
        return float("inf")

    def send_next(self) -> None:
        """Give the child the next part, once it is ready for that."""
        if self.queue and self._bundle is None and self.child is not None and self.child.ready:
            attempts = self.queue.popleft()
            self._bundle = Bundle(attempts, self._time_limit, self.child.send(attempts).read)
            self._look_at = time.monotonic() + self._bundle.next_look()

    def cancel(self, attempts: Collection[Attempt]) -> None:
        """Let none of the attempts under way publish that are among these."""
        if self._bundle is not None:
            self._bundle.cancel(attempts)

    def listen(self) -> list[Outcome]:
        """The outcomes that have come from the child, or from its death."""
        outcomes = []
        while self.child is not None:
            try:
                message = self.child.receive()
            except ChildDied as death:
                outcomes += self._bury(self.child, death)
                continue
            if message is None:
                break
            if "asks" in message:
                self._answer(self.child, message["asks"])
            elif self._bundle is None:
                self._failed_starts = 0
            else:
                outcomes += self._hear(self._bundle, **message)
        return outcomes

    def look(self, now: float) -> list[Outcome] | None:
        """What comes of the attempts under way, if the child has to be ended; None if it may go on.

        It has to be when something takes too long, or nobody wants any more what it makes.
        """
        if self._bundle is None:
            if self.next_look(now) > 0:
                return None
            self.count_failed_start(f"it was not ready within {START_LIMIT:g} s")
            return []
        if self._bundle.is_cancelled:
            return self._end_all(self._bundle, ())
        if self._look_at > now:
            return None
        overdue = self._bundle.overdue()
        if not overdue:
            self._look_at = now + self._bundle.next_look()
            return None
        error = f"not done within its time limit of {self._time_limit:g} s"
        return self._end_all(self._bundle, overdue, status="timeout", error=error)

    def release(self) -> Child | None:
        """Take the child out of the slot."""
        child, self.child = self.child, None
        return child

    def clear(self) -> Child | None:
        """Forget what is under way and what waits, and take the child out of the slot."""
        self.queue.clear()
        self._bundle = None
        return self.release()

    def count_failed_start(self, reason: str) -> None:
        """Try again a few times: the machine may be short of something for a moment."""
        self._failed_starts += 1
        logger.warning("the child process of slot %d could not start: %s", self._number, reason)
        if self._failed_starts >= FAILED_STARTS:
            raise BackendError(
                f"child processes cannot start, {FAILED_STARTS} times in a row: {reason}",
                remedy="see that memory_limit leaves room for the libraries, and that the machine is not out of memory",
            )

    def _hear(self, bundle: Bundle, ended: int | None, last: bool, **how: Any) -> list[Outcome]:
        """The child says how one of its attempts has ended, or all that are left; perhaps it ends with these words."""
        if ended is None:
            outcomes = self._end_all(bundle, bundle.under_way(), **how)
        else:
            outcomes = [bundle.end(ended, **how)]
            if not bundle.left:
                self._bundle = None
        if last:
            end_children([self.release()])
        return outcomes

    def _answer(self, child: Child, index: int) -> None:
        """Say whether an attempt under way may publish.

        If the child is about to be ended, it waits for that instead: one that is asked to end while it deals with a no
        might not come to remove its temporary file.
        """
        bundle = self._bundle
        if bundle is None:
            child.answer(False)
        elif not (bundle.is_cancelled or bundle.overdue()):
            attempt = bundle.wanted(index)
            child.answer(attempt is not None and self._may_publish(attempt))

    def _bury(self, child: Child, death: ChildDied) -> list[Outcome]:
        self.child = None
        if (bundle := self._bundle) is not None:
            how = {"status": "failure", "error": death.how, "exit_code": death.exit_code}
            return self._end_all(bundle, bundle.under_way(), **how)
        if child.ready:
            logger.warning("the idle child process of slot %d is gone: %s", self._number, death.how)
        else:
            self.count_failed_start(death.how)
        return []

    def _end_all(self, bundle: Bundle, guilty: Collection[int], **how: Any) -> list[Outcome]:
        self._bundle = None
        return bundle.end_all(guilty, **how)
