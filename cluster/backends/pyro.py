"""The workers of a cluster: found through the name server, checked, and driven over the wire.

One thread looks for workers and a few greet them, so that one that hangs keeps nobody waiting. A worker that is greeted
has opened a session; the manager's thread for it then calls `exchange` over one connection. A worker that does not
answer, has ended or was cut off loses its session. It is greeted again until it answers, and is then used at once.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stormtracks.cluster.backends.base import Backend, Running, Worker
from stormtracks.cluster.errors import (
    BackendError,
    ClusterError,
    NoAnswerError,
    TransportError,
    WorkerRefusedError,
)
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome
from stormtracks.cluster.pyro_worker import changing, versions
from stormtracks.cluster.registration import worker_prefix
from stormtracks.cluster.roots import fingerprint, place_proof, remove_proofs
from stormtracks.cluster.transport import Address, Connection, list_names
from stormtracks.cluster.wire import from_attempt, from_wire
from stormtracks.settings.campaign import CampaignSettings

__all__ = ["PyroBackend"]

logger = logging.getLogger(__name__)

GREETERS = 8
"""Threads that greet workers; each may hang on one that is cut off, for `_GREETING_LIMIT`."""
_GREETING_LIMIT = 5.0
_LONGEST_PAUSE = 5.0
"""Seconds between two greetings of a worker that cannot be used, at most."""
_FIRST_PAUSE = 0.25
_CALL_MARGIN = 10.0
"""Seconds beyond its wait that a call may take before it is made again; the worker knows it by its number."""
_RETRY_PAUSE = 0.5
_CLOSING_LIMIT = 3.0


class PyroBackend(Backend):
    """Every worker of a campaign that the name server knows.

    Parameters
    ----------
    campaign : CampaignSettings
        Its results root exists, and is the same folder on every host.
    nameserver : (str, int)
    first_years : sequence of int
        Years of the campaign that follow on none of its years.
    troubles : callable, optional
        What whoever starts workers knows of those that did not come, by name.
    """

    def __init__(
        self,
        campaign: CampaignSettings,
        nameserver: Address,
        *,
        first_years: Sequence[int] = (),
        troubles: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._campaign = campaign
        self._nameserver = nameserver
        self._first_years = list(first_years)
        self._starters_troubles = troubles
        self._owner = f"the manager on {socket.gethostname()}, process {os.getpid()}"
        self._prefix = worker_prefix(campaign.name)
        self._seats: dict[str, _Seat] = {}
        self._nameserver_trouble = ""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        remove_proofs(campaign.results.root)
        self._proof = place_proof(campaign.results.root)
        self._greeters = ThreadPoolExecutor(GREETERS, thread_name_prefix="stormtracks-greeter")
        self._finder = threading.Thread(target=self._find, name="stormtracks-finder", daemon=True)
        self._finder.start()

    def workers(self) -> tuple[Worker, ...]:
        """The workers that have a session now; another session of the same worker is another `Worker`."""
        with self._lock:
            links = [(name, seat.link) for name, seat in sorted(self._seats.items())]
        return tuple(Worker(name, link.slots, link.session) for name, link in links if link and not link.draining)

    def troubles(self) -> dict[str, str]:
        """Why workers cannot be used now, by name; hosts of the campaign that never came are among them."""
        unheard = (
            f"not registered with the name server at {self._nameserver[0]}:{self._nameserver[1]}; "
            "start it with pyro_starter, or read its log there"
        )
        found = {host.name: self._nameserver_trouble or unheard for host in self._campaign.cluster.hosts}
        if not found and self._nameserver_trouble:
            found["name server"] = self._nameserver_trouble
        with self._lock:
            for name, seat in self._seats.items():
                found.pop(name, None)
                if seat.link is None:
                    found[name] = seat.trouble or f"no answer yet from {seat.uri.rpartition('@')[2]}"
        return found | dict(self._starters_troubles())

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        """Begin assignments, cancel attempts, and bring back what has ended; see `Backend.exchange`.

        An answer that goes astray is asked for again until `cluster.silence` is over.
        """
        link = self._link(worker)
        try:
            return link.exchange(begin, cancel, wait, self._closing)
        except ClusterError as error:
            self._lose(worker, link, error)
            raise BackendError(error.what, remedy=error.remedy) from error

    def running(self, worker: str) -> tuple[Running, ...]:
        """The attempts under way on a worker, as it tells itself."""
        with Connection(self._link(worker).uri, _GREETING_LIMIT) as connection:
            found = connection.call("running")
        return tuple(Running(Attempt(*one["attempt"]), one["slot"], one["seconds"]) for one in found)

    def close(self) -> None:
        """End the sessions of all workers, which then wait for another manager; returns within seconds."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._finder.join(_CLOSING_LIMIT)
        with self._lock:
            links = [seat.link for seat in self._seats.values() if seat.link]
        wait([self._greeters.submit(link.end) for link in links], _CLOSING_LIMIT)
        self._greeters.shutdown(wait=False, cancel_futures=True)
        for link in links:
            link.close()
        remove_proofs(self._campaign.results.root)

    def _link(self, worker: str) -> _Link:
        with self._lock:
            seat = self._seats.get(worker)
            link = seat.link if seat else None
        if link is None:
            raise BackendError(f"worker {worker} has no session", remedy="see that it runs and can be reached")
        return link

    def _lose(self, worker: str, link: _Link, error: ClusterError) -> None:
        with self._lock:
            seat = self._seats[worker]
            if seat.link is link:
                seat.link = None
                # The manager tells that it is gone, and why.
                seat.warned.add(error.what)
                seat.note(error)
                if not isinstance(error, TransportError):
                    # It answers, and says that it cannot work, or works for somebody else: asking again is no use.
                    seat.barred = link.incarnation

    # --- finding workers

    def _find(self) -> None:
        while not self._closing.is_set():
            try:
                names = list_names(self._nameserver, self._prefix)
                self._nameserver_trouble = ""
            except ClusterError as error:
                names = {}
                self._nameserver_trouble = error.what
            for name, uri in names.items():
                self._consider(name.removeprefix(self._prefix), uri)
            with self._lock:
                some = any(seat.link for seat in self._seats.values())
            self._closing.wait(self._campaign.cluster.heartbeat if some else _FIRST_PAUSE)

    def _consider(self, name: str, uri: str) -> None:
        """Have a worker greeted, if it is time."""
        with self._lock:
            seat = self._seats.setdefault(name, _Seat(name))
            if seat.uri != uri:
                # Another process: what the one before it had to do is lost with it.
                seat.uri, seat.link, seat.tries, seat.next_try = uri, None, 0, 0.0
            if seat.link or seat.greeting or time.monotonic() < seat.next_try:
                return
            seat.greeting = True
        self._greeters.submit(self._greet, seat, uri)

    def _greet(self, seat: _Seat, uri: str) -> None:
        link, problem = None, None
        try:
            link = self._open(seat, uri)
        except ClusterError as error:
            problem = error
        except Exception as error:
            logger.exception("greeting %s failed", seat.name)
            problem = BackendError(f"{type(error).__name__}: {error}")
        with self._lock:
            seat.greeting = False
            seat.link = link
            if problem is not None:
                seat.note(problem)
            else:
                seat.trouble, seat.tries = "", 0

    def _open(self, seat: _Seat, uri: str) -> _Link | None:
        """Open a session with a worker."""
        with Connection(uri, _GREETING_LIMIT) as connection:
            found = connection.call("hello")
            if found["incarnation"] == seat.barred:
                raise WorkerRefusedError(seat.trouble, remedy="start it again")
            _check_versions(seat.name, found["versions"])
            root = self._campaign.results.root
            if not (root / self._proof).exists():
                self._proof = place_proof(root)
            session = uuid.uuid4().hex
            order = {
                "session": session,
                "owner": self._owner,
                "settings": self._campaign.model_dump(mode="json"),
                "first_years": self._first_years,
                "proof": self._proof,
                "fingerprint": fingerprint(self._campaign.data.root, leave_out=changing(root)),
            }
            connection.call("open", order, timeout=self._campaign.cluster.silence)
        logger.info("worker %s: process %d on %s, %d slots", seat.name, found["pid"], found["host"], found["slots"])
        return _Link(uri, session, found["incarnation"], found["slots"], self._campaign.cluster.silence)


