"""A session with one worker as its manager sees it: numbered calls, each made again until it is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from stormtracks.cluster.backends.base import Worker
from stormtracks.cluster.errors import GoneError, NoAnswerError, SessionError, TransportError, WorkerEndedError
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome
from stormtracks.cluster.wire.calls import Answer, Greeting, Opened, check, from_attempt
from stormtracks.cluster.wire.transport import Connection
from stormtracks.settings.campaign import ClusterSettings

__all__ = ["CLOSING_LIMIT", "Link"]

CLOSING_LIMIT = 3.0
"""Seconds that the end of a session may take."""
_PART = 0.25
"""Part of a lease that a worker may wait for something to end, and that its answer may be on its way."""
_RETRY_PAUSE = 0.5


class Link:
    """A session with one worker, and the connection on which the manager's thread drives it.

    Parameters
    ----------
    uri, session : str
        Where the worker is, and under which id it has opened the session.
    greeting : Greeting
        What it says of itself.
    opened : Opened
        What it was at when the session began.
    cluster : ClusterSettings
        How long its lease is.
    """

    def __init__(self, uri: str, session: str, greeting: Greeting, opened: Opened, cluster: ClusterSettings) -> None:
        self.uri = uri
        self.session = session
        self.incarnation = greeting.incarnation
        self.process = greeting.process.process
        self.host = greeting.host
        self.draining = False
        self.driver: threading.Thread | None = None
        self._slots = greeting.slots
        self._running = opened.attempts
        self._facts = {**greeting.versions, **greeting.facts}
        self._cluster = cluster
        self._heard_at = time.monotonic()
        self._number = 0
        self._superseded = threading.Event()
        self._process_ended = False
        self._connection = Connection(uri, cluster.lease)

    def worker(self, name: str) -> Worker:
        """The worker as the manager knows it, by this name."""
        return Worker(
            name,
            self._slots,
            self.session,
            self.incarnation,
            process=self.process,
            host=self.host,
            running=self._running,
            facts=self._facts,
        )

    def exchange(
        self, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float, closing: threading.Event
    ) -> list[Outcome]:
        """One exchange, asked for again under the same number until it is answered.

        Parameters
        ----------
        begin, cancel, wait
            As for `Backend.exchange`.
        closing : Event
            Set when nobody waits for the answer any more.

        Raises
        ------
        SessionError
            If the worker says that the session is over: nothing goes on of what was begun in it.
        WorkerEndedError
            If its process has surely ended, or it says that it cannot work.
        TransportError
            If there was no answer until it has to be given up, or another process has taken its place.
        ClusterError
            If it gives a malformed answer.
        """
        self._number += 1
        # A worker hears from its manager several times within a lease, however long a heartbeat is.
        reach = _PART * self._cluster.lease
        wait = min(wait, reach)
        wire_begin = [[from_attempt(attempt) for attempt in assignment] for assignment in begin]
        wire_cancel = [from_attempt(attempt) for attempt in cancel]
        while True:
            limit = max(min(wait + reach, self._patience), _RETRY_PAUSE)
            try:
                said = self._connection.call(
                    "exchange", self.session, self._number, wire_begin, wire_cancel, wait, timeout=limit
                )
                answer = check(Answer, said, "answer to exchange")
                ended = answer.ended
            except (NoAnswerError, GoneError) as error:
                self._give_up_if_due(error)
                if closing.is_set() or self._superseded.wait(_RETRY_PAUSE):
                    self._give_up_if_due(error)
                    raise
                continue
            except SessionError as error:
                if self._superseded.is_set():
                    raise self._replaced() from error
                raise
            self._heard_at = time.monotonic()
            self.draining = answer.draining
            return ended

    def supersede(self, *, ended: bool) -> None:
        """Another session takes the place of this one; `ended`: the process of this one is known to run no more."""
        self._process_ended = ended
        self._superseded.set()
        self.close()

    def end(self) -> None:
        """End the session at the worker, if it still answers."""
        with suppress(TransportError), Connection(self.uri, CLOSING_LIMIT) as connection:
            connection.call("end", self.session)

    def close(self) -> None:
        """Hang up, on a call that is under way too."""
        self._connection.close()

    @property
    def _patience(self) -> float:
        """Seconds until the worker is given up, unless it answers."""
        return self._heard_at + self._cluster.given_up_after - time.monotonic()

    def _give_up_if_due(self, error: TransportError) -> None:
        if self._process_ended or self.process.has_ended:
            raise WorkerEndedError(f"its process {self.process.pid} has ended ({error.what})") from error
        if self._superseded.is_set():
            raise self._replaced() from error
        if self._patience <= _RETRY_PAUSE:
            raise NoAnswerError(f"no answer for {self._cluster.given_up_after:g} s ({error.what})") from error

    def _replaced(self) -> GoneError:
        return GoneError("it has a new session: another process goes by its name, or it is reached in another way")
