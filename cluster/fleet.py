"""The hosts of a campaign, all at a time: their workers started and stopped, and everything looked over, through ssh.

What is asked of a host is done there by `stormtracks.cluster.host`. A host that cannot be reached, or fails, is told
with its reason and the remedy, and holds up none of the others.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from stormtracks.cluster.errors import ClusterError, HostError
from stormtracks.cluster.host import CERTIFICATE_WANTED, digest_of
from stormtracks.cluster.pyro_nameserver import nameserver_address
from stormtracks.cluster.ssh import Answer, RemoteHost, read_ssh_config
from stormtracks.cluster.wire.certificates import HostCertificate, host_certificate, make_certificates
from stormtracks.cluster.wire.credentials import wants_certificates
from stormtracks.errors import StormtracksError
from stormtracks.settings.campaign import CampaignSettings, HostSettings
from stormtracks.settings.errors import SettingsError
from stormtracks.settings.load import load_settings

__all__ = ["DRAIN_SECONDS", "Fleet", "HostReport", "nameserver_of", "print_reports", "run_on_hosts"]

AT_A_TIME = 32
"""Hosts that are asked at the same time."""
DRAIN_SECONDS = 30.0
"""How long a worker may take to end by itself, unless told otherwise."""
INSTALL_SECONDS = 900.0
COPY_SECONDS = 60.0
START_SECONDS = 15.0
"""How long a starter waits for a worker to listen."""

WORKER = ("-m", "stormtracks.cluster.pyro_worker")
HOST_PROGRAM = ("-m", "stormtracks.cluster.host")

Ask = Callable[[RemoteHost, HostSettings], Mapping[str, Any]]

_LEAST_BOUND = 30.0
"""Seconds that a command on a host may take at least, however soon a silent worker is given up."""


@dataclass(frozen=True, slots=True)
class HostReport:
    """What happened on a host.

    Parameters
    ----------
    host : str
        Its name.
    what : str
        In a word or two: ``started``, ``already running``, ``stopped``, ``killed``, ``not running``, ``checked``, or
        ``failed``.
    detail : str
        Process and log, or the reason.
    remedy : str
        What to do about a failure.
    found : mapping
        All that the host has answered.
    """

    host: str
    what: str
    detail: str = ""
    remedy: str = ""
    found: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the host did what it was asked."""
        return self.what != "failed"


