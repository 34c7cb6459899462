"""How a program is stopped: the first SIGINT or SIGTERM asks it to come to an end, the next ones urge it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["bell_on_signals", "on_signal"]


@contextmanager
def on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Have the first and the second SIGINT or SIGTERM call `stop`, and the next one raise KeyboardInterrupt.

    Nothing happens in another thread than the main one, which signals never reach.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    calls = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def bell_on_signals() -> Iterator[int]:
    """A file descriptor that becomes readable with SIGTERM or SIGINT."""
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(number: int, frame: FrameType | None) -> None:
        os.eventfd_write(bell, 1)

    before = {number: signal.signal(number, ring) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield bell
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(bell)
