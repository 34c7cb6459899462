"""Campaigns from end to end: real programs, ssh servers and data, on hosts that fail while they are at work.

Tasks take a fraction of a second here. Where a test needs them under way, their processes are stopped for a while, as
on a machine that swaps: whoever waits for them must then go by heartbeats, and the test by no clock.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from stormtracks.cluster.errors import CertificateError
from stormtracks.cluster.pyro_nameserver import DEFAULT_PORT
from stormtracks.cluster.wire.certificates import make_certificates
from stormtracks.cluster.wire.credentials import credentials_for
from stormtracks.cluster.wire.transport import Address, Connection, list_names, parse_address, use_credentials
from stormtracks.grid import Grid
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.settings.load import load_settings
from stormtracks.synthetic import SyntheticEnsemble, write
from tests.cluster.ssh_hosts import Hosts, NamespacedHosts, until

YEARS, MEMBERS = (2001, 2002), range(1, 7)
TASKS = [(year, member) for year in YEARS for member in MEMBERS]
HEAD = """\
name = "gale"
years = "2001-2002"
members = 6
[data]
root = "data"
[results]
root = "out"
[run]
bundle = 1
"""
QUICK = {"heartbeat": 0.5, "connect_timeout": 3.0, "patience": 60.0}
# For managers alone: logging in to a host may take longer on a busy machine.
LEASE = {"STORMTRACKS_CLUSTER__LEASE": "3"}
BOUND = 60.0


@dataclass(frozen=True)
class Reference:
    """Small data, and what a serial run without any cluster publishes of them."""

    data: Path
    results: dict[str, bytes]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    root = tmp_path_factory.mktemp("reference")
    grid = Grid(np.linspace(90, -90, 37), np.arange(0, 360, 5.0))
    write(SyntheticEnsemble((2001, 11, 1), (2002, 3, 1), members=len(MEMBERS), grid=grid), root / "data")
    (root / "c.toml").write_text(HEAD, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "stormtracks.cli",
        "run",
        str(root / "c.toml"),
        "--backend",
        "local",
        "--workers",
        "1",
    ]
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    results = results_in(root / "out")
    assert sorted(results) == [f"results/vort_track/{year}/m{member:03d}.nc" for year, member in TASKS]
    return Reference(root / "data", results)


def results_in(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("results/**/*.nc")}


# --- a campaign on hosts


@dataclass
class Trial:
    """A campaign on hosts, and the programs that act on it."""

    hosts: Hosts
    environment: dict[str, str]
    met: set[Address] = field(default_factory=set)
    """All that was seen to listen."""

    @property
    def out(self) -> Path:
        return self.hosts.shared / "out"

    @property
    def nameserver(self) -> Address:
        listen = re.search(r'^listen = "(.+)"$', self.file().read_text(encoding="utf-8"), re.MULTILINE)
        assert listen is not None
        return listen[1], DEFAULT_PORT

    def file(self, name: str = "c") -> Path:
        return self.hosts.shared / f"{name}.toml"

    def describe(self, name: str = "c", *, more: str = "", **options: Any) -> Path:
        """Write a campaign file; `more` goes to its end."""
        environment = {"TMPDIR": str(self.hosts.shared / "tmp")}
        text = HEAD + self.hosts.toml(environment=environment, **(QUICK | options)) + more
        self.file(name).write_text(text, encoding="utf-8")
        return self.file(name)

    def call(self, program: str, *arguments: str | Path, status: int = 0) -> str:
        """Run a program to its end, which is bounded; what it has printed."""
        command = [sys.executable, "-m", f"stormtracks.{program}", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, cwd=self.hosts.home, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def worker(self, name: str) -> psutil.Process:
        """The process that was started as the worker of a host."""
        document = json.loads((self.hosts.logs / f"gale.{name}.json").read_bytes())
        return psutil.Process(document["pid"])

    def at_work(self, name: str) -> bool:
        """Whether the worker of a host, which is held, has its orders; `begun` is told before they reach it."""
        return any(child.status() == psutil.STATUS_STOPPED for child in self.worker(name).children())

    @contextmanager
    def proved(self, campaign: Path) -> Iterator[None]:
        """The test itself has the manager's certificate."""
        use_credentials(credentials_for(load_settings(campaign).campaign))
        try:
            yield
        finally:
            use_credentials(None)

    def registered(self) -> set[str]:
        """Hosts whose workers the name server knows now."""
        prefix = "stormtracks.gale.worker_"
        names = list_names(self.nameserver, prefix)
        self.met |= {parse_address(uri.rpartition("@")[2]) for uri in names.values()} | {self.nameserver}
        return {name.removeprefix(prefix) for name in names}

    @contextmanager
    def background(self, program: str, *arguments: str | Path, **environment: str) -> Iterator[Background]:
        """A program at work; ended by force if the test has not seen its end."""
        command = [sys.executable, "-m", f"stormtracks.{program}", *map(str, arguments)]
        said = [self.hosts.home / f"{program}.{stream}" for stream in ("out", "err")]
        with said[0].open("wb") as out, said[1].open("wb") as err:
            # What the manager makes in the results root, the workers of another user must be able to write to.
            process = subprocess.Popen(
                command,
                env=self.environment | environment,
                cwd=self.hosts.home,
                stdout=out,
                stderr=err,
                umask=0,
            )
        try:
            yield Background(process, *said)
        finally:
            process.kill()
            process.wait(BOUND)

    def rows(self) -> dict[int, str]:
        """The rows of `stormtracks status` by year."""
        rows = re.findall(r"^(\d+): (\S+)$", self.call("cli", "status", self.out), re.MULTILINE)
        return {int(year): row for year, row in rows}

    def check_complete(self, events: list[dict[str, Any]], reference: Reference) -> None:
        """Each task was done once, with the bytes of the serial run, and `stormtracks status` says so."""
        assert Counter((one["year"], one["member"]) for one in events if one["event"] == "complete") == Counter(TASKS)
        assert (events[-1]["event"], events[-1]["counts"]["complete"]) == ("end", len(TASKS))
        assert results_in(self.out) == reference.results
        assert {"2001: ++++++", "2002: ++++++"} < set(self.call("cli", "status", self.out).splitlines())

    def check_nothing_left(self) -> None:
        """No process, no open port, no file that was meant for a while."""
        until(lambda: not self.hosts.processes(), "all processes have ended")
        assert self.met
        for address in self.met:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, 5.0)
        shared = self.hosts.shared
        assert [
            path for path in shared.rglob("*") if path.name.startswith(".") or path.suffix in (".tmp", ".part")
        ] == []
        assert list((shared / "tmp").iterdir()) == []
        assert {path.suffix for path in self.hosts.logs.iterdir()} == {".log"}