class Fleet:
    """The hosts of a campaign.

    Parameters
    ----------
    campaign : CampaignSettings
    worker : sequence of str
        What python is to run as the worker.

    Raises
    ------
    ClusterError
        If the campaign names no hosts, or workers could not be told where their name server is; also if the ssh
        configuration cannot be understood.
    """

    def __init__(self, campaign: CampaignSettings, *, worker: Sequence[str] = WORKER) -> None:
        if not campaign.cluster.hosts:
            raise ClusterError(
                f"the campaign {campaign.name!r} names no hosts",
                remedy="add a [[cluster.hosts]] table for each; without hosts, stormtracks run works on this machine",
            )
        self._campaign = campaign
        self._cluster = campaign.cluster
        self._worker = tuple(worker)
        self._nameserver = nameserver_of(campaign)
        self._certified = wants_certificates(campaign)
        self._config = read_ssh_config()

    def start(self, *, wheel: Path | None = None) -> Iterator[HostReport]:
        """Start the worker of every host where it does not run yet; reports come as hosts answer.

        Where the parts of the campaign prove themselves to each other, certificates are made that are not there, and
        each host gets what it lacks.

        Parameters
        ----------
        wheel : Path, optional
            A wheel of stormtracks to be copied to every host and installed there first.

        Raises
        ------
        ClusterError
            If there is no such wheel, or the campaign's certificates cannot be used.
        ResultsError
            If certificates cannot be written.
        """
        if wheel is not None and not (wheel.is_file() and wheel.suffix == ".whl"):
            raise ClusterError(f"{wheel} is no wheel", remedy="make one with: python -m build --wheel")
        if self._certified:
            make_certificates(self._campaign)
        return self._ask_all(partial(self._start, wheel=wheel))

    def stop(self, *, force: bool = False, wait: float = DRAIN_SECONDS) -> Iterator[HostReport]:
        """Stop the worker of every host; reports come as hosts answer.

        Parameters
        ----------
        force : bool
            Kill a worker that does not end by itself.
        wait : float
            Seconds it has for that.
        """
        return self._ask_all(partial(self._stop, force=force, wait=wait))

    def check(self, order: Mapping[str, Any]) -> Iterator[HostReport]:
        """Have every host look itself over; reports come as hosts answer.

        Parameters
        ----------
        order : mapping
            For `stormtracks.cluster.host.check`, less what it says of the campaign and the host. What that answers is
            in each report as `found`, with ``clock``: seconds by which the host's clock is ahead of ours.
        """

        def ask(remote: RemoteHost, host: HostSettings) -> Mapping[str, Any]:
            found = self._order(remote, host, "check", order)
            return {"what": "checked", "found": {**found, "clock": found["time"] - time.time()}}

        return self._ask_all(ask)

    # --- one host

    def _start(self, remote: RemoteHost, host: HostSettings, *, wheel: Path | None) -> Mapping[str, Any]:
        if wheel is not None:
            self._install(remote, host, wheel)
        command = [*self._worker, "--name", host.name, "--campaign", self._campaign.name]
        command += ["--nameserver", self._nameserver, "--slots", str(host.slots)]
        if self._cluster.insecure:
            command += ["--insecure"]
        order = {"command": command, "listen": host.address, "nameserver": self._nameserver, "wait": START_SECONDS}

        def ask(certificate: HostCertificate | None) -> Mapping[str, Any]:
            terms = certificate and {"digest": digest_of(certificate.files), "names": sorted(certificate.names)}
            return self._order(remote, host, "start", order | {"certificate": terms}, wait=START_SECONDS)

        found = ask(host_certificate(self._campaign, host.name) if self._certified else None)
        if found["what"] == CERTIFICATE_WANTED:
            certificate = host_certificate(self._campaign, host.name, also=found["address"])
            for name, content in certificate.files.items():
                remote.write_private(content, f"{found['folder']}/{name}", seconds=COPY_SECONDS)
            found = ask(certificate)
        if found["what"] == CERTIFICATE_WANTED:
            raise HostError(
                f"its certificate was copied to {found['folder']}, and is not there",
                remedy="see that no other pyro_starter is at this worker, and that the disk keeps what is written",
            )
        return found

    def _stop(self, remote: RemoteHost, host: HostSettings, *, force: bool, wait: float) -> Mapping[str, Any]:
        return self._order(remote, host, "stop", {"force": force, "wait": wait}, wait=wait)

    def _install(self, remote: RemoteHost, host: HostSettings, wheel: Path) -> None:
        """Copy a wheel to the log folder of a host, and install it with the python that its worker runs with."""
        # One for each host: they may share their homes.
        folder = f"{self._log_folder}/{self._campaign.name}.{host.name}.wheel"
        pip = [*self._python(host), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        there = f"{folder}/{wheel.name}"
        self._succeed(remote, ["mkdir", "-p", "--", folder], "the log folder cannot be made")
        remote.copy(wheel, there, seconds=INSTALL_SECONDS)
        # First what it needs; then this very wheel, though one of the same version may be there already.
        for options in ([], ["--force-reinstall", "--no-deps"]):
            problem = f"{wheel.name} cannot be installed with {host.python or self._cluster.python}"
            self._succeed(remote, [*pip, *options, there], problem)
        self._succeed(remote, ["rm", "-r", "--", folder], "the wheel cannot be removed")

    def _succeed(self, remote: RemoteHost, command: Sequence[str], problem: str) -> None:
        answer = remote.run(command, seconds=INSTALL_SECONDS)
        if answer.status:
            remedy = "name a python of an environment of your own in cluster.python (made with python3 -m venv)"
            raise HostError(f"{problem}: {_last_line(answer)}", remedy=remedy)

    def _order(
        self, remote: RemoteHost, host: HostSettings, verb: str, order: Mapping[str, Any], *, wait: float = 0.0
    ) -> Mapping[str, Any]:
        """Have `stormtracks.cluster.host` carry out an order on a host."""
        whose = {"campaign": self._campaign.name, "host": host.name, "log_folder": self._log_folder}
        command = [*self._python(host), *HOST_PROGRAM, verb, json.dumps({**order, **whose})]
        answer = remote.run(command, seconds=max(self._cluster.given_up_after, _LEAST_BOUND) + wait)
        try:
            found: Any = json.loads(answer.output.strip().rpartition("\n")[2])
        except ValueError:
            found = None
        if answer.status or not isinstance(found, dict):
            raise _no_answer(answer, host.python or self._cluster.python)
        if "error" in found:
            raise HostError(found["error"], remedy=found["remedy"])
        return found

    def _python(self, host: HostSettings) -> list[str]:
        """The command that runs python on a host, with the environment of its worker."""
        environment = {**self._cluster.environment, **host.environment}
        python = _from_home(host.python or self._cluster.python)
        return ["env", *(f"{name}={value}" for name, value in sorted(environment.items())), python]

    @property
    def _log_folder(self) -> str:
        return _from_home(str(self._cluster.log_folder))

    # --- all hosts

    def _ask_all(self, ask: Ask) -> Iterator[HostReport]:
        hosts = self._cluster.hosts
        with ThreadPoolExecutor(min(AT_A_TIME, len(hosts)), thread_name_prefix="stormtracks-ssh") as pool:
            try:
                for answer in as_completed([pool.submit(self._report, ask, host) for host in hosts]):
                    yield answer.result()
            except BaseException:
                # Ctrl-C: those that have not begun shall not.
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _report(self, ask: Ask, host: HostSettings) -> HostReport:
        try:
            with RemoteHost(host, self._cluster, self._config) as remote:
                return HostReport(host.name, **ask(remote, host))
        except HostError as error:
            return HostReport(host.name, "failed", error.what, error.remedy)


def nameserver_of(campaign: CampaignSettings) -> str:
    """Where workers find the name server, as HOST:PORT: the one the campaign names, or the manager's own.

    Raises
    ------
    ClusterError
        If the manager listens on all its addresses, and none is named.
    """
    host, port = nameserver_address(campaign.cluster)
    if host in ("0.0.0.0", "::"):
        raise ClusterError(
            f"the name server is to listen on {host}, which tells no worker where to go",
            remedy="set cluster.nameserver to HOST:PORT, the address of this machine as the hosts see it",
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def run_on_hosts(program: str, campaign_file: Path, ask: Callable[[Fleet], Iterator[HostReport]]) -> int:
    """Ask something of all hosts of a campaign and print what happened: what `pyro_starter` and `pyro_ender` do.

    Returns
    -------
    int
        Exit status: 0 if all went well, 1 if not, 2 if the campaign or its settings cannot be used, 130 for Ctrl-C.
    """
    try:
        campaign = load_settings(campaign_file).campaign
        reports = ask(Fleet(campaign))
        width = max(len(host.name) for host in campaign.cluster.hosts)
        return 0 if print_reports(reports, sys.stdout, width=width) else 1
    except (StormtracksError, SettingsError) as error:
        sys.stderr.write(f"{program}: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def print_reports(reports: Iterable[HostReport], out: TextIO, *, width: int) -> bool:
    """Print what happened on each host as it is known, names in a column of `width`; True if all went well."""
    all_well = True
    for report in reports:
        all_well &= report.ok
        separator = ": " if not report.ok else ", " if report.detail else ""
        print(f"{report.host:{width}}  {report.what}{separator}{report.detail}", file=out, flush=True)
        if report.remedy:
            print(f"{'':{width}}  remedy: {report.remedy}", file=out, flush=True)
    return all_well


def _from_home(path: str) -> str:
    """A path that begins with ``~`` as one relative to the home in which a login begins: quoted, ~ is but a sign."""
    return f".{path[1:]}" if path == "~" or path.startswith("~/") else path


def _no_answer(answer: Answer, python: str) -> HostError:
    """Why a host had no answer: most often, its python or stormtracks is not there."""
    said = _last_line(answer)
    if answer.status in (126, 127):
        return HostError(f"python {python!r} cannot be run there: {said}", remedy="correct the setting 'python'")
    if "No module named" in answer.errors:
        remedy = "install stormtracks there: pyro_starter --install WHEEL, or pip; or correct the setting 'python'"
        return HostError(f"python {python!r} there has no stormtracks: {said}", remedy=remedy)
    return HostError(
        f"python {python!r} there has ended with exit status {answer.status}: {said}",
        remedy="see that it is python 3.11 or later, with the same stormtracks as here",
    )


def _last_line(answer: Answer) -> str:
    return (answer.errors.strip() or answer.output.strip()).rpartition("\n")[2] or "without a word"
