"""Programs that are at work at once: forked from a process that has imported all they need.

To start Python and its libraries takes longer than a small campaign. Where a test starts dozens of programs, they are
forked by the server of `multiprocessing`; each is a process of its own, with environment, output and exit status.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

__all__ = ["Forked", "Nursery"]

_PRELOADED = (
    "stormtracks.cluster.campaign",
    "stormtracks.cluster.embedded",
    "tests.faults.managers",
    "tests.faults.worker",
)


class Nursery:
    """Forks programs, each a module with a function `main` that takes what follows on the command line."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        assert isinstance(context, ForkServerContext)
        context.set_forkserver_preload(list(_PRELOADED))
        self._context = context
        self.start("tests.faults.nursery", [], {}, Path(os.devnull), Path(os.devnull)).wait(60.0)

    def start(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], out: Path, err: Path
    ) -> Forked:
        """Start the program of a module."""
        for path in (out, err):
            path.touch()
        process = self._context.Process(target=_live, args=(module, list(arguments), dict(environment), out, err))
        process.start()
        return Forked(process)


class Forked:
    """A process as `subprocess.Popen` shows it."""

    def __init__(self, process: ForkServerProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        if self._status is None and self._process.exitcode is not None:
            self._status = self._process.exitcode
            self._process.close()
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, when it has ended."""
        if self._status is None:
            self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return status

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None:
            self._process.kill()


def _live(module: str, arguments: list[str], environment: dict[str, str], out: Path, err: Path) -> None:
    for path, number in ((out, 1), (err, 2)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.setpgid(0, 0)
    sys.argv = [module, *arguments]
    sys.exit(import_module(module).main(arguments))


def main(arguments: Sequence[str]) -> int:
    """Do nothing: the first program, which has the server started."""
    return 0
