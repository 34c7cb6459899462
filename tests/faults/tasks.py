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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.tasks import run_bundle

__all__ = ["POINTS", "publish_again", "run"]

POINTS = ("begin", "kernel", "written", "placed", "end", "after")
"""Before the task; between detection and linking; when the result is on the disk under its temporary name; when it has
just been moved into its place; when the task is done, before its answer; and after that, at work for the others of its
bundle."""

Attempts = Sequence[tuple[int, int, str]]
Turn = Callable[[int | None], None]
Found = Iterator[tuple[int, Any]]


def run(attempts: Attempts, *, at: Turn, confirm: Callable[[int], None], **arguments: Any) -> Found:
    """`run_bundle`, with the faults that are planned for its tasks."""
    left = []
    for place, (year, member, _) in enumerate(attempts):
        at(place)
        try:
            _reach("begin", year, member)
            left.append(place)
        except Exception as error:
            yield place, error
    at(None)
    chosen = [attempts[place] for place in left]

    def turn(number: int | None) -> None:
        at(None if number is None else left[number])
        if number is not None:
            _reach("kernel", *chosen[number][:2])

    with _faults_on_publishing(attempts):
        found = run_bundle(chosen, at=turn, confirm=lambda number: confirm(left[number]), **arguments) if left else ()
        for number, outcome in found:
            _reach("end", *chosen[number][:2])
            yield left[number], outcome
            _reach("after", *chosen[number][:2])


def publish_again(
    attempts: Attempts, *, at: Turn, confirm: Callable[[int], None], settings: Any, **arguments: Any
) -> Found:
    """Publish what a serial run has found: for tests that are about anything but the science."""
    results = StormtracksResultsManager(CampaignSettings.model_validate(settings).results.root, attempts[0][2])
    with _faults_on_publishing(attempts):
        for place, (year, member, task) in enumerate(attempts):
            at(place)
            time.sleep(float(os.environ.get("FAULTS_NAP", "0")))
            tracks = StormtracksResultsManager(os.environ["FAULTS_SERIAL"], task).get_result(year, member)
            try:
                record = results.add_result(year, member, tracks, confirm=partial(confirm, place))
                yield place, {"tracks": len(tracks), "path": record.path, "sha256": record.sha256}
            except Exception as error:
                yield place, error


@contextmanager
def _faults_on_publishing(attempts: Attempts) -> Iterator[None]:
    replace = os.replace
    files = {f"m{member:03d}.nc": (year, member) for year, member, _ in attempts}

    def replace_with_faults(source: Any, target: Any, **options: Any) -> None:
        task = files.get(Path(target).name)
        if task:
            _reach("written", *task)
        replace(source, target, **options)
        if task:
            _reach("placed", *task)

    with mock.patch("os.replace", replace_with_faults):
        yield


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
