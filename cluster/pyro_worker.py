"""One worker per host: it does the work that a manager hands out, in slots that are child processes of their own.

A manager says `hello`, opens a session with the settings of its campaign, and then drives the worker with `exchange`
alone. `do_work` does one task for anyone who asks, in the same slots. As a program (``pyro_worker``) it makes itself
known to the campaign's name server, and again whenever that has forgotten it, until it is told to end.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import select
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from types import FrameType
from typing import Any

from stormtracks import __version__
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.errors import BackendError, ClusterError, ListenError, SessionError, WorkerRefusedError
from stormtracks.cluster.pyro_nameserver import nameserver_address
from stormtracks.cluster.pyro_task import Attempt, Outcome, task_name
from stormtracks.cluster.registration import REGISTER_EVERY, Registration, worker_name
from stormtracks.cluster.roots import check_data_root, check_results_root
from stormtracks.cluster.slots import SharedSlots
from stormtracks.cluster.transport import Address, address_towards, exposed, parse_address, serve
from stormtracks.cluster.wire import from_attempt, to_wire
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.settings.errors import SettingsError

__all__ = ["PyroWorker", "changing", "main", "run_worker", "versions"]

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0
_FOLDER_FILES = ("results", "status.json")


def versions() -> dict[str, str]:
    """What must be the same on every host for results to be the same."""
    return {
        "stormtracks": __version__,
        "numpy": version("numpy"),
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


_AT_ONCE = 2
"""Signals, or what counts as so many, that end a worker without waiting for its tasks."""
_LOOK_EVERY = 0.2
"""Seconds between looks at whether the last task of a draining worker is done."""


class PyroWorker:
    """Runs on each of the hosts; does what a manager asks and saves it to disk through the results manager.

    Parameters
    ----------
    name : str
        Of the worker; usually that of its host.
    slots : int
        Tasks at a time.
    campaign : CampaignSettings, optional
        What `do_work` works for while no manager has opened a session.
    task_function : str or callable
        What a slot runs: ``function(year, ensemble_member, task, settings=..., first_years=...)``.
    """

    def __init__(
        self,
        name: str,
        *,
        slots: int = 1,
        campaign: CampaignSettings | None = None,
        task_function: str | Callable[..., Mapping[str, Any]] = "stormtracks.tasks:run_task",
    ) -> None:
        self.name = name
        self.incarnation = uuid.uuid4().hex
        self.on_stop: Callable[[], None] = self.close
        self._slot_count = slots
        self._campaign = campaign
        self._task_function = task_function
        self._slots: SharedSlots | None = None
        self._session = ""
        self._owner = ""
        self._draining = False
        # The one guards what the worker is at; the other lets one `exchange` in at a time.
        self._lock = Lock()
        self._exchanging = Lock()
        self._last_answer: tuple[str, int, dict[str, Any]] = ("", 0, {})

    @exposed
    def do_work(self, year: int, ensemble_member: int, task: str) -> dict[str, Any]:
        """Do the work and say how it went; it is saved by then.

        Parameters
        ----------
        year : int
            Year to analyse.
        ensemble_member : int
            Ensemble member to analyse.
        task : str
            Task to do (currently must be ``vort_track``).

        Returns
        -------
        dict
            ``year``, ``ensemble_member``, ``task``, ``status``: ``complete``, ``failure`` or ``timeout``; ``result``,
            what the task returned, or else ``error``, the reason; ``seconds``.
        """
        told: dict[str, Any] = {"year": year, "ensemble_member": ensemble_member, "task": task}
        try:
            outcome = self._slots_for_one().run(year, ensemble_member, task_name(task))
        except ClusterError as error:
            return {**told, "status": "failure", "error": str(error), "seconds": 0.0}
        found = {"result": dict(outcome.result)} if outcome.status == "complete" else {"error": outcome.error}
        return {**told, "status": outcome.status, **found, "seconds": outcome.seconds}

    @exposed
    def hello(self) -> dict[str, Any]:
        """Who this is: ``name``, ``host``, ``pid``, ``slots``, ``incarnation``, ``versions``, ``owner``, ``draining``.

        The incarnation is another one each time the worker is started; the owner is the manager that has the session.
        """
        return {
            "name": self.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "slots": self._slot_count,
            "incarnation": self.incarnation,
            "versions": versions(),
            "owner": self._owner,
            "draining": self._draining,
        }

    @exposed
    def open(self, order: dict[str, Any]) -> None:
        """Begin a session; what an older one has left running is ended.

        Parameters
        ----------
        order : dict
            ``session``: its id; ``owner``: the manager, in words; ``settings``: those of the campaign as plain values;
            ``first_years``: years that follow on none of the campaign's; ``proof``: name of the file that proves the
            results root; ``fingerprint``: of the data root.

        Raises
        ------
        WorkerRefusedError
            If the folders here are not the manager's, or the worker is being stopped.
        """
        if self._draining:
            raise WorkerRefusedError(f"worker {self.name} is being stopped", remedy="start it again")
        campaign = CampaignSettings.model_validate(order["settings"])
        root = campaign.results.root
        check_results_root(root, order["proof"], self.name)
        check_data_root(campaign.data.root, order["fingerprint"], self.name, leave_out=changing(root))
        with self._lock:
            self._end_slots()
            self._begin_slots(campaign, order["settings"], order["first_years"])
            self._session, self._owner = order["session"], order["owner"]
        logger.info("works for %s", self._owner)

    @exposed
    def exchange(
        self, session: str, number: int, begin: Sequence[Sequence[Sequence[Any]]], cancel: Sequence[Any], wait: float
    ) -> dict[str, Any]:
        """Begin assignments, cancel attempts, and bring back what has ended, as `Backend.exchange` does.

        Parameters
        ----------
        session : str
        number : int
            Of the call, counted up. The same number again gets the same answer again: nothing is begun or lost twice
            when an answer went astray.
        begin, cancel : list
            Attempts as ``[number, year, ensemble_member, task]``; those to begin in a list for each assignment.
        wait : float
            Seconds.

        Returns
        -------
        dict
            ``outcomes``: for each ``[attempt, status, result as JSON, error, seconds]``; ``draining``.

        Raises
        ------
        SessionError
            If the session is over.
        BackendError
            If the slots cannot work.
        """
        with self._exchanging:
            slots = self._slots_of(session)
            if self._last_answer[:2] == (session, number):
                return self._last_answer[2]
            assignments = [tuple(Attempt(*attempt) for attempt in assignment) for assignment in begin]
            refused = [attempt for assignment in assignments for attempt in assignment] if self._draining else []
            outcomes = [Outcome(attempt, "lost", error="the worker is being stopped") for attempt in refused]
            outcomes += slots.exchange(
                [] if refused else assignments,
                [Attempt(*attempt) for attempt in cancel],
                0.0 if refused else min(wait, _LONGEST_WAIT),
            )
            answer = {"outcomes": [to_wire(outcome) for outcome in outcomes], "draining": self._draining}
            self._last_answer = (session, number, answer)
            return answer

    @exposed
    def running(self) -> list[dict[str, Any]]:
        """The attempts under way: ``attempt``, ``slot``, ``seconds``."""
        slots = self._slots
        return [
            {"attempt": from_attempt(one.attempt), "slot": one.slot, "seconds": one.seconds}
            for one in (slots.running() if slots else ())
        ]

    @exposed
    def end(self, session: str) -> None:
        """End a session and all that runs for it; nothing happens if it is over already."""
        with self._lock:
            if session == self._session:
                self._end_slots()

    @exposed
    def drain(self) -> int:
        """Take no more work; how many attempts are still under way."""
        self._draining = True
        return len(self.running())

    @exposed
    def stop(self) -> None:
        """End this worker, with all that runs."""
        self.on_stop()

    def close(self) -> None:
        """End all that runs."""
        with self._lock:
            self._end_slots()

    def _slots_of(self, session: str) -> SharedSlots:
        with self._lock:
            if self._slots is None or session != self._session:
                raise SessionError(f"worker {self.name} works for {self._owner or 'nobody'} now")
            return self._slots

    def _slots_for_one(self) -> SharedSlots:
        with self._lock:
            if self._slots is None and self._campaign is not None:
                settings = self._campaign.model_dump(mode="json")
                years = () if self._campaign.years == "all" else self._campaign.years
                self._begin_slots(self._campaign, settings, sorted(set(years) - {year + 1 for year in years}))
            if self._slots is None:
                raise BackendError(
                    f"worker {self.name} works for no campaign",
                    remedy="let a manager open one, or start it as pyro_worker CAMPAIGN.toml",
                )
            return self._slots

    def _begin_slots(self, campaign: CampaignSettings, settings: Mapping[str, Any], first_years: Sequence[int]) -> None:
        self._slots = SharedSlots(
            LocalBackend(
                self._task_function,
                slots=self._slot_count,
                time_limit=campaign.run.time_limit,
                memory_limit_gib=campaign.run.memory_limit,
                arguments={"settings": settings, "first_years": first_years},
            )
        )

    def _end_slots(self) -> None:
        slots, self._slots = self._slots, None
        self._session = self._owner = ""
        if slots is not None:
            slots.close()


def changing(root: Path) -> tuple[Path, ...]:
    """What changes in a results root while a campaign runs."""
    return (root, *(root / name for name in _FOLDER_FILES))


# --- as a program


def run_worker(
    worker: PyroWorker,
    campaign: str,
    nameserver: Address,
    *,
    listen: str = "127.0.0.1",
    insecure: bool = False,
    parent: int | None = None,
) -> None:
    """Serve a worker and keep it registered until SIGTERM, SIGINT, its `stop` or the end of `parent`.

    A first signal lets running tasks end; a second one ends them, as `stop` does.

    Parameters
    ----------
    worker : PyroWorker
    campaign : str
        Name of the campaign.
    nameserver : (str, int)
    listen : str
        Address to listen on.
    insecure : bool
        Allow an address beyond this machine.
    parent : int, optional
        Process whose end is the worker's too.

    Raises
    ------
    ClusterError
        If the address cannot be listened on, or another worker of that name answers.
    """
    if listen in ("", "0.0.0.0", "::"):
        raise ListenError(
            f"a worker cannot listen on {listen!r}: it must tell the address by which the manager reaches it",
            remedy="give that as --listen ADDRESS, or as the host's address in the campaign file",
        )
    name = worker_name(campaign, worker.name)
    with ExitStack() as stack:
        bell = stack.enter_context(_bell_on_signals())
        worker.on_stop = lambda: os.eventfd_write(bell, _AT_ONCE)
        waited_for = [bell]
        if parent is not None:
            waited_for.append(os.pidfd_open(parent))
            stack.callback(os.close, waited_for[-1])
        stack.callback(worker.close)
        service = stack.enter_context(
            serve(worker, f"stormtracks.worker-{worker.incarnation}", (listen, 0), insecure=insecure)
        )
        registration = Registration(nameserver, name, service.uri)
        stack.callback(registration.end)
        registration.check_rival()
        logger.info("worker %s of campaign %s, process %d, at %s", worker.name, campaign, os.getpid(), service.uri)
        registration.keep()
        _wait_for_the_end(worker, bell, waited_for, registration)
        logger.info("worker %s ends", worker.name)


def _wait_for_the_end(worker: PyroWorker, bell: int, waited_for: Sequence[int], registration: Registration) -> None:
    """Until the worker is to end: at the first signal when its running tasks are done, at the second at once."""
    rung = 0
    while rung < _AT_ONCE and not (rung and not worker.running()):
        ready = select.select(waited_for, [], [], _LOOK_EVERY if rung else REGISTER_EVERY)[0]
        if bell in ready:
            rung += os.eventfd_read(bell)
            logger.info("worker %s takes no more work; %d tasks still run", worker.name, worker.drain())
        elif ready:
            return  # the parent is gone
        elif not rung:
            registration.keep()


@contextmanager
def _bell_on_signals() -> Iterator[int]:
    """A file descriptor that becomes readable with SIGTERM or SIGINT."""
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(number: int, frame: FrameType | None) -> None:
        os.eventfd_write(bell, 1)

    before = {number: signal.signal(number, ring) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield bell
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(bell)


def main(argv: Sequence[str] | None = None) -> int:
    """Set up a PyroWorker and wait for calls from a manager; returns the exit status.

    0: it was told to end; 2: it could not start.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        campaign = _campaign(arguments.campaign_file)
        cluster = campaign.cluster
        name = arguments.name or socket.gethostname()
        host = next((host for host in cluster.hosts if host.name == name), None)
        nameserver = parse_address(arguments.nameserver) if arguments.nameserver else nameserver_address(cluster)
        worker = PyroWorker(
            name,
            slots=arguments.slots or (host.slots if host else campaign.run.workers),
            campaign=campaign if arguments.campaign_file else None,
        )
        run_worker(
            worker,
            arguments.campaign or campaign.name,
            nameserver,
            listen=arguments.listen or (host and host.address) or address_towards(nameserver),
            insecure=arguments.insecure or cluster.insecure,
            parent=arguments.parent,
        )
    except (ClusterError, SettingsError) as error:
        sys.stderr.write(f"pyro_worker: {error}\n")
        return 2
    return 0


def _campaign(path: Path | None) -> CampaignSettings:
    if path is None:
        return CampaignSettings()
    from stormtracks.settings.load import load_settings

    return load_settings(path).campaign


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pyro_worker", description="Do the work that a manager hands out.")
    parser.add_argument(
        "campaign_file", type=Path, nargs="?", metavar="CAMPAIGN.toml", help="where the rest is taken from"
    )
    parser.add_argument("--name", metavar="HOST", help="name of this worker; default: this machine's")
    parser.add_argument("--campaign", metavar="NAME", help="name of the campaign")
    parser.add_argument("--nameserver", metavar="HOST:PORT", help="the name server")
    parser.add_argument("--listen", metavar="ADDRESS", help="default: this machine's towards the name server")
    parser.add_argument("--slots", type=_count, metavar="N", help="tasks at a time")
    parser.add_argument("--insecure", action="store_true", help="allow plain text beyond this machine")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process ends")
    return parser


if __name__ == "__main__":
    sys.exit(main())
