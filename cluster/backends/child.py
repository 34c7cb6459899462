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
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, cast

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
    """Make attempts until the parent hangs up; the arguments are the file descriptor and the parent's process id."""
    fd, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    signal.signal(signal.SIGTERM, _terminate)
    # The parent decides what Ctrl-C means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    os.set_inheritable(fd, False)
    with connection.Connection(fd) as channel, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        order = json.loads(channel.recv_bytes())
        _limit_memory(order["memory_limit_gib"])
        try:
            function = _load(order["function"])
        except Exception as error:
            channel.send_bytes(json.dumps({"error": _reason(error, order["memory_limit_gib"])}).encode())
            return
        channel.send_bytes(json.dumps({"error": ""}).encode())
        last = False
        while not last:
            attempt = json.loads(channel.recv_bytes())
            work = partial(function, *attempt, confirm=partial(_confirm, channel), **order["arguments"])
            answer = _answer(work, order["memory_limit_gib"])
            last = answer["last"]
            channel.send_bytes(json.dumps(answer).encode())


def _confirm(channel: connection.Connection) -> None:
    """Ask the parent whether the attempt under way may publish its result, and wait for the answer.

    Raises
    ------
    LeaseLostError
        If it may not.
    """
    channel.send_bytes(json.dumps({"asks": "may it publish"}).encode())
    if json.loads(channel.recv_bytes()) is not True:
        raise LeaseLostError("nothing was published: the attempt no longer holds its lease")


def _answer(work: Callable[[], Any], memory_limit_gib: float | None) -> dict[str, Any]:
    """Do the work and say how it went, whatever happens in it.

    After a MemoryError the answer is the process's last one: nobody knows what it still holds.
    """
    answer = {"status": "complete", "error": "", "result": {}, "permanent": False, "last": False}
    try:
        return answer | {"result": _plain(work())}
    except _Terminated:
        raise
    except LeaseLostError as error:
        return answer | {"status": "lost", "error": error.what}
    except BaseException as error:
        logger.debug("an attempt failed", exc_info=True)
        return answer | {
            "status": "failure",
            "error": _reason(error, memory_limit_gib),
            "permanent": getattr(error, "permanent", False) is True,
            "last": isinstance(error, MemoryError),
        }


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