@dataclass
class Background:
    """A program at work, and what it has said so far."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def said(self) -> str:
        return self.out.read_text(encoding="utf-8")

    @property
    def complained(self) -> str:
        return self.err.read_text(encoding="utf-8")

    def events(self, event: str = "", worker: str = "") -> list[dict[str, Any]]:
        """What a manager has told as JSON; of one kind, or of one worker."""
        whole, _, _ = self.said.rpartition("\n")
        told: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        return [one for one in told if event in ("", one["event"]) and worker in ("", one.get("worker"))]

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds, while the program goes on."""
        deadline = time.monotonic() + BOUND
        while not condition():
            told = f"{what}\n{self.said}\n{self.complained}"
            assert self.process.poll() is None, f"ended before: {told}"
            assert time.monotonic() < deadline, f"not within {BOUND:g} s: {told}"
            time.sleep(0.02)

    def end(self, status: int) -> None:
        """Wait for its end, and see how it ended."""
        assert self.process.wait(BOUND) == status, self.said + self.complained
        assert "Traceback" not in self.complained


def is_slot(process: psutil.Process) -> bool:
    return "stormtracks.cluster.backends.child" in process.cmdline()


@contextmanager
def held(*workers: psutil.Process) -> Iterator[None]:
    """The tasks of these workers, those that they begin meanwhile too, stand still; the workers do not."""
    over = threading.Event()
    stopped: set[psutil.Process] = set()

    def hold() -> None:
        while not over.wait(0.02):
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    # Not one that is still being started: whoever starts it would stand still, too.
                    for child in filter(is_slot, worker.children()):
                        child.suspend()
                        stopped.add(child)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for child in stopped:
            with suppress(psutil.NoSuchProcess):
                child.resume()


