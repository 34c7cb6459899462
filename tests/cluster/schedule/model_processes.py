"""The processes of a modelled cluster in virtual time: a manager, what it keeps in its store, and workers.

The schedule and the workers' leases are the real ones; all else does what its real counterpart promises and no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stormtracks.cluster.lease import Lease
from stormtracks.cluster.pyro_task import Assignment, Attempt, Failure, Outcome, PyroTaskSchedule, Rules

if TYPE_CHECKING:
    from tests.cluster.schedule.model_cluster import Host, World

YEARS, MEMBERS = (1990, 1991, 1992), tuple(range(1, 13))
SLOTS = 2
LEASE = 5.0
HEARTBEAT = 1.0
STRIKES = 3
TIME_LIMIT = 15.0
LOOK_EVERY = 1.0
ASK_AGAIN = 1.5
DRIFT = 0.08
"""By how much a clock may run fast or slow; less than the grace allows for."""

Key = tuple[int, int]
Session = tuple[int, int]


class Broken(AssertionError):
    """The promise of a campaign is broken."""


class Killed(Exception):
    """A process ends here."""


@dataclass(frozen=True)
class Design:
    """What is put to the test; the tests that expect a fault to be found take a part of it away."""

    lease: type[Lease] = Lease
    schedule: type[PyroTaskSchedule] = PyroTaskSchedule
    given_up_after: float = 1.25 * LEASE
    commits_first: bool = True
    asks_before_publishing: bool = True
    numbers_calls: bool = True
    numbers_sessions: bool = True
    keeps_what_is_held: bool = True
    max_attempts: int = 2
    max_losses: int = 8
    worker_strikes: int = STRIKES
    largest_bundle: int = 0
    """0: drawn for each campaign."""


@dataclass(slots=True)
class Made:
    """An attempt in the store."""

    attempt: Attempt
    worker: str
    incarnation: str
    status: str = "working"
    error: str = ""
    permanent: bool = False
    forgiven: bool = False


class Store:
    """What survives a manager: changes are kept once they are committed, all of them or none."""

    def __init__(self, design: Design, largest_bundle: int) -> None:
        self._design = design
        self._largest_bundle = largest_bundle
        self._pending: list[Callable[[], None]] = []
        self.made: dict[Key, list[Made]] = {}
        self.complete: set[Key] = set()
        self.epoch = 0

    def commit(self) -> None:
        for change in self._pending:
            change()
        self._pending.clear()

    def reject(self) -> None:
        self._pending.clear()

    def latest(self, key: Key) -> int:
        return self.made[key][-1].attempt.number if key in self.made else 0

    def hand_out(self, attempt: Attempt, worker: str, incarnation: str) -> None:
        made = Made(attempt, worker, incarnation)
        self._pending.append(lambda: self.made.setdefault(key_of(attempt), []).append(made))

    def finish(self, attempt: Attempt) -> None:
        self.end(attempt, status="complete")
        self._pending.append(lambda: self.complete.add(key_of(attempt)))

    def end(self, attempt: Attempt, **values: Any) -> None:
        def change() -> None:
            made = self.made[key_of(attempt)][attempt.number - 1]
            for name, value in values.items():
                setattr(made, name, value)

        self._pending.append(change)

    def rebuild(self, now: float, rules: Rules) -> PyroTaskSchedule:
        schedule = self._design.schedule(years=YEARS, members=MEMBERS, rules=rules, largest_bundle=self._largest_bundle)
        for key, made in self.made.items():
            held = next((one for one in made if one.status == "working" and self._design.keeps_what_is_held), None)
            schedule.restore(
                *key,
                attempts=len(made),
                complete=key in self.complete,
                failures=[
                    Failure(one.attempt, one.status, one.worker, one.error, one.permanent, one.forgiven)
                    for one in made
                    if one.status in ("failure", "timeout")
                ],
                held=(held.attempt.number, held.worker, held.incarnation) if held else None,
                now=now,
            )
        return schedule


class Process:
    """Something that runs somewhere: it can be stopped for a while, and ended."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive = True
        self._backlog: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = None
        self._rate = world.random.uniform(1 - DRIFT, 1 + DRIFT)
        self._offset = world.random.uniform(0.0, 1e6)

    def clock(self) -> float:
        return self._offset + self._rate * self.world.now

    def later(self, seconds: float, call: Callable[..., None], *what: Any) -> None:
        """Do something when so many seconds have passed on its own clock."""
        self.world.after(seconds / self._rate, self.deliver, call, *what)

    def deliver(self, call: Callable[..., None], *what: Any) -> None:
        if self._backlog is not None:
            self._backlog.append((call, what))
        elif self.alive:
            try:
                call(*what)
            except Killed:
                self.kill()

    def kill(self) -> None:
        self.alive = False

    def stop(self) -> None:
        if self._backlog is None:
            self._backlog = []

    def resume(self) -> None:
        """Go on; what was waiting comes in no particular order, for it comes to different threads."""
        backlog, self._backlog = self._backlog or [], None
        self.world.random.shuffle(backlog)
        for call, what in backlog:
            self.deliver(call, *what)


