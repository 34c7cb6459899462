"""This machine as a worker: slots that are long-lived child processes, each ended and replaced by itself.

A child runs one attempt at a time. A crash, a hang past the time limit or a memory blow-up costs that attempt and that
child alone, and comes back as a failure or timeout with its reason. Parent and child exchange short JSON messages over
a pair of sockets, so that nothing a task raises or returns can harm the parent. Children are processes of their own
program (`child`), not forks: they import what their task needs once, and nothing of the parent's. Linux only: they are
watched through pid file descriptors, and the kernel kills them when this process dies.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection
from threading import Lock
from typing import Any

from stormtracks.cluster.backends.base import Backend, Running, Worker
from stormtracks.cluster.backends.child_process import GRACE, Child, ChildDied, end_children
from stormtracks.cluster.errors import BackendError, WorkerEndedError
from stormtracks.cluster.facts import facts, versions
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome

__all__ = ["LocalBackend"]

logger = logging.getLogger(__name__)

START_LIMIT = 120.0
"""Seconds a child may take until it is ready for its first attempt."""
FAILED_STARTS = 3
"""Children of one slot that may die in a row before they are ready."""


class LocalBackend(Backend):
    """One worker, named after this machine, whose slots are child processes.

    Parameters
    ----------
    task_function : str or callable
        What a slot runs, as ``module:function`` or the function itself, which must be importable by its name:
        ``function(year, ensemble_member, task, confirm=..., **arguments)``, returning a dict of plain values.
    slots : int
        Attempts at a time.
    time_limit : float
        Seconds an attempt may take; from then on it is a timeout. Starting a child does not count.
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
        task_function: str | Callable[..., Mapping[str, Any]],
        *,
        slots: int = 1,
        time_limit: float = 3600.0,
        memory_limit_gib: float | None = 4.0,
        arguments: Mapping[str, Any] | None = None,
        may_publish: Callable[[Attempt], bool] = lambda attempt: True,
    ) -> None:
        if slots < 1:
            raise BackendError(f"{slots} slots", remedy="use at least 1 slot")
        order = {
            "function": _name_of(task_function),
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
        self._time_limit = time_limit
        self._may_publish = may_publish
        self._slots = [_Slot(number, time_limit, self._holds) for number in range(1, slots + 1)]
        self._doomed: frozenset[Attempt] = frozenset()
        self._waiting: deque[deque[Attempt]] = deque()
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
        now = time.monotonic()
        taken = [(slot.number, slot.current) for slot in self._slots]
        return tuple(Running(current[0], number, now - current[1]) for number, current in taken if current)

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        """Begin assignments, cancel attempts, and bring back what has ended; see `Backend.exchange`."""
        self._check_worker(worker)
        deadline = time.monotonic() + wait
        with self._lock:
            if self._closed:
                raise BackendError("the local backend is closed", remedy="make a new one")
            self._waiting.extend(map(deque, begin))
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

    def _exchange(self, cancel: Sequence[Attempt], deadline: float) -> list[Outcome]:
        self._doomed = frozenset(cancel)
        outcomes = self._collect()
        outcomes += self._cancel(self._doomed)
        woken = False
        while True:
            self._feed()
            if outcomes or woken or time.monotonic() >= deadline:
                return outcomes
            woken = self._wait_for_news(deadline)
            outcomes += self._collect()

    def _holds(self, attempt: Attempt) -> bool | None:
        """Whether an attempt may publish; no answer if it is about to be cancelled."""
        return None if attempt in self._doomed else self._may_publish(attempt)

    def _check_worker(self, worker: str) -> None:
        if worker != self._worker.name:
            raise BackendError(f"no worker {worker!r}", remedy=f"the one worker is {self._worker.name!r}")

    def _collect(self) -> list[Outcome]:
        """What has ended since the last look, by itself or by its time limit."""
        outcomes = [outcome for slot in self._slots for outcome in slot.listen()]
        now = time.monotonic()
        overdue = [slot for slot in self._slots if slot.seconds_left(now) <= 0]
        for slot in overdue:
            if slot.current is None:
                slot.count_failed_start(f"it was not ready within {START_LIMIT:g} s")
            else:
                outcomes.append(slot.outcome("timeout", f"not done within its time limit of {self._time_limit:g} s"))
        end_children([slot.release() for slot in overdue])
        return outcomes

    def _cancel(self, attempts: frozenset[Attempt]) -> list[Outcome]:
        outcomes = []
        for queue in (*self._waiting, *(slot.queue for slot in self._slots)):
            for attempt in attempts.intersection(queue):
                queue.remove(attempt)
                outcomes.append(Outcome(attempt, "lost", error="cancelled before it began"))
        under_way = [slot for slot in self._slots if slot.current and slot.current[0] in attempts]
        outcomes += [slot.outcome("lost", "cancelled") for slot in under_way]
        end_children([slot.release() for slot in under_way])
        return outcomes

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
        left = min([deadline - now, *(slot.seconds_left(now) for slot in self._slots)])
        sources = [source for slot in self._slots if slot.child for source in slot.child.sources]
        if self._bell not in connection.wait([*sources, self._bell], max(left, 0.0)):
            return False
        os.eventfd_read(self._bell)
        return True


class _Slot:
    """Room for one assignment, whose attempts its child makes one after the other."""

    def __init__(self, number: int, time_limit: float, may_publish: Callable[[Attempt], bool | None]) -> None:
        self.number = number
        self._time_limit = time_limit
        self._may_publish = may_publish
        self.queue: deque[Attempt] = deque()
        self.current: tuple[Attempt, float] | None = None
        self.child: Child | None = None
        self._failed_starts = 0

    @property
    def busy(self) -> bool:
        return self.current is not None or bool(self.queue)

    def seconds_left(self, now: float) -> float:
        """Seconds until what goes on here, an attempt or the start of a child, has taken too long."""
        if self.current is not None:
            return self.current[1] + self._time_limit - now
        if self.child is not None and not self.child.ready:
            return self.child.started + START_LIMIT - now
        return float("inf")

    def send_next(self) -> None:
        """Give the child the next attempt, once it is ready for it."""
        if self.queue and self.current is None and self.child is not None and self.child.ready:
            self.current = (self.queue.popleft(), time.monotonic())
            self.child.send(self.current[0])

    def listen(self) -> list[Outcome]:
        """The outcomes that have come from the child, or from its death."""
        outcomes = []
        while self.child is not None:
            try:
                message = self.child.receive()
            except ChildDied as death:
                outcomes += self._bury(self.child, death)
                continue
            if message is None:
                break
            if "asks" in message:
                self._answer(self.child)
            elif self.current is None:
                self._failed_starts = 0
            else:
                kept = {name: message[name] for name in ("result", "permanent")}
                outcomes.append(self.outcome(message["status"], message["error"], **kept))
                if message["last"]:
                    end_children([self.release()])
        return outcomes

    def outcome(self, status: str, error: str, **more: Any) -> Outcome:
        """Take the attempt under way out of the slot."""
        assert self.current is not None
        attempt, began = self.current
        self.current = None
        return Outcome(attempt, status, error=error, seconds=time.monotonic() - began, **more)

    def release(self) -> Child | None:
        """Take the child out of the slot."""
        child, self.child = self.child, None
        return child

    def clear(self) -> Child | None:
        """Forget what is under way and what waits, and take the child out of the slot."""
        self.queue.clear()
        self.current = None
        return self.release()

    def count_failed_start(self, reason: str) -> None:
        """Try again a few times: the machine may be short of something for a moment."""
        self._failed_starts += 1
        logger.warning("the child process of slot %d could not start: %s", self.number, reason)
        if self._failed_starts >= FAILED_STARTS:
            raise BackendError(
                f"child processes cannot start, {FAILED_STARTS} times in a row: {reason}",
                remedy="see that memory_limit leaves room for the libraries, and that the machine is not out of memory",
            )

    def _answer(self, child: Child) -> None:
        """Say whether the attempt under way may publish.

        One that is overdue or about to be cancelled waits for its end instead: a child that is asked to end while it
        deals with a no might not come to remove its temporary file.
        """
        if self.current is None:
            child.answer(False)
        elif self.seconds_left(time.monotonic()) > 0:
            may_publish = self._may_publish(self.current[0])
            if may_publish is not None:
                child.answer(may_publish)

    def _bury(self, child: Child, death: ChildDied) -> list[Outcome]:
        self.child = None
        if self.current is not None:
            return [self.outcome("failure", death.how, exit_code=death.exit_code)]
        if child.ready:
            logger.warning("the idle child process of slot %d is gone: %s", self.number, death.how)
        else:
            self.count_failed_start(death.how)
        return []


def _name_of(task_function: str | Callable[..., Any]) -> str:
    """``module:function`` of a function that another process can import."""
    if isinstance(task_function, str):
        module, _, name = task_function.partition(":")
        importable = bool(module and name)
    else:
        module = str(getattr(task_function, "__module__", ""))
        name = str(getattr(task_function, "__qualname__", ""))
        importable = module != "__main__" and "<" not in name and bool(module and name)
    if not importable:
        raise BackendError(
            f"the task function {task_function!r} cannot be imported by another process",
            remedy="define it at the top of a module and give it as module:function",
        )
    return f"{module}:{name}"
