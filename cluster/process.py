"""Which process is which: processes that cannot be mistaken for one another, and whether one of them still runs."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "boot_id"]


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for another: a number is used again, but not with the same start and boot.

    Parameters
    ----------
    pid : int
    started : int
        When, in clock ticks after the boot.
    boot : str
        The kernel's names for the time since it was started, and for the processes that share their numbers: in another
        container on the same machine a number means another process.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """The process that has this number now, if it still runs."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name of the program stands in parentheses and may hold anything, even these.
        fields = stat.rpartition(")")[2].split()
        state, started = fields[0], int(fields[19])
        return None if state in "ZX" else cls(pid, started, _boot())

    @classmethod
    def own(cls) -> Process:
        """This process."""
        process = cls.find(os.getpid())
        assert process is not None, "whoever asks, runs"
        return process

    @property
    def runs(self) -> bool:
        """Whether this very process still runs."""
        return Process.find(self.pid) == self

    @property
    def has_ended(self) -> bool:
        """Whether it surely runs no more: only this machine's own processes can be told, or those before its boot."""
        return _boot() == self.boot and not self.runs and not _is_hidden(self.pid)


def _is_hidden(pid: int) -> bool:
    """Whether there is a process of this number that /proc does not show, as those of other users may be."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return not Path(f"/proc/{pid}").exists()
    return False


@functools.cache
def boot_id() -> str:
    """This run of this machine's kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _boot() -> str:
    return f"{boot_id()} {Path('/proc/self/ns/pid').readlink()}"
