"""Campaigns that are disturbed: real managers, workers and name servers on loopback, over a tiny synthetic ensemble."""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil

from stormtracks.cluster.registration import worker_prefix
from stormtracks.cluster.status import read_status
from stormtracks.cluster.wire.transport import (
    Address,
    Service,
    list_names,
    parse_address,
    register_name,
    start_nameserver,
)
from stormtracks.grid import Grid
from stormtracks.synthetic import SyntheticEnsemble, write
from tests.cluster.cluster_parts import Wire
from tests.faults.nursery import Forked, Nursery

__all__ = ["BOUND", "MEMBERS", "ROOT", "TASKS", "YEARS", "Program", "Serial", "Trial", "serial_run", "until"]

ROOT = Path(__file__).parents[2]
NAME = "gale"
PREFIX = worker_prefix(NAME)
YEARS, MEMBERS = (2001, 2002), (1, 2, 3, 4)
TASKS = [(year, member) for year in YEARS for member in MEMBERS]
BOUND = 60.0
"""Seconds that anything may take on a machine with much else to do."""

QUICK: dict[str, dict[str, Any]] = {
    "run": {"bundle": 1, "retry_delay": 0.0, "time_limit": 30.0},
    "cluster": {"heartbeat": 0.1, "lease": 1.5, "patience": 30.0},
}
"""Settings with which things happen soon."""


def until(condition: Callable[[], object], what: Callable[[], str] | str, bound: float = BOUND) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + bound
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {bound:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.01)


def descriptors_and_threads(pid: int | None = None) -> tuple[int, int]:
    """How many a process has, none if it has ended; this one, if no other is named."""
    if pid is None:
        gc.collect()  # Pyro5 leaves a descriptor of a closed daemon to it
        return psutil.Process().num_fds(), threading.active_count()
    try:
        process = psutil.Process(pid)
        return process.num_fds(), process.num_threads()
    except psutil.NoSuchProcess:
        return 0, 0


# --- what must come out


@dataclass(frozen=True)
class Serial:
    """Small data, and what a serial run without faults and without a network publishes of them."""

    folder: Path
    results: dict[str, bytes]

    @property
    def data(self) -> Path:
        return self.folder / "data"


def serial_run(folder: Path, members: Sequence[int] = MEMBERS) -> Serial:
    """Make the data and run them once, one task after the other."""
    tasks = [(year, member) for year in YEARS for member in members]
    grid = Grid(np.linspace(90, -90, 19), np.arange(0, 360, 10.0))
    write(SyntheticEnsemble((2001, 12, 1), (2002, 1, 20), members=len(members), grid=grid), folder / "data")
    campaign = folder / "serial.toml"
    roots = {"data": {"root": str(folder / "data")}, "results": {"root": str(folder / "out")}}
    campaign.write_text(campaign_text(tasks, roots), encoding="utf-8")
    command = [sys.executable, "-m", "stormtracks.cli", "run", str(campaign), "--backend", "local", "--workers", "1"]
    subprocess.run(command, check=True, timeout=BOUND, stdout=subprocess.DEVNULL, env=surroundings(folder), cwd=ROOT)
    results = results_in(folder / "out")
    assert sorted(results) == [f"results/vort_track/{year}/m{member:03d}.nc" for year, member in tasks]
    return Serial(folder, results)


def results_in(out: Path) -> dict[str, bytes]:
    """All files of tracks below a results root, by name."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("results/**/*.nc")}


def campaign_text(tasks: Sequence[tuple[int, int]], sections: Mapping[str, Mapping[str, Any]]) -> str:
    """A campaign file for these tasks."""
    years, members = (sorted({task[at] for task in tasks}) for at in (0, 1))
    lines = [f'name = "{NAME}"', f"years = {years}", f"members = {members}"]
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def surroundings(folder: Path) -> dict[str, str]:
    """Environment variables of a program that knows this checkout and nobody's site settings."""
    own = {"PYTHONPATH": str(ROOT), "HOME": str(folder), "PYTHONFAULTHANDLER": "1"}
    return {key: value for key, value in os.environ.items() if not key.startswith("STORMTRACKS_")} | own


# --- what takes part


