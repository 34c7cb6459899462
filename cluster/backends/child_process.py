"""A child process as its parent sees it: started, sent attempts, listened to, and ended with what it has started."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any

from stormtracks.cluster.backends.child import LARGEST_ANSWER, LONGEST_REASON
from stormtracks.cluster.backends.timesheet import Timesheet
from stormtracks.cluster.errors import BackendError
from stormtracks.cluster.pyro_task import Assignment

__all__ = ["GRACE", "Child", "ChildDied", "end_children"]

logger = logging.getLogger(__name__)

GRACE = 2.0
"""Seconds between asking a child to end and killing it."""
_CHILD = "stormtracks.cluster.backends.child"
_LAST_WORDS = 32_000
"""Bytes in which the interpreter tells of all its threads, in the end."""

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


class ChildDied(Exception):
    """A child ended without being asked to: how, and with which exit code, negative for a signal."""

    def __init__(self, how: str, exit_code: int | None) -> None:
        super().__init__(how)
        self.how = how
        self.exit_code = exit_code


class Child:
    """A child process as its parent sees it. It leads a process group of its own, which ends with it."""

    def __init__(self, order: bytes) -> None:
        self.started = time.monotonic()
        self.ready = False
        # In memory: it never has a name that a kill could leave behind, nor looks for a folder that would take it.
        self._log = os.fdopen(os.memfd_create("stormtracks-slot"), "w+b")
        self._pages = os.fdopen(os.memfd_create("stormtracks-timesheet"), "w+b")
        self._channel, theirs = connection.Pipe()
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        passed = [theirs.fileno(), self._pages.fileno()]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD, *map(str, (os.getpid(), *passed))],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=os.environ | _ONE_THREAD | {"PYTHONPATH": path},
            pass_fds=passed,
            process_group=0,
        )
        theirs.close()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._write(order)

    @property
    def sources(self) -> tuple[connection.Connection, int]:
        """What to wait on for a message or the end of the child."""
        return self._channel, self._pidfd

    def send(self, attempts: Assignment) -> Timesheet:
        """Let the child make attempts; where it notes which it is at."""
        self._log.seek(0)
        self._log.truncate()
        sheet = Timesheet(self._pages.fileno(), len(attempts))
        sheet.begin()
        self._write(json.dumps([(one.year, one.ensemble_member, one.task) for one in attempts]).encode())
        return sheet

    def receive(self) -> dict[str, Any] | None:
        """The next message, None if there is none yet.

        Raises
        ------
        ChildDied
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
            raise self.reap(time.monotonic() + GRACE) from None
        if not self.ready:
            if message["error"]:
                raise BackendError(f"the task function cannot be loaded: {message['error']}")
            self.ready = True
        return message

    def answer(self, may_publish: bool) -> None:
        """Tell the child whether the attempt that asks may move its result into place."""
        self._write(json.dumps(may_publish).encode())

    def ask_to_end(self) -> None:
        """Let it unwind, so that it takes its temporary files along."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def reap(self, deadline: float) -> ChildDied:
        """See the child and its process group ended, by force after the deadline; how it ended."""
        connection.wait([self._pidfd], max(deadline - time.monotonic(), 0.0))
        with suppress(ProcessLookupError):
            # Not yet waited for, so that its number cannot have passed to another process.
            os.killpg(self._process.pid, signal.SIGKILL)
        exit_code = None
        try:
            exit_code = self._process.wait(GRACE)
            how = _exit_text(exit_code) + self._last_words()
        except subprocess.TimeoutExpired:
            how = "its process cannot be ended: it hangs inside the kernel, as on a disk that does not answer"
            logger.warning("process %d: %s", self._process.pid, how)
        self._channel.close()
        self._log.close()
        self._pages.close()
        os.close(self._pidfd)
        return ChildDied(how, exit_code)

    def _write(self, message: bytes) -> None:
        # A child that is gone is noticed when it is listened to.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._channel.send_bytes(message)

    def _last_words(self) -> str:
        """Where the interpreter says it was when it crashed, or else the last line of what the child has printed."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), _LAST_WORDS, max(size - _LAST_WORDS, 0)).decode(errors="replace")
        # Of several threads, the one in which it has crashed is named so.
        text = text[max(text.find("Current thread "), 0) :]
        frames = re.findall(r'^  File "(.+)", line (\d+) in (\S+)', text, re.MULTILINE)
        if frames:
            return " in " + " < ".join(
                f"{'/'.join(Path(path).parts[-2:])}:{line} {name}" for path, line, name in frames[:3]
            )
        return f": {text.split(chr(10))[-1][-LONGEST_REASON:]}" if (text := text.strip()) else ""


def end_children(children: Iterable[Child | None], grace: float = GRACE) -> None:
    """End children together: ask all, then wait for all, then kill those that are left."""
    present = [child for child in children if child is not None]
    for child in present:
        child.ask_to_end()
    deadline = time.monotonic() + grace
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
