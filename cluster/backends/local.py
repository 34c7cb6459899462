"""This machine as a worker: slots that are long-lived child processes, each ended and replaced by itself.

A child makes one attempt at a time, or a bundle of them in one go. A crash, a hang past the time limit or a memory
blow-up costs that attempt and that child alone, and comes back as a failure or timeout with its reason; what is not
done yet of its bundle comes back as lost. Parent and child exchange short JSON messages over a pair of sockets, so that
nothing a task raises or returns can harm the parent; which attempt of a bundle a child is at is read from memory that
they share. Children are processes of their own program (`child`), not forks: they import what their task needs once,
and nothing of the parent's. Linux only: they are watched through pid file descriptors, and the kernel kills them when
this process dies.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection
from threading import Lock
from typing import Any

from stormtracks.cluster.backends.base import Backend, Running, Worker
from stormtracks.cluster.backends.child_process import GRACE, Child, end_children
from stormtracks.cluster.backends.slot import Slot
from stormtracks.cluster.errors import BackendError, WorkerEndedError
from stormtracks.cluster.facts import facts, versions
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome

__all__ = ["LocalBackend"]


class LocalBackend(Backend):
    """One worker, named after this machine, whose slots are child processes.

    Parameters
    ----------
    task_function : str or callable, optional
        What a slot runs, as ``module:function`` or the function itself, which must be importable by its name:
        ``function(year, ensemble_member, task, confirm=..., **arguments)``, returning a dict of plain values. It makes
        the attempts of an assignment one after the other.
    bundle_function : str or callable, optional
        What a slot runs instead to make all attempts of an assignment in one go, as (year, member, task):
        ``function(attempts, confirm=..., at=..., cores=..., **arguments)``, yielding the place of each among them and
        what came of it, a dict of plain values or an error. It calls ``at(place)`` when it turns to one attempt alone,
        ``at(None)`` when it goes on with all, and ``confirm(place)`` right before it moves a result into place. `cores`
        are those that it may count on.
    slots : int
        Assignments at a time.
    time_limit : float
        Seconds an attempt may take; from then on it is a timeout. Of those in which its slot works for several, each
        has its share. Starting a child does not count.
    memory_limit_gib : float, optional
        GiB of address space a child may take; beyond it a task gets a MemoryError. None sets no limit.
    arguments : mapping, optional
        Keyword arguments of the function; plain values.
    may_publish : callable, optional
        Asked with the attempt that a slot is at, when that is about to move its result into place. Called by whoever
        calls `exchange`.

    Raises
    ------
    BackendError
        If the function cannot be imported by name, or the arguments are not plain values.
    """

    def __init__(
        self,
        task_function: str | Callable[..., Mapping[str, Any]] | None = None,
        *,
        bundle_function: str | Callable[..., Iterable[Any]] | None = None,
        slots: int = 1,
        time_limit: float = 3600.0,
        memory_limit_gib: float | None = 4.0,
        arguments: Mapping[str, Any] | None = None,
        may_publish: Callable[[Attempt], bool] = lambda attempt: True,
    ) -> None:
        if slots < 1:
            raise BackendError(f"{slots} slots", remedy="use at least 1 slot")
        function = bundle_function if task_function is None else task_function
        if function is None or (task_function is not None and bundle_function is not None):
            raise BackendError("it is not clear what to run", remedy="give either a task function or a bundle function")
        order = {
            "function": _name_of(function),
            "bundles": bundle_function is not None,
            "cores": max(1, len(os.sched_getaffinity(0)) // slots),
            "arguments": dict(arguments or {}),
            "memory_limit_gib": memory_limit_gib,
        }
        try:
            self._order = json.dumps(order).encode()
        except (TypeError, ValueError) as error:
            raise BackendError(
                f"the arguments of the task function cannot be sent to another process: {error}",
                remedy="use text, numbers, None, and lists and dicts of these",
            ) from error
        host, incarnation = socket.gethostname(), uuid.uuid4().hex
        self._worker = Worker(
            host, slots, incarnation, incarnation, process=Process.own(), host=host, facts=versions() | facts()
        )
        self._bundles = bundle_function is not None
        self._slots = [Slot(number, time_limit, may_publish) for number in range(1, slots + 1)]
        self._waiting: deque[deque[Assignment]] = deque()
        self._lock = Lock()
        self._bell_lock = Lock()
        self._closed = False
        self._broken = False
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # The kernel ties a child to the thread that started it: this one lives until the backend closes, or the
        # process ends.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="stormtracks-slots")

    def workers(self) -> tuple[Worker, ...]:
        """This machine, unless its children have proved that they cannot start."""
        return () if self._broken else (self._worker,)

    def running(self, worker: str) -> tuple[Running, ...]:
        """The attempts under way, in order of slot."""
        self._check_worker(worker)
        return tuple(running for slot in self._slots for running in slot.running())

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        """Begin assignments, cancel attempts, and bring back what has ended; see `Backend.exchange`."""
        self._check_worker(worker)
        deadline = time.monotonic() + wait
        with self._lock:
            if self._closed:
                raise BackendError("the local backend is closed", remedy="make a new one")
            self._waiting.extend(map(self._parts, begin))
            try:
                return self._exchange(cancel, deadline)
            except BackendError as error:
                self._broken = True
                self._end_all(GRACE)
                raise WorkerEndedError(error.what, remedy=error.remedy) from error

    def wake(self) -> None:
        """Let the `exchange` that waits now, or else the next one, return at once; from any thread."""
        with self._bell_lock:
            if not self._closed:
                os.eventfd_write(self._bell, 1)

    def close(self, grace: float = GRACE) -> None:
        """End every child, with what it may have started itself; returns within a few seconds.

        Parameters
        ----------
        grace : float
            Seconds between asking them to end and killing them.
        """
        self.wake()
        with self._lock, self._bell_lock:
            if not self._closed:
                self._closed = True
                self._end_all(grace)
                os.close(self._bell)
        self._starter.shutdown()

    def _end_all(self, grace: float) -> None:
        self._waiting.clear()
        end_children([slot.clear() for slot in self._slots], grace)

    def _parts(self, assignment: Assignment) -> deque[Assignment]:
        """What a slot makes of an assignment one after the other."""
        return deque([assignment] if self._bundles else [(attempt,) for attempt in assignment])

    def _exchange(self, cancel: Sequence[Attempt], deadline: float) -> list[Outcome]:
        outcomes = self._cancel(frozenset(cancel))
        outcomes += self._collect()
        woken = False
        while True:
            self._feed()
            if outcomes or woken or time.monotonic() >= deadline:
                return outcomes
            woken = self._wait_for_news(deadline)
            outcomes += self._collect()

    def _check_worker(self, worker: str) -> None:
        if worker != self._worker.name:
            raise BackendError(f"no worker {worker!r}", remedy=f"the one worker is {self._worker.name!r}")

    def _cancel(self, attempts: frozenset[Attempt]) -> list[Outcome]:
        """Drop what waits; what is under way may still end by itself before it is noticed."""
        dropped = []
        for queue in (*self._waiting, *(slot.queue for slot in self._slots)):
            for _ in range(len(queue)):
                part = queue.popleft()
                dropped += [attempt for attempt in part if attempt in attempts]
                if kept := tuple(attempt for attempt in part if attempt not in attempts):
                    queue.append(kept)
        for slot in self._slots:
            slot.cancel(attempts)
        return [Outcome(attempt, "lost", error="cancelled before it began") for attempt in dropped]

    def _collect(self) -> list[Outcome]:
        """What has ended since the last look, by itself or because it had to be."""
        outcomes = [outcome for slot in self._slots for outcome in slot.listen()]
        now = time.monotonic()
        found = {slot: slot.look(now) for slot in self._slots}
        ended = [slot for slot in self._slots if found[slot] is not None]
        end_children([slot.release() for slot in ended])
        return outcomes + [outcome for slot in ended for outcome in found[slot] or ()]

    def _feed(self) -> None:
        """Give waiting assignments to free slots, and each slot's next attempt to its child."""
        for slot in self._slots:
            while self._waiting and not slot.busy:
                slot.queue = self._waiting.popleft()
            if slot.queue and slot.child is None:
                slot.child = self._start_child()
            slot.send_next()

    def _start_child(self) -> Child:
        try:
            return self._starter.submit(Child, self._order).result()
        except OSError as error:
            raise BackendError(f"cannot start a child process: {error}", remedy="use fewer slots") from error

    def _wait_for_news(self, deadline: float) -> bool:
        """Wait for a child, a time limit or `wake`; whether it was `wake`."""
        now = time.monotonic()
        left = min([deadline - now, *(slot.next_look(now) for slot in self._slots)])
        sources = [source for slot in self._slots if slot.child for source in slot.child.sources]
        if self._bell not in connection.wait([*sources, self._bell], max(left, 0.0)):
            return False
        os.eventfd_read(self._bell)
        return True


def _name_of(function: str | Callable[..., Any]) -> str:
    """``module:function`` of a function that another process can import."""
    if isinstance(function, str):
        module, _, name = function.partition(":")
        importable = bool(module and name)
    else:
        module = str(getattr(function, "__module__", ""))
        name = str(getattr(function, "__qualname__", ""))
        importable = module != "__main__" and "<" not in name and bool(module and name)
    if not importable:
        raise BackendError(
            f"the function {function!r} cannot be imported by another process",
            remedy="define it at the top of a module and give it as module:function",
        )
    return f"{module}:{name}"
