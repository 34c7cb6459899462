"""measure_store.py TASKS FEW: how long campaign stores take, SQLite with TASKS, the others with FEW; prints JSON."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stormtracks.cluster.errors import StoreError
from stormtracks.cluster.persistence import FORMATS, PersistentStore, Workflow, open_campaign, store_cls_from_str

MEMBERS = 56
ATTEMPTS = {"sqlite": 1000, "json": 50, "zarr": 50}
"""How many attempts are timed one by one."""
REFRESHES = 5


def main() -> None:
    """Measure every kind of store that can be used here."""
    tasks, few = int(sys.argv[1]), int(sys.argv[2])
    found: dict[str, float] = {}
    for name in FORMATS:
        try:
            cls = store_cls_from_str(name)
        except StoreError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(cls, Path(folder, "campaign"), tasks if name == "sqlite" else few)
        found |= {f"{name}_{figure}": value for figure, value in figures.items()}
    print(json.dumps(found))


def measure(cls: type[PersistentStore], path: Path, tasks: int) -> dict[str, float]:
    """What one kind of store takes for a campaign of so many tasks."""
    cls.write_empty_workflow({}, {}, path, None, {})
    with cls(Workflow(path)) as store:
        create_s = seconds(lambda: create(store, tasks))
        store.add_submission({"epoch": 1})
        store.save()
        begins, ends = [], []
        for task in range(min(ATTEMPTS[cls.format], tasks)):
            begins.append(seconds(lambda task=task: begin(store, task)))  # type: ignore[misc]
            ends.append(seconds(lambda task=task: end(store, task)))  # type: ignore[misc]
    with open_campaign(path) as store:
        boards = [seconds(store.get_all_tasks_metadata) for _ in range(REFRESHES)]
    return {
        "create_s": create_s,
        "begin_ms": 1e3 * statistics.median(begins),
        "end_ms": 1e3 * statistics.median(ends),
        "board_ms": 1e3 * statistics.median(boards),
        "open_and_read_s": seconds(lambda: read(path)),
    }


def seconds(action: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def create(store: PersistentStore, tasks: int) -> None:
    """Add all tasks, in one commit."""
    store.add_empty_task(0, {"name": "vort_track"})
    store.add_element_set(0, {"years": list(range(-(-tasks // MEMBERS))), "members": list(range(MEMBERS))})
    slots = [store.add_unset_parameter_data({"type": "result"}) for _ in range(tasks)]
    elements = [{"year": task // MEMBERS, "member": task % MEMBERS} for task in range(tasks)]
    store.add_elements(0, 0, elements, [{"parameter": slot} for slot in slots])
    store.save()


def begin(store: PersistentStore, task: int) -> None:
    """Commit that an attempt at a task has gone out."""
    worker = {"number": 1, "worker": "w1", "incarnation": "w1-1", "host": "bench", "pid": 1, "code": "0"}
    store.add_EARs(0, 0, task, worker, {task: {"worker": "w1"}})
    store.set_EAR_submission_indices(0, (0, task, 0, 0))
    store.set_EAR_start(0, task, 0, 0)
    store.save()


def end(store: PersistentStore, task: int) -> None:
    """Commit that it has done its task."""
    store.set_EAR_end(0, task, 0, 0, status="complete", seconds=1.0)
    store.set_parameter(task, {"tracks": 12, "sha256": 64 * "0"})
    store.save()


def read(path: Path) -> None:
    """Open a store and read all that became of all tasks."""
    with open_campaign(path) as store:
        for _ in store.get_task_elements_islice(0, 0, slice(None)):
            pass


if __name__ == "__main__":
    main()
