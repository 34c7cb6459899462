"""Parts of a cluster on loopback, for tests: campaigns over toys, workers as processes, and a wire that can be cut."""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from stormtracks.cluster.wire.transport import Address, list_names
from stormtracks.settings.campaign import CampaignSettings, ClusterSettings, DataSettings, ResultsSettings

ROOT = Path(__file__).parents[2]
BOUND = 60.0


def poll_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def descriptors_and_threads() -> tuple[int, int]:
    """How many this process has; Pyro5 leaves a descriptor of a closed daemon to the garbage collector."""
    gc.collect()
    return psutil.Process().num_fds(), threading.active_count()


def toy_campaign(folder: Path, **cluster: Any) -> CampaignSettings:
    """A campaign whose folders exist, and whose cluster is quick to notice."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "field.nc").write_bytes(b"a field")
    (folder / "out").mkdir(exist_ok=True)
    values: dict[str, Any] = {"heartbeat": 0.2, "lease": 2.0, "patience": BOUND} | cluster
    return CampaignSettings(
        name="toys",
        data=DataSettings(root=folder / "data"),
        results=ResultsSettings(root=folder / "out"),
        cluster=ClusterSettings(**values),
    )


@contextmanager
def worker_process(
    name: str, nameserver: Address, *, toy: str = "double", slots: int = 1, campaign: str = "toys", **surroundings: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of toys that is registered; ended by force if the test has not ended it."""
    environment = {f"TOY_{key.upper()}": json.dumps(value) for key, value in surroundings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.toy_worker", name, campaign, "{}:{}".format(*nameserver), str(slots)],
        env=os.environ | environment | {"TOY": toy, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        poll_until(lambda: registered(nameserver, name, campaign) or process.poll() is not None, f"{name} registers")
        yield process
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                process.kill()
        process.wait(BOUND)


def registered(nameserver: Address, name: str, campaign: str = "toys") -> str | None:
    full = f"stormtracks.{campaign}.worker_{name}"
    return list_names(nameserver, full).get(full)


class Wire:
    """A relay to an address; it can be cut, so that nothing passes and nobody is told, and healed."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: Address = self._listener.getsockname()
        self._cut = threading.Event()
        self._closed = threading.Event()
        self._pairs: list[socket.socket] = []
        self.drop_next_answer = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        self._cut.set()

    def heal(self) -> None:
        """Let data pass again on new connections; those of before the cut are dead, as after a long one."""
        for end in self._pairs:
            end.close()
        self._pairs.clear()
        self._cut.clear()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(BOUND)
        for end in (self._listener, *self._pairs):
            end.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            if self._cut.is_set():
                time.sleep(0.02)
                continue
            with suppress(OSError, ValueError):
                ready, _, _ = select.select([self._listener, *self._pairs], [], [], 0.05)
                for end in ready:
                    if end is self._listener:
                        self._pairs += [end.accept()[0], socket.create_connection(self._target)]
                    else:
                        self._pass_on(end)

    def _pass_on(self, end: socket.socket) -> None:
        at = self._pairs.index(end)
        other = self._pairs[at ^ 1]
        data = end.recv(65536)
        lost = at % 2 == 1 and self.drop_next_answer
        if data and not lost:
            other.sendall(data)
            return
        self.drop_next_answer = self.drop_next_answer and not lost
        first = at & ~1
        for one in (end, other):
            one.close()
        del self._pairs[first : first + 2]
