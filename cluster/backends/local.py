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
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from threading import Lock
from typing import Any

from stormtracks.cluster.backends.base import Backend, Running, Worker
from stormtracks.cluster.backends.child import LARGEST_ANSWER, LONGEST_REASON
from stormtracks.cluster.errors import BackendError
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome

__all__ = ["LocalBackend"]

logger = logging.getLogger(__name__)

START_LIMIT = 120.0
"""Seconds a child may take until it is ready for its first attempt."""
FAILED_STARTS = 3
"""Children of one slot that may die in a row before they are ready."""
GRACE = 2.0
"""Seconds between asking a child to end and killing it."""
_CHILD = "stormtracks.cluster.backends.child"

# A slot is one core's work. Thread pools inside it would fight over the cores, and how they split a sum can change
# its last bits.
_ONE_THREAD = dict.fromkeys(
    (
        "BLIS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ),
    "1",
)


class LocalBackend(Backend):
    """One worker, named after this machine, whose slots are child processes.

    Parameters
    ----------
    task_function : str or callable
        What a slot runs, as ``module:function`` or the function itself, which must be importable by its name:
        ``function(year, ensemble_member, task, **arguments)``, returning a dict of plain values.
    slots : int
        Attempts at a time.
    time_limit : float
        Seconds an attempt may take; from then on it is a timeout. Starting a child does not count.
    memory_limit_gib : float, optional
        GiB of address space a child may take; beyond it a task gets a MemoryError. None sets no limit.
    arguments : mapping, optional
        Keyword arguments of the function; plain values.

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
        self._worker = Worker(socket.gethostname(), slots)
        self._time_limit = time_limit
        self._slots = [_Slot(number) for number in range(1, slots + 1)]
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
            except BackendError:
                self._broken = True
                raise

    def wake(self) -> None:
        """Let the `exchange` that waits now, or else the next one, return at once; from any thread."""
        with self._bell_lock:
            if not self._closed:
                os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """End every child, with what it may have started itself; returns within a few seconds."""
        self.wake()
        with self._lock, self._bell_lock:
            if not self._closed:
                self._closed = True
                self._waiting.clear()
                _end([slot.release() for slot in self._slots])
                os.close(self._bell)
        self._starter.shutdown()

    def _exchange(self, cancel: Sequence[Attempt], deadline: float) -> list[Outcome]:
        outcomes = self._collect()
        outcomes += self._cancel(set(cancel))
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

    def _collect(self) -> list[Outcome]:
        """What has ended since the last look, by itself or by its time limit."""
        outcomes = [outcome for slot in self._slots for outcome in slot.listen()]
        now = time.monotonic()
        overdue = [slot for slot in self._slots if slot.seconds_left(now, self._time_limit) <= 0]
        for slot in overdue:
            if slot.current is None:
                slot.count_failed_start(f"it was not ready within {START_LIMIT:g} s")
            else:
                outcomes.append(slot.outcome("timeout", f"not done within its time limit of {self._time_limit:g} s"))
        _end([slot.release() for slot in overdue])
        return outcomes

    def _cancel(self, attempts: set[Attempt]) -> list[Outcome]:
        outcomes = []
        for queue in (*self._waiting, *(slot.queue for slot in self._slots)):
            for attempt in attempts.intersection(queue):
                queue.remove(attempt)
                outcomes.append(Outcome(attempt, "lost", error="cancelled before it began"))
        under_way = [slot for slot in self._slots if slot.current and slot.current[0] in attempts]
        outcomes += [slot.outcome("lost", "cancelled") for slot in under_way]
        _end([slot.release() for slot in under_way])
        return outcomes

    def _feed(self) -> None:
        """Give waiting assignments to free slots, and each slot's next attempt to its child."""
        for slot in self._slots:
            while self._waiting and not slot.busy:
                slot.queue = self._waiting.popleft()
            if slot.queue and slot.child is None:
                slot.child = self._start_child()
            slot.send_next()

    def _start_child(self) -> _Child:
        try:
            return self._starter.submit(_Child, self._order).result()
        except OSError as error:
            raise BackendError(f"cannot start a child process: {error}", remedy="use fewer slots") from error

    def _wait_for_news(self, deadline: float) -> bool:
        """Wait for a child, a time limit or `wake`; whether it was `wake`."""
        now = time.monotonic()
        left = min([deadline - now, *(slot.seconds_left(now, self._time_limit) for slot in self._slots)])
        sources = [source for slot in self._slots if slot.child for source in slot.child.sources]
        if self._bell not in connection.wait([*sources, self._bell], max(left, 0.0)):
            return False
        os.eventfd_read(self._bell)
        return True


class _Slot:
    """Room for one assignment, whose attempts its child makes one after the other."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.queue: deque[Attempt] = deque()
        self.current: tuple[Attempt, float] | None = None
        self.child: _Child | None = None
        self._failed_starts = 0

    @property
    def busy(self) -> bool:
        return self.current is not None or bool(self.queue)

    def seconds_left(self, now: float, time_limit: float) -> float:
        """Seconds until what goes on here, an attempt or the start of a child, has taken too long."""
        if self.current is not None:
            return self.current[1] + time_limit - now
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
            except _ChildDied as death:
                outcomes += self._bury(self.child, str(death))
                continue
            if message is None:
                break
            if self.current is None:
                self._failed_starts = 0
                continue
            outcomes.append(self.outcome(message["status"], message["error"], message["result"]))
            if message["last"]:
                _end([self.release()])
        return outcomes

    def outcome(self, status: str, error: str, result: Mapping[str, Any] | None = None) -> Outcome:
        """Take the attempt under way out of the slot."""
        assert self.current is not None
        attempt, began = self.current
        self.current = None
        return Outcome(attempt, status, result or {}, error, time.monotonic() - began)

    def release(self) -> _Child | None:
        """Take the child out of the slot."""
        child, self.child = self.child, None
        return child

    def count_failed_start(self, reason: str) -> None:
        """Try again a few times: the machine may be short of something for a moment."""
        self._failed_starts += 1
        logger.warning("the child process of slot %d could not start: %s", self.number, reason)
        if self._failed_starts >= FAILED_STARTS:
            raise BackendError(
                f"child processes cannot start, {FAILED_STARTS} times in a row: {reason}",
                remedy="see that memory_limit leaves room for the libraries, and that the machine is not out of memory",
            )

    def _bury(self, child: _Child, reason: str) -> list[Outcome]:
        self.child = None
        if self.current is not None:
            return [self.outcome("failure", reason)]
        if child.ready:
            logger.warning("the idle child process of slot %d is gone: %s", self.number, reason)
        else:
            self.count_failed_start(reason)
        return []


class _ChildDied(Exception):
    """A child ended without being asked to; the message says how."""


class _Child:
    """A child process as its parent sees it. It leads a process group of its own, which ends with it."""

    def __init__(self, order: bytes) -> None:
        self.started = time.monotonic()
        self.ready = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child)
        self._channel, theirs = connection.Pipe()
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD, str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=os.environ | _ONE_THREAD | {"PYTHONPATH": path},
            pass_fds=[theirs.fileno()],
            process_group=0,
        )
        theirs.close()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._write(order)

    @property
    def sources(self) -> tuple[connection.Connection, int]:
        """What to wait on for a message or the end of the child."""
        return self._channel, self._pidfd

    def send(self, attempt: Attempt) -> None:
        """Let the child make an attempt."""
        self._log.seek(0)
        self._log.truncate()
        self._write(json.dumps([attempt.year, attempt.ensemble_member, attempt.task]).encode())

    def receive(self) -> dict[str, Any] | None:
        """The next message, None if there is none yet.

        Raises
        ------
        _ChildDied
            If there will be no more. Nothing of the child is left then.
        BackendError
            If the child cannot load the task function.
        """
        # In this order: a message that was sent just before the end must not be overlooked.
        ended = bool(connection.wait([self._pidfd], 0))
        try:
            if self._channel.poll():
                message: dict[str, Any] = json.loads(self._channel.recv_bytes(2 * LARGEST_ANSWER))
            elif ended:
                raise EOFError
            else:
                return None
        except (EOFError, OSError, ValueError):
            raise _ChildDied(self.reap(time.monotonic() + GRACE)) from None
        if not self.ready:
            if message["error"]:
                raise BackendError(f"the task function cannot be loaded: {message['error']}")
            self.ready = True
        return message

    def ask_to_end(self) -> None:
        """Let it unwind, so that it takes its temporary files along."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def reap(self, deadline: float) -> str:
        """See the child and its process group ended, by force after the deadline; how it ended."""
        connection.wait([self._pidfd], max(deadline - time.monotonic(), 0.0))
        with suppress(ProcessLookupError):
            # Not yet waited for, so that its number cannot have passed to another process.
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            how = _exit_text(self._process.wait(GRACE)) + self._last_words()
        except subprocess.TimeoutExpired:
            how = "its process cannot be ended: it hangs inside the kernel, as on a disk that does not answer"
            logger.warning("process %d: %s", self._process.pid, how)
        self._channel.close()
        self._log.close()
        os.close(self._pidfd)
        return how

    def _write(self, message: bytes) -> None:
        # A child that is gone is noticed when it is listened to.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._channel.send_bytes(message)

    def _last_words(self) -> str:
        """Where the interpreter says it was when it crashed, or else the last line of what the child has printed."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), LONGEST_REASON, max(size - LONGEST_REASON, 0)).decode(errors="replace")
        frames = re.findall(r'^  File "(.+)", line (\d+) in (\S+)', text, re.MULTILINE)
        if frames:
            return " in " + " < ".join(
                f"{'/'.join(Path(path).parts[-2:])}:{line} {name}" for path, line, name in frames[:3]
            )
        return f": {text.split(chr(10))[-1]}" if (text := text.strip()) else ""


def _end(children: Iterable[_Child | None]) -> None:
    """End children together: ask all, then wait for all, then kill those that are left."""
    present = [child for child in children if child is not None]
    for child in present:
        child.ask_to_end()
    deadline = time.monotonic() + GRACE
    for child in present:
        child.reap(deadline)


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit status {code} before it answered"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "an unnamed signal"
    hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name} (signal {-code}){hint}"


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
