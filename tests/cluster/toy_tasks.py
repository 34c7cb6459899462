"""Tasks for the tests of the cluster room: quick, slow, failing and deadly ones."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from stormtracks.errors import InputError
from stormtracks.publish import publish

Confirm = Callable[[], None]


def double(year: int, ensemble_member: int, task: str, **_: Any) -> dict[str, Any]:
    return {"tracks": 2 * ensemble_member, "name": f"{task}/{year}/m{ensemble_member:03d}", "pid": os.getpid()}


def echo(year: int, ensemble_member: int, task: str, *, confirm: Any, **arguments: Any) -> dict[str, Any]:
    return {"arguments": arguments}


def surroundings(year: int, ensemble_member: int, task: str, **_: Any) -> dict[str, Any]:
    return {
        "omp": os.environ["OMP_NUM_THREADS"],
        "interrupt": str(signal.getsignal(signal.SIGINT)),
        "leads_group": os.getpgrp() == os.getpid(),
        "parent": os.getppid(),
    }


class UnbuildableError(Exception):
    """Cannot be built again from what it shows of itself, and holds what cannot travel."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} is not {two}")
        self.lock = threading.Lock()


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def unbuildable(year: int, ensemble_member: int, task: str, **_: Any) -> NoReturn:
    raise UnbuildableError(1, 2)


def mute(year: int, ensemble_member: int, task: str, **_: Any) -> NoReturn:
    raise MuteError


def remedied(year: int, ensemble_member: int, task: str, **_: Any) -> NoReturn:
    raise InputError("variable 'u850' is not in u850_2001.nc", remedy="name the variable in [data]")


def endless_message(year: int, ensemble_member: int, task: str, **_: Any) -> NoReturn:
    raise ValueError("x" * 1_000_000)


def leave(year: int, ensemble_member: int, task: str, **_: Any) -> NoReturn:
    sys.exit("by the back door")


def unsendable(year: int, ensemble_member: int, task: str, **_: Any) -> dict[str, Any]:
    return {"lock": threading.Lock()}


def huge(year: int, ensemble_member: int, task: str, **_: Any) -> dict[str, Any]:
    return {"points": [0.5] * 10_000}


def no_dict(year: int, ensemble_member: int, task: str, **_: Any) -> int:
    return 7


def segfault(year: int, ensemble_member: int, task: str, **_: Any) -> None:
    ctypes.string_at(0)


def segfault_beside_threads(year: int, ensemble_member: int, task: str, **_: Any) -> None:
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    segfault(year, ensemble_member, task)


def exit_3(year: int, ensemble_member: int, task: str, **_: Any) -> NoReturn:
    print("libfoo: assertion failed", file=sys.stderr, flush=True)
    os._exit(3)


def exit_0(year: int, ensemble_member: int, task: str, **_: Any) -> NoReturn:
    os._exit(0)


def killed(year: int, ensemble_member: int, task: str, **_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(year: int, ensemble_member: int, task: str, **_: Any) -> NoReturn:
    while True:
        time.sleep(3600)


def hang_deaf(year: int, ensemble_member: int, task: str, **_: Any) -> NoReturn:
    """Hangs as code in C does: no Python signal handler can run."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    hang(year, ensemble_member, task)


def memory(year: int, ensemble_member: int, task: str, gib: float, **_: Any) -> dict[str, Any]:
    return {"bytes": len(bytearray(int(gib * 2**30)))}


def temporary_file(year: int, ensemble_member: int, task: str, folder: str, **_: Any) -> None:
    """Holds a temporary file while it hangs, and removes it when it is asked to end."""
    path = Path(folder) / f"m{ensemble_member}.tmp"
    path.touch()
    try:
        time.sleep(3600)
    finally:
        path.unlink()


def grandchild(year: int, ensemble_member: int, task: str, folder: str, **_: Any) -> None:
    """Starts a process of its own and hangs."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    write_whole(Path(folder) / "pid", str(process.pid))
    time.sleep(3600)


def chosen(year: int, ensemble_member: int, task: str, by_member: dict[str, str], *, confirm: Any) -> dict[str, Any]:
    """Does what is chosen for the member by the name of another task here, else `double`."""
    function = globals()[by_member.get(str(ensemble_member), "double")]
    result: dict[str, Any] = function(year, ensemble_member, task, confirm=confirm)
    return result


def fails_at_first(year: int, ensemble_member: int, task: str, folder: str, **_: Any) -> dict[str, Any]:
    """Fails at its first attempt, by exception, crash or hang in turn, and then succeeds."""
    flag = Path(folder) / f"{year}-{ensemble_member}"
    if not flag.exists():
        flag.touch()
        (unbuildable, segfault, hang)[ensemble_member % 3](year, ensemble_member, task)
    return double(year, ensemble_member, task)


def at_the_barrier(year: int, ensemble_member: int, task: str, folder: str, **_: Any) -> NoReturn:
    """Tells its process id and hangs."""
    write_whole(Path(folder) / str(ensemble_member), str(os.getpid()))
    hang(year, ensemble_member, task)


def wait_at_the_barrier(year: int, ensemble_member: int, task: str, folder: str, **_: Any) -> dict[str, Any]:
    """Tells its process id, and is done when there is a file `go`."""
    write_whole(Path(folder) / str(ensemble_member), str(os.getpid()))
    while not (Path(folder) / "go").exists():
        time.sleep(0.01)
    return double(year, ensemble_member, task)


def hang_deaf_at_the_barrier(year: int, ensemble_member: int, task: str, folder: str, **_: Any) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    at_the_barrier(year, ensemble_member, task, folder)


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never seen half-written."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def nap(year: int, ensemble_member: int, task: str, **_: Any) -> dict[str, Any]:
    time.sleep(0.2)
    return double(year, ensemble_member, task)


def counted(year: int, ensemble_member: int, task: str, folder: str, **_: Any) -> dict[str, Any]:
    """Leaves a file for each time it is called."""
    calls = len(list(Path(folder).glob(f"m{ensemble_member}-*")))
    (Path(folder) / f"m{ensemble_member}-{calls + 1}").touch()
    return double(year, ensemble_member, task)


def confirmed(year: int, ensemble_member: int, task: str, *, confirm: Confirm, folder: str) -> dict[str, Any]:
    """Asks whether it may publish, with its result written under a temporary name, and publishes."""
    return publish_when(lambda: True, ensemble_member, Path(folder), confirm)


def confirmed_at_the_barrier(
    year: int, ensemble_member: int, task: str, *, confirm: Confirm, folder: str
) -> dict[str, Any]:
    """Tells its process id when its result is written, and asks and publishes when there is a file `go`."""
    return publish_when((Path(folder) / "go").exists, ensemble_member, Path(folder), confirm)


def publish_when(due: Callable[[], bool], ensemble_member: int, folder: Path, confirm: Confirm) -> dict[str, Any]:
    def check(temporary: Path) -> None:
        write_whole(folder / str(ensemble_member), str(os.getpid()))
        while not due():
            time.sleep(0.01)
        (folder / "asked").touch()
        confirm()

    publish(folder / f"m{ensemble_member}.nc", b"tracks", check=check)
    return {"tracks": 1, "pid": os.getpid()}


def hopeless(year: int, ensemble_member: int, task: str, **_: Any) -> NoReturn:
    raise InputError("there are no data", permanent=True)


def too_much_memory(year: int, ensemble_member: int, task: str, **_: Any) -> dict[str, Any]:
    return memory(year, ensemble_member, task, gib=1.5)