def trial_on(hosts: Hosts, reference: Reference) -> Trial:
    # As an administrator does it who shares a disk: whoever logs in may write to it.
    for folder in ("data", "out", "tmp"):
        (hosts.shared / folder).mkdir()
        (hosts.shared / folder).chmod(0o777)
    for path in reference.data.rglob("*.nc"):
        copy = hosts.shared / "data" / path.relative_to(reference.data)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return Trial(hosts, hosts.environment | {"TMPDIR": str(hosts.shared / "tmp")})


def happened(text: str) -> dict[str, str]:
    """What `pyro_starter` or `pyro_ender` says of each host, in a word or two."""
    return dict(re.findall(r"^(\S+) +([a-z ]+)[,:\n]", text, re.MULTILINE))


# --- all goes well, but for a host


def test_a_host_is_cut_off_in_the_middle_and_used_again_when_it_is_back(
    namespaced: NamespacedHosts, reference: Reference
) -> None:
    """Three hosts with their own addresses, and certificates; all five commands, `stormtracks certs` and `hosts`."""
    first, lost, third = namespaced.names
    trial = trial_on(namespaced, reference)
    campaign = trial.describe()
    made = trial.call("cli", "certs", campaign)
    assert re.findall(r"^(\w+): made, ", made, re.MULTILINE) == ["authority", "manager", *namespaced.names]
    with trial.proved(campaign), trial.background("cluster.pyro_nameserver", campaign) as nameserver:
        nameserver.until(lambda: nameserver.said.endswith("\n"), "the name server listens")
        assert happened(trial.call("cluster.pyro_starter", campaign)) == dict.fromkeys(namespaced.names, "started")
        table = trial.call("cli", "hosts", campaign).splitlines()
        assert [row.split()[:2] for row in table[1:]] == [[name, "yes"] for name in namespaced.names]
        assert all(re.search(r" ok +20\d\d-\d\d-\d\d ", row) for row in table[1:]), table
        nameserver.until(lambda: trial.registered() == set(namespaced.names), "all workers are registered")
        with trial.background("cluster.pyro_manager", campaign, "--json", **LEASE) as manager:
            cut_off_and_heal(trial, namespaced, manager, (first, lost, third))
            manager.end(0)
            trial.check_complete(manager.events(), reference)
            assert "plain text" not in manager.complained + nameserver.complained
        assert happened(trial.call("cluster.pyro_ender", campaign)) == dict.fromkeys(namespaced.names, "stopped")
        assert trial.registered() == set()
        nameserver.process.terminate()
        nameserver.end(0)
    trial.check_nothing_left()


def cut_off_and_heal(trial: Trial, hosts: NamespacedHosts, manager: Background, names: Sequence[str]) -> None:
    """Cut the second of three hosts off while all are at work; heal it while there is still work to be done."""
    first, lost, third = names
    with held(trial.worker(third)), ExitStack() as while_alone:
        while_alone.enter_context(held(trial.worker(lost)))
        with held(trial.worker(first)):
            manager.until(lambda: all(map(trial.at_work, names)), "all are at work")
            assert {one["worker"] for one in manager.events("begun")} == set(names)
            refuse_intruders(trial)
            (attempt,) = manager.events("begun", lost)
            hosts.cut(lost)
            manager.until(lambda: manager.events("lost"), "the host is given up")
            (orphan,) = manager.events("lost")
            year, member = attempt["year"], attempt["member"]
            assert (orphan["worker"], orphan["year"], orphan["member"]) == (lost, year, member)
            assert "not heard from" in orphan["error"]
            # Nobody is free for its task, which shows.
            shown = trial.rows()
            assert shown[year][member - 1] == "-"
            assert "".join(shown.values()).count("W") == 2
        manager.until(lambda: {2} & {one["attempt"] for one in manager.events("begun", first)}, "another gets its task")
        with held(trial.worker(first)):
            manager.until(lambda: not trial.at_work(lost), "the host that is cut off has ended what it was at")
            while_alone.close()
            hosts.heal(lost)
            manager.until(lambda: len(manager.events("begun", lost)) > 1, "the host is used again")
    manager.until(lambda: manager.events("complete", lost), "the host does its work again")


