"""Three hosts with certificates, and the commands that a user has: each second one is cut off, or something killed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import psutil
import pytest

from stormtracks.cluster.host import WorkerFiles
from stormtracks.cluster.wire.address import DEFAULT_PORT
from stormtracks.cluster.wire.credentials import credentials_for
from stormtracks.cluster.wire.transport import use_credentials
from stormtracks.settings.load import load_settings
from tests.cluster.ssh_hosts import NamespacedHosts
from tests.faults.campaigns import NAME, YEARS, Program, Serial, Trial, campaign_text, results_in, serial_run, until
from tests.faults.invariant import check
from tests.faults.nursery import Nursery

SEED = int(os.environ.get("FAULTS_FIRST_SEED", "0"))
FAULTS = 15
"""One each second."""
LEASE = 2.5
CUTS = (0.5, 4.0)
"""Seconds that a host is cut off: for less than a lease, or until its tasks have gone to others."""
MEMBERS = range(1, 13)
TASKS = [(year, member) for year in YEARS for member in MEMBERS]
TASK_SECONDS = 1.0
"""How long a task stands still, that it may be met at work."""
LAST = 6
"""Tasks that stand still until the storm is over, so that the campaign is not over before."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Serial:
    """What must come out, of more tasks than usual."""
    return serial_run(tmp_path_factory.mktemp("many"), MEMBERS)


def test_f15_a_host_is_cut_off_or_a_process_killed_every_second(
    namespaced: NamespacedHosts, many: Serial, nursery: Nursery
) -> None:
    """Any host, and any process: worker, task, manager, name server; the user starts again what a user starts."""
    with Trial(namespaced.shared / "trial", many, nursery, TASKS) as trial:
        storm = Storm(trial, namespaced, Random(SEED))
        try:
            storm.run()
        except Exception as error:
            raise AssertionError(f"{error}\nafter\n{storm.told}") from error
        finally:
            use_credentials(None)
            print(storm.told)
    assert namespaced.processes() == []
    assert {path.suffix for path in namespaced.logs.iterdir()} == {".log"}
    logs = [*namespaced.logs.iterdir(), *(program.err for program in (*trial.managers, *trial.others))]
    assert [path.name for path in logs if "Traceback" in path.read_text(encoding="utf-8", errors="replace")] == []


