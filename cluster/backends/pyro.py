"""The workers of a cluster: found through the name server, checked, and driven over the wire.

One thread looks for workers and a few greet them, so that one that hangs keeps nobody waiting. A worker that is greeted
has opened a session; the manager's thread for it then calls `exchange` over one connection. A worker that does not
answer for longer than its lease, has ended or was cut off loses its session. It is greeted again until it answers, and
is then used at once. The names of workers that are gone are taken out of the name server.
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
from dataclasses import dataclass, field
from itertools import count

from stormtracks.cluster.backends.base import Backend, Running, Worker
from stormtracks.cluster.backends.link import CLOSING_LIMIT, Link
from stormtracks.cluster.errors import (
    BackendError,
    CertificateError,
    ClusterError,
    SessionError,
    TransportError,
    WorkerEndedError,
    WorkerRefusedError,
)
from stormtracks.cluster.facts import facts, versions
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome
from stormtracks.cluster.registration import worker_prefix
from stormtracks.cluster.roots import changing, fingerprint, place_proof, remove_proofs
from stormtracks.cluster.wire.calls import Greeting, Opened, check, check_running, to_process
from stormtracks.cluster.wire.transport import Address, Connection, list_names, remove_name
from stormtracks.settings.campaign import CampaignSettings

__all__ = ["PyroBackend"]

logger = logging.getLogger(__name__)

GREETERS = 8
"""Threads that greet workers; each may hang on one that is cut off, for `_GREETING_LIMIT`."""
_GREETING_LIMIT = 5.0
_LONGEST_PAUSE = 5.0
"""Seconds between two greetings of a worker that cannot be used, at most."""
_FIRST_PAUSE = 0.25


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
    campaign_id : str, optional
        The campaign's own name for itself, by which workers know it again; a new one if not given.
    epoch : int
        How often the campaign has been started, this time included; workers refuse a lower one than they have seen.
    """

    def __init__(
        self,
        campaign: CampaignSettings,
        nameserver: Address,
        *,
        first_years: Sequence[int] = (),
        troubles: Callable[[], Mapping[str, str]] = dict,
        campaign_id: str | None = None,
        epoch: int = 1,
    ) -> None:
        self._campaign_id = campaign_id or uuid.uuid4().hex
        self._epoch = epoch
        self._openings = count(1)
        self._campaign = campaign
        self._nameserver = nameserver
        self._first_years = list(first_years)
        self._starters_troubles = troubles
        self._owner = f"the manager on {socket.gethostname()}, process {os.getpid()}"
        self._prefix = worker_prefix(campaign.name)
        self._seats: dict[str, _Seat] = {}
        self._nameserver_trouble: ClusterError | None = None
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
        return tuple(link.worker(name) for name, link in links if link and not link.draining)

    def troubles(self) -> dict[str, str]:
        """Why workers cannot be used now, by name; hosts of the campaign that never came are among them."""
        unheard = (
            f"not registered with the name server at {self._nameserver[0]}:{self._nameserver[1]}; "
            "start it with pyro_starter, or read its log there"
        )
        trouble = self._nameserver_trouble
        found = {host.name: trouble.what if trouble else unheard for host in self._campaign.cluster.hosts}
        if trouble:
            found["name server"] = str(trouble)
        with self._lock:
            for name, seat in self._seats.items():
                found.pop(name, None)
                if seat.link is None:
                    found[name] = seat.trouble or f"no answer yet from {seat.uri.rpartition('@')[2]}"
        return found | dict(self._starters_troubles())

    @property
    def hopeless(self) -> bool:
        """Whether no worker can come: this manager and the name server will not trust each other."""
        return isinstance(self._nameserver_trouble, CertificateError)

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        """Begin assignments, cancel attempts, and bring back what has ended; see `Backend.exchange`.

        An answer that goes astray is asked for again until the worker's lease has surely ended. A thread that has
        driven a session hears of its end, even if the worker has another one by then.
        """
        link = self._link_of_thread(worker)
        try:
            return link.exchange(begin, cancel, wait, self._closing)
        except ClusterError as error:
            self._lose(worker, link, error)
            ended = isinstance(error, (SessionError, WorkerEndedError))
            raise (WorkerEndedError if ended else BackendError)(error.what, remedy=error.remedy) from error

    def running(self, worker: str) -> tuple[Running, ...]:
        """The attempts under way on a worker, as it tells itself."""
        with Connection(self._link(worker).uri, _GREETING_LIMIT) as connection:
            return check_running(connection.call("running"))

    def close(self) -> None:
        """End the sessions of all workers, which then wait for another manager; returns within seconds."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
        self._finder.join(CLOSING_LIMIT)
        with self._lock:
            links = [seat.link for seat in self._seats.values() if seat.link]
        wait([self._greeters.submit(link.end) for link in links], CLOSING_LIMIT)
        self._greeters.shutdown(wait=False, cancel_futures=True)
        for link in links:
            link.close()
        self._remove_the_dead()
        remove_proofs(self._campaign.results.root)

    def _link_of_thread(self, worker: str) -> Link:
        """The session that this thread has driven before, else the one that the worker has now."""
        me = threading.current_thread()
        with self._lock:
            seat = self._seats.get(worker)
            if seat and seat.former and seat.former.driver is me:
                return seat.former
        link = self._link(worker)
        link.driver = me
        return link

    def _link(self, worker: str) -> Link:
        with self._lock:
            seat = self._seats.get(worker)
            link = seat.link if seat else None
        if link is None:
            raise BackendError("there is no session with it", remedy="see that it runs and can be reached")
        return link

    def _lose(self, worker: str, link: Link, error: ClusterError) -> None:
        link.close()
        with self._lock:
            seat = self._seats[worker]
            if seat.former is link:
                seat.former = None
            if seat.link is link:
                seat.link, seat.unheard_since = None, time.monotonic()
                # The manager tells that it is gone, and why.
                seat.warned.add(error.what)
                seat.note(error)
                if isinstance(error, SessionError):
                    seat.yielded = link.incarnation
                elif not isinstance(error, TransportError):
                    # It answers, and says that it cannot work: asking again is no use.
                    seat.barred = link.incarnation

    # --- finding workers

    def _find(self) -> None:
        while not self._closing.is_set():
            try:
                names, trouble = list_names(self._nameserver, self._prefix), None
            except ClusterError as error:
                names, trouble = {}, error
            if trouble and str(trouble) != str(self._nameserver_trouble):
                logger.warning("%s", trouble)
            self._nameserver_trouble = trouble
            for name, uri in names.items():
                self._consider(name.removeprefix(self._prefix), uri)
            self._remove_the_dead()
            with self._lock:
                some = any(seat.link for seat in self._seats.values())
            self._closing.wait(self._campaign.cluster.heartbeat if some else _FIRST_PAUSE)

    def _consider(self, name: str, uri: str) -> None:
        """Have a worker greeted, if it is time."""
        with self._lock:
            seat = self._seats.setdefault(name, _Seat(name))
            if seat.uri != uri:
                # Another process, or another way to it; the session with the one before ends when this one begins.
                seat.uri, seat.process, seat.tries, seat.next_try = uri, None, 0, 0.0
                seat.unheard_since = time.monotonic()
            seat.listed = True
            if (seat.link and seat.link.uri == uri) or seat.greeting or time.monotonic() < seat.next_try:
                return
            seat.greeting = True
        self._greeters.submit(self._greet, seat, uri)

    def _remove_the_dead(self) -> None:
        """Take the names of workers out of the name server that have ended, or have not answered for long.

        One that lives registers itself again.
        """
        now = time.monotonic()
        with self._lock:
            dead = [seat for seat in self._seats.values() if seat.is_dead(now, self._campaign.cluster.given_up_after)]
            for seat in dead:
                seat.listed, seat.unheard_since = False, now
        for seat in dead:
            try:
                remove_name(self._nameserver, self._prefix + seat.name, uri=seat.uri)
                why = seat.trouble or "its process has ended"
                logger.info("the name of worker %s is removed: %s", seat.name, why)
            except ClusterError as error:
                logger.info("the name of worker %s is not removed: %s", seat.name, error.what)
                return  # a name server that does not answer is not asked for each of them

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
            if not isinstance(problem, TransportError):
                seat.unheard_since = time.monotonic()
            if problem is None:
                seat.link, seat.trouble, seat.tries = link, "", 0
            elif not self._closing.is_set():
                seat.note(problem)

    def _open(self, seat: _Seat, uri: str) -> Link:
        """Open a session with a worker."""
        cluster = self._campaign.cluster
        with Connection(uri, _GREETING_LIMIT) as connection:
            greeting = check(Greeting, connection.call("hello"), "answer to hello")
            if greeting.name != seat.name:
                # Two seats for one worker would take it from each other without end.
                raise WorkerRefusedError(
                    f"its name stands for another worker, {greeting.name!r}, at {uri.rpartition('@')[2]}",
                    remedy="it takes its name back within seconds, if it runs; see who has registered the other",
                )
            seat.process = greeting.process.process
            self._check(seat, greeting)
            self._supersede(seat, greeting, connection)
            session = uuid.uuid4().hex
            said = connection.call("open", self._order(session), timeout=cluster.lease)
            link = Link(uri, session, greeting, check(Opened, said, "answer to open"), cluster)
        logger.info(
            "worker %s: process %d on %s, %d slots, at %d attempts",
            *(seat.name, greeting.pid, greeting.host, greeting.slots, len(link.worker(seat.name).running)),
        )
        return link

    def _order(self, session: str) -> dict[str, object]:
        root = self._campaign.results.root
        with self._lock:
            if self._closing.is_set():
                raise BackendError("this manager ends", remedy="start another one")
            if not (root / self._proof).exists():
                self._proof = place_proof(root)
            opening = next(self._openings)
        return {
            "session": session,
            "owner": self._owner,
            "campaign_id": self._campaign_id,
            "epoch": self._epoch,
            "opening": opening,
            "settings": self._campaign.model_dump(mode="json"),
            "settings_hash": self._campaign.settings_hash,
            "first_years": self._first_years,
            "proof": self._proof,
            "fingerprint": fingerprint(self._campaign.data.root, leave_out=changing(root)),
            "lease": self._campaign.cluster.lease,
        }

    def _check(self, seat: _Seat, greeting: Greeting) -> None:
        if greeting.incarnation == seat.barred:
            raise WorkerRefusedError(seat.trouble, remedy="start it again")
        if greeting.incarnation == seat.yielded and greeting.owner not in ("", self._owner):
            raise WorkerRefusedError(
                f"it works for {greeting.owner} now", remedy="end that manager, or give this campaign another name"
            )
        _check_versions(greeting.versions)
        here, there = facts()["processor"], greeting.facts.get("processor", "unknown")
        if here != there:
            what = f"its processor is {there}, the manager's {here}"
            if self._campaign.cluster.strict_cpu:
                raise WorkerRefusedError(
                    what, remedy="leave that host out, or set cluster.strict_cpu = false: results are rounded far above"
                )
            logger.info("worker %s: %s", seat.name, what)

    def _supersede(self, seat: _Seat, greeting: Greeting, connection: Connection) -> None:
        """End the use of a session that a worker of this name still has, before it gets another one."""
        with self._lock:
            before, seat.link = seat.link, None
            seat.former = before or seat.former
        if before is not None:
            ended = greeting.incarnation != before.incarnation and greeting.host == before.host
            ended = ended and connection.call("has_ended", to_process(before.process)) is True
            before.supersede(ended=ended)


def _check_versions(there: Mapping[str, str]) -> None:
    here = versions()
    if differing := [key for key in here if there.get(key) != here[key]]:
        what = ", ".join(f"{key} {there.get(key, 'none')} there and {here[key]} here" for key in differing)
        raise WorkerRefusedError(
            f"it has other versions than the manager: {what}",
            remedy="install the same ones on that host (pyro_starter --install), and start its worker again",
        )


@dataclass
class _Seat:
    """What is known of a worker of one name; changed under the backend's lock."""

    name: str
    uri: str = ""
    link: Link | None = None
    former: Link | None = None
    """The one before, until the thread that drives it has heard of its end."""
    greeting: bool = False
    listed: bool = False
    """Whether its name is in the name server."""
    process: Process | None = None
    """The one that has answered there."""
    unheard_since: float = 0.0
    trouble: str = ""
    barred: str = ""
    """Incarnation that must not be greeted any more."""
    yielded: str = ""
    """Incarnation whose session has ended; it is left to whom it works for now."""
    tries: int = 0
    next_try: float = 0.0
    warned: set[str] = field(default_factory=set)

    def is_dead(self, now: float, given_up_after: float) -> bool:
        """Whether its name stands for a worker that has ended, or that has not answered for long."""
        if not self.listed or self.greeting:
            return False
        if self.process is not None and self.process.has_ended:
            return True
        return self.link is None and bool(self.trouble) and now - self.unheard_since > given_up_after

    def note(self, error: ClusterError) -> None:
        """Remember why it cannot be used, and pause before the next greeting."""
        self.trouble = error.what
        self.next_try = time.monotonic() + min(_FIRST_PAUSE * 2**self.tries, _LONGEST_PAUSE)
        self.tries += 1
        if error.what not in self.warned:
            self.warned.add(error.what)
            logger.warning("worker %s: %s", self.name, error)