def refuse_intruders(trial: Trial) -> None:
    """Who speaks plain text, or has another campaign's certificate, is refused by all that listens, and logged."""
    prefix = "stormtracks.gale.worker_"
    uris = {name.removeprefix(prefix): uri for name, uri in list_names(trial.nameserver, prefix).items()}
    uris["name server"] = "PYRO:Pyro.NameServer@{}:{}".format(*trial.nameserver)
    folder = trial.hosts.home / "of another"
    cluster = {"listen": trial.hosts.here, "certificates": folder}
    other = CampaignSettings.model_validate({"name": "calm", "cluster": cluster})
    make_certificates(other)
    ours = credentials_for(load_settings(trial.file()).campaign)
    try:
        for credentials, said in ((None, "talks in TLS alone"), (credentials_for(other), "does not prove itself")):
            use_credentials(credentials)
            for uri in uris.values():
                with Connection(uri, BOUND) as connection, pytest.raises(CertificateError, match=said):
                    connection.call("ping")
    finally:
        use_credentials(ours)
    # One who looks at nothing himself, and so gets as far as the others let him.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(folder / "manager.pem")
    for uri in uris.values():
        address = parse_address(uri.rpartition("@")[2])
        with socket.create_connection(address, BOUND) as sock, pytest.raises(ssl.SSLError, match=r"(?i)unknown ca"):
            context.wrap_socket(sock).recv(1)
    for name in trial.hosts.names:
        log = trial.hosts.logs / f"gale.{name}.log"
        until(lambda log=log: said_of(log) == {"no TLS: wrong version number", *UNKNOWN}, "is logged")  # type: ignore[misc]


UNKNOWN = ("no TLS: tlsv1 alert unknown ca", "no TLS: unable to get local issuer certificate")


def said_of(log: Path) -> set[str]:
    """Why a worker has refused whom, by its log; all of them came from this machine."""
    return set(re.findall(r"WARNING refused 10\.\d+\.\d+\.\d+:\d+: (.*)", log.read_text(encoding="utf-8")))


def test_a_worker_is_killed_in_the_middle_and_late_ones_are_used_at_once(loopback: Hosts, reference: Reference) -> None:
    """One ssh server of an ordinary user on loopback; the manager brings the name server."""
    north, south, east = loopback.names
    trial = trial_on(loopback, reference)
    # An address of our own, so that port 9090 is free.
    listen = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    campaign = trial.describe(listen=listen)
    two = trial.describe("two", listen=listen, names=(north, south))
    assert happened(trial.call("cluster.pyro_starter", two)) == {north: "started", south: "started"}
    with trial.background("cli", "run", campaign, "--backend", "pyro", "--json", **LEASE) as manager:
        with held(trial.worker(north)), held(trial.worker(south)):
            manager.until(lambda: trial.at_work(north) and trial.at_work(south), "both are at work")
            assert trial.registered() == {north, south}
            (attempt,) = manager.events("begun", south)
            trial.worker(south).kill()
            manager.until(lambda: manager.events("lost"), "the worker is given up")
            (orphan,) = manager.events("lost")
            assert [orphan[key] for key in ("worker", "year", "member")] == [south, attempt["year"], attempt["member"]]
            year, member = attempt["year"], attempt["member"]
            assert trial.rows()[year][member - 1] == "-"
            started = happened(trial.call("cluster.pyro_starter", campaign))
            assert started == {north: "already running", south: "started", east: "started"}
            manager.until(
                lambda: manager.events("complete", south) and manager.events("complete", east),
                "the late worker and the one that was started again are used",
            )
            trial.registered()
        manager.end(0)
        trial.check_complete(manager.events(), reference)
        again = [one for one in manager.events("begun") if one["attempt"] == 2]
        assert [(one["year"], one["member"]) for one in again] == [(year, member)]
    assert happened(trial.call("cluster.pyro_ender", campaign)) == dict.fromkeys(loopback.names, "stopped")
    trial.check_nothing_left()


# --- hosts that cannot be used


