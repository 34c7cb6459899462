"""measure_overhead.py WAY TASKS: hand so many tasks that do nothing to two processes on this machine; prints JSON.

WAY is ``stormtracks``, ``stormtracks-tls``, ``pool`` or ``distributed``. Each of them is warm, its processes started
and once used, when the clock begins; it ends when the outcome of every task is known. Ours keeps the record of the
campaign meanwhile, its creation included. Of a way that is not installed, ``missing`` tells what is needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stormtracks.cluster.backends.pyro import PyroBackend
from stormtracks.cluster.campaign import open_ledger
from stormtracks.cluster.listener import Change, Progress, Snapshot, Summary
from stormtracks.cluster.manager import Limits, Manager
from stormtracks.cluster.pyro_task import PyroTaskSchedule
from stormtracks.cluster.pyro_worker import PyroWorker, run_worker
from stormtracks.cluster.wire.certificates import host_certificate, make_certificates
from stormtracks.cluster.wire.credentials import credentials_in
from stormtracks.cluster.wire.transport import parse_address, start_nameserver, use_credentials
from stormtracks.settings.campaign import CampaignSettings

PROCESSES = 2
WARM_UP = 20
"""Tasks that come first and are not counted."""
MEMBERS = 50
HERE = "127.0.0.1"

# By name, as the workers import it, from the folder of this program.
do_nothing = importlib.import_module("no_op").do_nothing


def main() -> None:
    """Measure one way."""
    if sys.argv[1] == "worker":
        serve(*sys.argv[2:])
        return
    way, tasks = sys.argv[1], int(sys.argv[2])
    print(json.dumps(WAYS[way](tasks)))


def costs(work: Callable[[], object], tasks: int) -> dict[str, float]:
    """What the work takes for each of its tasks, in all and of this process."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_ms_per_task": 1e3 * wall / tasks, "scheduler_cpu_ms_per_task": 1e3 * cpu / tasks}


# --- ours


class Nobody:
    """A listener that does not listen."""

    def begin(self, snapshot: Snapshot) -> None:
        """Not heard."""

    def changed(self, change: Change, progress: Progress) -> None:
        """Not heard."""

    def draining(self, running: int) -> None:
        """Not heard."""

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """Not heard."""

    def end(self, snapshot: Snapshot, summary: Summary) -> None:
        """Not heard."""


def stormtracks(tasks: int, *, tls: bool = False) -> dict[str, float]:
    """A campaign with its record, and one worker of this machine with its slots."""
    with tempfile.TemporaryDirectory() as name, campaign_in(Path(name), tls=tls) as (campaign, backend):
        warm_up = PyroTaskSchedule(years=[1], members=range(1, WARM_UP + 1))
        check(Manager(warm_up, backend, Nobody(), limits=limits(campaign)).run())
        schedule = PyroTaskSchedule(years=range(2, 2 + tasks // MEMBERS), members=range(1, MEMBERS + 1))

        def work() -> None:
            with open_ledger(campaign, schedule, replace=False, resume="") as ledger:
                check(Manager(schedule, backend, Nobody(), record=ledger, limits=limits(campaign)).run())

        return costs(work, len(schedule))


@contextmanager
def campaign_in(folder: Path, *, tls: bool) -> Iterator[tuple[CampaignSettings, PyroBackend]]:
    """A campaign of nothing, and the cluster that is to carry it out."""
    (folder / "data").mkdir()
    (folder / "data" / "empty.nc").touch()
    settings = CampaignSettings.model_validate(
        {
            "name": "bench",
            "data": {"root": folder / "data"},
            "results": {"root": folder / "out"},
            "cluster": {"certificates": folder / "certificates"},
        }
    )
    papers = folder / "papers"
    if tls:
        papers.mkdir()
        make_certificates(settings)
        for name, content in host_certificate(settings, HERE).files.items():
            (papers / name).touch(mode=0o600)
            (papers / name).write_bytes(content)
        use_credentials(credentials_in(papers))
    with start_nameserver((HERE, 0)) as nameserver:
        place = "{}:{}".format(*nameserver.address)
        worker = subprocess.Popen([sys.executable, __file__, "worker", place, *[str(papers)] * tls])
        try:
            with PyroBackend(settings, nameserver.address) as backend:
                yield settings, backend
        finally:
            worker.terminate()
            worker.wait()


def limits(campaign: CampaignSettings) -> Limits:
    """Those of a campaign."""
    cluster = campaign.cluster
    silence = cluster.heartbeat + 1.5 * cluster.given_up_after
    return Limits(heartbeat=cluster.heartbeat, silence=silence, patience=cluster.patience)


def check(summary: Summary) -> None:
    """See that all is done."""
    if not summary.ok:
        raise RuntimeError(f"not all tasks are complete: {summary}")


def serve(nameserver: str, papers: str = "") -> None:
    """Be the worker until told to end."""
    if papers:
        use_credentials(credentials_in(Path(papers)))
    run_worker(PyroWorker("here", slots=PROCESSES, task_function="no_op:run_task"), "bench", parse_address(nameserver))


# --- the others


def pool(tasks: int) -> dict[str, float]:
    """The executor of the standard library."""
    with ProcessPoolExecutor(PROCESSES) as executor:

        def work(tasks: int) -> None:
            for future in [executor.submit(do_nothing, number) for number in range(tasks)]:
                future.result()

        work(WARM_UP)
        return costs(lambda: work(tasks), tasks)


def dask(tasks: int) -> dict[str, float] | dict[str, str]:
    """A cluster of `distributed` on this machine: scheduler and client in this process."""
    if importlib.util.find_spec("distributed") is None:
        return {"missing": "distributed"}
    distributed: Any = importlib.import_module("distributed")
    options = {"n_workers": PROCESSES, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        tempfile.TemporaryDirectory() as folder,
        distributed.LocalCluster(local_directory=folder, **options) as cluster,
        distributed.Client(cluster) as client,
    ):

        def work(tasks: int) -> None:
            client.gather(client.map(do_nothing, range(tasks), pure=False))

        work(WARM_UP)
        return costs(lambda: work(tasks), tasks)


WAYS: dict[str, Callable[[int], dict[str, float] | dict[str, str]]] = {
    "stormtracks": stormtracks,
    "stormtracks-tls": lambda tasks: stormtracks(tasks, tls=True),
    "pool": pool,
    "distributed": dask,
}

if __name__ == "__main__":
    main()
