"""What runs in the child process of a slot: it loads the task function once, then makes attempts until told to end.

Started by `stormtracks.cluster.backends.local` as a program of its own. It takes JSON messages from its parent and
answers each attempt with one; whatever a task raises goes back as text, so that the parent needs to know no exception
class but its own. Right before a task moves its result into place, the child asks its parent whether it still may.
Linux only: the kernel is asked to kill it when its parent dies.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import logging
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, cast

from stormtracks.cluster.backends.timesheet import Timesheet
from stormtracks.cluster.errors import LeaseLostError

__all__ = ["LARGEST_ANSWER", "LONGEST_REASON", "main"]

logger = logging.getLogger(__name__)

LARGEST_ANSWER = 16_000
"""Bytes of a result; up to about this size a message is written at once, so that it arrives whole or not at all."""
LONGEST_REASON = 4_000
"""Characters of the reason of a failure."""


class _Terminated(SystemExit):
    """The parent wants this process to end."""


def main() -> None:
    """Make attempts until the parent hangs up.

    The arguments are the parent's process id, and the file descriptors of the channel to it and of the timesheets.
    """
    parent, fd, pages = map(int, sys.argv[1:])
    _die_with(parent)
    signal.signal(signal.SIGTERM, _terminate)
    # The parent decides what Ctrl-C means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    for inherited in (fd, pages):
        os.set_inheritable(inherited, False)
    with connection.Connection(fd) as channel, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        order = json.loads(channel.recv_bytes())
        _limit_memory(order["memory_limit_gib"])
        try:
            function = _load(order["function"])
        except Exception as error:
            _send(channel, error=_reason(error, order["memory_limit_gib"]))
            return
        if not order["bundles"]:
            function = partial(_alone, function)
        _send(channel, error="")
        work = _Work(channel, partial(function, cores=order["cores"], **order["arguments"]), order["memory_limit_gib"])
        while work.goes_on:
            attempts = json.loads(channel.recv_bytes())
            work.make(attempts, Timesheet(pages, len(attempts)))


class _Work:
    """What the parent asks for, made in bundles of one or more.

    Parameters
    ----------
    channel : Connection
        To the parent.
    function : callable
        Makes a bundle.
    memory_limit_gib : float, optional
    """

    def __init__(
        self, channel: connection.Connection, function: Callable[..., Iterable[Any]], memory_limit_gib: float | None
    ) -> None:
        self.goes_on = True
        """Whether this process is good for more; nobody knows what it still holds after a MemoryError."""
        self._channel = channel
        self._function = function
        self._memory_limit_gib = memory_limit_gib

    def make(self, attempts: Sequence[Sequence[Any]], sheet: Timesheet) -> None:
        """Make a bundle and say of each attempt how it went, whatever happens in it.

        What ends the whole bundle is said once: the timesheet tells whom that concerns. The parent may send the next
        one as soon as it has heard of all, so that is said when the function has returned.
        """
        left = set(range(len(attempts)))
        last_answer: dict[str, Any] = {}
        try:
            for index, found in self._function(attempts, confirm=self._confirm, at=sheet.turn):
                if isinstance(found, (MemoryError, _Terminated)):
                    raise found
                left.remove(index)
                answer = {"ended": index, **self._told(found)}
                if left:
                    _send(self._channel, **answer, last=False)
                    sheet.turn(None)
                else:
                    last_answer = answer
            if left:
                raise RuntimeError(f"{len(left)} attempts of {len(attempts)} got no answer")
        except _Terminated:
            raise
        except BaseException as error:
            self.goes_on = not isinstance(error, MemoryError)
            if left:
                last_answer = {"ended": None, **self._told(error)}
            else:
                logger.warning("a bundle did not end well: %s", self._told(error)["error"])
        _send(self._channel, **last_answer, last=not self.goes_on)

    def _confirm(self, index: int) -> None:
        """Ask the parent whether an attempt under way may publish its result, and wait for the answer.

        Raises
        ------
        LeaseLostError
            If it may not.
        """
        _send(self._channel, asks=index)
        if json.loads(self._channel.recv_bytes()) is not True:
            raise LeaseLostError("nothing was published: the attempt no longer holds its lease")

    def _told(self, found: Any) -> dict[str, Any]:
        """What a result, or an error, is to the parent."""
        told = {"status": "complete", "error": "", "result": {}, "permanent": False}
        try:
            if isinstance(found, BaseException):
                raise found
            return told | {"result": _plain(found)}
        except _Terminated:
            raise
        except LeaseLostError as error:
            return told | {"status": "lost", "error": error.what}
        except BaseException as error:
            logger.debug("an attempt failed", exc_info=True)
            reason = _reason(error, self._memory_limit_gib)
            permanent = getattr(error, "permanent", False) is True
            return told | {"status": "failure", "error": reason, "permanent": permanent}


def _alone(
    function: Callable[..., Any],
    attempts: Sequence[Sequence[Any]],
    *,
    confirm: Callable[[int], None],
    at: Callable[[int | None], None],
    cores: int,
    **arguments: Any,
) -> Iterator[tuple[int, Any]]:
    """A bundle of one, by a function that knows of no bundles."""
    (attempt,) = attempts
    yield 0, function(*attempt, confirm=partial(confirm, 0), **arguments)


def _send(channel: connection.Connection, **message: Any) -> None:
    channel.send_bytes(json.dumps(message).encode())


def _plain(result: Any) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise TypeError(f"the task returned {type(result).__name__}, not a dict")
    size = len(json.dumps(result))
    if size > LARGEST_ANSWER:
        raise ValueError(
            f"the task returned {size} bytes, more than {LARGEST_ANSWER}; leave data in files and return their names"
        )
    return result


def _reason(error: BaseException, memory_limit_gib: float | None) -> str:
    """Type, message and place of an error as text: its class need not exist anywhere else."""
    name = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
    try:
        message = str(error)
    except Exception as broken:
        message = f"its message raises {type(broken).__name__}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    first, *rest = message.split("\n")
    text = "\n".join([f"{name}: {first} ({Path(frame.filename).name}:{frame.lineno} in {frame.name})", *rest])
    if len(text) > LONGEST_REASON:
        text = text[:LONGEST_REASON] + " ..."
    if isinstance(error, MemoryError) and memory_limit_gib is not None:
        text += f"\n  remedy: allow a process more than {memory_limit_gib:g} GiB (memory_limit)"
    return text


def _load(name: str) -> Callable[..., Any]:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{name} is not a function")
    return cast(Callable[..., Any], found)


def _limit_memory(gib: float | None) -> None:
    if gib is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = int(gib * 2**30)
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the parent dies, even from within a loop in C."""
    set_death_signal = 1
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(set_death_signal, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        # It died before the kernel was asked.
        sys.exit(1)


def _terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated(128 + signal_number)


if __name__ == "__main__":
    main()