@dataclass
class Program:
    """A program at work, what it says, and how it is disturbed."""

    name: str
    process: subprocess.Popen[bytes] | Forked
    out: Path
    err: Path
    at_first: tuple[int, int] = (0, 0)
    """Descriptors and threads that it had before there was anything to do."""

    @property
    def said(self) -> str:
        return self.out.read_text(encoding="utf-8")

    @property
    def complained(self) -> str:
        return self.err.read_text(encoding="utf-8", errors="replace")

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def events(self, event: str = "", **values: Any) -> list[dict[str, Any]]:
        """What a manager has told as JSON, of one kind, and with these values."""
        whole, _, _ = self.said.rpartition("\n")
        told: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        return [
            one
            for one in told
            if event in ("", one["event"]) and all(one.get(key) == value for key, value in values.items())
        ]

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds, while the program goes on."""

        def holds() -> object:
            assert self.runs or condition(), f"{self.name} ended with {self.process.poll()} before: {what}\n{self.told}"
            return condition()

        until(holds, lambda: f"{what}\n{self.told}")

    @property
    def told(self) -> str:
        return f"--- {self.name} said\n{self.said}--- and complained\n{self.complained}"

    def end(self, *statuses: int) -> int:
        """Wait until it ends by itself, in one of these ways."""
        try:
            status = self.process.wait(BOUND)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{self.name} does not end\n{self.told}") from error
        assert status in statuses, f"{self.name} ended with {status}\n{self.told}"
        assert "Traceback" not in self.complained, self.told
        return status

    def send(self, number: signal.Signals, *, children: bool = False) -> None:
        """Send a signal, to its children too if these are meant."""
        family: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            family.append(psutil.Process(self.process.pid))
            family += family[0].children(recursive=True) if children else ()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait(BOUND)


@dataclass
class Trial:
    """One campaign in a folder of its own, and all that takes part in it; leaving it ends them, if need be by force.

    Parameters
    ----------
    folder : Path
    serial : Serial
    nursery : Nursery
    """

    folder: Path
    serial: Serial
    nursery: Nursery
    tasks: Sequence[tuple[int, int]] = tuple(TASKS)
    """What the campaign is about."""
    out: Path = field(init=False)
    """The results root."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    nameserver: Address | None = None
    managers: list[Program] = field(default_factory=list)
    workers: list[Program] = field(default_factory=list)
    others: list[Program] = field(default_factory=list)
    wired: dict[str, str] = field(default_factory=dict)
    """Names that the test itself has made known, for workers behind a wire."""
    before: tuple[int, int] = field(default_factory=descriptors_and_threads)
    """Descriptors and threads of this process."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.out = self.folder / "out"
        for folder in (self.tmp, self.plans, self.out):
            folder.mkdir(parents=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for program in (*self.managers, *self.workers, *self.others):
            if program.runs:
                program.kill()
        self.close()

    def close(self) -> None:
        """End what listens in this process."""
        self._stack.close()

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def plans(self) -> Path:
        return self.folder / "plans"

    @property
    def file(self) -> Path:
        return self.folder / "c.toml"

    @property
    def environment(self) -> dict[str, str]:
        """By the token, every process of the trial is known, and those that these start."""
        own = {"TMPDIR": self.tmp, "FAULTS": self.plans, "FAULTS_SERIAL": self.serial.folder / "out"}
        return surroundings(self.folder) | {key: str(path) for key, path in own.items()} | {"FAULTS_TRIAL": self.token}

    def describe(self, **sections: dict[str, Any]) -> Path:
        """Write the campaign file; sections add to those of `QUICK`."""
        found = {"nameserver": "{}:{}".format(*self.nameserver)} if self.nameserver else {}
        usual = {
            "data": {"root": str(self.serial.data)},
            "results": {"root": str(self.out)},
            "run": QUICK["run"],
            "cluster": QUICK["cluster"] | found,
        }
        merged = {name: usual[name] | sections.get(name, {}) for name in usual}
        self.file.write_text(campaign_text(self.tasks, merged), encoding="utf-8")
        return self.file

    # --- programs

    def listen(self) -> Service:
        """A name server in this process, for `describe` to name."""
        service = self._stack.enter_context(start_nameserver(("127.0.0.1", 0)))
        self.nameserver = service.address
        return service

    def start(
        self,
        name: str,
        module: str,
        *arguments: str | Path,
        fork: bool = False,
        jumping: bool = False,
        **environment: str,
    ) -> Program:
        """Start a program of the checkout; forked, if it need not be started anew; or with a clock that jumps."""
        if jumping:
            arguments = (module, *arguments)
            module = "tests.faults.jumping"
        number = next(self._numbers)
        out, err = (self.folder / f"{number}-{name}.{stream}" for stream in ("out", "err"))
        if fork:
            forked = self.nursery.start(module, list(map(str, arguments)), self.environment | environment, out, err)
            return Program(name, forked, out, err)
        command = [sys.executable, "-m", module, *map(str, arguments)]
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                env=self.environment | environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                process_group=0,
            )
        return Program(name, process, out, err)

    def start_manager(self, *options: str, module: str = "stormtracks.cluster.pyro_manager", **how: Any) -> Program:
        """A manager of the campaign; `how` as for `start`."""
        self.managers.append(self.start("manager", module, self.file, "--json", *options, **how))
        return self.managers[-1]

    def start_run(self, *options: str) -> Program:
        """`stormtracks run`, with what it brings itself."""
        self.managers.append(self.start("manager", "stormtracks.cli", "run", self.file, "--json", *options))
        return self.managers[-1]

    def start_workers(
        self,
        *names: str,
        slots: int = 1,
        function: str = "run",
        nameserver: Address | None = None,
        **how: Any,
    ) -> list[Program]:
        """Workers that have registered, with another name server than the campaign's if one is given; as `start`."""
        how = {"fork": "jumping" not in how} | how
        nameserver = nameserver or self.nameserver
        assert nameserver is not None, "listen first"
        place = "{}:{}".format(*nameserver)
        before = self.registered(nameserver)
        started = [
            self.start(name, "tests.faults.worker", name, NAME, place, str(slots), function, **how) for name in names
        ]
        self.workers += started
        for program in started:
            is_new = partial(self._has_come, program.name, nameserver, before.get(program.name))
            program.until(is_new, "it registers")
            program.at_first = descriptors_and_threads(program.process.pid)
        return started

    def _has_come(self, name: str, nameserver: Address, before: str | None) -> bool:
        return self.registered(nameserver).get(name) not in (None, before)

    def start_worker_on_wire(self, name: str, **options: Any) -> tuple[Program, Wire]:
        """A worker that the manager reaches over a wire which can be cut."""
        assert self.nameserver is not None
        inner = self._stack.enter_context(start_nameserver(("127.0.0.1", 0))).address
        (program,) = self.start_workers(name, nameserver=inner, **options)
        thing, _, place = self.registered(inner)[name].partition("@")
        wire = Wire(parse_address(place))
        self._stack.callback(wire.close)
        self.wired[name] = "{}@{}:{}".format(thing, *wire.address)
        self.register_on_wire(name)
        return program, wire

    def register_on_wire(self, name: str) -> None:
        """What a worker does by itself time and again, but the name server that it knows is another one."""
        assert self.nameserver is not None
        register_name(self.nameserver, PREFIX + name, self.wired[name])

    def registered(self, nameserver: Address | None = None) -> dict[str, str]:
        """Hosts whose workers a name server knows, and where."""
        nameserver = nameserver or self.nameserver
        assert nameserver is not None
        names = list_names(nameserver, PREFIX)
        return {name.removeprefix(PREFIX): uri for name, uri in names.items()}

    def shown(self) -> dict[int, str]:
        """What `stormtracks status` shows of each year."""
        years: dict[str, str] = read_status(self.out)["years"]
        return {int(year): row for year, row in years.items()}

    def processes(self) -> list[psutil.Process]:
        """All that run of this trial, whoever started them."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("FAULTS_TRIAL") == self.token:
                    found.append(process)
        return found

    # --- faults inside tasks

    def plan(
        self, point: str, act: str, tasks: Iterable[tuple[int, int]] = (), *, worker: str = "", times: int = 1
    ) -> Plan:
        """Let something happen at a point of some tasks, or of any; see `tests.faults.tasks`."""
        plan = Plan(self.plans / f"{next(self._numbers):03d}.plan")
        document = {"point": point, "act": act, "tasks": list(tasks), "worker": worker, "times": times}
        part = plan.path.with_suffix(".part")
        part.write_text(json.dumps(document), encoding="utf-8")
        part.replace(plan.path)
        return plan


@dataclass(frozen=True)
class Plan:
    """What shall happen, and who was there when it did."""

    path: Path

    @property
    def reached(self) -> list[dict[str, Any]]:
        """Year, member, pid and worker of those that have come to the point, in order."""
        paths = sorted(self.path.parent.glob(f"{self.path.stem}.*.there"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(path.read_bytes()) for path in paths]

    def wait(self) -> None:
        """A moment, until the next look."""
        time.sleep(0.01)

    def go(self) -> None:
        """Let those go on that are held there."""
        self.path.with_suffix(".go").touch()


def tasks_of(events: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """Year and member of events."""
    return [(one["year"], one["member"]) for one in events]