class Storm:
    """A campaign on hosts, and what befalls it; the same for the same seed, however fast it goes on."""

    def __init__(self, trial: Trial, hosts: NamespacedHosts, random: Random) -> None:
        self.trial = trial
        self.hosts = hosts
        self.random = random
        self.starter: Program | None = None
        self.is_to_start = False
        self.cut: dict[str, float] = {}
        """Hosts that are cut off, and until when."""
        self.still: dict[psutil.Process, float] = {}
        """Tasks that stand still, and until when."""
        self.seen: set[tuple[int, int, int, int]] = set()
        self.log = [f"seed {SEED}"]
        self.began = time.monotonic()

    @property
    def told(self) -> str:
        """What has happened."""
        return "\n".join(self.log)

    def run(self) -> None:
        """Begin it, disturb it, and leave it in peace until it has ended."""
        self.describe()
        self.trial.nameserver = (self.hosts.here, DEFAULT_PORT)
        self.call("stormtracks.cli", "certs", self.trial.file)
        use_credentials(credentials_for(load_settings(self.trial.file).campaign))
        self.start_nameserver()
        self.nameserver.until(lambda: self.nameserver.said.endswith("\n"), "it listens")
        self.call("stormtracks.cluster.pyro_starter", self.trial.file)
        until(self.all_registered, "all workers are registered")
        self.start_manager()
        self.manager.until(lambda: len(self.manager.events("complete")) >= len(self.hosts.names), "they are at work")
        self.began = time.monotonic()
        for number in range(FAULTS):
            self.disturb()
            self.go_on(until=self.began + number + 1.0)
        self.calm()
        self.manager.end(0)
        until(self.all_registered, "all workers are registered again")
        stopped = self.call("stormtracks.cluster.pyro_ender", self.trial.file)
        assert stopped.count("stopped") == len(self.hosts.names), stopped
        check(self.trial)

    def describe(self) -> None:
        """A campaign whose tasks are blamed for nothing here: with whom they are lost is left to chance."""
        sections: dict[str, dict[str, Any]] = {
            "data": {"root": str(self.trial.serial.data)},
            "results": {"root": str(self.trial.out)},
            "run": {"bundle": 3, "max_attempts": 50, "max_losses": 50, "worker_strikes": 50, "retry_delay": 0.05},
        }
        mark = {"TMPDIR": str(self.trial.tmp), "FAULTS_TRIAL": self.trial.token}
        # One that is named, so that no manager brings its own while that is away; nothing else listens here.
        places = {"nameserver": f"{self.hosts.here}:{DEFAULT_PORT}", "listen": "127.0.0.1"}
        cluster: dict[str, Any] = places | {"heartbeat": 0.5, "lease": LEASE, "connect_timeout": 5.0}
        text = campaign_text(self.trial.tasks, sections) + self.hosts.toml(**cluster, environment=mark)
        self.trial.file.write_text(text, encoding="utf-8")

    # --- what a user does

    @property
    def manager(self) -> Program:
        return self.trial.managers[-1]

    @property
    def done(self) -> dict[str, bytes]:
        return results_in(self.trial.out)

    @property
    def nameserver(self) -> Program:
        return self.trial.others[-1]

    def all_registered(self) -> bool:
        return set(self.trial.registered()) == set(self.hosts.names)

    def call(self, module: str, *arguments: object) -> str:
        """Run a program to its end, which is a good one; what it has printed."""
        program = self.trial.start(module, module, *map(str, arguments), HOME=str(self.hosts.home))
        program.end(0)
        return program.said

    def start_manager(self) -> None:
        self.trial.start_manager(HOME=str(self.hosts.home))

    def start_nameserver(self) -> None:
        module = "stormtracks.cluster.pyro_nameserver"
        self.trial.others.append(self.trial.start("nameserver", module, self.trial.file, HOME=str(self.hosts.home)))

    def start_workers(self) -> None:
        """Where there is none, as soon as the starter that is at it has ended."""
        if self.starter is not None and not self.starter.runs:
            self.starter.end(0, 1)  # 1: not all hosts can be reached
            self.starter = None
        if self.is_to_start and self.starter is None:
            module = "stormtracks.cluster.pyro_starter"
            self.starter = self.trial.start("starter", module, self.trial.file, HOME=str(self.hosts.home))
            self.is_to_start = False

    # --- what happens each second

    def disturb(self) -> None:
        """One fault."""
        faults: list[tuple[int, Callable[[str], str]]] = [
            (6, self.cut_off),
            (3, self.kill_worker),
            (2, self.kill_task),
            (2, self.kill_manager),
            (2, self.kill_nameserver),
        ]
        fault = self.random.choices([fault for _, fault in faults], [weight for weight, _ in faults])[0]
        name = self.random.choice(self.hosts.names)
        at = time.monotonic() - self.began
        self.log.append(f"{at:5.1f} s: {fault.__name__}, {name}: {fault(name)}")

    def go_on(self, *, until: float) -> None:
        """Let time pass."""
        while (now := time.monotonic()) < until:
            for name in [name for name, end in self.cut.items() if end <= now]:
                self.hosts.heal(name)
                del self.cut[name]
            self.start_workers()
            self.slow_down(now)
            time.sleep(0.02)

    def calm(self) -> None:
        """Let nothing be cut off any more, and see that all workers are there."""
        for name in self.cut:
            self.hosts.heal(name)
        if self.starter is not None:
            self.starter.end(0, 1)
        for process in self.still:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        assert self.manager.process.poll() in (None, 0), self.manager.told
        self.log.append(f"{len(self.done)} of {len(self.trial.tasks)} tasks were done by then")
        self.call("stormtracks.cluster.pyro_starter", self.trial.file)

    def slow_down(self, now: float) -> None:
        """Let tasks stand still for a while, as on a machine that swaps; the last ones until all is over."""
        if len(self.done) >= len(self.trial.tasks) - LAST:
            for name in self.hosts.names:
                self.hold(name, math.inf)
        for one in self.manager.events("begun"):
            begun = (self.manager.process.pid, one["year"], one["member"], one["attempt"])
            if begun not in self.seen:
                self.seen.add(begun)
                self.hold(one["worker"], now + TASK_SECONDS)
        for process in [process for process, end in self.still.items() if end <= now]:
            with suppress(psutil.NoSuchProcess):
                process.resume()
            del self.still[process]

    def hold(self, name: str, end: float) -> None:
        """Let the tasks of a host stand still."""
        for process in self.children(name):
            if self.still.get(process, 0.0) < end:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
                    self.still[process] = end

    # --- faults

    def cut_off(self, name: str) -> str:
        seconds = self.random.uniform(*CUTS)
        self.hosts.cut(name)
        self.cut[name] = max(time.monotonic() + seconds, self.cut.get(name, 0.0))
        return f"for {seconds:.1f} s"

    def kill_worker(self, name: str) -> str:
        self.is_to_start = True
        return _kill(self.worker(name))

    def kill_task(self, name: str) -> str:
        return _kill(self.children(name))

    def kill_manager(self, name: str) -> str:
        assert self.manager.process.poll() in (None, 0), self.manager.told
        self.manager.kill()
        self.start_manager()
        return "killed"

    def kill_nameserver(self, name: str) -> str:
        assert self.nameserver.runs, self.nameserver.told
        self.nameserver.kill()
        self.start_nameserver()
        return "killed"

    def worker(self, name: str) -> list[psutil.Process]:
        """The process that was started last as the worker of a host, if there is one."""
        process = WorkerFiles(self.hosts.logs, NAME, name).read()
        with suppress(psutil.NoSuchProcess):
            return [psutil.Process(process.pid)] if process and process.runs else []
        return []

    def children(self, name: str) -> list[psutil.Process]:
        """The processes in which a host does its tasks."""
        with suppress(psutil.NoSuchProcess):
            return [child for worker in self.worker(name) for child in worker.children()]
        return []


def _kill(processes: list[psutil.Process]) -> str:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            return f"process {process.pid} killed"
    return "there is none"
