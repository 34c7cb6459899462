"""A model of a whole cluster in virtual time: hosts, the network between them, tasks, and everything that goes wrong.

Processes are killed, stopped and started, and their clocks drift. Messages are lost, late, doubled and out of order,
or get through in one direction only. Whatever breaks the promise of a campaign raises `Broken` when it happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

from stormtracks.cluster.pyro_task import Attempt, Outcome
from tests.cluster.schedule.model_processes import (
    LEASE,
    MEMBERS,
    STRIKES,
    TIME_LIMIT,
    YEARS,
    Broken,
    Design,
    Key,
    Killed,
    Manager,
    Process,
    Store,
    Worker,
    key_of,
)

TROUBLE = 100.0
"""Seconds after which nothing is broken any more."""
BOUND = 900.0
"""Seconds within which a campaign must have ended."""


@dataclass(eq=False)
class Host:
    """A machine with a worker on it, which is started again when it ends."""

    name: str
    world: World
    bad: bool = False
    local: bool = False
    """Whether the manager's machine: it sees at once that a process has ended."""
    deaf: int = 0
    mute: int = 0
    """How many faults keep messages from coming here, and from leaving."""
    worker: Worker | None = None
    _started: Iterable[int] = field(default_factory=lambda: count(1))

    def start(self) -> None:
        self.worker = Worker(self.world, self, f"{self.name}.{next(iter(self._started))}")


