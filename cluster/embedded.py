"""The cluster of a campaign as its manager opens it: with what it brings itself where the campaign names none.

Without hosts and name server, the manager brings both: a name server in its own process, and one worker, a process on
this machine, of which nothing can be seen from another one. With hosts but no name server, it brings that, unless one
answers at the place where they expect it.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO

from stormtracks.cluster.backends.pyro import PyroBackend
from stormtracks.cluster.errors import ListenError
from stormtracks.cluster.wire.address import nameserver_address
from stormtracks.cluster.wire.credentials import credentials_for
from stormtracks.cluster.wire.transport import Address, nameserver_answers, start_nameserver, use_credentials
from stormtracks.settings.campaign import CampaignSettings

__all__ = ["open_cluster"]

logger = logging.getLogger(__name__)

_END_LIMIT = 10.0
"""Seconds the worker of this machine is given to end by itself."""
_DEATHS = 3
"""Deaths in quick succession after which the worker of this machine is not started again; one more than a task may
cause, if that is more."""
_YOUNG = 60.0
"""Seconds of life before which a death comes quickly."""
_LOOK_EVERY = 0.2
_LOOPBACK = "127.0.0.1"


@contextmanager
def open_cluster(
    campaign: CampaignSettings,
    first_years: Sequence[int],
    *,
    slots: int,
    campaign_id: str | None = None,
    epoch: int = 1,
) -> Iterator[PyroBackend]:
    """The backend of a campaign, with all that has to be started for it, and is ended with it.

    Parameters
    ----------
    campaign : CampaignSettings
    first_years : sequence of int
        Years of the campaign that follow on none of its years.
    slots : int
        Tasks at a time for the worker of this machine, if one is started.
    campaign_id, epoch : optional
        As `PyroBackend` takes them.

    Raises
    ------
    ListenError
        If the name server cannot listen where it should.
    CertificateError
        If the campaign goes beyond this machine and its certificates cannot be used, or the name server that is there
        does not trust them.
    """
    cluster = campaign.cluster
    troubles: Callable[[], Mapping[str, str]] = dict
    with ExitStack() as stack:
        if cluster.hosts or cluster.nameserver:
            nameserver = nameserver_address(cluster)
            use_credentials(credentials_for(campaign))
            if not cluster.nameserver and not nameserver_answers(nameserver):
                try:
                    stack.enter_context(start_nameserver(nameserver, insecure=cluster.insecure))
                except ListenError:
                    # Somebody else may have started one at this very moment.
                    if not nameserver_answers(nameserver):
                        raise
        else:
            use_credentials(None)
            nameserver = stack.enter_context(start_nameserver((_LOOPBACK, 0))).address
            here = stack.enter_context(closing(_WorkerHere(campaign, nameserver, slots)))
            troubles = here.troubles
        yield stack.enter_context(
            PyroBackend(
                campaign, nameserver, first_years=first_years, troubles=troubles, campaign_id=campaign_id, epoch=epoch
            )
        )


class _WorkerHere:
    """A worker on this machine; started again when it dies, and ended with this process, whatever ends that."""

    def __init__(self, campaign: CampaignSettings, nameserver: Address, slots: int) -> None:
        self._name = socket.gethostname()
        self._command = [sys.executable, "-P", "-m", "stormtracks.cluster.pyro_worker", "--name", self._name]
        self._command += ["--campaign", campaign.name, "--nameserver", f"{nameserver[0]}:{nameserver[1]}"]
        self._command += ["--listen", _LOOPBACK, "--slots", str(slots), "--parent", str(os.getpid())]
        self._deaths = max(_DEATHS, campaign.run.max_losses + 1)
        self._trouble = ""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="stormtracks-worker-here")
        self._thread.start()

    def troubles(self) -> dict[str, str]:
        """How it has ended, if it has."""
        return {self._name: self._trouble} if self._trouble else {}

    def close(self) -> None:
        """End it."""
        self._ending.set()
        self._thread.join()

    def _keep(self) -> None:
        deaths = 0
        while deaths < self._deaths and not self._ending.is_set():
            began = time.monotonic()
            with os.fdopen(os.memfd_create("stormtracks-worker"), "w+b") as log:
                self._run(log)
                if not self._ending.is_set():
                    deaths = 1 if time.monotonic() - began > _YOUNG else deaths + 1
                    self._trouble += _last_line(log)
                    logger.warning("the worker on this machine: %s", self._trouble)

    def _run(self, log: IO[bytes]) -> None:
        """One process, from its start to its end."""
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)},
            # Ctrl-C goes to a whole process group: what becomes of the worker then is the manager's to decide.
            process_group=0,
        )
        while process.poll() is None and not self._ending.wait(_LOOK_EVERY):
            pass
        if self._ending.is_set():
            _end(process)
        self._trouble = f"its process {process.pid} has ended with exit status {process.returncode}"


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((f": {line}" for line in reversed(lines) if line.strip()), "")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_LIMIT)
    except subprocess.TimeoutExpired:
        logger.warning("process %d, the worker on this machine, does not end; killed", process.pid)
        process.kill()
        process.wait()