def _check_versions(name: str, there: Mapping[str, str]) -> None:
    here = versions()
    if differing := [key for key in here if there.get(key) != here[key]]:
        what = ", ".join(f"{key} {there.get(key, 'none')} there and {here[key]} here" for key in differing)
        raise WorkerRefusedError(
            f"worker {name} has other versions than the manager: {what}",
            remedy="install the same ones on that host (pyro_starter --install), and start its worker again",
        )


@dataclass
class _Seat:
    """What is known of a worker of one name; changed under the backend's lock."""

    name: str
    uri: str = ""
    link: _Link | None = None
    greeting: bool = False
    trouble: str = ""
    barred: str = ""
    """Incarnation that must not be greeted any more."""
    tries: int = 0
    next_try: float = 0.0
    warned: set[str] = field(default_factory=set)

    def note(self, error: ClusterError) -> None:
        """Remember why it cannot be used, and pause before the next greeting."""
        self.trouble = error.what
        self.next_try = time.monotonic() + min(_FIRST_PAUSE * 2**self.tries, _LONGEST_PAUSE)
        self.tries += 1
        if error.what not in self.warned:
            self.warned.add(error.what)
            logger.warning("worker %s: %s", self.name, error)


class _Link:
    """A session with one worker, and the connection on which the manager's thread drives it."""

    def __init__(self, uri: str, session: str, incarnation: str, slots: int, silence: float) -> None:
        self.uri = uri
        self.session = session
        self.incarnation = incarnation
        self.slots = slots
        self.draining = False
        self._silence = silence
        self._number = 0
        self._connection = Connection(uri, silence)

    def exchange(
        self, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float, closing: threading.Event
    ) -> list[Outcome]:
        """One exchange, asked for again and again until it is answered or the silence has lasted too long."""
        self._number += 1
        wire_begin = [[from_attempt(attempt) for attempt in assignment] for assignment in begin]
        wire_cancel = [from_attempt(attempt) for attempt in cancel]
        deadline = time.monotonic() + wait + self._silence
        while True:
            limit = min(wait + _CALL_MARGIN, max(deadline - time.monotonic(), _RETRY_PAUSE))
            try:
                answer: dict[str, Any] = self._connection.call(
                    "exchange", self.session, self._number, wire_begin, wire_cancel, wait, timeout=limit
                )
            except NoAnswerError as error:
                if time.monotonic() + _RETRY_PAUSE >= deadline or closing.wait(_RETRY_PAUSE):
                    raise NoAnswerError(f"no answer for {self._silence:g} s ({error.what})") from error
                continue
            self.draining = answer["draining"]
            return [from_wire(outcome) for outcome in answer["outcomes"]]

    def end(self) -> None:
        """End the session at the worker, if it still answers."""
        with suppress(TransportError), Connection(self.uri, _CLOSING_LIMIT) as connection:
            connection.call("end", self.session)

    def close(self) -> None:
        """Hang up, on a call that is under way too."""
        self._connection.close()