class Worker(Process):
    """One worker per host: what it does with the calls of a manager, and what becomes of its children."""

    def __init__(self, world: World, host: Host, incarnation: str) -> None:
        super().__init__(world)
        self.host = host
        self.incarnation = incarnation
        self.running: dict[Attempt, Assignment] = {}
        self._doomed: set[Attempt] = set()
        self._manager: Manager | None = None
        self._session: Session = (0, 0)
        self._lease: Lease | None = None
        self._number = 0
        self._answer: tuple[Outcome, ...] | None = None
        self._ended: list[Outcome] = []
        world.workers.append(self)

    # --- what it is told

    def open(self, manager: Manager, session: Session) -> None:
        """Begin a session; what runs goes on if the lease does."""
        if session[0] < self._session[0] or (session <= self._session and self.world.design.numbers_sessions):
            return
        now = self.clock()
        if self._lease is not None and self._lease.left(now) > 0:
            self._lease.reopened(LEASE, now)
            # Who has not called since may not have had them.
            self._ended = [*(self._answer or ()), *self._ended]
        else:
            self._end()
            self._lease = self.world.design.lease(LEASE, now)
            self.later(LEASE, self._watch)
        self._manager, self._session, self._number, self._answer = manager, session, 0, None
        self.world.check_holders(self.running)
        at = (*self.running, *(outcome.attempt for outcome in self._ended))
        self.world.send(self.host, manager, manager.opened, self, session, at)

    def exchange(
        self, manager: Manager, session: Session, number: int, begin: Sequence[Assignment], cancel: Sequence[Attempt]
    ) -> None:
        """Take orders, and answer when something has ended or a heartbeat is over."""
        self._watch()
        if session != self._session or self._lease is None:
            self.world.send(self.host, manager, manager.refused, self, session)
            return
        if number == self._number:
            if self._answer is not None:
                self._tell()
            return
        if number != self._number + 1 and self.world.design.numbers_calls:
            return
        self._lease.called(number, self.clock())
        self._number, self._answer = number, None
        for attempt in cancel:
            self._cancel(attempt)
        for assignment in begin:
            self._begin(assignment)
        self.world.check_holders(self.running)
        self.later(0.0 if self._ended else HEARTBEAT, self._reply, number)

    def may_publish(self, attempt: Attempt) -> bool:
        held = self._lease is not None and self._lease.left(self.clock()) > 0
        asked = held or not self.world.design.asks_before_publishing
        return self.alive and attempt in self.running and attempt not in self._doomed and asked

    # --- what happens to it

    def _begin(self, assignment: Assignment) -> None:
        """A child reads what all need, and ends with one after the other."""
        ends = 0.0
        for attempt in assignment:
            self.running[attempt] = assignment
            seconds = self.world.duration(attempt, self.host)
            ends += seconds if ends == 0.0 or seconds == TIME_LIMIT else 0.1 * seconds
            self.later(ends, self._finish, attempt)

    def _cancel(self, attempt: Attempt) -> None:
        """End an attempt; while others go on in its child, it is only kept from publishing."""
        if attempt in self.running:
            self._doomed.add(attempt)
            alive = [other for other in self.running[attempt] if other in self.running]
            if self._doomed.issuperset(alive):
                for other in alive:
                    self._ends(Outcome(other, "lost", error="cancelled"))

    def _finish(self, attempt: Attempt) -> None:
        """A child has ended, or has done with one attempt of several."""
        if attempt not in self.running:
            return
        outcome, takes_along = self.world.work(attempt, self)
        if outcome is None:
            raise Killed
        assignment = self.running[attempt]
        self._ends(outcome)
        for other in assignment if takes_along else ():
            if other in self.running:
                self.world.seen[f"{takes_along} with its bundle"] += 1
                self._ends(Outcome(other, takes_along, error="its bundle ended with another task"))
        self._reply(self._number)

    def _ends(self, outcome: Outcome) -> None:
        del self.running[outcome.attempt]
        self._doomed.discard(outcome.attempt)
        self._ended.append(outcome)

    def _reply(self, number: int) -> None:
        if self._lease is None or number != self._number or number == 0 or self._answer is not None:
            return
        self._answer, self._ended = tuple(self._ended), []
        self._lease.answered(number, self.clock())
        self._tell()

    def _tell(self) -> None:
        manager = self._manager
        assert manager is not None
        self.world.send(self.host, manager, manager.answered, self, self._session, self._number, self._answer)

    def _watch(self) -> None:
        """End what runs when the lease is over; may look late, so that nothing but the lease itself is trusted."""
        if self._lease is None:
            return
        left = self._lease.left(self.clock())
        if left > 0:
            self.later(left, self._watch)
        else:
            self._end()

    def _end(self) -> None:
        self.running.clear()
        self._doomed.clear()
        self._ended.clear()
        self._answer = None
        self._lease = None

    def kill(self) -> None:
        super().kill()
        self.running.clear()
        self.world.bury(self)