class World:
    """Everything there is, and what becomes of it.

    Parameters
    ----------
    seed : int
        Of all that is left to chance.
    design : Design
    """

    def __init__(self, seed: int, design: Design) -> None:
        self.seed = seed
        self.design = design
        self.random = Random(seed)
        self.now = 0.0
        self.done = False
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self.workers: list[Worker] = []
        self.published: dict[Key, Attempt] = {}
        self.alone: set[Attempt] = set()
        self.seen: Counter[str] = Counter()
        self.failed_by: dict[Attempt, tuple[tuple[int, str], object]] = {}
        """By which manager and worker, and as a part of what."""
        self._unsteady = self.random.random() < 0.5
        self._deaths_left = self.random.randrange(5)
        self.hosts = [Host(f"h{number}", self, local=number == 0) for number in range(self.random.randint(2, 4))]
        if self.random.random() < 0.4:
            bad = self.random.randint(1, 2)
            self.hosts += [Host(f"bad{number}", self, bad=True) for number in range(bad)]
        self.nature = self._draw_natures()
        for host in self.hosts:
            host.start()
        sizes = (1, 1, 2, 5, len(MEMBERS))
        self.store = Store(design, design.largest_bundle or Random(-seed).choice(sizes))
        self.manager = Manager(self)
        for _ in range(self.random.randrange(40)):
            self.after(self.random.uniform(0.0, TROUBLE), self._make_trouble)

    def run(self) -> None:
        """Until the campaign is done; raises `Broken` if it was not done well or in time."""
        while not self.done:
            if not self._events or self._events[0][0] > BOUND:
                raise Broken(f"not done after {BOUND:g} s:\n{self.manager.schedule.get_progress()}")
            self.now, _, call, what = heappop(self._events)
            call(*what)
        self._check_end()

    def after(self, seconds: float, call: Callable[..., None], *what: Any) -> None:
        heappush(self._events, (self.now + seconds, next(self._order), call, what))

    # --- the network

    def send(self, host: Host, to: Process, call: Callable[..., None], *what: Any) -> None:
        """Send a message to or from a host; it may come late, twice, or never."""
        chance = self.random.random() if self.now < TROUBLE and self._unsteady else 1.0
        if chance < 0.03:
            return
        if chance < 0.06:
            self.after(self.random.uniform(0.0, 3 * LEASE), self._arrive, host, to, call, what)
        if not 0.045 < chance < 0.06:
            self.after(self.random.uniform(0.001, 0.05), self._arrive, host, to, call, what)

    def _arrive(self, host: Host, to: Process, call: Callable[..., None], what: tuple[Any, ...]) -> None:
        if not (host.mute if isinstance(to, Manager) else host.deaf):
            to.deliver(call, *what)

    # --- tasks

    def _draw_natures(self) -> dict[Key, str]:
        keys = [(year, member) for year in YEARS for member in MEMBERS]
        kinds = ["cannot be done", "crashes its worker", "crashes its child", "hangs", "fails"]
        if not any(host.bad for host in self.hosts):
            kinds += ["fails once", "hangs once", "spoils its bundle once"]
        chosen = self.random.sample(keys, self.random.randrange(5))
        return dict.fromkeys(keys, "sound") | {key: self.random.choice(kinds) for key in chosen}

    def duration(self, attempt: Attempt, host: Host) -> float:
        if host.bad:
            return 0.2
        hangs = {"hangs": True, "hangs once": attempt.number == 1}
        return TIME_LIMIT if hangs.get(self.nature[key_of(attempt)]) else self.random.uniform(1.0, TIME_LIMIT)

    def work(self, attempt: Attempt, worker: Worker) -> tuple[Outcome | None, str]:
        """How an attempt ends, None if its worker ends with it; and how the rest of its bundle does, if with it.

        Publication follows at once on the check before it. A pause between the two could let a result be moved into
        place late; it would replace the very same bytes.
        """
        key = key_of(attempt)
        nature = self.nature[key]
        if nature == "crashes its worker":
            return None, ""
        if worker.host.bad:
            return Outcome(attempt, "failure", error="this host is bad"), ""
        if nature == "cannot be done":
            return Outcome(attempt, "failure", error="no such file", permanent=True), ""
        if nature == "hangs" or (nature == "hangs once" and attempt.number == 1):
            return Outcome(attempt, "timeout", error="took too long"), "lost"
        if nature == "crashes its child":
            return Outcome(attempt, "failure", error="killed by SIGSEGV"), "lost"
        if nature == "spoils its bundle once" and attempt.number == 1:
            return Outcome(attempt, "failure", error="killed while it was reading"), "failure"
        if nature == "fails" or (nature == "fails once" and attempt.number == 1):
            return Outcome(attempt, "failure", error="cannot be done"), ""
        if not worker.may_publish(attempt):
            self.seen["not published"] += 1
            return Outcome(attempt, "lost", error="the lease is over"), ""
        if key in self.published:
            raise Broken(f"{attempt} publishes what {self.published[key]} has published")
        if self.store.latest(key) != attempt.number:
            raise Broken(f"{attempt} publishes, though attempt {self.store.latest(key)} was handed out")
        self.published[key] = attempt
        return Outcome(attempt, "complete"), ""

    def check_holders(self, attempts: Iterable[Attempt]) -> None:
        """Nobody but one may hold the lease of a task."""
        keys = {key_of(attempt) for attempt in attempts}
        if not keys:
            return
        holders = Counter(
            key_of(attempt)
            for worker in self.workers
            for attempt in worker.running
            if key_of(attempt) in keys and worker.may_publish(attempt)
        )
        for key, number in holders.items():
            if number > 1:
                raise Broken(f"{number} attempts hold the lease of {key} at {self.now:.2f} s")

    def _check_end(self) -> None:
        schedule = self.manager.schedule
        kept = self.store.rebuild(0.0, self.manager.schedule.rules)
        for task, failures in schedule.failures():
            if task.status == "failure" and failures[-1].status == "lost":  # does not count at another start
                kept.find(task.year, task.ensemble_member).status = "failure"
        if kept.get_progress() != schedule.get_progress():
            raise Broken(f"the store says\n{kept.get_progress()}and the schedule\n{schedule.get_progress()}")
        self.seen["starts"] += self.store.epoch
        self.seen["forgiven"] += sum(made.forgiven for all_made in self.store.made.values() for made in all_made)
        reasons = {(task.year, task.ensemble_member): failures for task, failures in schedule.failures()}
        for key, nature in self.nature.items():
            status = schedule.find(*key).status
            if status == "complete":
                if key not in self.published:
                    raise Broken(f"{key} is complete, but nothing is published")
            elif nature in ("sound", "fails once", "hangs once", "spoils its bundle once"):
                if not all(failure.forgiven or self._is_excused(failure.attempt) for failure in reasons[key]):
                    raise Broken(f"{key} is {nature}, but blamed: {reasons[key]}")
                self.seen["excused"] += 1
            elif status not in ("failure", "timeout") or not all(one.reason for one in reasons[key]):
                raise Broken(f"{key} {nature}, but is {status}: {reasons.get(key)}")
            else:
                self.seen[f"given up, as it {nature}"] += 1

    def _is_excused(self, attempt: Attempt) -> bool:
        """Whether nobody could have known that it was the worker's fault: too few strikes, or no other worker."""
        if attempt not in self.failed_by:
            return False
        by, _ = self.failed_by[attempt]
        strikes = {key_of(other): part_of for other, (other_by, part_of) in self.failed_by.items() if other_by == by}
        return len(set(strikes.values())) < STRIKES or attempt in self.alone

    # --- trouble

    def manager_ended(self) -> None:
        """It is started again soon; what has ended it may have hit a part of the network as well."""
        self.after(self.random.uniform(0.1, LEASE), self._start_manager)
        if self.random.random() < 0.5:
            self._cut_for_a_while(self.random.choice(self.hosts))

    def _start_manager(self) -> None:
        if not self.manager.alive:
            self.manager = Manager(self)

    def bury(self, worker: Worker) -> None:
        """A worker has ended; its host starts another one."""
        self.workers.remove(worker)
        if worker.host.worker is worker:
            worker.host.worker = None
            self.after(self.random.uniform(0.5, 15.0), self._start_worker, worker.host)

    def _start_worker(self, host: Host) -> None:
        if host.worker is None:
            host.start()

    def perhaps_kill(self) -> None:
        if self.now < TROUBLE and self._deaths_left and self.random.random() < 0.02:
            self._deaths_left -= 1
            self.seen["killed at a commit"] += 1
            raise Killed

    def _make_trouble(self) -> None:
        host = self.random.choice(self.hosts)
        kind = self.random.choice(
            ("kill", "stop", "stop", "cut", "cut", "kill manager", "stop manager", "join", "another")
        )
        seconds = self.random.uniform(0.1, 3 * LEASE)
        if kind == "kill manager" and self.manager.alive:
            self.manager.kill()
        elif kind == "stop manager":
            self._stop(self.manager, seconds)
        elif kind == "cut":
            self._cut_for_a_while(host)
        elif kind == "another" and not host.local:
            # The one before it lives on, though nobody finds it any more.
            host.start()
        elif kind == "join" and len(self.hosts) < 5:
            self.hosts.append(Host(f"h{len(self.hosts)}", self))
            self.hosts[-1].start()
        elif host.worker is not None and kind == "kill":
            host.worker.kill()
        elif host.worker is not None and kind == "stop":
            self._stop(host.worker, seconds)

    def _stop(self, process: Process, seconds: float) -> None:
        process.stop()
        self.after(seconds, process.resume)

    def _cut_for_a_while(self, host: Host) -> None:
        deaf, mute = self.random.choice(((1, 0), (0, 1), (0, 1), (1, 1)))
        self._cut(host, deaf, mute)
        self.after(self.random.uniform(0.1, 3 * LEASE), self._cut, host, -deaf, -mute)

    def _cut(self, host: Host, deaf: int, mute: int) -> None:
        host.deaf += deaf
        host.mute += mute
