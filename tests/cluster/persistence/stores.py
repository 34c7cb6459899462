"""Which kinds of store the tests of the contract run with, and campaigns to run them on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from stormtracks.cluster.persistence import PersistentStore, Workflow
from stormtracks.cluster.persistence.json import JSONPersistentStore
from stormtracks.cluster.persistence.sqlite import SQLitePersistentStore
from stormtracks.cluster.persistence.zarr import ZarrPersistentStore

STORES: list[type[PersistentStore]] = [
    SQLitePersistentStore,
    JSONPersistentStore,
    ZarrPersistentStore,
]

TEMPLATE = {"years": [2001, 2002], "tracking": {"cost": 1.5e6, "name": "nächste"}, "none": None}
CREATION = {"campaign_id": "one", "app": "stormtracks"}
WORKER = {"number": 1, "worker": "w1", "incarnation": "w1-7", "host": "here", "pid": 12, "code": "0.1"}


def new_store(cls: type[PersistentStore], path: Path) -> PersistentStore:
    """An empty campaign."""
    cls.write_empty_workflow(TEMPLATE, {"versions": {"numpy": "2"}}, path, None, CREATION)
    return cls(Workflow(path))


def add(store: PersistentStore, years: Sequence[int], members: Sequence[int]) -> list[int]:
    """Add elements to the first task, which is added if it is missing; pending. Gives the parameters."""
    if store.get_num_added_tasks() == 0:
        store.add_empty_task(0, {"name": "vort_track"})
    store.add_element_set(0, {"years": list(years), "members": list(members)})
    elements = [{"year": year, "member": member} for year in years for member in members]
    slots = [store.add_unset_parameter_data({"type": "result"}) for _ in elements]
    store.add_elements(0, 0, elements, [{"parameter": slot} for slot in slots])
    return slots


def campaign(cls: type[PersistentStore], path: Path) -> PersistentStore:
    """A campaign of two years and three members, saved."""
    store = new_store(cls, path)
    add(store, [2001, 2002], [1, 2, 3])
    store.save()
    return store


FORK = multiprocessing.get_context("fork")


def ends(function: Callable[..., object], *arguments: object) -> bool:
    """Whether a call, made in another process, comes to its end without an error, and is not kept waiting."""
    process = FORK.Process(target=function, args=arguments)
    process.start()
    process.join(30)
    process.kill()
    process.join()
    return process.exitcode == 0


def stop_here() -> None:
    """Stop this process until it is told to go on, as Ctrl-Z does."""
    os.kill(os.getpid(), signal.SIGSTOP)


@contextmanager
def stopped(function: Callable[..., object], *arguments: object) -> Iterator[ForkProcess]:
    """A process that calls a function in which it stops; it goes on, and has ended, when this is left."""
    process = FORK.Process(target=function, args=arguments)
    process.start()
    assert process.pid is not None
    try:
        found = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert found is not None and found.si_code == os.CLD_STOPPED
        yield process
        os.kill(process.pid, signal.SIGCONT)
        process.join(60)
    finally:
        process.kill()
        process.join()


def everything(store: PersistentStore) -> dict[str, Any]:
    """All that can be read from a store."""
    with store.cached_load():
        tasks = store.get_all_tasks_metadata()
        parameters = store.get_all_parameter_data()
        return {
            "template": store.get_template(),
            "components": store.get_template_components(),
            "creation": store.get_creation_info(),
            "tasks": tasks,
            "elements": [
                store.get_task_elements(task["index"], task["insert_ID"], slice(None), True) for task in tasks
            ],
            "parameters": parameters,
            "sources": [store.get_parameter_source(index) for index in parameters],
            "loops": store.get_loops(),
            "submissions": store.get_submissions(),
            "added": store.get_num_added_tasks(),
        }