@dataclass(eq=False)
class Link:
    """A session with a worker."""

    worker: Worker
    session: Session
    heard: float
    number: int = 0
    answered: int = 0
    orders: tuple[tuple[Assignment, ...], tuple[Attempt, ...]] = ((), ())
    running: set[Attempt] = field(default_factory=set)


class Manager(Process):
    """Drives the schedule: commits each change before anybody can see it, and tells the workers then."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.store = world.store
        self.store.reject()
        self.store.epoch += 1
        self._rules = Rules(
            max_attempts=world.design.max_attempts,
            max_losses=world.design.max_losses,
            worker_strikes=world.design.worker_strikes,
            retry_delay=1.0,
            lease=world.design.given_up_after,
            seed=world.seed,
        )
        self.schedule = self.store.rebuild(self.clock(), self._rules)
        self._links: dict[str, Link] = {}
        self._opening: dict[str, Session] = {}
        self._openings = 0
        self._together: dict[Attempt, object] = {}
        self._losses: Counter[Key] = Counter()
        for worker in world.workers:
            self._take_up(self.schedule.held(worker.incarnation))
        self._handed_out = {key: made[-1].attempt.number for key, made in self.store.made.items()}
        self.later(0.0, self._look)

    # --- workers

    def _look(self) -> None:
        """Look for workers and at the clock, every second."""
        now = self.clock()
        for attempt in self.schedule.tick(now):
            self.world.seen["lease over"] += 1
            self._losses[key_of(attempt)] += 1
            self.store.end(attempt, status="lost")
        if not self.schedule.next_change(now) > 0:
            raise Broken("nothing has changed, but it is time already for the next change")
        self._commit()
        for host in self.world.hosts:
            link = self._links.get(host.name)
            if link is not None and link.worker is not host.worker:
                self._part_with(link, ended=host.local and not link.worker.alive)
                link = None
            if link is None and host.worker is not None:
                self._openings += 1
                self._opening[host.name] = (self.store.epoch, self._openings)
                self.world.send(host, host.worker, host.worker.open, self, self._opening[host.name])
        self.later(LOOK_EVERY, self._look)

    def opened(self, worker: Worker, session: Session, running: Sequence[Attempt]) -> None:
        if self._opening.get(worker.host.name) != session:
            return
        del self._opening[worker.host.name]
        held = self.schedule.held(worker.incarnation)
        stale = self.schedule.join(worker.host.name, worker.incarnation, running, now=self.clock(), slots=SLOTS)
        for attempt in set(held) - set(self.schedule.held(worker.incarnation)):
            self.store.end(attempt, status="lost")
        for attempt in set(self.schedule.held(worker.incarnation)) - set(held):
            self.store.end(attempt, status="working")
            self._take_up([attempt])
            self._losses[key_of(attempt)] -= 1
            self.world.seen["found again"] += 1
        link = Link(worker, session, self.clock(), running=set(running))
        self.world.seen["adopted"] += len(running) - len(stale)
        self.world.seen["stale"] += len(stale)
        self._links[worker.host.name] = link
        self._give_orders(link, stale)

    def _take_up(self, attempts: Iterable[Attempt]) -> None:
        """What a worker goes on with of a year counts as one bundle, if there are any."""
        for attempt in attempts:
            self._together[attempt] = attempt.year if self.schedule.largest_bundle > 1 else attempt

    def _part_with(self, link: Link, *, ended: bool) -> None:
        if self._links.get(link.worker.host.name) is link:
            del self._links[link.worker.host.name]
        for attempt in self.schedule.leave(link.worker.incarnation, now=self.clock(), ended=ended, reason="gone"):
            self._losses[key_of(attempt)] += 1
            self.store.end(attempt, status="lost")
        self._commit()

    # --- calls

    def _give_orders(self, link: Link, cancel: Sequence[Attempt] = ()) -> None:
        begin: list[Assignment] = []
        while self.schedule.free_slots(link.worker.incarnation):
            assignment = self.schedule.next_assignment(link.worker.incarnation, now=self.clock())
            if not assignment:
                break
            self._check_bundle(assignment)
            to_do = tuple(attempt for attempt in assignment if not self._hand_out(attempt, link.worker))
            if to_do:
                begin.append(to_do)
        self._check_slots(link.worker.incarnation)
        if self.world.design.commits_first:
            self._commit()
        link.running.update(attempt for assignment in begin for attempt in assignment)
        link.number += 1
        link.orders = (tuple(begin), tuple(cancel))
        self._call(link, link.number)
        self._commit()

    def _hand_out(self, attempt: Attempt, worker: Worker) -> bool:
        """Note that an attempt is to be begun; True if its result is there already."""
        self._handed_out[key_of(attempt)] = attempt.number
        self.store.hand_out(attempt, worker.host.name, worker.incarnation)
        if key_of(attempt) in self.world.published:
            # Nobody has completed it now, so that its worker has proved nothing.
            self.schedule.find(*key_of(attempt)).status = "complete"
            self.store.finish(attempt)
            return True
        if self.schedule.usable <= {host.name for host in self.world.hosts if host.bad}:
            self.world.alone.add(attempt)
        return False

    def _check_bundle(self, assignment: Assignment) -> None:
        """What travels together is of one year, not too much, and nothing of it has failed or broken workers."""
        if len({attempt.year for attempt in assignment}) > 1:
            raise Broken(f"more than a year in one bundle: {assignment}")
        if len(assignment) > self.schedule.largest_bundle:
            raise Broken(f"more than {self.schedule.largest_bundle} in a bundle: {assignment}")
        failed = {key_of(one.attempt) for _, reasons in self.schedule.failures() for one in reasons if not one.forgiven}
        for attempt in assignment if len(assignment) > 1 else ():
            if key_of(attempt) in failed:
                raise Broken(f"{attempt} has failed, and is not alone")
            if self._losses[key_of(attempt)] > 1:
                raise Broken(f"{attempt} was lost with two workers, and is not alone")
        self._together |= dict.fromkeys(assignment, assignment)
        self.world.seen["bundles"] += len(assignment) > 1

    def _check_slots(self, incarnation: str) -> None:
        """A worker is at no more than it has slots, but for what it was at before."""
        at = {self._together[attempt] for attempt in self.schedule.held(incarnation)}
        if self.schedule.free_slots(incarnation) != max(0, SLOTS - len(at)):
            raise Broken(f"{incarnation} has {self.schedule.free_slots(incarnation)} free slots, and is at {at}")

    def _commit(self) -> None:
        """Keep what has changed; the manager may be killed right before or right after."""
        self.world.perhaps_kill()
        self.store.commit()
        self.world.perhaps_kill()
        if self.schedule.done:
            self.world.done = True

    def _call(self, link: Link, number: int) -> None:
        """Make a call, and make it again until it is answered or the worker is given up."""
        if self._links.get(link.worker.host.name) is not link or link.answered >= number:
            return
        if self.clock() - link.heard > self._rules.lease:
            self._part_with(link, ended=False)
            return
        worker = link.worker
        self.world.send(worker.host, worker, worker.exchange, self, link.session, number, *link.orders)
        self.later(ASK_AGAIN, self._call, link, number)

    def answered(self, worker: Worker, session: Session, number: int, outcomes: Sequence[Outcome]) -> None:
        """Take an answer, be it that of a session which was given up: what counts no more is the schedule's to tell."""
        for outcome in outcomes:
            self._accept(outcome, worker.incarnation)
        for failure in self.schedule.take_forgiven():
            self.store.end(failure.attempt, forgiven=True)
        link = self._links.get(worker.host.name)
        if link is None or link.session != session or number != link.number or number == link.answered:
            self._commit()
            return
        link.answered = number
        link.heard = self.clock()
        self.schedule.heard(worker.incarnation, link.heard)
        link.running.difference_update(outcome.attempt for outcome in outcomes)
        self._give_orders(link)

    def refused(self, worker: Worker, session: Session) -> None:
        """A worker says that nothing of a session goes on."""
        link = self._links.get(worker.host.name)
        if link is not None and link.session == session:
            self._part_with(link, ended=True)

    def _accept(self, outcome: Outcome, incarnation: str) -> None:
        attempt, now = outcome.attempt, self.clock()
        if outcome.status == "complete":
            self.world.seen["completed late"] += self.schedule.find(*key_of(attempt)).status == "timeout"
            if self.schedule.completed(attempt):
                self._check_latest(attempt)
                self.store.finish(attempt)
            return
        if outcome.status == "lost":
            accepted = self.schedule.lost(attempt)
        elif outcome.status == "timeout":
            accepted = self.schedule.timed_out(attempt, outcome.error, now=now)
        else:
            accepted = self.schedule.failed(attempt, outcome.error, now=now, permanent=outcome.permanent)
        if accepted:
            self._check_latest(attempt)
            if outcome.status in ("failure", "timeout"):
                self.world.failed_by[attempt] = ((self.store.epoch, incarnation), self._together.get(attempt))
            self.store.end(attempt, status=outcome.status, error=outcome.error, permanent=outcome.permanent)

    def _check_latest(self, attempt: Attempt) -> None:
        latest = self._handed_out[key_of(attempt)]
        if attempt.number != latest:
            raise Broken(f"{attempt} is believed, though attempt {latest} was handed out")

    def kill(self) -> None:
        super().kill()
        self.world.manager_ended()


def key_of(attempt: Attempt) -> Key:
    return attempt.year, attempt.ensemble_member
