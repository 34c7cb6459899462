"""One worker per host: it does the work that a manager hands out, in slots that are child processes of their own.

A manager says `hello`, opens a session with the settings of its campaign, and then drives the worker with `exchange`
alone. Each call renews the session's lease; when the lease is over, what runs for it is ended. A manager that was
started again meanwhile goes on with what runs. `do_work` does one task for anyone who asks, in the same slots. As a
program (``pyro_worker``) it makes itself known to the campaign's name server, and again whenever that has forgotten it,
until it is told to end.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import socket
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

from pydantic import ValidationError

from stormtracks.arguments import count
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.errors import BackendError, ClusterError, ListenError, WorkerRefusedError
from stormtracks.cluster.facts import facts, versions
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Attempt, task_name
from stormtracks.cluster.registration import REGISTER_EVERY, Registration, worker_name
from stormtracks.cluster.roots import changing, check_data_root, check_results_root
from stormtracks.cluster.session import Sessions
from stormtracks.cluster.signals import bell_on_signals
from stormtracks.cluster.slots import SharedSlots
from stormtracks.cluster.wire.address import nameserver_address
from stormtracks.cluster.wire.calls import Call, Order, ProcessThere, Work, check, from_attempt, to_process, to_running
from stormtracks.cluster.wire.credentials import credentials_for, credentials_in
from stormtracks.cluster.wire.transport import Address, address_towards, exposed, parse_address, serve, use_credentials
from stormtracks.settings.campaign import CampaignSettings, first_years
from stormtracks.settings.errors import SettingsError

__all__ = ["PyroWorker", "changing", "main", "run_worker", "versions"]

logger = logging.getLogger(__name__)


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
    task_function, bundle_function : str or callable, optional
        What a slot runs, as `LocalBackend` takes them, with ``settings`` and ``first_years`` for its arguments; that of
        `stormtracks.tasks` if none is given.
    """

    def __init__(
        self,
        name: str,
        *,
        slots: int = 1,
        campaign: CampaignSettings | None = None,
        task_function: str | Callable[..., Mapping[str, Any]] | None = None,
        bundle_function: str | Callable[..., Iterable[Any]] | None = None,
    ) -> None:
        self.name = name
        self.incarnation = uuid.uuid4().hex
        self.on_stop: Callable[[], None] = self.close
        self._slot_count = slots
        self._campaign = campaign
        self._task_function = task_function
        self._bundle_function = bundle_function or (None if task_function else "stormtracks.tasks:run_bundle")
        self._draining = Event()
        self._sessions = Sessions(self._make_slots, self._draining)

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
            wanted = check(Work, {"year": year, "ensemble_member": ensemble_member, "task": task}, "do_work")
            outcome = self._slots_for_one().run(wanted.year, wanted.ensemble_member, task_name(wanted.task))
        except ClusterError as error:
            return {**told, "status": "failure", "error": str(error), "seconds": 0.0}
        found = {"result": dict(outcome.result)} if outcome.status == "complete" else {"error": outcome.error}
        return {**told, "status": outcome.status, **found, "seconds": outcome.seconds}

    @exposed
    def hello(self) -> dict[str, Any]:
        """Who this is: ``name``, ``host``, ``pid``, ``process``, ``incarnation``, and how many ``slots`` it has.

        What it computes with: ``versions``, ``facts``; the session: its ``owner``, ``campaign_id`` and ``epoch``, empty
        while there is none; ``draining``. The incarnation is another one each time the worker is started.
        """
        session = self._sessions.current
        return {
            "name": self.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": to_process(Process.own()),
            "incarnation": self.incarnation,
            "slots": self._slot_count,
            "versions": versions(),
            "facts": facts(),
            "owner": session.owner if session else "",
            "campaign_id": session.campaign_id if session else "",
            "epoch": session.epoch if session else 0,
            "draining": self._draining.is_set(),
        }

    @exposed
    def open(self, order: dict[str, Any]) -> dict[str, Any]:
        """Begin a session, and end the one before.

        What runs goes on under the new session if the lease of the one before is not over, and it was for the same
        campaign, settings and paths: its manager was started again, or has lost its way to here. All else is ended.

        Parameters
        ----------
        order : dict
            ``session``: its id; ``owner``: the manager, in words; ``campaign_id``, ``epoch``: which campaign, and how
            often it has been started; ``settings``: those of the campaign as plain values; ``settings_hash``: what they
            come to; ``first_years``: years that follow on none of the campaign's; ``proof``: name of the file that
            proves the results root; ``fingerprint``: of the data root; ``lease``: seconds.

        Returns
        -------
        dict
            ``running``: the attempts that go on, or have ended without the manager's being known to have heard of it.

        Raises
        ------
        WorkerRefusedError
            If settings, folders or epoch here are not the manager's, or the worker is being stopped.
        """
        wanted = check(Order, order, "order to open a session")
        campaign = self._settings_of(wanted)
        self._sessions.admit(wanted)
        root = campaign.results.root
        check_results_root(root, wanted.proof)
        check_data_root(campaign.data.root, wanted.fingerprint, leave_out=changing(root))
        session = self._sessions.begin(wanted, campaign)
        logger.info("works for %s; %d attempts go on", session.owner, len(session.running))
        return {"running": [from_attempt(attempt) for attempt in session.running]}

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
            when an answer went astray. The next number shows that the answer to the one before has come, and that what
            it brought is on record: it will not be brought again, not to another manager either.
        begin, cancel : list
            Attempts as ``[number, year, ensemble_member, task]``; those to begin in a list for each assignment.
        wait : float
            Seconds.

        Returns
        -------
        dict
            ``outcomes``: for each ``[attempt, status, result as JSON, error, seconds, permanent, exit_code]``;
            ``draining``.

        Raises
        ------
        SessionError
            If the session is over; what was begun in it has ended, or goes on for another manager.
        WorkerEndedError
            If the slots cannot work; what was begun has ended.
        """
        said = {"session": session, "number": number, "begin": begin, "cancel": cancel, "wait": wait}
        call = check(Call, said, "exchange")
        return self._sessions.find(call.session).exchange(call)

    @exposed
    def running(self) -> list[dict[str, Any]]:
        """The attempts under way: ``attempt``, ``slot``, ``seconds``."""
        slots = self._sessions.slots
        return to_running(slots.running() if slots else ())

    @exposed
    def has_ended(self, process: dict[str, Any]) -> bool:
        """Whether a process, such as that of an earlier worker, surely runs no more on this machine."""
        return check(ProcessThere, process, "process").process.has_ended

    @exposed
    def end(self, session: str) -> None:
        """End a session and all that runs for it; nothing happens if it is over already."""
        self._sessions.end(session)

    @exposed
    def drain(self) -> int:
        """Take no more work; how many attempts are still under way."""
        self._draining.set()
        return len(self.running())

    @exposed
    def stop(self) -> None:
        """End this worker, with all that runs."""
        self.on_stop()

    @property
    def busy(self) -> bool:
        """Whether something runs, waits, or has ended without anyone's being told yet."""
        slots = self._sessions.slots
        return slots is not None and slots.busy

    def close(self) -> None:
        """Take no more work, and end all that runs."""
        self._draining.set()
        self._sessions.close()

    def _settings_of(self, order: Order) -> CampaignSettings:
        """The settings of an order, which must come to the same here as there."""
        try:
            campaign = CampaignSettings.model_validate(order.settings)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            setting = ".".join(map(str, first["loc"]))
            raise WorkerRefusedError(
                f"it cannot read the manager's settings: {setting}: {first['msg']}",
                remedy="install the same stormtracks on that host, and start its worker again",
            ) from error
        if campaign.settings_hash != order.settings_hash:
            raise WorkerRefusedError(
                f"the settings hash of the campaign is {campaign.settings_hash} there and {order.settings_hash} here",
                remedy="install the same stormtracks on that host, and start its worker again",
            )
        if self._campaign is not None and self._campaign.settings_hash != order.settings_hash:
            raise WorkerRefusedError(
                f"its own campaign file comes to the settings hash {self._campaign.settings_hash}, "
                f"the manager's settings come to {order.settings_hash}",
                remedy="start the worker with the manager's campaign file, or with none",
            )
        return campaign

    def _slots_for_one(self) -> SharedSlots:
        slots = self._sessions.slots_without(self._own_slots)
        if slots is None:
            raise BackendError(
                f"worker {self.name} works for no campaign",
                remedy="let a manager open one, or start it as pyro_worker CAMPAIGN.toml",
            )
        return slots

    def _own_slots(self) -> SharedSlots | None:
        """Slots for the campaign of its own that the worker was started with, if it was."""
        if self._campaign is None:
            return None
        years = () if self._campaign.years == "all" else self._campaign.years
        # Nobody leases these: whoever asked waits for the answer itself.
        return self._make_slots(
            self._campaign, self._campaign.model_dump(mode="json"), first_years(years), lambda _: True
        )

    def _make_slots(
        self,
        campaign: CampaignSettings,
        settings: Mapping[str, Any],
        first_years: Sequence[int],
        may_publish: Callable[[Attempt], bool],
    ) -> SharedSlots:
        return SharedSlots(
            LocalBackend(
                self._task_function,
                bundle_function=self._bundle_function,
                slots=self._slot_count,
                time_limit=campaign.run.time_limit,
                memory_limit_gib=campaign.run.memory_limit,
                arguments={"settings": settings, "first_years": first_years},
                may_publish=may_publish,
            )
        )


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
        bell = stack.enter_context(bell_on_signals())
        worker.on_stop = lambda: os.eventfd_write(bell, _AT_ONCE)
        waited_for = [bell]
        if parent is not None:
            waited_for.append(os.pidfd_open(parent))
            stack.callback(os.close, waited_for[-1])
        service = stack.enter_context(
            serve(worker, f"stormtracks.worker-{worker.incarnation}", (listen, 0), insecure=insecure)
        )
        registration = Registration(nameserver, name, service.uri)
        stack.callback(registration.end)
        # First of all: a name server that does not answer must not keep children alive.
        stack.callback(worker.close)
        registration.check_rival()
        logger.info("worker %s of campaign %s, process %d, at %s", worker.name, campaign, os.getpid(), service.uri)
        registration.keep()
        _wait_for_the_end(worker, bell, waited_for, registration)
        logger.info("worker %s ends", worker.name)


