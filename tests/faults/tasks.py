"""The real task with faults in it, where a test has planned some; what a worker of these tests is asked to do.

A plan is a file in the folder ``FAULTS``: at which point of which tasks, on which worker, how often, and what happens
there. Whoever comes to such a point says so by a file of its own, and then it happens. The product's code is as it is:
the points lie around calls that it makes, in the child process alone.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from stormtracks.detect import Detector
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.tasks import run_task

__all__ = ["POINTS", "publish_again", "run"]

POINTS = ("begin", "kernel", "written", "placed", "end")
"""Before the task; between detection and linking; when the result is on the disk under its temporary name; when it has
just been moved into its place; and when the task is done, before its answer."""


def run(year: int, ensemble_member: int, task: str, **arguments: Any) -> dict[str, Any]:
    """`run_task`, with the faults that are planned for it."""
    with _faults(year, ensemble_member):
        return run_task(year, ensemble_member, task, **arguments)


def publish_again(year: int, ensemble_member: int, task: str, *, settings: Any, **arguments: Any) -> dict[str, Any]:
    """Publish what a serial run has found: for tests that are about anything but the science."""
    with _faults(year, ensemble_member):
        time.sleep(float(os.environ.get("FAULTS_NAP", "0")))
        tracks = StormtracksResultsManager(os.environ["FAULTS_SERIAL"], task).get_result(year, ensemble_member)
        root = CampaignSettings.model_validate(settings).results.root
        named = {"confirm": arguments["confirm"]} if "confirm" in arguments else {}
        record = StormtracksResultsManager(root, task).add_result(year, ensemble_member, tracks, **named)
        return {"tracks": len(tracks), "path": record.path, "sha256": record.sha256}


@contextmanager
def _faults(year: int, member: int) -> Iterator[None]:
    replace, find = os.replace, Detector.find

    def replace_with_faults(source: Any, target: Any, **options: Any) -> None:
        is_result = Path(target).name == f"m{member:03d}.nc"
        if is_result:
            _reach("written", year, member)
        replace(source, target, **options)
        if is_result:
            _reach("placed", year, member)

    def find_with_faults(*arguments: Any, **named: Any) -> Any:
        found = find(*arguments, **named)
        _reach("kernel", year, member)
        return found

    _reach("begin", year, member)
    with mock.patch("os.replace", replace_with_faults), mock.patch.object(Detector, "find", find_with_faults):
        yield
    _reach("end", year, member)


def _reach(point: str, year: int, member: int) -> None:
    """Let happen what is planned for this point."""
    for path in sorted(Path(os.environ["FAULTS"]).glob("*.plan")):
        plan = json.loads(path.read_bytes())
        if plan["point"] == point and _concerned(plan, year, member) and _taken(path, plan["times"]):
            here = {"year": year, "member": member, "pid": os.getpid(), "worker": os.getppid()}
            part = path.with_suffix(f".{os.getpid()}-{time.monotonic_ns()}")
            part.write_text(json.dumps(here), encoding="utf-8")
            part.replace(f"{part}.there")
            _ACTS[plan["act"]](path)


def _concerned(plan: dict[str, Any], year: int, member: int) -> bool:
    here = plan["worker"] in ("", os.environ.get("FAULTS_WORKER"))
    return here and (not plan["tasks"] or [year, member] in plan["tasks"])


def _taken(path: Path, times: int) -> bool:
    """Whether this is one of the `times` that it shall happen."""
    for number in range(times):
        with suppress(FileExistsError):
            path.with_suffix(f".{number}").touch(exist_ok=False)
            return True
    return False


# --- what can happen


def _hold(path: Path) -> None:
    """Stand still until the test says go."""
    while not path.with_suffix(".go").exists():
        time.sleep(0.01)


def _kill(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_worker(path: Path) -> None:
    """As the kernel does that is short of memory and picks the wrong one."""
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def _exit(path: Path) -> None:
    os._exit(3)


def _segfault(path: Path) -> None:
    ctypes.string_at(0)


def _memory(path: Path) -> None:
    """Take memory without end; the limit of the process ends it."""
    held = []
    while True:
        held.append(bytearray(2**28))


def _fail(path: Path) -> None:
    raise RuntimeError("it is planned to fail")


def _refuse(number: int) -> Callable[[Path], None]:
    """As a disk does."""

    def act(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    return act


def _pass(path: Path) -> None:
    """Nothing but that the test knows that someone was here."""


def _hang(path: Path) -> None:
    """Hang in C with the GIL held, so that no handler of a signal runs and no other thread; and have a child, too."""
    subprocess.Popen(["sleep", "3600"])
    deque(itertools.repeat(None), maxlen=0)


_ACTS: dict[str, Callable[[Path], None]] = {
    "EIO": _refuse(errno.EIO),
    "ENOSPC": _refuse(errno.ENOSPC),
    "EROFS": _refuse(errno.EROFS),
    "exit": _exit,
    "fail": _fail,
    "hang": _hang,
    "hold": _hold,
    "kill": _kill,
    "kill worker": _kill_worker,
    "memory": _memory,
    "pass": _pass,
    "segfault": _segfault,
}
