"""Faults as the system makes them: child processes that are killed, and system calls that fail with any error."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from errno import errorcode
from pathlib import Path
from typing import Any, NoReturn

import pytest

_NUMBERS = {
    "x86_64": {"read": 0, "write": 1, "pread64": 17, "fsync": 74, "rename": 82},
    "aarch64": {"read": 63, "write": 64, "pread64": 67, "fsync": 82, "rename": 38},
}


def in_child(action: Callable[[], None], *, prepare: Callable[[], None] = lambda: None) -> int:
    """Do it in a child process; the status that `os.waitpid` tells, 0 if nothing was raised."""
    pid = os.fork()
    if pid == 0:
        _run(action, prepare)
    return os.waitpid(pid, 0)[1]


def _run(action: Callable[[], None], prepare: Callable[[], None]) -> NoReturn:
    try:
        prepare()
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def kill_after_rename(folder: Path) -> None:
    """Have this process killed at its first touch of a file in the folder after the next rename."""
    renamed = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal renamed
        if renamed and event == "open" and str(arguments[0]).startswith(str(folder)):
            os.kill(os.getpid(), signal.SIGKILL)
        renamed |= event == "os.rename"

    sys.addaudithook(hook)


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("if_so", ctypes.c_ubyte), ("if_not", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def fail_calls(names: tuple[str, ...], code: int) -> None:
    """From now on the kernel answers these system calls of this process with an error, on descriptors from 3 on.

    There is no way back: for children only. See seccomp(2), and bpf(4) for the program.
    """
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allow, fail = 0x7FFF0000, 0x00050000 | code
    numbers = [_NUMBERS[platform.machine()][name] for name in names]
    lines = [(load, 0, 0, 0)]
    lines += [(equal, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    lines += [(answer, 0, 0, allow), (load, 0, 0, 16), (at_least, 0, 1, 3), (answer, 0, 0, fail), (answer, 0, 0, allow)]
    instructions = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), instructions)
    no_new_privileges, set_filter, filter_mode = 38, 22, 2
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(no_new_privileges, 1, 0, 0, 0)
    if libc.prctl(set_filter, filter_mode, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP) failed")


def _calls_can_fail() -> bool:
    return platform.machine() in _NUMBERS and in_child(lambda: fail_calls(("fsync",), 5)) == 0


needs_failing_calls = pytest.mark.skipif(not _calls_can_fail(), reason="system calls cannot be made to fail here")


def named(code: int) -> str:
    """``EIO`` for 5."""
    return errorcode[code]