def _wait_for_the_end(worker: PyroWorker, bell: int, waited_for: Sequence[int], registration: Registration) -> None:
    """Until the worker is to end: at the first signal when its tasks are done and told, at the second at once."""
    rung = 0
    while rung < _AT_ONCE and (worker.busy or not rung):
        ready = select.select(waited_for, [], [], _LOOK_EVERY if rung else REGISTER_EVERY)[0]
        if bell in ready:
            rung += os.eventfd_read(bell)
            logger.info("worker %s takes no more work; %d tasks still run", worker.name, worker.drain())
        elif ready:
            return  # the parent is gone
        elif not rung:
            registration.keep()


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
        insecure = arguments.insecure or cluster.insecure
        folder = arguments.certificates
        if not insecure:
            use_credentials(credentials_in(folder) if folder else credentials_for(campaign, host=name))
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
            insecure=insecure,
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pyro_worker", description="Do the work that a manager hands out.")
    parser.add_argument(
        "campaign_file", type=Path, nargs="?", metavar="CAMPAIGN.toml", help="where the rest is taken from"
    )
    parser.add_argument("--name", metavar="HOST", help="name of this worker; default: this machine's")
    parser.add_argument("--campaign", metavar="NAME", help="name of the campaign")
    parser.add_argument("--nameserver", metavar="HOST:PORT", help="the name server")
    parser.add_argument("--listen", metavar="ADDRESS", help="default: this machine's towards the name server")
    parser.add_argument("--slots", type=count, metavar="N", help="tasks at a time")
    parser.add_argument("--certificates", type=Path, metavar="DIR", help="folder of authority.crt and worker.pem")
    parser.add_argument("--insecure", action="store_true", help="allow plain text beyond this machine")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process ends")
    return parser


if __name__ == "__main__":
    sys.exit(main())