def test_hosts_that_cannot_be_used_are_named_and_the_others_do_the_work(
    namespaced: NamespacedHosts, reference: Reference
) -> None:
    """A refused key, an unknown host key, a wrong python, and another disk in place of the results root."""
    fit, other_disk, keyless = namespaced.names
    trial = trial_on(namespaced, reference)
    (namespaced.home.parent / keyless / "authorized_keys").write_text("", encoding="utf-8")
    with (namespaced.home / ".ssh" / "config").open("a", encoding="utf-8") as config:
        config.write(f"Host stranger snakeless\n  HostName {namespaced.address(fit)}\n")
        config.write("Host stranger\n  UserKnownHostsFile /dev/null\n")
    more = '[[cluster.hosts]]\nname = "stranger"\n[[cluster.hosts]]\nname = "snakeless"\npython = "python9"\n'
    campaign = trial.describe(insecure=True, more=more)
    namespaced.server(other_disk).hide(trial.out)
    reasons = {
        keyless: r"no key was accepted for root@.*\n +remedy: .*ssh-copy-id",
        "stranger": r".* not in known_hosts: SHA256:.*\n +remedy: .*plain ssh",
        "snakeless": r"python 'python9' cannot be run there: .*\n +remedy: .*'python'",
    }
    said = trial.call("cluster.pyro_starter", campaign, status=1)
    assert happened(said) == dict.fromkeys(reasons, "failed") | {fit: "started", other_disk: "started"}
    for name, reason in reasons.items():
        assert re.search(rf"^{name} +failed: {reason}", said, re.MULTILINE), said
    said = trial.call("cli", "hosts", campaign, status=1)
    reasons[other_disk] = rf".*the results root {trial.out} there .*\n +remedy: mount "
    for name, reason in reasons.items():
        assert re.search(rf"^{name}: {reason}", said, re.MULTILINE), said
    assert f"\n{fit}: " not in said

    with trial.background("cluster.pyro_manager", campaign, "--json", **LEASE) as manager:
        refused = f"the results root {trial.out} there is not the manager's"
        with held(trial.worker(fit)):
            manager.until(lambda: trial.at_work(fit), "one host is at work")
            manager.until(lambda: refused in manager.complained, "the other is refused")
            assert trial.registered() == {fit, other_disk}
        manager.end(0)
        trial.check_complete(manager.events(), reference)
        assert {one["worker"] for one in manager.events("begun")} == {fit}
        assert manager.complained.count(refused) == 1
    ended = happened(trial.call("cluster.pyro_ender", campaign, status=1))
    unreached = dict.fromkeys((keyless, "stranger", "snakeless"), "failed")
    assert ended == unreached | {fit: "stopped", other_disk: "stopped"}
    trial.check_nothing_left()


def test_without_any_worker_the_manager_ends_and_tells_of_each_host(
    namespaced: NamespacedHosts, reference: Reference
) -> None:
    """One cut off, one with another disk, one never started."""
    cut_off, other_disk, never = namespaced.names
    trial = trial_on(namespaced, reference)
    campaign = trial.describe(insecure=True, patience=10.0)
    two = trial.describe("two", insecure=True, names=(cut_off, other_disk))
    with trial.background("cluster.pyro_nameserver", campaign) as nameserver:
        nameserver.until(lambda: nameserver.said.endswith("\n"), "the name server listens")
        assert happened(trial.call("cluster.pyro_starter", two)) == {cut_off: "started", other_disk: "started"}
        nameserver.until(lambda: trial.registered() == {cut_off, other_disk}, "the workers are registered")
        namespaced.cut(cut_off)
        namespaced.server(other_disk).hide(trial.out)
        said = trial.call("cluster.pyro_manager", campaign, status=3)
        lines = {line.split(":")[0].strip(): line for line in said.splitlines()}
        assert "no worker came within 10 s" in lines["the campaign could not go on"]
        assert namespaced.address(cut_off) in lines[cut_off]
        assert f"the results root {trial.out} there" in lines[other_disk]
        assert "not registered with the name server at {}:{}".format(*trial.nameserver) in lines[never]
        assert lines["to go on"] == f"to go on: pyro_manager {campaign}"
        assert said.splitlines()[-1].startswith("0 of 12 tasks complete, 12 outstanding; ")
        namespaced.heal(cut_off)
        trial.call("cluster.pyro_ender", campaign)
        assert trial.registered() == set()
        nameserver.process.terminate()
        nameserver.end(0)
    trial.check_nothing_left()
